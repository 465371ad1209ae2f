"""Nets as int8 inference computes them: weights on an eight-bit grid, and inputs too if asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evenloop.seams import Surgery
from evenloop.surgery.layers import CONVS

__all__ = ["Int8Weights", "dynamic_int8", "round_rows", "round_to_int8"]


@torch.no_grad()
def round_to_int8(weight: Tensor) -> Tensor:
    """`weight` (O, ...) on 255 evenly spaced values per output channel, symmetric around 0.

    The values int8 kernels compute with (symmetric, per channel), kept as floats; zeros stay zero.

    >>> round_to_int8(torch.tensor([[127.0, 0.4, -1.6]])).tolist()
    [[127.0, 0.0, -2.0]]
    """
    scale = weight.flatten(1).abs().amax(1).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    scale = scale.view(-1, *([1] * (weight.ndim - 1)))
    return (weight / scale).round() * scale


def round_rows(x: Tensor) -> Tensor:
    """`x` (..., F), each row on 256 evenly spaced values from its least to its largest, 0 included.

    What dynamic quantisation does to the inputs of a layer. The range is that of a row, not of the
    batch, so that what an item is given does not depend on the items beside it.

    >>> round_rows(torch.tensor([[255.0, 0.4, 1.6], [-1.0, 0.0, 0.0]])).tolist()
    [[255.0, 0.0, 2.0], [-1.0, 0.0, 0.0]]
    """
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(x.dtype).tiny)
    zero = (-low / scale).round()
    return ((x / scale).round() + zero).clamp(0, 255).sub(zero) * scale


class _RoundInputs:
    """A hook before a layer: rounds what it is given, but not while training."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if module.training else (round_rows(args[0]), *args[1:])


def dynamic_int8(model: nn.Module) -> nn.Module:
    """`model` itself, whose linear layers round their inputs in evaluation mode; twice is as once.

    With `round_to_int8` on the weights this is dynamic int8 quantisation in floats: the accuracy of
    int8 kernels without their speed. The state dict stays that of the plain net.

    >>> net = nn.Sequential(nn.utils.skip_init(nn.Linear, 2, 1, bias=False)).eval()
    >>> _ = net[0].weight.data.fill_(1.0)
    >>> dynamic_int8(net)(torch.tensor([[255.0, 0.4]])).item()
    255.0
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            hooks = module._forward_pre_hooks.values()
            if not any(isinstance(hook, _RoundInputs) for hook in hooks):
                module.register_forward_pre_hook(_RoundInputs())
    return model


class Int8Weights(Surgery):
    """Trains in full precision and rounds convolutions and linear layers at the end of the fit.

    What int8 inference does to accuracy, group by group; nothing gets faster by itself.

    Args:
        inputs: also round what linear layers are given, item by item (`dynamic_int8`).
    """

    def __init__(self, inputs: bool = False) -> None:
        self.inputs = inputs

    def apply(self, model: nn.Module) -> None:
        """Nothing while training."""

    def finish(self, model: nn.Module) -> None:
        """Round every weight, in place."""
        for module in model.modules():
            if isinstance(module, (*CONVS, nn.Linear)):
                module.weight.data.copy_(round_to_int8(module.weight.data))
        if self.inputs:
            dynamic_int8(model)
