"""Fully connected nets for rows of numbers or flattened images; without a hidden layer, logistic.

They hold no buffers and draw no noise, so many of them can be stacked with `torch.func`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from evenloop.models.shape import Size, positive, width_of, widths

__all__ = ["MLP", "logistic", "mlp"]


class MLP(nn.Module):
    """x (N, ...) float with `features` numbers per item -> logits (N, classes).

    `hidden` lists the widths of the ReLU layers; empty, the net is multinomial logistic
    regression. `head` is the last linear layer.

    >>> from evenloop.models import seeded
    >>> net = seeded(lambda: MLP(4, 3, hidden=(5,)), 0)
    >>> [tuple(p.shape) for p in net.parameters()]
    [(5, 4), (5,), (3, 5), (3,)]
    """

    def __init__(self, features: int, classes: int, hidden: Sequence[int] = (64,)) -> None:
        super().__init__()
        positive("mlp", features=features, classes=classes)
        sizes = [features, *widths("mlp", hidden)]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, ...)."""
        logits: Tensor = self.head(self.body(x.flatten(1)))
        return logits


def mlp(
    *,
    channels: int | None,
    size: Size | None,
    classes: int,
    features: int | None,
    hidden: Sequence[int] = (64,),
) -> nn.Module:
    """MLP on `features` numbers, or on the flattened image where `features` is None.

    Raises:
        ValueError: no shape, or one that contradicts itself.

    >>> from evenloop.models import build
    >>> build("mlp", channels=1, size=8, classes=2, hidden=[9], seed=0).head.in_features
    9
    """
    return MLP(width_of("mlp", channels, size, features), classes, hidden)


def logistic(
    *, channels: int | None, size: Size | None, classes: int, features: int | None
) -> nn.Module:
    """Multinomial logistic regression: one linear layer.

    Raises:
        ValueError: no shape, or one that contradicts itself.

    >>> from evenloop.models import build
    >>> build("logistic", features=5, classes=2, seed=0).head
    Linear(in_features=5, out_features=2, bias=True)
    """
    return MLP(width_of("logistic", channels, size, features), classes, hidden=())
