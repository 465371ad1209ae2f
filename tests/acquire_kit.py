"""A small world with a rare colour, and how the tests of acquisition run a loop in it."""

from __future__ import annotations

from typing import Any

import torch

from evenloop.audit import Audit
from evenloop.config import RunConfig
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


def letters(
    train: int, test: int, *, rounds: int = 3, seeds: tuple[int, ...] = (0, 1), **acquire: Any
) -> RunConfig:
    """A study of coloured letters and a small net, audited on `test` letters of its own."""
    return RunConfig(
        name="letters",
        world={"name": "letters", "train": train, "test": test, "size": 16},
        loop=[{"acquire": {"initial": 20, "query": 10, "draws": 3, **acquire}}],
        net={"name": "dropout-mlp", "hidden": [8]},
        recipe={"optimizer": "adam", "lr": 1e-2, "batch": 8, "epochs": 2},
        test_size=test,
        audit="test",
        by=("color",),
        rounds=rounds,
        seeds=seeds,
    )
