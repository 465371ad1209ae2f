"""What `mix` finds and says before any training: rows that are not finite, cells that lack rows."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from evenloop.data import GroupedData, Origin
from evenloop.loop import World
from evenloop.loops.mix import METHODS, Mix
from evenloop.rng import Rng
from evenloop.samplers.cells import CellIndex
from stand_ins import small_world

QUICK = {"generator": "smoothed", "made_rows": 30, "per_cell": 4}


def alarms(loop: Mix, world: World) -> tuple[str, ...]:
    state = loop.init(world, None, Rng.of(0))
    return loop.step(world, state, 0, Rng.of(3))[1].alarms


def with_nan(world: World, rows: list[int]) -> World:
    x = world.data.x.clone()
    x[rows, 1] = torch.nan
    return replace(world, data=GroupedData.from_columns(
        world.data.schema, {**world.data.columns(), "x": x}
    ))  # fmt: skip


def test_a_row_that_is_not_finite_is_named_with_its_cell_before_training():
    world, _ = small_world(300)
    cell = f"{('no', 'yes')[int(world.data.y[7])]} | {'fm'[int(world.data.attribute('sex')[7])]}"
    text = re.escape(f"row {int(world.data.row[7])} of the world, cell {cell!r}, holds NaN")
    for method in METHODS:
        with pytest.raises(ValueError, match=text + r".*2 such rows"):
            Mix(**QUICK, method=method).init(with_nan(world, [7, 9]), None, Rng.of(0))
        Mix(**QUICK, method=method).init(with_nan(world, []), None, Rng.of(0))


def test_what_cells_lack_is_said_before_training():
    world, _ = small_world(300)
    y, sex = world.data.y, world.data.attribute("sex")
    last = ((y == 1) & (sex == 1)).nonzero().flatten()
    stays = torch.ones(len(y), dtype=torch.bool)
    stays[last[1:]] = False
    one = replace(world, data=world.data.take(stays.nonzero().flatten()))
    count = CellIndex.of(world.data, ["sex"]).counts[0].flatten().tolist()
    table, lonely, _ = Mix(**QUICK).foreseen(one)
    assert f"no | f {count[0]} + 30" in table
    assert "yes | m 1 + 30" in table
    assert "cells ['yes | m']: no real held-out rows" in lonely
    stays[last[0]] = False
    none = replace(world, data=world.data.take(stays.nonzero().flatten()))
    assert "cells ['yes | m']: no real rows" in Mix(**QUICK).foreseen(none)[1]
    f = world.data.take((sex == 0).nonzero().flatten())
    made = GroupedData.of(f.x, f.y, {a.name: f.attribute(a.name) for a in f.schema.attributes},
                          f.schema, origin=Origin.GENERATED)  # fmt: skip
    some = replace(world, data=world.data.append(made))
    assert "cells ['no | m', 'yes | m']: no generated rows" in Mix().foreseen(some)[1]
    assert len(Mix(**QUICK).foreseen(world)) == 2  # the counts, and what is made small


@pytest.mark.parametrize("method", ["ratios", "frozen", "fixed"])
def test_mixing_without_any_generated_row_is_an_alarm(method):
    world, _ = small_world(300)
    text = f"method={method} has no generated rows in any cell"
    assert any(text in alarm for alarm in alarms(Mix(method=method, per_cell=4), world))
    assert any(text in note for note in Mix(method=method).foreseen(world))
    assert not any(text in a for a in alarms(Mix(**QUICK, method=method), world))
