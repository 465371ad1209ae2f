"""Whole channels instead of single weights, so that the net becomes smaller and faster.

Channels that a residual sum or a depthwise convolution ties together are pruned together; the
dependency graph is that of Fang et al., "DepGraph: Towards Any Structural Pruning" (CVPR 2023),
from the extra `structured`. While training, pruned channels are masked to zero, so that schedule,
optimiser state and constraints are those of unstructured pruning; `shrink` then removes them
without changing what the net computes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.seams import Surgery
from evenloop.surgery.layers import LAST_LINEAR, prunable
from evenloop.surgery.schedule import Cubic, pruned_count

__all__ = ["ChannelPruning", "Tied", "shrink", "tied_channels"]


@dataclass(frozen=True, slots=True)
class Tied:
    """Channels that can only go together: the layers whose output they are, by name."""

    layers: tuple[str, ...]
    channels: int


def _graph(model: nn.Module, example: Tensor) -> tuple[Any, Any]:
    try:
        import torch_pruning
    except ImportError as missing:
        raise ImportError(
            "structured pruning needs torch-pruning: pip install 'evenloop[structured]'"
        ) from missing
    was_training = model.training
    model.eval()
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)
    model.train(was_training)
    return torch_pruning, graph


def tied_channels(model: nn.Module, example: Tensor) -> tuple[Tied, ...]:
    """Groups of tied output channels of `model`, but those of its last linear layer.

    Args:
        model: the net.
        example: one input (1, ...), to trace the net with.

    Raises:
        ImportError: torch-pruning is not installed.
    """
    _, graph = _graph(model, example)
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    names = {module: name for name, module in model.named_modules()}
    found = []
    for group in graph.get_all_groups(
        ignored_layers=last, root_module_types=[nn.Conv2d, nn.Linear]
    ):
        layers = dict.fromkeys(
            names[dep.target.module]
            for dep, _ in group
            if dep.target.module in names and graph.is_out_channel_pruning_fn(dep.handler)
        )
        found.append(Tied(tuple(layers), len(group[0].idxs)))
    return tuple(sorted(found, key=lambda tied: tied.layers))


class ChannelPruning(Surgery):
    """Removes the tied channels of smallest norm on a schedule; nested, at least one is kept.

    The norm of a channel is the L2 norm of all the filters tied into it. In `fit` it is the
    surgery seam; `shrink(model, example)` afterwards gives the smaller net.

    Args:
        example: one input (1, ...) of the nets it will prune.
        schedule: share of each group's channels to be zero, by epoch.
        keep_dense: layers that keep all their channels, and so do those tied to them (see
            `evenloop.surgery.layers.prunable`). The last linear layer always does.

    Raises:
        ImportError: (when a model is met) torch-pruning is not installed.
        ValueError: (then) a pattern that matches no layer, or no channels left to prune.
    """

    def __init__(
        self, example: Tensor, schedule: Cubic, keep_dense: Sequence[str] = (LAST_LINEAR,)
    ) -> None:
        self.example, self.schedule, self.keep_dense = example, schedule, tuple(keep_dense)
        self.kept: dict[str, Tensor] = {}
        self._model: nn.Module | None = None
        self._tied: tuple[Tied, ...] = ()
        self._held: list[Tensor] = []
        self._by: list[Tensor] = []

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Prune channels if the schedule fires at `epoch`."""
        if model is not self._model:
            device = next(model.parameters()).device
            self._model = model
            self._tied = self._free(model, tied_channels(model, self.example.to(device)))
            for tied in self._tied:
                kept = self.kept.get(tied.layers[0], torch.ones(tied.channels))
                self.kept[tied.layers[0]] = kept.to(device)
            self._refresh()
        if self.schedule.fires(epoch):
            share = self.schedule.sparsity(epoch)
            for tied in self._tied:
                self._prune(model, tied, share)
            self._refresh()

    def _free(self, model: nn.Module, tied: tuple[Tied, ...]) -> tuple[Tied, ...]:
        """The groups of channels that hold no layer to be kept dense."""
        pruned = prunable(model, self.keep_dense)
        dense = set(prunable(model, ())) - set(pruned)
        free = tuple(group for group in tied if not dense & set(group.layers))
        if not free:
            raise ValueError(
                f"keep_dense {self.keep_dense} leaves no channels to prune: every group of tied "
                "channels holds one of these layers; give fewer"
            )
        return free

    @torch.no_grad()
    def _prune(self, model: nn.Module, tied: Tied, share: float) -> None:
        kept = self.kept[tied.layers[0]]
        norm = torch.zeros_like(kept)
        for layer in map(model.get_submodule, tied.layers):
            weight = layer.weight
            if isinstance(weight, Tensor) and weight.ndim > 1:
                norm += weight.flatten(1).square().sum(1)
        drop = min(pruned_count(share, tied.channels), tied.channels - 1)
        order = torch.argsort(norm.masked_fill(kept == 0, -1), stable=True)
        kept[order[:drop]] = 0

    def _refresh(self) -> None:
        assert self._model is not None
        self._held, self._by = [], []
        for tied in self._tied:
            kept = self.kept[tied.layers[0]]
            for layer in map(self._model.get_submodule, tied.layers):
                for value in (layer.weight, layer.bias):
                    if isinstance(value, Tensor):
                        shape = (-1, *([1] * (value.ndim - 1)))
                        self._held.append(value.detach())
                        self._by.append(kept.to(value).view(shape).expand_as(value))
        self.apply(self._model)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Zero every pruned channel; twice is the same as once."""
        torch._foreach_mul_(self._held, self._by)

    def densities(self) -> dict[str, float]:
        """First layer of each group of tied channels -> share of its channels left."""
        return {name: float(kept.mean()) for name, kept in self.kept.items()}

    def state_dict(self) -> dict[str, Any]:
        """Kept channels by the group's first layer, bool."""
        return {name: kept.bool() for name, kept in self.kept.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the kept channels over, before or after a model is met."""
        self.kept = {name: kept.float() for name, kept in state.items()}
        self._model = None


def shrink(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of `model` without the tied channels that are zero in every layer they leave.

    It computes what `model` computes, with fewer channels: a plain dense net that saves time.

    Args:
        model: pruned by `ChannelPruning`, or otherwise sparse in whole channels.
        example: one input (1, ...).

    Raises:
        ImportError: torch-pruning is not installed.
    """
    smaller = copy.deepcopy(model)
    pruning, graph = _graph(smaller, example)
    for tied in tied_channels(smaller, example):
        layers = [smaller.get_submodule(name) for name in tied.layers]
        dead = _dead(layers)
        if 0 < len(dead) < tied.channels:
            root = next(m for m in layers if isinstance(m, nn.Conv2d | nn.Linear))
            prune = (
                pruning.prune_linear_out_channels
                if isinstance(root, nn.Linear)
                else pruning.prune_conv_out_channels
            )
            graph.get_pruning_group(root, prune, dead).prune()
    return smaller


def _dead(layers: Sequence[nn.Module]) -> list[int]:
    alive: Tensor | None = None
    for layer in layers:
        for value in (layer.weight, layer.bias):
            if isinstance(value, Tensor):
                here = value.detach().flatten(1).any(1) if value.ndim > 1 else value.detach() != 0
                alive = here if alive is None else alive | here
    return [] if alive is None else (~alive).nonzero().flatten().tolist()
