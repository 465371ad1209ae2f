"""Small convolutional nets: one for any image, and the two of the generator-feedback study.

SimpleCNN and LeNet follow Wyllie, Shumailov and Papernot, "Fairness Feedback Loops: Training on
Synthetic Data Amplifies Bias" (FAccT 2024); LeNet goes back to LeCun et al. (1998).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evenloop.models.shape import Size, image, positive

__all__ = ["LeNet", "SimpleCNN", "SmallCNN", "halved", "lenet", "simple_cnn", "small_cnn"]

GRID = 4  # cells on each side of the small net's last map


def _conv(wide_in: int, wide: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(wide_in, wide, 3, padding=1, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(inplace=True),
    )


class SmallCNN(nn.Module):
    """x (N, channels, H, W) float, sides from 8 pixels -> logits (N, classes).

    Three 3x3 convolutions of `width`, 2 `width` and 4 `width` channels with batch norm and ReLU,
    each of the first two followed by a 2x2 maximum; then means over a grid of at most 4x4 cells
    and a linear `head`. At the least side of 8 pixels the last map still has four places, so a
    batch of one row trains.

    >>> from evenloop.models import seeded
    >>> net = seeded(lambda: SmallCNN(1, (28, 28), 10), 0)
    >>> sum(p.numel() for p in net.parameters()), net.head.in_features
    (11074, 512)
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, width: int = 8) -> None:
        super().__init__()
        _, *sides = image("small-cnn", channels, size, least=8)
        positive("small-cnn", classes=classes, width=width)
        pool = nn.MaxPool2d(2)
        self.body = nn.Sequential(
            _conv(channels, width), pool, _conv(width, 2 * width), pool, _conv(2 * width, 4 * width)
        )
        last = [side // 4 for side in sides]
        cell = [math.ceil(side / GRID) for side in last]
        cells = [math.ceil(side / step) for side, step in zip(last, cell, strict=True)]
        # Not an adaptive pool: its gradient on a GPU depends on the order of additions.
        self.pool = nn.AvgPool2d((cell[0], cell[1]), ceil_mode=True)
        self.head = nn.Linear(4 * width * cells[0] * cells[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, channels, H, W)."""
        logits: Tensor = self.head(self.pool(self.body(x)).flatten(1))
        return logits


class SimpleCNN(nn.Module):
    """x (N, channels, H, W) float, sides from 16 pixels -> logits (N, classes).

    conv 6 5x5, ReLU, maximum 2, conv 16 5x5, ReLU, maximum 2, linear 120-84-classes with ReLU;
    44,046 parameters for 3 channels, 28 pixels and 2 classes. `head` is the last linear layer.

    >>> from evenloop.models import seeded
    >>> net = seeded(lambda: SimpleCNN(3, (28, 28), 2), 0)
    >>> sum(p.numel() for p in net.parameters())
    44046
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        _, *sides = image("simple-cnn", channels, size, least=16)
        positive("simple-cnn", classes=classes)
        high, wide = (((side - 4) // 2 - 4) // 2 for side in sides)
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * high * wide, 120)
        self.fc2 = nn.Linear(120, 84)
        self.head = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, channels, H, W)."""
        # The maximum first: ReLU commutes with it and then has a quarter of the work.
        x = F.relu(halved(self.conv1(x)))
        x = F.relu(halved(self.conv2(x))).flatten(1)
        logits: Tensor = self.head(F.relu(self.fc2(F.relu(self.fc1(x)))))
        return logits


def halved(x: Tensor) -> Tensor:
    """(N, C, H // 2, W // 2) maxima of 2x2 blocks; ten times faster on a CPU without gradient.

    >>> halved(torch.arange(20.0).view(1, 1, 4, 5)).flatten().tolist()
    [6.0, 8.0, 16.0, 18.0]
    """
    if x.requires_grad:
        return F.max_pool2d(x, 2)
    high, wide = (side // 2 * 2 for side in x.shape[-2:])
    rows = torch.maximum(x[..., 0:high:2, :wide], x[..., 1:high:2, :wide])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])


class LeNet(nn.Module):
    """x (N, channels, 32, 32) float -> logits (N, classes); 61,326 parameters for 3 and 2.

    Three 5x5 convolutions of 6, 16 and 120 channels with tanh, average pools of 2 between them,
    linear 120-84-classes. `head` is the last linear layer.

    >>> from evenloop.models import seeded
    >>> sum(p.numel() for p in seeded(lambda: LeNet(3, 2), 0).parameters())
    61326
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        positive("lenet", channels=channels, classes=classes)
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc = nn.Linear(120, 84)
        self.head = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, channels, H, W)."""
        x = F.avg_pool2d(self.conv1(x).tanh(), 2)
        x = F.avg_pool2d(self.conv2(x).tanh(), 2)
        x = self.conv3(x).tanh().flatten(1)
        logits: Tensor = self.head(self.fc(x).tanh())
        return logits


def small_cnn(
    *,
    channels: int | None,
    size: Size | None,
    classes: int,
    features: int | None,
    width: int = 8,
) -> nn.Module:
    """SmallCNN for images of at least 8 pixels; `features` is not used.

    Raises:
        ValueError: no image shape, or a side below 8 pixels.

    >>> from evenloop.models import build
    >>> build("small-cnn", channels=1, size=28, classes=10, seed=0).head.in_features
    512
    """
    depth, *sides = image("small-cnn", channels, size, least=8)
    return SmallCNN(depth, (sides[0], sides[1]), classes, width)


def simple_cnn(
    *, channels: int | None, size: Size | None, classes: int, features: int | None
) -> nn.Module:
    """SimpleCNN for images of at least 16 pixels; `features` is not used.

    Raises:
        ValueError: no image shape, or a side below 16 pixels.

    >>> from evenloop.models import build
    >>> build("simple-cnn", channels=3, size=28, classes=2, seed=0).head.in_features
    84
    """
    depth, *sides = image("simple-cnn", channels, size, least=16)
    return SimpleCNN(depth, (sides[0], sides[1]), classes)


def lenet(
    *, channels: int | None, size: Size | None, classes: int, features: int | None
) -> nn.Module:
    """LeNet for images of 32x32 pixels; `features` is not used.

    Raises:
        ValueError: no image shape, or one that is not 32x32.

    >>> from evenloop.models import build
    >>> build("lenet", channels=3, size=32, classes=2, seed=0).head.in_features
    84
    """
    depth, high, wide = image("lenet", channels, size)
    if (high, wide) != (32, 32):
        raise ValueError(
            f"lenet: size must be 32, got {high}x{wide}; pad the images or use 'simple-cnn'"
        )
    return LeNet(depth, classes)
