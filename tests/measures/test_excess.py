"""Excess accuracy gaps and levelling down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evenloop.counts import Counts, Moments
from evenloop.groups import GroupIndex
from evenloop.measures import accuracy, accuracy_loss, excess_gap, levelling_down
from evenloop.rng import Rng

NAMES = ("a", "b", "c")


def pair(
    dense: np.ndarray, sparse: np.ndarray, group: np.ndarray, groups: int = 3
) -> tuple[Counts, Counts, Moments]:
    """Counts of two models that are right (1) or wrong (0), and moments of what was lost."""
    index = GroupIndex(torch.tensor(group), NAMES[:groups])
    truth = torch.ones(len(group), dtype=torch.long)
    counts = [Counts.of(torch.tensor(hit), truth, index, 2) for hit in (dense, sparse)]
    lost = Moments.of(torch.tensor(dense - sparse, dtype=torch.float64), index)
    return counts[0], counts[1], lost


def random_pair(seed: int, rows: int = 300) -> tuple[Counts, Counts, Moments]:
    draw = Rng.of(seed).at("pair").numpy()
    group = draw.choice(3, rows, p=[0.6, 0.3, 0.1])
    dense = (draw.random(rows) < 0.9).astype(np.int64)
    sparse = np.where(draw.random(rows) < 0.1 + 0.1 * group, 0, dense)
    return pair(dense, sparse, group)


def test_an_absent_group_has_no_excess_and_takes_no_part() -> None:
    dense, sparse, lost = pair(
        np.ones(6, int), np.array([1, 1, 1, 1, 0, 0]), np.array([0, 0, 0, 2, 2, 2])
    )
    for found in (
        excess_gap(dense, sparse, tolerance=0.1),
        excess_gap(dense, sparse, tolerance=0.1, lost=lost),
    ):
        assert found.overall == pytest.approx(1 / 3)
        assert found.excess.value[[0, 2]].tolist() == pytest.approx([-1 / 3, 1 / 3])
        assert np.isnan([found.excess.value[1], found.excess.low[1], found.loss.value[1]]).all()
        assert found.by_group[1] == "not estimable"
        assert found.worst.between == ("c", "all")
        assert [e.what for e in found.worst.excluded] == ["b"]
        assert found.pairwise.value == pytest.approx(2 / 3)


def test_one_row_has_no_excess_of_its_own() -> None:
    found = excess_gap(*pair(np.array([1]), np.array([0]), np.array([1]))[:2], tolerance=0)
    assert found.overall == 1
    assert found.excess.value[1] == 0
    assert found.pairwise.between is None


@pytest.mark.parametrize("seed", range(4))
def test_the_excess_is_the_definition_and_sums_to_zero_over_items(seed: int) -> None:
    dense, sparse, lost = random_pair(seed)
    found = excess_gap(dense, sparse, tolerance=0.02, lost=lost)
    before, after = accuracy(dense), accuracy(sparse)
    overall = accuracy(dense.pooled()).value - accuracy(sparse.pooled()).value
    assert found.excess.value == pytest.approx(before.value - after.value - overall)
    assert found.excess.value @ dense.support == pytest.approx(0, abs=1e-9)
    assert found.worst.value == pytest.approx(found.excess.value.max())
    assert found.pairwise.value == pytest.approx(np.ptp(found.excess.value))
    unpaired = excess_gap(dense, sparse, tolerance=0.02)
    assert unpaired.excess.value == pytest.approx(found.excess.value)
    width, wide = (e.excess.high - e.excess.low for e in (found, unpaired))
    assert (width <= wide).all(), "losing only what one had makes the pair the better witness"


def test_identical_models_have_no_excess() -> None:
    dense, _, _ = random_pair(0)
    found = excess_gap(dense, dense, tolerance=0.05)
    assert (found.excess.value == 0).all()
    assert found.worst.value == found.pairwise.value == 0


def test_the_verdict_needs_the_limits_on_its_side() -> None:
    group = np.repeat([0, 1], 500)
    dense = np.ones(1000, np.int64)
    sparse = dense.copy()
    sparse[500:600] = 0
    counts = pair(dense, sparse, group, groups=2)
    verdict = {
        tolerance: excess_gap(*counts[:2], tolerance=tolerance, lost=counts[2])
        for tolerance in (0.0, 0.11, 0.5)
    }
    assert [v.says for v in verdict.values()] == ["exceeds", "inconclusive", "within"]
    assert verdict[0.0].by_group == ("within", "exceeds")


def test_limits_of_the_excess_cover() -> None:
    draw, group = Rng.of(9).at("cover").numpy(), np.repeat([0, 1, 2], [200, 100, 50])
    fall = np.array([0.05, 0.1, 0.3])
    truth = 0.9 * (fall - fall[group].mean())
    paired, unpaired, worst = [], [], []
    for _ in range(200):
        dense = (draw.random(350) < 0.9).astype(np.int64)
        sparse = np.where(draw.random(350) < fall[group], 0, dense)
        counts = pair(dense, sparse, group)
        found = excess_gap(*counts[:2], tolerance=0.1, lost=counts[2])
        paired.append((found.excess.low <= truth) & (truth <= found.excess.high))
        worst.append(found.worst.low <= truth.max() <= found.worst.high)
        apart = excess_gap(*counts[:2], tolerance=0.1).excess
        unpaired.append((apart.low <= truth) & (truth <= apart.high))
    assert (np.mean(paired, axis=0) > 0.91).all()
    assert (np.mean(unpaired, axis=0) > 0.95).all()
    assert np.mean(worst) > 0.93


@pytest.mark.parametrize("tolerance", [-0.1, float("nan")])
def test_a_tolerance_below_zero_is_refused(tolerance: float) -> None:
    dense, sparse, _ = random_pair(0)
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        excess_gap(dense, sparse, tolerance=tolerance)
    assert excess_gap(dense, sparse, tolerance=0.0).tolerance == 0


def test_counts_and_moments_of_other_items_are_refused() -> None:
    dense, sparse, lost = random_pair(0)
    _, fewer, few = random_pair(1, rows=200)
    with pytest.raises(ValueError, match="dense and sparse must count the same items"):
        accuracy_loss(dense, fewer)
    with pytest.raises(ValueError, match="lost must be moments of the same items"):
        accuracy_loss(dense, sparse, lost=few)
    with pytest.raises(ValueError, match="lost must sum to the hits of dense minus"):
        accuracy_loss(sparse, dense, lost=lost)
    assert accuracy_loss(dense, sparse, lost=lost).estimable.all()


# --- levelling down -------------------------------------------------------------------------


def two_groups(*rates: tuple[int, int]) -> Counts:
    """Ten items of each class in each group; right ones given per class."""
    table = np.array([[[a, 10 - a], [10 - b, b]] for a, b in rates])
    return Counts(table, ("a", "b"), ("0", "1"))


def test_worse_for_every_cell_is_levelling_down() -> None:
    before = two_groups((9, 8), (6, 5))
    assert levelling_down(before, two_groups((6, 6), (5, 4))).down is True
    assert levelling_down(before, two_groups((6, 6), (5, 5))).down is False, "one cell is equal"
    assert levelling_down(before, two_groups((6, 6), (7, 4))).down is False
    assert levelling_down(before, two_groups((6, 6), (7, 3)), cells=False).down is True


def test_cells_without_items_take_no_part_in_levelling_down() -> None:
    before, after = two_groups((9, 8), (6, 5)), two_groups((6, 6), (5, 4))
    before.table[1] = 0
    found = levelling_down(before, after)
    assert found.down is True
    assert [e.what for e in found.excluded] == ["b 0", "b 1"]
    before.table[0] = 0
    assert levelling_down(before, after).down is None, "nothing to compare is not a no"


def test_levelling_down_needs_the_same_groups() -> None:
    one = two_groups((9, 8), (6, 5))
    with pytest.raises(ValueError, match="the same groups and classes"):
        levelling_down(one, Counts(one.table, ("a", "c"), ("0", "1")))
