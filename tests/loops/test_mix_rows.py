"""Which rows `mix` holds out, what it says before training, and fields of the update."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from evenloop.data import GroupedData
from evenloop.loop import World
from evenloop.loops.mix import Mix
from evenloop.models import seeded
from evenloop.rng import Rng
from evenloop.samplers.cells import CellIndex
from evenloop.samplers.rounding import Pools
from evenloop.worlds.listing import listed
from stand_ins import small_world

QUICK = {"generator": "smoothed", "made_rows": 20, "per_cell": 4}


def step(loop: Mix, world: World, rounds: int = 1):
    state, notes = loop.init(world, None, Rng.of(0)), None
    for r in range(rounds):
        state, notes = loop.step(world, state, r, Rng.of(3).at("round", r))
    return state, notes


def said(world: World, **columns: list[object]) -> World:
    """The world with what columns of a list say."""
    names = {name: name for name in columns}
    return replace(world, data=listed(world.data, pd.DataFrame(columns), "t", **names))


def parts(world: World, every: int = 3) -> World:
    """Every third row is for validation."""
    words = ["val" if i % every == 0 else "train" for i in range(len(world.data))]
    return said(world, split=words)


# -- held-out rows ------------------------------------------------------------------------------


def test_the_rows_of_a_split_are_held_out_and_generated_ones_by_the_share():
    world = parts(small_world(300)[0])
    state, notes = step(Mix(**QUICK, held_out="split", validation=0.25), world)
    held, n = state.extra["mix"]["held"], len(world.data)
    assert held[held < n].tolist() == list(range(0, n, 3))
    cells = CellIndex.of(state.data, ["sex"])
    assert torch.bincount(cells.place[held[held >= n]], minlength=8).tolist() == [0] * 4 + [5] * 4
    assert notes.counts["held out"].total == len(range(0, n, 3))


def test_generated_rows_of_a_validation_split_are_held_out_themselves():
    world = small_world(300)[0]
    n = len(world.data)
    made = ["generated" if i % 2 else "real" for i in range(n)]
    words = ["val" if i % 8 < 2 else "train" for i in range(n)]
    world = said(world, split=words, source=made)
    state, _ = step(Mix(per_cell=4, held_out="split"), world)
    assert state.extra["mix"]["held"].tolist() == [i for i in range(n) if i % 8 < 2]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w: w, "held_out=split needs an attribute 'split' with a value 'val'; this world "
                      "has no such attribute; set held_out=share"),
        (lambda w: said(w, split=["train"] * len(w.data)), "no real row is for validation"),
    ],
)  # fmt: skip
def test_a_split_that_says_nothing_is_refused_before_training(change, text):
    world = small_world(300)[0]
    with pytest.raises(ValueError, match=text):
        Mix(held_out="split").init(change(world), None, Rng.of(0))
    assert Mix(held_out="split").init(parts(world), None, Rng.of(0)).extra == {}
    with pytest.raises(ValueError, match="held_out must be 'share' or 'split', got 'val'"):
        Mix(held_out="val")


@pytest.mark.parametrize("restart", [False, True])
def test_rows_that_another_loop_moved_are_noticed(restart):
    world = small_world(300)[0]
    loop = Mix(**QUICK, restart=restart)
    first, _ = step(loop, world)
    data = first.data
    more = replace(first, data=data.append(data.take([0, 1])))
    assert len(loop.step(world, more, 1, Rng.of(8))[0].data) >= len(data)
    fewer = replace(first, data=data.take(range(1, len(data))))
    with pytest.raises(ValueError, match="dropped or moved by another loop of the chain"):
        loop.step(world, fewer, 1, Rng.of(8))


# -- before training ----------------------------------------------------------------------------


def test_counts_of_both_sides_are_said_before_training_and_come_true():
    world = parts(small_world(300)[0])
    for loop in (Mix(**QUICK, held_out="split"), Mix(**QUICK, validation=0.3)):
        table = loop.foreseen(world)[0]
        state, _ = step(loop, world)
        held = state.extra["mix"]["held"]
        cells = CellIndex.of(state.data, ["sex"])
        away = torch.bincount(cells.place[held], minlength=8).view(2, 4).tolist()
        count = cells.counts.flatten(1).tolist()
        for i, name in enumerate(cells.names):
            want = f"{name} {count[0][i]} + {count[1][i]} ({away[0][i]} + {away[1][i]})"
            assert want in table


def test_cells_that_a_split_empties_are_named_before_training():
    world = small_world(300)[0]
    cells = CellIndex.of(world.data, ["sex"])
    for words, text in (
        ({0: "train"}, "cells ['no | f']: no real held-out rows, so no part in the gap"),
        ({0: "val"}, "cells ['no | f']: no real rows to train on, so no share of a batch"),
    ):
        split = ["val" if i % 3 == 0 else "train" for i in range(len(world.data))]
        split = [words.get(c, word) for c, word in zip(cells.cell.tolist(), split, strict=True)]
        lacking = said(world, split=split)
        loop = Mix(**QUICK, held_out="split")
        assert text in loop.foreseen(lacking)
        assert text not in loop.foreseen(parts(world))
        assert step(loop, lacking)[1].values["updates"] > 0


def test_what_is_made_small_is_said_before_training_and_noted():
    world = small_world(300)[0]
    loop = Mix(**QUICK, reference="pooled", accuracy_weight=5.0)
    words = "1 x eqodds gap of losses (reference=pooled, aggregate=max) + 5 x mean loss"
    assert f"the ratios make small: {words}" in loop.foreseen(world)
    assert step(loop, world)[1].values["objective"] == words
    fair = Mix(**QUICK, method="fairbatch")
    assert step(fair, world)[1].values["objective"] == "eqodds gap of losses (reference=pairwise)"
    plain = Mix(**QUICK, method="pooled")
    assert "objective" not in step(plain, world)[1].values
    assert not any("make small" in note for note in plain.foreseen(world))


def test_pictures_that_repeat_are_said_before_training():
    world = small_world(80)[0]
    x = torch.arange(len(world.data))[:, None, None, None].expand(-1, 1, 2, 2).to(torch.uint8)
    codes = {a.name: world.data.attribute(a.name) for a in world.data.schema.attributes}

    def shown(pixels: torch.Tensor) -> tuple[str, ...]:
        data = GroupedData.of(pixels, world.data.y, codes, world.data.schema)
        return Mix(method="real").foreseen(replace(world, data=data))

    assert not any("repeat" in note for note in shown(x.clone()))
    twice = x.clone()
    twice[7] = twice[3]
    assert any(n.startswith("1 pictures repeat another to the last bit, first row 7 of the train "
                            "side (as row 3)") for n in shown(twice))  # fmt: skip


# -- fields of the update -----------------------------------------------------------------------


def test_weights_of_a_list_reach_every_way_of_drawing(monkeypatch):
    world = small_world(200)[0]
    heavy = said(world, weight=[1 + 8 * (i % 2) for i in range(len(world.data))])
    pools: list[Pools] = []
    init = Pools.__init__

    def noted(self: Pools, *args: object, **options: object) -> None:
        init(self, *args, **options)
        pools.append(self)

    monkeypatch.setattr(Pools, "__init__", noted)
    for method in ("ratios", "real", "pooled", "balanced", "fairbatch", "topped_up"):
        pools.clear()
        step(Mix(**QUICK, method=method), heavy)
        assert any(pool.replacement for pool in pools), method  # weighted pools draw afresh
        pools.clear()
        step(Mix(**QUICK, method=method), world)
        assert not any(pool.replacement for pool in pools), method


def cold(rng: Rng) -> nn.Module:
    """The logits are not the output of the last linear layer."""
    return seeded(lambda: nn.Sequential(nn.Linear(4, 2), nn.Softsign()), rng.seed)


def test_head_and_parameters_may_be_named_and_are_tried_before_training():
    world = replace(small_world(300)[0], net=cold)
    with pytest.raises(ValueError, match=re.escape("head='auto' finds no linear layer")):
        Mix(**QUICK).init(world, None, Rng.of(0))
    with pytest.raises(ValueError, match="head='1' is not a linear layer"):
        Mix(**QUICK, head="1").init(world, None, Rng.of(0))
    with pytest.raises(ValueError, match=re.escape("parameters= names ['2.weight']")):
        Mix(**QUICK, parameters=("2.weight",)).init(world, None, Rng.of(0))
    with pytest.raises(ValueError, match="works with hessian=identity"):
        Mix(parameters=("0.weight",), hessian="cg")
    moved = step(Mix(**QUICK, parameters=("0.weight", "0.bias"), ratio_lr=0.1), world)[1].values
    assert all(v != 0.5 for k, v in moved.items() if k.startswith("mu "))


def test_a_decay_makes_later_updates_smaller():
    world = small_world(300)[0]

    def travel(decay: float) -> float:
        loop = Mix(**QUICK, ratio_lr=0.05, ratio_decay=decay, ratio_optimizer="sgd")
        values = step(loop, world)[1].values
        return sum(abs(v - 0.5) for k, v in values.items() if k.startswith("mu "))

    assert 0 < travel(10.0) < 0.6 * travel(0.0)
    with pytest.raises(ValueError, match=r"ratio_decay must not be negative, got -1\.0"):
        Mix(ratio_decay=-1.0)
