"""MobileNetV2: depthwise-separable convolutions with inverted residuals and linear bottlenecks.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018), table 2; the
net pruned on UTKFace by Hashemizadeh et al., "Balancing Act" (ICLR 2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evenloop.models.shape import Size, image, positive

__all__ = ["MobileNetV2", "mobilenet_v2"]

# expansion, output channels, blocks, stride of the first block (table 2 of the paper)
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _wide(channels: int, width: float) -> int:
    """Channels times `width`, to the next multiple of 8, at least 8 and 90 % of what was asked."""
    asked = channels * width
    rounded = max(8, int(asked + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * asked else rounded


def _conv(
    wide_in: int, wide: int, kernel: int, stride: int = 1, groups: int = 1, *, linear: bool = False
) -> nn.Sequential:
    conv = nn.Conv2d(wide_in, wide, kernel, stride, kernel // 2, groups=groups, bias=False)
    # He initialisation by the fan out, as usual for this net.
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(wide)]
    return nn.Sequential(*layers, *([] if linear else [nn.ReLU6(inplace=True)]))


class _Inverted(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1 without activation."""

    def __init__(self, wide_in: int, wide: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = wide_in * expansion
        widen = [] if expansion == 1 else [_conv(wide_in, inner, 1)]
        filters = _conv(inner, inner, 3, stride, groups=inner)
        self.layers = nn.Sequential(*widen, filters, _conv(inner, wide, 1, linear=True))
        self.adds = stride == 1 and wide_in == wide

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.layers(x)
        return x + z if self.adds else z


class MobileNetV2(nn.Module):
    """x (N, channels, H, W) float -> logits (N, classes).

    `width` multiplies the channels of every layer, in multiples of 8 (the last convolution is never
    narrower than 1280); `dropout` in [0, 1) acts before `head`.

    Raises:
        ValueError: a count below 1, a width that is not positive, a dropout outside [0, 1).

    >>> from evenloop.models import seeded
    >>> net = seeded(lambda: MobileNetV2(classes=5), 0)
    >>> sum(p.numel() for p in net.parameters())
    2230277
    """

    def __init__(
        self, channels: int = 3, classes: int = 10, *, width: float = 1.0, dropout: float = 0.2
    ) -> None:
        super().__init__()
        positive("mobilenet-v2", channels=channels, classes=classes)
        if not 0 < width < math.inf:
            raise ValueError(f"mobilenet-v2: width must be finite and positive, got {width}")
        if not 0 <= dropout < 1:
            raise ValueError(f"mobilenet-v2: dropout must be in [0, 1), got {dropout}")
        wide = _wide(32, width)
        layers: list[nn.Module] = [_conv(channels, wide, 3, 2)]
        for expansion, out, blocks, stride in STAGES:
            for block in range(blocks):
                wide_in, wide = wide, _wide(out, width)
                layers.append(_Inverted(wide_in, wide, stride if block == 0 else 1, expansion))
        last = _wide(1280, max(1.0, width))
        self.features = nn.Sequential(*layers, _conv(wide, last, 1))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(last, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, channels, H, W)."""
        pooled = torch.mean(self.features(x), (2, 3))
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def mobilenet_v2(
    *,
    channels: int | None,
    size: Size | None,
    classes: int,
    features: int | None,
    width: float = 1.0,
    dropout: float = 0.2,
) -> nn.Module:
    """MobileNetV2 for images of at least 32 pixels; `features` is not used.

    Raises:
        ValueError: no image shape, a side below 32 pixels, or an option out of range.

    >>> from evenloop.models import seeded
    >>> shape = dict(channels=3, size=64, features=None)
    >>> seeded(lambda: mobilenet_v2(**shape, classes=2, width=0.5), 0).head.in_features
    1280
    """
    wide, _, _ = image("mobilenet-v2", channels, size, least=32)
    return MobileNetV2(wide, classes, width=width, dropout=dropout)
