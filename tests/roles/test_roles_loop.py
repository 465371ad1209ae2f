"""Frames through the whole loop: what is counted, and that a killed run goes on unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evenloop.audit import Audit
from evenloop.data import Attribute, GroupedData, Origin, Schema, Structure
from evenloop.loop import World, run
from evenloop.loops.relabel import Relabel
from evenloop.models import seeded
from evenloop.models.crf import crf
from evenloop.objectives.frames import FrameLoss
from evenloop.recipe import Recipe
from evenloop.record import Record
from evenloop.rng import Rng
from evenloop.roles.gender import FrameReading, NounSets
from roles_kit import SMALL

READING = FrameReading(SMALL, NounSets(frozenset({"man"}), frozenset({"woman"})))
LOOP = Relabel(n0=20, human=4, machine=8)


def rows(n: int, seed: int) -> GroupedData:
    """Pictures whose brightness says the verb and whose tint says the agent."""
    rng = torch.Generator().manual_seed(seed)
    verb = torch.randint(2, (n,), generator=rng)
    agent = torch.randint(2, (n,), generator=rng)
    x = torch.randint(60, (n, 3, 16, 16), generator=rng)
    x += 90 * verb[:, None, None, None]
    x[:, 0] += 60 * agent[:, None, None]
    item = torch.where(verb == 0, 0, -1)
    y = torch.full((n, 7), -1)
    y[:, 0], y[:, 1], y[:, 2] = verb, agent, item
    schema = Schema(
        READING.classes, (Attribute("side", ("left", "right")),), Structure(7, SMALL.codes)
    )
    return GroupedData.of(x.to(torch.uint8), y, {"side": torch.arange(n) % 2}, schema)


def net(rng: Rng) -> torch.nn.Module:
    small = {"channels": 3, "size": 16, "backbone": "small-cnn", "hidden": 16, "dropout": 0.1}
    return seeded(lambda: crf(layout=SMALL, **small), rng.seed)


def world() -> World:
    recipe = Recipe(optimizer="adam", lr=0.01, batch=8, epochs=4)
    return World(rows(80, 0), (), net, recipe, objective=FrameLoss)


def audit() -> Audit:
    return Audit(rows(40, 1), ("side",), reading=READING)


@pytest.mark.parametrize("rule", ["argmax", "marginal", "sample"])
def test_a_run_counts_what_frames_say(rule: str) -> None:
    loop = Relabel(n0=20, human=4, machine=8, label_rule=rule)  # type: ignore[arg-type]
    record = run(loop, world(), audit(), rounds=3, seed=0)
    assert [row.sizes["relabelled"] for row in record.rows] == [0, 8, 16]
    last = record.rows[-1]
    assert last.counts["audit"].table.shape == (2, 3, 3)
    assert {f"audit.{name}" for name in ("verb", "value", "value-all", "value*", "value-all*")} <= (
        set(last.moments)
    )
    assert {"audit.women.predicted", "audit.women.truth", "train.women"} <= set(last.moments)
    assert last.moments["audit.verb"].table[:, 0].sum() == 40


def test_training_gets_better_than_chance() -> None:
    many = World(rows(300, 0), (), net, Recipe(optimizer="adam", lr=0.01, batch=16, epochs=15),
                 objective=FrameLoss)  # fmt: skip
    record = run(Relabel(n0=280, human=1, machine=1), many, audit(), rounds=1, seed=0)
    scores = record.rows[0].moments
    right = scores["audit.verb"].table
    assert right[:, 1].sum() / right[:, 0].sum() > 0.9
    starred = scores["audit.value*"].table
    assert starred[:, 1].sum() / starred[:, 0].sum() > 0.8


def test_written_rows_keep_their_truth() -> None:
    loop = Relabel(n0=20, human=4, machine=8)
    state = loop.init(world(), None, Rng.of(0))
    state, _ = loop.step(world(), state, 0, Rng.of(1))
    state, _ = loop.step(world(), state, 1, Rng.of(2))
    written = state.data.origin == int(Origin.RELABELLED)
    assert int(written.sum()) == 8
    assert (state.data.y[written, 4:] == -1).all()
    assert (state.data.truth[written, 0] >= 0).all()


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def part(folder: str, rounds: int) -> bytes:
        record = Record.open(tmp_path / folder, {"seed": 5})
        run(LOOP, world(), audit(), rounds=rounds, seed=5, record=record)
        return (tmp_path / folder / "rows.jsonl").read_bytes()

    whole = part("whole", 3)
    assert part("cut", 1) != whole
    assert part("cut", 3) == whole
