"""A recipe's optimiser, fused where one kernel can do the update, and the plan of its updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from evenloop.accumulation import update_events
from evenloop.recipe import Recipe, rate

__all__ = ["Plan", "build_optimizer", "plan_updates"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which of the batches taken end an update, and at what rate.

    Attributes:
        per_epoch: batches taken in an epoch.
        updates: optimiser steps in all.
        weight: what each batch's gradient is multiplied by.
        lr: the rate of the update that a batch (counted over all epochs) ends, None if it ends
            none.
    """

    per_epoch: int
    updates: int
    weight: float
    lr: Callable[[int], float | None]

    def begins(self, step: int) -> bool:
        """Whether the batch is the first of an update."""
        return step % self.per_epoch == 0 or self.lr(step - 1) is not None


def plan_updates(recipe: Recipe, per_epoch: int, epochs: int) -> Plan:
    """The updates of a training run of `epochs` epochs with `per_epoch` batches taken in each.

    >>> [plan_updates(Recipe(lr=0.5), 2, 1).lr(step) for step in (0, 1)]
    [0.5, 0.5]
    """
    total = per_epoch * epochs
    if recipe.accumulation == "exact" or not total:
        return Plan(per_epoch, total, 1.0, lambda step: rate(step, total, per_epoch, recipe))
    parts = recipe.batch // recipe.batch_taken
    events = update_events(per_epoch, parts, epochs=epochs, lr=recipe.lr, order="published")
    ends = {event.epoch * per_epoch + event.micro_batches[-1]: event.lr for event in events}
    return Plan(per_epoch, len(events), 1 / parts, ends.get)


def build_optimizer(params: Iterable[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over `params`; its rate is `recipe.lr` until it is set to `rate(...)`.

    Raises:
        ValueError: there is no parameter to train.

    >>> build_optimizer([torch.zeros(2, requires_grad=True)], Recipe(lr=0.5)).param_groups[0]["lr"]
    0.5
    """
    params = list(params)
    if not params:
        raise ValueError("there is no parameter to train; give a model with at least one")
    fused = all(_can_fuse(p) for p in params)
    weight_decay = recipe.weight_decay / (recipe.batch if recipe.sum_decay else 1)
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            params,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=weight_decay,
            fused=fused,
        )
    else:
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(params, lr=recipe.lr, weight_decay=weight_decay, fused=fused)
    if fused:
        optimizer.register_step_pre_hook(_align_gradients)
        optimizer.register_load_state_dict_post_hook(_align_state)
    return optimizer


def _can_fuse(p: Tensor) -> bool:
    """Whether one kernel may update `p` (three to five times less CPU than torch's default).

    It walks memory in order, so `p` must have no gaps, and all that belongs to it its layout.
    """
    dense = torch.empty_like(p).stride() == p.stride()
    return dense and p.is_floating_point() and p.device.type in ("cpu", "cuda")


def _like(p: Tensor, value: Tensor) -> Tensor:
    """`value` laid out in memory as `p` is."""
    same = value.stride() == p.stride()
    return value if same else torch.empty_like(p, dtype=value.dtype).copy_(value)


def _align_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    # Autograd lays gradients out as their parameters; those set by hand (torch.func) may differ,
    # and torch's fused kernels would then mix up their elements without a word.
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                p.grad = _like(p, p.grad)


def _align_state(optimizer: torch.optim.Optimizer) -> None:
    # A file may hold momentum of channels-last weights in plain order.
    for p, held in optimizer.state.items():
        for name, value in held.items():
            if hasattr(value, "shape") and value.shape == p.shape:
                held[name] = _like(p, value)
