"""Rows drawn by weights inside their cell: chances, distinct rows, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.balanced import CellBalanced, Rows
from evenloop.samplers.cells import CellIndex
from evenloop.samplers.ratios import RatioBatchSampler, Ratios
from evenloop.samplers.rounding import Pools
from mix_kit import gen


def drawn(pools: Pools, number: int, size: int, times: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each row came first, and how often at all, in calls for `number` rows."""
    calls = np.stack([pools.draw(np.array([number])) for _ in range(times)])
    assert all(len(set(call)) == number for call in calls.tolist())
    return np.bincount(calls[:, 0], minlength=size), np.bincount(calls.ravel(), minlength=size)


@pytest.mark.parametrize("many", [False, True])
def test_a_row_is_drawn_in_proportion_to_its_weight_among_those_left(many: bool) -> None:
    size, times = (40, 4000) if not many else (3, 4000)
    weight = torch.ones(size, dtype=torch.float64)
    weight[0] = 4.0
    pools = Pools(torch.arange(size), torch.tensor([size]), gen(), weight=weight)
    first, both = drawn(pools, 2, size, times)
    chance = 4.0 / float(weight.sum())
    then = (1 - chance) * 4.0 / (float(weight.sum()) - 1)  # another row, of weight one, came first
    for count, expected in ((first[0], chance), (both[0], chance + then)):
        assert abs(count / times - expected) < 4 * np.sqrt(expected * (1 - expected) / times)


def test_very_uneven_weights_still_give_distinct_rows() -> None:
    weight = torch.full((50,), 1e-9, dtype=torch.float64)
    weight[7] = 1.0
    pools = Pools(torch.arange(50), torch.tensor([50]), gen(), weight=weight)
    first, both = drawn(pools, 5, 50, 300)
    assert first[7] == both[7] == 300
    assert both.sum() == 1500
    assert (np.delete(both, 7) > 0).all()


def test_more_rows_than_there_are_repeat_whole_passes() -> None:
    pools = Pools(torch.tensor([4, 9]), torch.tensor([2]), gen(), weight=torch.tensor([1.0, 3.0]))
    with pytest.warns(UserWarning, match="5 rows wanted at once"):
        rows = pools.draw(np.array([5]))
    assert sorted(np.bincount(rows)[[4, 9]].tolist()) == [2, 3]


def test_batches_keep_their_cells_and_follow_weights_inside_them() -> None:
    cell = torch.arange(4).repeat_interleave(10)
    weight = torch.ones(40, dtype=torch.float64)
    weight[::10] = 9.0  # as much as the other nine rows of the cell
    cells = CellIndex(cell // 2, cell % 2, weight=weight)
    sampler = RatioBatchSampler(cells, Ratios(cells), 4, generator=gen(), batches=600)
    rows = torch.tensor(list(sampler)).flatten()
    assert torch.bincount(cells.cell[rows]).tolist() == [600] * 4
    assert abs(torch.isin(rows, torch.arange(0, 40, 10)).double().mean() - 0.5) < 0.05
    balanced = CellBalanced(cells, generator=gen()).batches(4)
    rows = torch.tensor([next(balanced) for _ in range(600)]).flatten()
    assert abs(torch.isin(rows, torch.arange(0, 40, 10)).double().mean() - 0.5) < 0.05
    assert torch.equal(cells.take(torch.tensor([10, 11])).weight, torch.tensor([9.0, 1.0]).double())


def test_uniform_batches_follow_weights_too() -> None:
    schema = Schema(("no", "yes"), (Attribute("weight", ("1", "19")),))
    code = torch.zeros(20, dtype=torch.long)
    code[3] = 1
    data = GroupedData.of(torch.zeros(20, 1), code, {"weight": code}, schema)
    weight = CellIndex.of(data, []).weight
    sampler = Rows(torch.arange(20), length=4000, weight=weight)
    groups = GroupIndex.of(data)
    batches = list(sampler.epoch(data, groups, batch=1, rng=Rng.of(0)))
    assert len(batches) == sampler.steps(20, 1) == 4000
    assert abs(float((torch.cat(batches) == 3).double().mean()) - 0.5) < 0.04


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, 0.0], r"weight must be positive numbers, got 0\.0 in row 1"),
        ([float("nan"), 1.0], "got nan in row 0"),
        ([1.0], "weight has shape"),
    ],
)
def test_weights_that_are_none_are_refused(weight: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CellIndex([0, 1], [0, 0], weight=weight)
    assert CellIndex([0, 1], [0, 0], weight=[2.0, 1.0]).weight.tolist() == [2.0, 1.0]


def test_an_attribute_called_weight_must_hold_numbers() -> None:
    schema = Schema(("no",), (Attribute("weight", ("light", "heavy")),))
    data = GroupedData.of(torch.zeros(2, 1), [0, 0], {"weight": [0, 1]}, schema)
    with pytest.raises(ValueError, match="values of the attribute 'weight' must be numbers"):
        CellIndex.of(data, [])
