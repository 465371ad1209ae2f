"""BaiduNet9, the nine-layer residual net of the fast CIFAR-10 entries.

The image classifier of Taori and Hashimoto, "Data Feedback Loops: Model-driven Amplification of
Dataset Biases" (ICML 2023). The original ran it with half-precision weights and no loss scaling;
here precision belongs to the recipe.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from evenloop.models.shape import Size, image, positive

__all__ = ["BaiduNet9", "baidunet9"]

SCALE = 0.2  # of the logits; without it the net starts over-confident at a rate of 0.4


def _conv(wide_in: int, wide: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(wide_in, wide, 3, padding=1, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """z + f(z); no activation after the sum, since f ends in one."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.first = _conv(wide, wide)
        self.second = _conv(wide, wide)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = z + self.second(self.first(z))
        return out


class BaiduNet9(nn.Module):
    """x (N, channels, H, W) float -> logits (N, classes); 2,440,256 parameters for 3 and 10.

    Every convolution is 3x3 without bias, then batch norm and ReLU. At 32 pixels the last map is
    4x4; a global maximum takes any other size from 8 pixels. `head` has no bias, and its output is
    multiplied by 0.2.

    >>> from evenloop.models import seeded
    >>> net = seeded(BaiduNet9, 0)
    >>> sum(p.numel() for p in net.parameters())
    2440256
    """

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        positive("baidunet9", channels=channels, classes=classes)
        pool = nn.MaxPool2d(2)
        self.prep = _conv(channels, 64)
        self.layer1 = nn.Sequential(_conv(64, 128), pool, _Residual(128))
        self.layer2 = nn.Sequential(_conv(128, 256), pool, _Residual(256))
        self.layer3 = nn.Sequential(_conv(256, 256), pool)
        self.head = nn.Linear(256, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, channels, H, W)."""
        x = self.layer3(self.layer2(self.layer1(self.prep(x))))
        # Not an adaptive pool: its gradient on a GPU depends on the order of additions.
        logits: Tensor = self.head(F.max_pool2d(x, x.shape[2:]).flatten(1))
        return SCALE * logits


def baidunet9(
    *, channels: int | None, size: Size | None, classes: int, features: int | None
) -> nn.Module:
    """BaiduNet9 for images of at least 8 pixels; `features` is not used.

    Raises:
        ValueError: no image shape, or a side below 8 pixels.

    >>> from evenloop.models import build
    >>> build("baidunet9", channels=3, size=32, classes=10, seed=0).head.in_features
    256
    """
    return BaiduNet9(image("baidunet9", channels, size, least=8)[0], classes)
