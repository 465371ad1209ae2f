"""Small coloured squares for the tests of generator feedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.audit import Audit
from evenloop.data import Attribute, GroupedData, Schema
from evenloop.loop import World
from evenloop.models import Pixels, build
from evenloop.recipe import Recipe
from evenloop.rng import Rng

SMALL: dict[str, Any] = {
    "generator_options": {"widths": (4, 8), "latent": 3},
    "generator_epochs": 2,
    "generator_batch": 32,
    "population": 200,
    "blocks": 2,
}


class Odd(nn.Module):
    """Labels a picture by whether the sum of its bytes is odd, which nothing learns."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot((x * 255).round().sum((1, 2, 3)).long() % 2, 2).float()


class Noisy(nn.Module):
    """Remembers the label of every number it was shown, and gets a share of them wrong."""

    def __init__(self, numbers: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("answer", torch.zeros(numbers, dtype=torch.long))

    def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
        assert isinstance(self.answer, Tensor)
        self.answer[x[:, 0].long()] = y
        n = len(self.answer)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        self.answer[order[: round(self.rate * n)]] ^= 1

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.answer, Tensor)
        return torch.eye(2)[self.answer[x[:, 0].long()]]


def squares(n: int, seed: int = 0) -> GroupedData:
    """Bright or dark 8x8 squares in red or green; the colour goes with the label."""
    gen = Rng.of(seed).at("squares").gen()
    truth = torch.randint(2, (n,), generator=gen)
    red = (torch.rand(n, generator=gen) < torch.where(truth == 1, 0.3, 0.7)).long()
    grey = torch.randint(160, (n, 8, 8), generator=gen) + 8 * truth[:, None, None] + 30
    x = torch.zeros(n, 2, 8, 8, dtype=torch.uint8)
    x[torch.arange(n), 1 - red] = grey.to(torch.uint8)
    schema = Schema(("dark", "bright"), (Attribute("color", ("green", "red")),))
    return GroupedData.of(x, truth, {"color": red}, schema)


def net(rng: Rng) -> nn.Module:
    inner = build("mlp", channels=2, size=8, classes=2, hidden=(8,), seed=rng.seed)
    return Pixels(inner, (0.0, 0.0), (1.0, 1.0))


def image_world(n: int = 240) -> tuple[World, Audit]:
    data = squares(n)
    recipe = Recipe(lr=0.3, batch=16, epochs=3, checkpoint_seconds=0)
    world = World(data.take(range(n // 4, n)), ("color",), net, recipe)
    return world, Audit(data.take(range(n // 4)), ("color",))


def noise_world(numbers: int, rates: Mapping[int, float], copies: int = 12) -> World:
    """Rows that are a number each, labelled by its parity; nets err as `rates` says by seed."""
    x = torch.arange(numbers).repeat(copies)
    schema = Schema(("even", "odd"), (Attribute("g", ("a", "b")),))
    data = GroupedData.of(x[:, None].float(), x % 2, {"g": x // 2 % 2}, schema)
    return World(data, ("g",), lambda rng: Noisy(numbers, rates.get(rng.seed, 0.0)), Recipe())
