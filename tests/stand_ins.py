"""Small exact worlds and labellers that tests share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from evenloop.audit import Audit
from evenloop.data import Attribute, GroupedData, Schema
from evenloop.loop import World
from evenloop.models import build, seeded
from evenloop.recipe import Recipe
from evenloop.rng import Rng

SCHEMA = Schema(("no", "yes"), (Attribute("sex", ("f", "m")), Attribute("age", ("a", "b", "c"))))


def blobs(n: int, seed: int = 0, schema: Schema = SCHEMA) -> GroupedData:
    """Two overlapping classes in four numbers, with two group columns."""
    gen = Rng.of(seed).at("blobs").gen()
    truth = torch.randint(2, (n,), generator=gen)
    x = torch.randn(n, 4, generator=gen) + truth[:, None]
    sex = torch.randint(2, (n,), generator=gen)
    age = torch.randint(3, (n,), generator=gen)
    return GroupedData.of(x, truth, {"sex": sex, "age": age}, schema)


def small_world(n: int = 400, by: tuple[str, ...] = ("sex",)) -> tuple[World, Audit]:
    """A world of blobs with a linear net that trains in milliseconds, and its audit split."""
    data = blobs(n)
    split = n // 4
    recipe = Recipe(lr=0.1, batch=16, epochs=2, checkpoint_seconds=0)

    def net(rng: Rng) -> nn.Module:
        return seeded(lambda: build("logistic", classes=2, features=4), rng.seed)

    world = World(data.take(range(split, n)), by, net, recipe)
    return world, Audit(data.take(range(split)), by)


def pattern_world(share: list[int], n: int, net: Callable[[Rng], nn.Module]) -> tuple[World, Audit]:
    """Rows whose labels repeat `share`, so that any whole number of repeats has its exact rate."""
    y = torch.tensor(share).repeat(-(-n // len(share)))[:n]
    data = GroupedData.of(torch.zeros(n, 1), y, {}, Schema(("no", "yes")))
    world = World(data, (), net, Recipe(), keep_order=True)
    few = len(share) * 1000
    row = torch.arange(n, n + few)  # rows of their own: the audit shares none with the world
    return world, Audit(GroupedData.of(torch.zeros(few, 1), y[:few], {}, data.schema, row=row))


class Share(nn.Module):
    """Trains on the share of class 1 and answers with that share changed by `respond`.

    As probabilities: every row has the same; as an argmax: the first rows of a batch are class 1.
    """

    def __init__(self, respond: Callable[[float], float], hard: bool = True) -> None:
        super().__init__()
        self.respond, self.hard = respond, hard
        self.register_buffer("share", torch.zeros((), dtype=torch.float64))

    def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
        self.share = y.double().mean()

    def forward(self, x: Tensor) -> Tensor:
        share = min(max(self.respond(float(self.share)), 0.0), 1.0)
        if not self.hard:
            return torch.tensor([[1 - share, share]], dtype=torch.float64).log().expand(len(x), 2)
        ones = (torch.arange(len(x)) + 0.5) / max(len(x), 1) < share
        return torch.stack([~ones, ones], 1).double() * 50
