"""A net that writes role frames: a conditional random field over features of a picture.

Potentials of verbs and of (verb, role, noun) are linear in the features; what they mean together is
in `evenloop.roles.potentials`. Features are those of the published net: the last maps of a ResNet
for ImageNet, channel dropout, a linear layer, LeakyReLU and dropout.

Reference: Yatskar, Zettlemoyer and Farhadi, Situation Recognition (CVPR 2016); sizes as in Taori
and Hashimoto, Data Feedback Loops (ICML 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from evenloop.models.pixels import Pixels
from evenloop.models.resnet import FACTORIES, ResNet, load_weights
from evenloop.models.shape import Size, image, positive
from evenloop.models.small_cnn import SmallCNN
from evenloop.models.weights import find_weights
from evenloop.rng import Rng
from evenloop.roles import Layout, Potentials, Slots
from evenloop.roles.potentials import best_frame, best_nouns, log_any, sample_frame
from evenloop.seams import LabelRule

__all__ = ["BACKBONES", "CRF", "crf"]

BACKBONES = ("small-cnn", "resnet18", "resnet34", "resnet50", "resnet101")
RULES = ("argmax", "marginal", "sample")
_HELD = 2**24  # potentials held at once while writing: 64 MB
_FILES = ("model.safetensors", "model.pth")


class CRF(nn.Module):
    """Pictures (B, C, H, W) -> `Potentials` of a layout's frames.

    Args:
        layout: verbs, roles and nouns.
        trunk: pictures to features (B, features).
        features: width of the trunk's output.

    >>> from evenloop.models import seeded
    >>> layout = Layout(("baking",), (("agent",),), ((("man", "woman"),),))
    >>> small = {"channels": 3, "size": 32, "backbone": "small-cnn"}
    >>> net = seeded(lambda: crf(layout=layout, **small), 0)
    >>> net.write(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), LabelRule(), Rng.of(0)).shape
    torch.Size([2, 2])
    """

    start: Tensor
    role: Tensor
    width: Tensor
    empty: Tensor

    def __init__(self, layout: Layout, trunk: nn.Module, features: int) -> None:
        super().__init__()
        self.layout, self.trunk = layout, trunk
        slots = Slots.of(layout)
        self.blocks = slots.blocks
        for name in ("start", "role", "width", "empty"):
            self.register_buffer(name, getattr(slots, name), persistent=False)
        self.verb = _spread(nn.Linear(features, len(layout.verbs)))
        self.noun = _spread(nn.Linear(features, len(slots.empty)))

    @property
    def slots(self) -> Slots:
        """Where the potentials lie, on the model's device."""
        return Slots(self.blocks, self.start, self.role, self.width, self.empty)

    def forward(self, x: Tensor) -> Potentials:
        """Potentials of pictures (B, C, H, W)."""
        features = self.trunk(x)
        bias = self.noun.bias.masked_fill(self.empty, -torch.inf)[:, None]
        # The same product as `self.noun`, laid out as its sums are taken: images side by side.
        noun = torch.addmm(bias, self.noun.weight, features.t()).t()
        return Potentials(self.verb(features), noun)

    def write(self, x: Tensor, rule: LabelRule, rng: Rng) -> Tensor:
        """(N, 1 + R) frames: the best one, that of the likeliest verb ("marginal"), or a draw.

        Raises:
            ValueError: the rule is for texts.
        """
        if rule.kind not in RULES:
            raise ValueError(
                f"label_rule={rule.kind!r} writes texts; frames take {', '.join(RULES)}"
            )
        slots, width = self.slots, 1 + self.layout.max_roles
        luck = torch.rand(len(x), width, generator=rng.gen(), dtype=torch.float64)

        def one(part: Potentials, rows: slice) -> Tensor:
            if rule.kind == "sample":
                drawn = luck[rows].to(part.verb.device)
                return sample_frame(part, slots, drawn, temperature=rule.temperature)
            return best_frame(part, slots, marginal=rule.kind == "marginal")

        return self._over(x, one)

    def complete(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, 1 + R) the best frames whose verbs are those of labels `y` (N, L)."""

        def one(part: Potentials, rows: slice) -> Tensor:
            verb = y[rows, 0].to(part.verb.device)
            return torch.cat([verb[:, None], best_nouns(part, verb, self.slots)], 1)

        return self._over(x, one)

    def cost(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) -log probability in nats that some reference of `y` (N, L) is drawn; ones (N,)."""

        def one(part: Potentials, rows: slice) -> Tensor:
            return -log_any(part, y[rows].to(part.verb.device), self.slots)

        spent = self._over(x, one)
        return spent, torch.ones_like(spent)

    @torch.no_grad()
    def _over(self, x: Tensor, one: Callable[[Potentials, slice], Tensor]) -> Tensor:
        """`one` of the potentials of every row of `x`, a batch at a time, in evaluation mode."""
        step = max(1, min(1024, _HELD // len(self.empty)))
        parts = []
        with _evaluating(self):
            for start in range(0, max(len(x), 1), step):
                rows = slice(start, start + step)
                parts.append(one(self(x[rows].to(self.start.device)), rows))
        return torch.cat(parts).to(x.device)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _spread(layer: nn.Linear) -> nn.Linear:
    """Weights and bias uniform in +-2 / sqrt(inputs + outputs), as published."""
    limit = 2 / math.sqrt(layer.in_features + layer.out_features)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -limit, limit)
    return layer


class _Maps(nn.Module):
    """The last maps of a residual net, which it would average and classify."""

    def __init__(self, net: ResNet) -> None:
        super().__init__()
        del net.head
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.maps(x)


def crf(
    *,
    layout: Layout,
    channels: int | None,
    size: Size | None,
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    backbone: str = "resnet18",
    weights: str | Path | None = None,
    hidden: int = 1024,
    dropout: float = 0.5,
    width: int = 8,
) -> CRF:
    """A `CRF` on a backbone.

    Args:
        layout: of the frames; the world brings it along.
        channels, size: of the pictures.
        pixels: mean and standard deviation of each channel in [0, 1]; the world brings them along.
        backbone: one of `BACKBONES`; the residual nets are those for ImageNet.
        weights: a file of the backbone's weights; "imagenet" for the user's copy in the weights
            folder; None to start at random.
        hidden: features the potentials are linear in.
        dropout: share of maps, and of features, put to zero in training.
        width: channels of the small net's first layer.

    Raises:
        ValueError: an unknown backbone, weights for the small net, or a value out of range.
        FileNotFoundError: the weights are not there; says where to put them.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"crf has no backbone {backbone!r}; choose from {', '.join(BACKBONES)}")
    depth, *sides = image("crf", channels, size, least=8)
    positive("crf", hidden=hidden, width=width)
    if not 0 <= dropout < 1:
        raise ValueError(f"crf: dropout is a share in [0, 1), got {dropout}")
    maps = _backbone(backbone, depth, (sides[0], sides[1]), weights, width)
    mean, std = pixels if pixels is not None else ((0.0,) * depth, (1.0,) * depth)
    with torch.no_grad():
        maps.eval()
        flat = maps(torch.zeros(1, depth, *sides)).flatten(1).shape[1]
        maps.train()
    layers = [maps, nn.Dropout2d(dropout), nn.Flatten(), _spread(nn.Linear(flat, hidden))]
    trunk = Pixels(nn.Sequential(*layers, nn.LeakyReLU(), nn.Dropout(dropout)), mean, std)
    return CRF(layout, trunk, hidden)


def _backbone(
    name: str, channels: int, size: tuple[int, int], weights: str | Path | None, width: int
) -> nn.Module:
    if name == "small-cnn":
        if weights is not None:
            raise ValueError(f"crf: weights={str(weights)!r} needs a residual backbone")
        net = SmallCNN(channels, size, 1, width)
        return nn.Sequential(net.body, net.pool)
    residual = FACTORIES[f"imagenet-{name}"](channels=channels, size=size, classes=1, features=None)
    assert isinstance(residual, ResNet)
    if weights == "imagenet":
        folder = find_weights(f"imagenet-{name}", None, *_FILES)
        weights = next(folder / file for file in _FILES if (folder / file).is_file())
    if weights is not None:
        load_weights(residual, weights)
    return _Maps(residual)
