"""Small coloured squares for the tests of generator feedback."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

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
