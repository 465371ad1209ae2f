"""Small nets with dropout before the last layer, for systems that ask how unsure a model is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from evenloop.models.shape import Size, image, positive, width_of, widths

__all__ = ["DropoutCNN", "DropoutMLP", "dropout_cnn", "dropout_mlp"]


class DropoutCNN(nn.Module):
    """x (N, channels, H, W) float, sides from 8 pixels -> logits (N, classes).

    Three blocks of 3x3 convolution, batch norm, ReLU and 2x2 maximum (width, 2 width, 4 width
    channels), the last map averaged to 4x4 at most, a linear layer of `hidden` units with ReLU,
    dropout, and a linear `head`. Everything before the dropout is the same for all draws.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int,
        *,
        width: int = 16,
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        positive("dropout-cnn", channels=channels, classes=classes, width=width, hidden=hidden)
        _check_rate("dropout-cnn", dropout)
        layers: list[nn.Module] = []
        for wide_in, wide in pairwise((channels, width, 2 * width, 4 * width)):
            layers += [
                nn.Conv2d(wide_in, wide, 3, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
        side = min(4, size[0] // 8, size[1] // 8)
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(side), nn.Flatten())
        self.hidden = nn.Linear(4 * width * side * side, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        logits: Tensor = self.head(self.dropout(self.relu(self.hidden(self.body(x)))))
        return logits


class DropoutMLP(nn.Module):
    """x (N, ...) float with `features` numbers per item -> logits (N, classes).

    Hidden ReLU layers, each followed by dropout, and a linear `head`.

    >>> from evenloop.models import seeded
    >>> [type(m).__name__ for m in seeded(lambda: DropoutMLP(4, 2, (8,)), 0).body]
    ['Linear', 'ReLU', 'Dropout']
    """

    def __init__(
        self, features: int, classes: int, hidden: Sequence[int] = (64,), dropout: float = 0.5
    ) -> None:
        super().__init__()
        positive("dropout-mlp", features=features, classes=classes)
        _check_rate("dropout-mlp", dropout)
        hidden = widths("dropout-mlp", hidden)
        if not hidden:
            raise ValueError("dropout-mlp: hidden must list at least one layer; or use 'logistic'")
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((features, *hidden)):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        logits: Tensor = self.head(self.body(x.flatten(1)))
        return logits


def _check_rate(model: str, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"{model}: dropout must be in [0, 1), got {dropout}")


def dropout_cnn(
    *,
    channels: int | None,
    size: Size | None,
    classes: int,
    features: int | None,
    width: int = 16,
    hidden: int = 128,
    dropout: float = 0.5,
) -> nn.Module:
    """DropoutCNN for images of at least 8 pixels; `features` is not used.

    Raises:
        ValueError: no image shape, a side below 8 pixels, or a rate outside [0, 1).

    >>> from evenloop.models import seeded
    >>> seeded(lambda: dropout_cnn(channels=3, size=32, classes=2, features=None), 0).head
    Linear(in_features=128, out_features=2, bias=True)
    """
    depth, *sides = image("dropout-cnn", channels, size, least=8)
    at = (sides[0], sides[1])
    return DropoutCNN(depth, at, classes, width=width, hidden=hidden, dropout=dropout)


def dropout_mlp(
    *,
    channels: int | None,
    size: Size | None,
    classes: int,
    features: int | None,
    hidden: Sequence[int] = (64,),
    dropout: float = 0.5,
) -> nn.Module:
    """DropoutMLP on `features` numbers, or on the flattened image where `features` is None.

    Raises:
        ValueError: no shape, one that contradicts itself, or a rate outside [0, 1).

    >>> from evenloop.models import seeded
    >>> net = seeded(lambda: dropout_mlp(channels=None, size=None, classes=2, features=5), 0)
    >>> net.head.in_features
    64
    """
    return DropoutMLP(width_of("dropout-mlp", channels, size, features), classes, hidden, dropout)
