"""Layers of the VAEs computed in a cheaper way that gives the same numbers, up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad, pixel_shuffle

__all__ = ["Folded", "SubPixel"]


class SubPixel(nn.ConvTranspose2d):
    """A transposed convolution (kernel 4, stride 2, padding 1) computed as a plain one.

    Each output pixel of a 2x2 block is a 3x3 convolution of the input with some taps zero; the
    four are computed as channels and interleaved. The numbers are those of the transposed
    convolution; with few output channels it is about twice as fast on a CPU.
    """

    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__(wide_in, wide_out, 4, stride=2, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C, 2H, 2W) for `x` (N, C', H, W)."""
        wide_in, wide_out = self.weight.shape[:2]
        # Even output rows read kernel rows 3, 1 at input offsets -1, 0; odd ones 2, 0 at 0, +1.
        rows = (
            pad(self.weight[:, :, 1::2].flip(2), (0, 0, 0, 1)),
            pad(self.weight[:, :, 0::2].flip(2), (0, 0, 1, 0)),
        )
        both = torch.stack(rows, 2)
        columns = pad(both[..., 1::2].flip(-1), (0, 1)), pad(both[..., 0::2].flip(-1), (1, 0))
        kernel = torch.stack(columns, 3).permute(1, 2, 3, 0, 4, 5)
        kernel = kernel.reshape(4 * wide_out, wide_in, 3, 3)
        blocks = conv2d(x, kernel, padding=1)
        image = pixel_shuffle(blocks, 2)
        return image if self.bias is None else image + self.bias[:, None, None]


class Folded(nn.Sequential):
    """Linear, Unflatten, transposed convolution, then any layers; the first three as one map.

    No activation stands between the linear layer and the convolution, so together they are one
    affine map of the few latent dimensions. Its columns are the convolution of the linear layer's
    columns: L + 1 images instead of one for each row of the batch, forward and backward. Weights
    and their names are those of the plain sequence.

    >>> from evenloop.models import seeded
    >>> up = lambda: nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1)
    >>> folded = seeded(lambda: Folded(nn.Linear(3, 16), nn.Unflatten(1, (4, 2, 2)), up()), 0)
    >>> z = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    >>> bool(folded(z).allclose(nn.Sequential(*folded)(z), atol=1e-6))
    True
    """

    def forward(self, z: Tensor) -> Tensor:
        """What the layers make of latents `z` (N, L)."""
        linear, shape, up = self[0], self[1], self[2]
        assert isinstance(linear, nn.Linear)
        assert isinstance(up, nn.ConvTranspose2d)
        assert up.bias is not None
        padding = up.padding
        assert not isinstance(padding, str)
        if len(z) <= len(linear.weight[0]) + 1:
            return self._rest(up(shape(linear(z))))
        columns = shape(torch.cat([linear.weight.t(), linear.bias[None]]))
        maps = conv_transpose2d(columns, up.weight, None, up.stride, padding)
        start = maps[-1] + up.bias[:, None, None]
        made = torch.addmm(start.flatten(), z, maps[:-1].flatten(1))
        return self._rest(made.view(-1, *maps.shape[1:]))

    def _rest(self, x: Tensor) -> Tensor:
        for layer in list(self)[3:]:
            x = layer(x)
        return x
