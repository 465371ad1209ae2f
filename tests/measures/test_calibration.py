"""Calibration error from counted bins: absent groups, one row, values, coverage."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from evenloop.counts import Moments
from evenloop.groups import GroupIndex
from evenloop.measures import expected_calibration_error, reliability, spread
from evenloop.rng import Rng

Pair = tuple[Moments, Moments]


def counted(
    confidence: np.ndarray, hit: np.ndarray, group: np.ndarray, groups: int, bins: int = 10
) -> Pair:
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    names = tuple(f"{'abc'[g]}|{b}" for g in range(groups) for b in range(bins))
    cells = GroupIndex(torch.tensor(group * bins + place), names)
    return (
        Moments.of(torch.tensor(confidence, dtype=torch.float64), cells),
        Moments.of(torch.tensor(hit, dtype=torch.float64), cells),
    )


def test_a_batch_without_group_b_is_missing_there_only() -> None:
    confidence, hit = np.array([0.9, 0.9, 0.3]), np.array([1, 0, 1])
    found = expected_calibration_error(*counted(confidence, hit, np.array([0, 0, 2]), 3))
    assert found.groups == ("a", "b", "c")
    assert found.support.tolist() == [2, 0, 1]
    assert found.value[[0, 2]].tolist() == pytest.approx([0.4, 0.7])
    assert np.isnan([found.value[1], found.low[1], found.high[1]]).all()


def test_a_batch_of_one_row_is_far_from_certain() -> None:
    found = expected_calibration_error(*counted(np.array([0.8]), np.array([1]), np.array([0]), 1))
    assert found.value[0] == pytest.approx(0.2)
    assert found.low[0] == 0
    assert found.high[0] > 0.6


@pytest.mark.parametrize(("right", "error"), [(4, 0.0), (2, 0.5), (0, 1.0)])
def test_certain_predictions(right: int, error: float) -> None:
    hit = np.array([1] * right + [0] * (4 - right))
    found = expected_calibration_error(*counted(np.ones(4), hit, np.zeros(4, int), 1))
    assert found.value[0] == pytest.approx(error)


def test_the_error_is_the_sum_over_bins_item_by_item() -> None:
    draw = Rng.of(0).at("ece").numpy()
    confidence, group = draw.random(300), draw.integers(0, 2, 300)
    hit = (draw.random(300) < confidence**1.5).astype(int)
    found = expected_calibration_error(*counted(confidence, hit, group, 2, bins=5), bins=5)
    for g in range(2):
        slow = 0.0
        for b in range(5):
            mine = (group == g) & ((confidence * 5).astype(int) == b)
            slow += abs(hit[mine].sum() - confidence[mine].sum()) / (group == g).sum()
        assert found.value[g] == pytest.approx(slow)


def test_limits_hold_the_true_error_of_a_calibrated_and_an_overconfident_model() -> None:
    for power in (1.0, 2.0):
        draw, held = Rng.of(1).at("cover", int(power)).numpy(), 0
        confidence = (np.arange(400) + 0.5) / 400
        truth = np.mean(
            [
                abs((c := confidence[i : i + 40]).mean() - (c**power).mean())
                for i in range(0, 400, 40)
            ]
        )
        for _ in range(150):
            hit = (draw.random(400) < confidence**power).astype(int)
            pair = counted(confidence, hit, np.zeros(400, int), 1)
            found = expected_calibration_error(*pair)
            held += bool(found.low[0] <= truth <= found.high[0])
            assert found.value[0] > 0.01, "noise alone lifts it above 0"
        assert held / 150 > 0.94


def test_reliability_is_the_diagram_of_each_group() -> None:
    pair = counted(
        np.array([0.1, 0.2, 0.9, 0.95]), np.array([0, 1, 1, 1]), np.array([0, 0, 0, 1]), 2, bins=2
    )
    found = reliability(*pair, bins=2)
    assert found.support.tolist() == [[2, 1], [0, 1]]
    assert found.accuracy[0].tolist() == [0.5, 1.0]
    assert found.confidence[0].tolist() == pytest.approx([0.15, 0.9])
    assert np.isnan([found.accuracy[1, 0], found.confidence[1, 0], found.low[1, 0]]).all()
    assert (found.low[0] < found.accuracy[0]).all()


def test_the_gap_of_calibration_between_groups() -> None:
    draw = Rng.of(2).at("gap").numpy()
    confidence, group = np.full(400, 0.9), np.repeat([0, 1], 200)
    hit = (draw.random(400) < np.where(group == 0, 0.9, 0.4)).astype(int)
    gap = spread(partial(expected_calibration_error, *counted(confidence, hit, group, 2)))
    assert gap.between == ("b", "a")
    assert 0.2 < gap.low < gap.value < gap.high


@pytest.mark.parametrize("bins", [0, 3, -2])
def test_bins_that_do_not_fit_are_refused(bins: int) -> None:
    pair = counted(np.array([0.5]), np.array([1]), np.array([0]), 1)
    with pytest.raises(ValueError, match=rf"bins must divide the 10 cells, got {bins}"):
        reliability(*pair, bins=bins)
    assert reliability(*pair, bins=10).groups == ("a",)


def test_moments_of_other_items_are_refused() -> None:
    one = counted(np.array([0.5]), np.array([1]), np.array([0]), 1)
    two = counted(np.array([0.5, 0.5]), np.array([1, 1]), np.array([0, 0]), 1)
    other = counted(np.array([0.5]), np.array([1]), np.array([0]), 2)
    for hit in (two[1], other[1]):
        with pytest.raises(ValueError, match="must count the same items in the same cells"):
            expected_calibration_error(one[0], hit)
    assert expected_calibration_error(*one).support.tolist() == [1]
