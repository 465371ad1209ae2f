"""Weights on an eight-bit grid, as int8 inference holds them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evenloop.seams import Surgery
from evenloop.surgery.layers import CONVS

__all__ = ["Int8Weights", "round_to_int8"]


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


class Int8Weights(Surgery):
    """Trains in full precision and rounds convolutions and linear layers at the end of the fit.

    What weight-only int8 inference does to accuracy, group by group; activations keep their
    precision, and nothing gets faster by itself.
    """

    def apply(self, model: nn.Module) -> None:
        """Nothing while training."""

    def finish(self, model: nn.Module) -> None:
        """Round every weight, in place."""
        for module in model.modules():
            if isinstance(module, (*CONVS, nn.Linear)):
                module.weight.data.copy_(round_to_int8(module.weight.data))
