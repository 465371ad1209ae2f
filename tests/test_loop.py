"""Turning the crank: what `run` refuses before work, and what it tells of a round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from evenloop.loop import Loop, Notes, State, World, chain, run
from evenloop.loops.relabel import Relabel
from evenloop.record import Record
from evenloop.rng import Rng
from stand_ins import small_world

LOOP = Relabel(n0=20, human=2, machine=4)


@pytest.mark.parametrize("rounds", [0, -1, 1.5, "3", True, None])
def test_rounds_are_a_whole_number(rounds: Any) -> None:
    with pytest.raises(ValueError, match="rounds must be a whole number from 1 on, got"):
        run(LOOP, *small_world(), rounds=rounds)


def test_one_round_is_a_run() -> None:
    assert len(run(LOOP, *small_world(), rounds=1).rows) == 1


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize(
    ("loop", "seed", "message"),
    [
        (LOOP, 5, r"seed=0, and this one has seed=5"),
        (replace(LOOP, n0=21), 0, r"loop\.n0=20, and this one has loop\.n0=21"),
        (chain(LOOP, LOOP), 0, r"loop=Relabel, and this one has loop=Chain"),
    ],
)
def test_a_record_goes_on_with_its_own_seed_and_loop(
    tmp_path: Path, loop: Loop, seed: int, message: str, on_disk: bool
) -> None:
    def opened() -> Record:
        return Record.open(tmp_path / "r", {"config": "a", "seed": 0})

    world, audit = small_world()
    record = run(LOOP, world, audit, rounds=1, record=opened() if on_disk else None)
    again = opened() if on_disk else record
    with pytest.raises(ValueError, match=message):
        run(loop, world, audit, rounds=2, seed=seed, record=again)
    assert len(run(LOOP, world, audit, rounds=2, record=again).rows) == 2


def test_other_groups_are_another_run() -> None:
    world, audit = small_world()
    record = run(LOOP, world, audit, rounds=1)
    with pytest.raises(ValueError, match=r"by\.0='sex', and this one has by\.0='age'"):
        run(LOOP, replace(world, by=("age",)), audit, rounds=2, record=record)


def test_a_run_that_stopped_is_still_its_own() -> None:
    world, audit = small_world(n=60)
    record = run(LOOP, world, audit, rounds=50)
    assert record.rows[-1].stop
    assert run(LOOP, world, audit, rounds=60, record=record) is record
    with pytest.raises(ValueError, match=r"loop\.n0=20"):
        run(replace(LOOP, n0=19), world, audit, rounds=60, record=record)


class Only(Loop):
    """Trains one model, which it calls what it is told to; none for ""."""

    def __init__(self, name: str) -> None:
        self.name = name

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        return State(world.data.take(range(20)))

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        net: nn.Module = world.net(rng.at("net"))
        return State(state.data, {self.name: net} if self.name else {}), Notes()


def test_a_round_without_an_audited_model_is_told() -> None:
    rows = run(Only("generator"), *small_world(), rounds=2).rows
    assert "audit" not in rows[0].counts
    assert [row.alarms for row in rows] == [
        (f"round {r}: no model is audited: 'generator' and no 'classifier'",) for r in (0, 1)
    ]
    for name in ("classifier", ""):  # audited; nothing to audit
        assert run(Only(name), *small_world(), rounds=1).rows[0].alarms == ()
