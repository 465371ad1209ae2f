"""State, notes and loops: what is of another kind is told where it was made."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from evenloop.counts import Counts
from evenloop.groups import GroupIndex
from evenloop.loop import Loop, Notes, State, World, chain, run
from evenloop.loops.relabel import Relabel
from evenloop.models import seeded
from evenloop.rng import Rng
from stand_ins import blobs, small_world


def linear() -> nn.Module:
    return seeded(lambda: nn.Linear(4, 2), 0)


def test_a_state_holds_rows_and_modules() -> None:
    assert len(State(blobs(3), {"classifier": linear(), "member-1": linear()}).models) == 2
    assert State(blobs(3), {"generator": linear()}).models["generator"] is not None
    with pytest.raises(TypeError, match=r"State\.data must be a GroupedData, got Tensor"):
        State(blobs(3).x)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"State\.models\['classifier'\] must be a torch\.nn\.Mod"):
        State(blobs(3), {"classifier": {}})  # type: ignore[dict-item]


def test_a_classifier_by_almost_that_name_is_told() -> None:
    with pytest.raises(ValueError, match="has 'clasifier' and no 'classifier'"):
        State(blobs(3), {"clasifier": linear()})
    State(blobs(3), {"classifier": linear(), "classifiers": linear()})


def test_notes_hold_tables_and_sentences() -> None:
    data = blobs(3)
    table = Counts.of(data.y, data.truth, GroupIndex.of(data), data.schema.classes)
    assert Notes(counts={"here": table}, alarms=("read this",)).alarms == ("read this",)
    with pytest.raises(TypeError, match=r"write alarms=\('read this',\)"):
        Notes(alarms="read this")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Notes\.counts\['here'\] must be Counts, got Tensor"):
        Notes(counts={"here": data.y})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"Notes\.moments\['here'\] must be Moments, got Counts"):
        Notes(moments={"here": table})  # type: ignore[dict-item]


class Gives(Loop):
    """A loop that gives what it is told to."""

    def __init__(self, began: Any = "state", stepped: Any = "both") -> None:
        self.began, self.stepped = began, stepped

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        return State(world.data.take(range(20))) if self.began == "state" else self.began

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        return (state, Notes()) if self.stepped == "both" else self.stepped(state)


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (Gives(began=None), r"Gives\.init gave None; it must give a State"),
        (Gives(stepped=lambda s: s), r"Gives\.step gave a State; it must give \(State, Notes\)"),
        (Gives(stepped=lambda s: None), r"Gives\.step gave None"),
        (Gives(stepped=lambda s: (s, {})), r"Gives\.step gave \(State, dict\)"),
        (Gives(stepped=lambda s: (s, Notes(), 1)), r"gave \(State, Notes, int\)"),
    ],
)
def test_what_a_loop_gives_is_told_alone_and_in_a_chain(loop: Loop, message: str) -> None:
    world, audit = small_world()
    for given in (loop, chain(Relabel(n0=20, human=2, machine=4), loop)):
        with pytest.raises(TypeError, match=message):
            run(given, world, audit, rounds=1)


def test_what_is_no_loop_is_told() -> None:
    world, audit = small_world()
    assert len(run(Gives(), world, audit, rounds=1).rows) == 1
    for bad, message in (
        (Relabel, r"loop must be a value, got the class; write Relabel\(\.\.\.\)"),
        ("relabel", "got str, which has no init, step"),
    ):
        with pytest.raises(TypeError, match=message):
            run(bad, world, audit, rounds=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=message):
            chain(Gives(), bad)  # type: ignore[arg-type]


def test_a_loop_without_a_step_is_told_before_any_work() -> None:
    class Half(Loop):
        def init(self, world: World, start: State | None, rng: Rng) -> State:
            raise AssertionError("work has begun")

    with pytest.raises(TypeError, match=r"got Half, which has no step; let it inherit"):
        run(Half(), *small_world(), rounds=1)
