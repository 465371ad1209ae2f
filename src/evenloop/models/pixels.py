"""Pixels to numbers a net likes, as part of the net, so data stay bytes until they are used."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Pixels"]


class Pixels(nn.Module):
    """`net` behind a per-channel normalisation; x (N, C, H, W) -> net((x - mean) / std).

    `x` is uint8 in [0, 255] or floating in [0, 1]; it is computed as one multiplication and one
    addition, in the type of the buffers (so `.double()` is all that double precision needs).
    `mean` and `std` are in units of [0, 1], one number per channel.

    Raises:
        ValueError: lengths differ, nothing is given, or a deviation is not positive; (forward) `x`
            has another number of channels.
        TypeError: (forward) `x` is of another integer type.

    >>> layer = Pixels(nn.Identity(), mean=[0.5], std=[0.25])
    >>> layer(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    tensor([[[[-2.,  2.]]]])
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not mean or len(mean) != len(std):
            raise ValueError(
                f"mean and std need one number per channel each, got {len(mean)} and {len(std)}"
            )
        if not all(deviation > 0 for deviation in std):
            raise ValueError(
                f"std must be positive, got {list(std)}; a constant channel carries nothing: "
                "give it std=1"
            )
        centre, spread = (torch.tensor(list(v), dtype=torch.float64) for v in (mean, std))
        self.net = net
        self.register_buffer("scale", (1 / spread).float().view(-1, 1, 1))
        self.register_buffer("shift", (-centre / spread).float().view(-1, 1, 1))

    @property
    def head(self) -> nn.Module:
        """The last linear layer of the net inside."""
        head: nn.Module = self.net.get_submodule("head")
        return head

    def forward(self, x: Tensor) -> Tensor:
        """What the net inside makes of the normalised (N, C, H, W) pixels."""
        if x.dim() != 4 or x.shape[1] != len(self.scale):
            raise ValueError(
                f"pixels must be (N, {len(self.scale)}, H, W), got {tuple(x.shape)}; "
                "give one mean and std per channel"
            )
        if x.dtype == torch.uint8:
            scale = self.scale / 255
        elif x.is_floating_point():
            scale = self.scale
        else:
            raise TypeError(f"pixels must be uint8 or floating in [0, 1], got {x.dtype}")
        logits: Tensor = self.net((x.to(self.scale.dtype) * scale).add_(self.shift))
        return logits
