"""What a round of buying says of the rare cells, and when it warns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from acquire_kit import go, rows, states, world
from evenloop.groups import GroupIndex
from evenloop.intervals import wilson
from evenloop.loops._acquire_watch import enrichment_notes
from evenloop.loops.acquire import Acquire
from evenloop.recipe import Recipe
from evenloop.rng import Rng


def test_enrichment_is_the_share_bought_over_the_share_there() -> None:
    place = world()
    loop = Acquire(initial=30, query=20, heuristic="random", balance="group")
    state = states(loop, 2, place)[-1]
    row = go(loop, rounds=2, where=place).rows[1]
    red = int((state.data.attribute("colour")[30:] == 1).sum())
    there = int((place.data.attribute("colour")[30:] == 1).sum())
    assert row.values["rare.enrichment"] == pytest.approx(red / 20 / (there / 270))
    cell = (place.data.truth == 1) & (place.data.attribute("colour") == 0)
    bought = (state.data.truth[30:] == 1) & (state.data.attribute("colour")[30:] == 0)
    wanted = int(bought.sum()) / 20 / (int(cell[30:].sum()) / 270)
    assert row.values["enrichment.yes blue"] == pytest.approx(wanted)
    assert str(row.values["enrichment.yes green"]) == "nan"
    assert row.alarms == ()


def test_starving_the_rare_cell_is_an_alarm() -> None:
    """An unsure answer for blue only: red is never asked about."""

    class BlueUnsure(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.head = torch.nn.Dropout(0.5), torch.nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            sure = 50 * (x[:, 2:] > 2)
            return self.head(self.drop(x)) * 0 + torch.cat([sure, -sure.float()], 1)

    def net(rng: Rng) -> torch.nn.Module:
        from evenloop.models import seeded

        return seeded(BlueUnsure, 0)

    place = replace(world(), net=net, recipe=Recipe(lr=1e-3, batch=16, epochs=1))
    record = go(Acquire(initial=30, query=150, heuristic="entropy", draws=2), 2, where=place)
    assert record.rows[1].values["rare.enrichment"] < 0.8
    ties, alarm = record.rows[1].alarms  # blue items are all as unsure
    assert "so which 150 of them were asked about is chance" in ties
    assert alarm.startswith("entropy starves the rare cells (no red, yes red)")
    assert record.rows[1].values["rare.says"] == "starved"
    assert float(record.rows[1].values["rare.high"]) < 0.8


@pytest.mark.parametrize(
    ("got", "n", "says"),
    [
        (0, 200, "starved"),
        (8, 200, "starved"),
        (12, 200, "inconclusive"),  # 0.6 times as many as expected, and still as likely chance
        (2, 40, "inconclusive"),
        (20, 200, "inconclusive"),
        (90, 600, "not starved"),
    ],
)
def test_an_enrichment_below_the_bound_warns_and_says_how_sure(got: int, n: int, says: str) -> None:
    world_cells = torch.tensor([9000, 1000])
    cell = torch.tensor([0] * (n - got) + [1] * got)
    labelled = GroupIndex(cell, ("common", "rare"))
    values, alarms = enrichment_notes("bald", world_cells, labelled, torch.ones(n))
    assert values["rare.says"] == says
    assert bool(alarms) == (got / n / 0.1 < 0.8)
    if alarms:
        assert alarms[0].startswith(f"bald {'starves' if says == 'starved' else 'may starve'} the")
        assert ("not told from chance" in alarms[0]) == (says == "inconclusive")
    limits = wilson(got, n)
    assert values["rare.low"] == pytest.approx(limits.low / 0.1)
    assert values["rare.high"] == pytest.approx(limits.high / 0.1)


def test_without_rare_cells_nothing_is_said() -> None:
    labelled = GroupIndex(torch.tensor([0, 1]), ("a", "b"))
    values, alarms = enrichment_notes("bald", torch.tensor([50, 50]), labelled, torch.ones(2))
    assert "rare.says" not in values
    assert alarms == ()


def test_a_random_choice_enriches_nothing_and_is_seldom_said_to_starve() -> None:
    """100 runs of four purchases: 1 on average, and next to none said to starve at any round."""
    found, alarms = [], 0
    loop = Acquire(initial=50, query=60, heuristic="random", trains=False)
    for seed in range(100):
        place, root = replace(world(), data=rows(1000, seed + 7)), Rng.of(seed)
        state, said = loop.init(place, None, root.at("init")), 0
        for round in range(5):
            state, notes = loop.step(place, state, round, root.at("round", round))
            said += notes.values.get("rare.says") == "starved"
        alarms += said > 0
        found.append(float(notes.values["rare.enrichment"]))
    values = torch.tensor(found)
    assert abs(float(values.mean()) - 1) < 4 * float(values.std()) / 10
    assert alarms <= 2
