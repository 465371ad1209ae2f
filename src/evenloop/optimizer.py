"""A recipe's optimiser, fused where one kernel can do the update."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from evenloop.recipe import Recipe

__all__ = ["build_optimizer"]


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
