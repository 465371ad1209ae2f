"""Gradual magnitude pruning: the smallest weights become zero and stay zero.

Zhu and Gupta (2018), per layer as in Hashemizadeh et al., "Balancing Act: Constraining Disparate
Impact in Sparse Models" (ICLR 2024), or over all layers at once, or with the layer densities of
Erdos-Renyi kernels (Evci et al., "Rigging the Lottery", ICML 2020).

Masks are fused into the weights: after every optimiser step the weights are multiplied by their
mask. That equals training with a masked forward pass (as parametrisations do, see
`evenloop.surgery.parametrised`) at the cost of one multiplication per weight and step, and leaves
an ordinary module with an ordinary state dict.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from evenloop.seams import Surgery
from evenloop.surgery.layers import FIRST_CONV, LAST_LINEAR, Prunable, followers, prunable
from evenloop.surgery.schedule import Cubic, pruned_count
from evenloop.surgery.semi_structured import MOST, two_of_four

__all__ = ["GradualMagnitudePruning", "Scope", "magnitude_masks"]

Scope = Literal["layer", "global", "erk", "2:4"]
SAMPLE = 65536  # weights that a threshold is first guessed from
THIN = 3  # a layer with fewer weights left is hardly a layer: warned about


class GradualMagnitudePruning(Surgery):
    """Unstructured L1-magnitude pruning on a schedule, nested: a pruned weight never comes back.

    In `fit` it is the surgery seam (`begin` each epoch, `apply` each step). In a loop of your own:
    `GradualMagnitudePruning(model, Cubic(0.9))`, then `update(epoch)` at the start of every epoch
    and `attach(optimizer)` once.

    Args:
        model: the module to prune; None to take the one that `begin` is given.
        schedule: sparsity by epoch, as a share of the prunable weights.
        keep_dense: layers left alone (see `evenloop.surgery.layers.prunable`).
        scope: "layer" removes the same share of every layer; "global" compares weights of all
            layers; "erk" gives layers densities in proportion to their fans over their size;
            "2:4" removes at most two of every four neighbours (see `semi_structured`).
        batchnorm: "skip" also zeroes scale and shift of a batch norm whose whole filter is
            pruned, so that the channel stays 0, and freezes its running statistics; "plain"
            leaves that channel a channel like the others.
        mask_gradients: zero the gradients of pruned weights (and skipped norms) as well; without
            it, clipping by norm would count them.

    Raises:
        ValueError: an unknown scope or batchnorm, or more than half of the weights under "2:4";
            (when bound) masks that do not fit the model.

    >>> net = nn.Sequential(torch.nn.utils.skip_init(nn.Linear, 6, 1))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, -1.0, 2.0, 0.5, -4.0, 0.1]]))
    >>> surgery = GradualMagnitudePruning(net, Cubic(0.5, 0, 0, initial=0.5), keep_dense=())
    >>> surgery.update(0), net[0].weight.count_nonzero().item()
    ({'0': 0.5}, 3)
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        schedule: Cubic = Cubic(0.9),  # noqa: B008 - a frozen value
        keep_dense: Sequence[str] = (FIRST_CONV, LAST_LINEAR),
        scope: Scope = "layer",
        *,
        batchnorm: Literal["skip", "plain"] = "skip",
        mask_gradients: bool = True,
    ) -> None:
        if scope not in get_args(Scope):
            raise ValueError(f"scope must be one of {', '.join(get_args(Scope))}, got {scope!r}")
        if scope == "2:4" and schedule.final > MOST:
            raise ValueError(
                f'scope="2:4" removes at most half of the weights, got sparsity {schedule.final}; '
                "use 0.5, or another scope"
            )
        if batchnorm not in ("skip", "plain"):
            raise ValueError(f"batchnorm must be skip or plain, got {batchnorm!r}")
        self.schedule, self.keep_dense, self.scope = schedule, tuple(keep_dense), scope
        self.batchnorm, self.mask_gradients = batchnorm, mask_gradients
        self.masks: dict[str, Tensor] = {}
        self._model: nn.Module | None = None
        self._layers: dict[str, Prunable] = {}
        self._norms: dict[str, nn.modules.batchnorm._BatchNorm] = {}
        self._held: list[Tensor] = []
        self._by: list[Tensor] = []
        self._moved: list[Tensor] = []
        self._frozen: list[Tensor] = []
        self._alive: dict[str, Tensor] = {}
        self._hooks: list[Callable[[], None]] = []
        if model is not None:
            self.bind(model)

    def bind(self, model: nn.Module) -> None:
        """Take `model` as the one to prune, with the masks already held, if any.

        Raises:
            ValueError: a held mask has no layer of its name and shape in the model.
        """
        self.finish(model)
        layers = prunable(model, self.keep_dense)
        for name, mask in self.masks.items():
            if name not in layers or layers[name].weight.shape != mask.shape:
                raise ValueError(
                    f"the mask of {name!r}, {tuple(mask.shape)}, fits no prunable layer of this "
                    "model: it belongs to another architecture"
                )
        fresh = not self.masks
        self._model, self._layers = model, layers
        self._norms = followers(model) if self.batchnorm == "skip" else {}
        for name, layer in layers.items():
            held = self.masks.get(name)
            self.masks[name] = (
                torch.ones_like(layer.weight, requires_grad=False)
                if held is None
                else held.to(layer.weight)
            )
        self._alive = {}
        if self.mask_gradients:
            for name, layer in layers.items():
                self._hide_gradient(layer.weight, self.masks, name)
        self._list()
        if not fresh:  # masks of ones change nothing
            self._multiply()

    def _hide_gradient(self, weight: Any, by: Mapping[str, Tensor], name: str) -> None:
        def hide(weight: Tensor) -> None:
            if weight.grad is not None:
                weight.grad.mul_(by[name])

        # torch leaves its hook methods untyped, therefore Any
        self._hooks.append(weight.register_post_accumulate_grad_hook(hide).remove)

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Prune `model` to the schedule's sparsity if an event falls on `epoch`."""
        if model is not self._model or (self.mask_gradients and not self._hooks):
            self.bind(model)
        self._prune(epoch)

    def update(self, epoch: int) -> dict[str, float]:
        """Prune if the schedule fires at `epoch`; the density of each prunable layer after it.

        Warns of layers with fewer than three weights left.

        Raises:
            RuntimeError: no model was given yet.
        """
        if self._model is None:
            raise RuntimeError("no model yet: give one to GradualMagnitudePruning or to begin()")
        self._prune(epoch)
        if thin := self.thin():
            warnings.warn(
                f"layers with fewer than {THIN} weights left: {', '.join(thin)}; keep them dense "
                "or lower the sparsity",
                stacklevel=2,
            )
        return self.densities()

    def _prune(self, epoch: int) -> None:
        if not self.schedule.fires(epoch):
            return
        weights = {name: layer.weight.detach() for name, layer in self._layers.items()}
        pruned = magnitude_masks(
            weights, self.masks, self.schedule.sparsity(epoch), scope=self.scope
        )
        for name, mask in pruned.items():
            self.masks[name].copy_(mask)
        self._list()
        self._multiply()

    def _list(self) -> None:
        """List what is multiplied by what."""
        self._held = [layer.weight.detach() for layer in self._layers.values()]
        self._by = [self.masks[name] for name in self._layers]
        self._moved, self._frozen = [], []
        for name, norm in self._norms.items():
            if name in self._layers:
                alive = self.masks[name].flatten(1).any(1)
                if not bool(alive.all()):  # an ordinary norm costs nothing in a step
                    self._skip(name, norm, alive.to(norm.weight))

    def _skip(self, name: str, norm: nn.modules.batchnorm._BatchNorm, alive: Tensor) -> None:
        """Hold dead channels of a norm at 0, and their statistics where they are now."""
        if self.mask_gradients and name not in self._alive:
            for value in (norm.weight, norm.bias):
                self._hide_gradient(value, self._alive, name)
        self._alive[name] = alive
        self._held += [norm.weight.detach(), norm.bias.detach()]
        self._by += [alive, alive]
        for moved in (norm.running_mean, norm.running_var):
            if moved is not None:  # statistic = statistic * alive + (what it was) * dead
                self._held.append(moved)
                self._by.append(alive)
                self._moved.append(moved)
                self._frozen.append(moved * (1 - alive))

    @torch.no_grad()
    def _multiply(self) -> None:
        torch._foreach_mul_(self._held, self._by)
        if self._moved:
            torch._foreach_add_(self._moved, self._frozen)

    def apply(self, model: nn.Module) -> None:
        """Zero every pruned weight of the bound model; twice is the same as once."""
        self._multiply()

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Apply after every `optimizer.step()`, in a loop that does not call `apply`."""
        handle = optimizer.register_step_post_hook(lambda *_: self._multiply())
        self._hooks.append(handle.remove)

    def finish(self, model: nn.Module) -> None:
        """Remove all hooks; masks and zeros stay."""
        for remove in self._hooks:
            remove()
        self._hooks.clear()
        self._alive = {}

    def densities(self) -> dict[str, float]:
        """Layer name -> share of its weights that are left, in [0, 1]."""
        return {name: count / self.masks[name].numel() for name, count in self.active().items()}

    def active(self) -> dict[str, int]:
        """Layer name -> number of weights left."""
        if not self.masks:
            return {}
        left = torch.stack([mask.count_nonzero() for mask in self.masks.values()]).tolist()
        return dict(zip(self.masks, left, strict=True))

    def thin(self) -> tuple[str, ...]:
        """Layers with fewer than three weights left, as "name (weights)"."""
        return tuple(f"{name} ({n})" for name, n in self.active().items() if n < THIN)

    def state_dict(self) -> dict[str, Any]:
        """Masks by layer name, bool."""
        return {name: mask.bool() for name, mask in self.masks.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take masks over; they are applied at once if a model is bound.

        Raises:
            ValueError: a mask fits no layer of the bound model.
        """
        model = self._model
        self.masks = {name: mask.clone() for name, mask in state.items()}
        if model is not None:
            self.bind(model)


@torch.no_grad()
def magnitude_masks(
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    sparsity: float,
    *,
    scope: Scope = "layer",
) -> dict[str, Tensor]:
    """Bool masks that zero the smallest magnitudes of the masked weights, inside the old masks.

    Ties fall in order of position (and of layers), masked places before weights that are left but
    0. The number zeroed is the exact ceiling of sparsity times the size.

    Args:
        weights: layer name -> weight.
        masks: layer name -> the mask before, 0 or 1, same shapes.
        sparsity: share to be zero after, in [0, 1), per layer or of the sum.
        scope: see `GradualMagnitudePruning`.

    >>> weight = {"a": torch.tensor([3.0, -1.0, 2.0, 0.5])}
    >>> magnitude_masks(weight, {"a": torch.ones(4)}, 0.5)["a"].tolist()
    [True, False, True, False]
    """
    # Below every magnitude: a rounded weight may be 0 and is still not one that was pruned.
    scores = {name: weights[name].abs().masked_fill_(masks[name] == 0, -1) for name in weights}
    if scope == "global":
        sizes = [score.numel() for score in scores.values()]
        flat = torch.cat([score.flatten() for score in scores.values()])
        kept = torch.split(_keep_largest(flat, pruned_count(sparsity, len(flat))), sizes)
        found = {name: mask.view_as(weights[name]) for name, mask in zip(scores, kept, strict=True)}
    elif scope == "2:4":
        found = {name: two_of_four(score, sparsity) for name, score in scores.items()}
    else:
        by_layer = dict.fromkeys(scores, sparsity)
        if scope == "erk":
            by_layer = erk_sparsities({n: tuple(w.shape) for n, w in weights.items()}, sparsity)
        found = {
            name: _keep_largest(
                score.flatten(), pruned_count(by_layer[name], score.numel())
            ).view_as(score)
            for name, score in scores.items()
        }
    return {name: mask & masks[name].bool() for name, mask in found.items()}


def _keep_largest(score: Tensor, drop: int) -> Tensor:
    """(n,) bool, False for the `drop` smallest of `score` (n,), ties in order of position."""
    if drop == 0:
        return torch.ones_like(score, dtype=torch.bool)
    threshold = _kth_smallest(score, drop)
    kept = score > threshold
    if int(kept.count_nonzero()) < len(score) - drop:
        tied = score == threshold
        spare = drop - (score < threshold).sum()
        kept |= tied & (tied.cumsum(0) > spare)
    return kept


def _kth_smallest(score: Tensor, k: int) -> float:
    if score.device.type != "cpu" or score.dtype not in (torch.float32, torch.float64):
        return float(score.kthvalue(k).values)
    # NumPy's selection takes a third of the time of torch's; less where a sample tells between
    # which values to look. Where the sample misleads, all are looked at: the result is exact.
    values = score.numpy()
    sample = np.sort(values[:: max(1, len(values) // SAMPLE)])
    at, slack = k / len(values) * len(sample), 4 * len(sample) ** 0.5
    low = sample[max(0, int(at - slack))]
    high = sample[min(len(sample) - 1, int(at + slack))]
    below = int(np.count_nonzero(values < low))
    between = values[(values >= low) & (values <= high)]
    if not below < k <= below + len(between):
        below, between = 0, values
    return float(np.partition(between, k - below - 1)[k - below - 1])


def erk_sparsities(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Sparsity of each layer so that density is proportional to sum(shape) / prod(shape).

    Layers that would be denser than dense are left whole, and the rest share the remainder.

    >>> erk = erk_sparsities({"wide": (100, 100), "thin": (10, 10)}, 0.9)
    >>> round(erk["thin"], 3), round(erk["wide"], 3)
    (0.082, 0.908)
    """
    size = {name: float(torch.Size(shape).numel()) for name, shape in shapes.items()}
    raw = {name: sum(shape) / size[name] for name, shape in shapes.items()}
    left = (1 - sparsity) * sum(size.values())
    whole: set[str] = set()
    while True:
        free = [name for name in shapes if name not in whole]
        budget = left - sum(size[name] for name in whole)
        scale = budget / max(sum(raw[name] * size[name] for name in free), 1e-12)
        over = {name for name in free if raw[name] * scale > 1}
        if not over:
            break
        whole |= over
    return {name: 0.0 if name in whole else 1 - max(raw[name] * scale, 0.0) for name in shapes}
