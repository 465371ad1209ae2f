"""A small world with a rare colour, and how the tests of acquisition run a loop in it."""

from __future__ import annotations

import torch

from evenloop.audit import Audit
from evenloop.data import Attribute, GroupedData, Schema
from evenloop.loop import State, World, run
from evenloop.loops.acquire import Acquire
from evenloop.models import build
from evenloop.recipe import Recipe
from evenloop.record import Record
from evenloop.rng import Rng

SCHEMA = Schema(("no", "yes"), (Attribute("colour", ("blue", "red", "green")),))


def rows(n: int, seed: int, red: float = 0.1) -> GroupedData:
    """Two numbers tell the label, a third the colour; red is rare, green does not occur."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator)
    colour = (torch.rand(n, generator=generator) < red).long()
    x[:, 2] += 3 * colour
    y = ((x[:, 0] + x[:, 1] * (1 - 2 * colour)) > 0).long()
    return GroupedData.of(x, y, {"colour": colour}, SCHEMA)


def world(n: int = 300, by: tuple[str, ...] = ("colour",)) -> World:
    def net(rng: Rng) -> torch.nn.Module:
        return build("dropout-mlp", features=3, classes=2, hidden=(16,), seed=rng.seed)

    recipe = Recipe(optimizer="adam", lr=1e-2, batch=16, epochs=4)
    return World(rows(n, 0), by, net, recipe, keep_order=True)


def audit() -> Audit:
    return Audit(rows(200, 1, red=0.5), ("colour",))


def go(loop: Acquire, rounds: int = 3, seed: int = 0, where: World | None = None) -> Record:
    return run(loop, where or world(), audit(), rounds=rounds, seed=seed)


def states(loop: Acquire, rounds: int, where: World | None = None, seed: int = 0) -> list[State]:
    """The state after every round."""
    place, root, out = where or world(), Rng.of(seed), []
    state = loop.init(place, None, root.at("init"))
    for round in range(rounds):
        state, _ = loop.step(place, state, round, root.at("round", round))
        out.append(state)
    return out
