"""What every loop keeps to, whatever its paper.

A loop's own test file `tests/loops/test_<verb>.py` gives `smoke() -> (loop, world, audit)`, a run
of about a second; everything here is done with it.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenloop import loops
from evenloop.audit import Audit
from evenloop.data import GroupedData
from evenloop.loop import Loop, Notes, State, World, chain, run
from evenloop.loops.relabel import Relabel
from evenloop.record import Record
from evenloop.rng import Rng

ROUNDS = 3
Smoke = Callable[[], tuple[Loop, World, Audit]]


@pytest.fixture(params=loops.names())
def smoke(request: pytest.FixtureRequest) -> Smoke:
    path = Path(__file__).parents[1] / "loops" / f"test_{request.param}.py"
    assert path.exists(), f"loop {request.param} has no test file {path.name}"
    spec = importlib.util.spec_from_file_location(f"smoke_{request.param}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Smoke = module.smoke
    return found


def lines(record: Record) -> list[str]:
    return [row.to_json() for row in record.rows]


def test_same_seed_same_rows_and_another_seed_other_rows(smoke: Smoke) -> None:
    first, again, other = (lines(run(*smoke(), rounds=ROUNDS, seed=seed)) for seed in (4, 4, 5))
    assert first == again
    assert first != other


def test_resumed_after_every_round_the_file_is_the_same(smoke: Smoke, tmp_path: Path) -> None:
    def opened(name: str) -> Record:
        return Record.open(tmp_path / name, {"config": {}, "seed": 1})

    whole = run(*smoke(), rounds=ROUNDS, seed=1, record=opened("whole"))
    for stop in range(1, len(whole.rows) + 1):
        run(*smoke(), rounds=stop, seed=1, record=opened("parts"))
    bytes_of = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("whole", "parts")]
    assert bytes_of[0] == bytes_of[1]


def test_global_generators_are_untouched(smoke: Smoke) -> None:
    def states() -> list[object]:
        numpy: Any = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
        of_numpy = [*numpy["key"].tolist(), numpy["pos"]]
        return [torch.random.get_rng_state().tolist(), of_numpy, random.getstate()]

    before = states()
    run(*smoke(), rounds=2)
    assert states() == before


def test_truth_is_never_written(smoke: Smoke) -> None:
    loop, world, audit = smoke()
    columns = {name: column.clone() for name, column in world.data.columns().items()}
    seen: list[GroupedData] = []
    run(Spy(loop, seen), world, audit, rounds=ROUNDS)
    for name, column in world.data.columns().items():
        assert torch.equal(column, columns[name]), f"the world's {name} changed"
    truth_of = dict(zip(columns["row"].tolist(), columns["truth"].tolist(), strict=True))
    assert seen
    for data in seen:
        known = data.row >= 0
        wanted = [truth_of[row] for row in data.row[known].tolist()]
        assert data.truth[known].tolist() == wanted


def test_world_rows_appear_once_and_sizes_add_up(smoke: Smoke) -> None:
    loop, world, audit = smoke()
    seen: list[GroupedData] = []
    record = run(Spy(loop, seen), world, audit, rounds=ROUNDS)
    for row, data in zip(record.rows, seen, strict=True):
        known = data.row[data.row >= 0]
        assert len(known.unique()) == len(known)
        assert row.sizes["train"] == len(data)
        made = sum(row.sizes[name] for name in ("world", "relabelled", "generated"))
        assert made == len(data)
        assert row.counts["train"].total == len(data)


def test_a_group_nobody_belongs_to_stays_in_every_table(smoke: Smoke) -> None:
    loop, world, audit = smoke()
    if not world.data.schema.attributes:
        pytest.skip("this loop's smoke world has no attribute to empty")
    column = world.data.schema.attributes[0]
    present = (world.data.attribute(column.name) != 1).nonzero().flatten()
    emptied = replace(world, data=world.data.take(present), by=(column.name,))
    record = run(loop, emptied, replace(audit, by=(column.name,)), rounds=1)
    for counts in record.rows[0].counts.values():
        if len(counts.groups) == len(column.values):
            assert counts.groups == column.values
    assert record.rows[0].counts["train"].support[1] == 0


def test_fields_are_the_schema(smoke: Smoke) -> None:
    loop, _, _ = smoke()
    plain: Any = loop
    rebuilt = type(loop)(**{f.name: getattr(loop, f.name) for f in fields(plain)})
    assert rebuilt == loop
    name = fields(plain)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(plain, name, getattr(plain, name))


def test_it_is_a_link_of_a_chain(smoke: Smoke) -> None:
    loop, world, audit = smoke()
    record = run(chain(loop, Relabel(n0=20, human=2, machine=4)), world, audit, rounds=2)
    assert len(record.rows) == 2
    assert any(name.startswith("1.relabel.") for name in record.rows[1].values)


class Spy(Loop):
    """The loop, with every state's data kept."""

    def __init__(self, loop: Loop, seen: list[GroupedData]) -> None:
        self.loop, self.seen, self.answer = loop, seen, loop.answer

    def init(self, world: World, start: Any, rng: Any) -> Any:
        return self.loop.init(world, start, rng)

    def step(self, world: World, state: Any, round: int, rng: Any) -> Any:
        state, notes = self.loop.step(world, state, round, rng)
        self.seen.append(state.data)
        return state, notes


@pytest.mark.parametrize("change", ["x", "attribute"])
def test_resumed_in_a_chain_with_people_who_react_the_file_is_the_same(
    smoke: Smoke, change: str, tmp_path: Path
) -> None:
    loop, world, audit = smoke()
    if change == "attribute" and not world.data.schema.attributes:
        pytest.skip("this loop's smoke world has no attribute to change")
    chained = chain(loop, Relabel(n0=20, human=2, machine=4), Reacts(change))

    def opened(name: str) -> Record:
        return Record.open(tmp_path / name, {"config": {}, "seed": 1})

    whole = run(chained, world, audit, rounds=ROUNDS, seed=1, record=opened("whole"))
    for stop in range(1, len(whole.rows) + 1):
        run(chained, world, audit, rounds=stop, seed=1, record=opened("parts"))
    bytes_of = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("whole", "parts")]
    assert bytes_of[0] == bytes_of[1]


@dataclass(frozen=True, slots=True)
class Reacts(Loop):
    """People answer the deployed model: they turn round, or give another answer of who they are."""

    change: str

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        return start or State(world.data.take(torch.arange(20)))

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        data = state.data
        if self.change == "x":
            return State(data.with_x(data.x.flip(-1)), state.models, state.extra), Notes()
        column = data.schema.attributes[0]
        said = (data.attribute(column.name) + 1) % len(column.values)
        return State(data.with_attribute(column.name, said), state.models, state.extra), Notes()
