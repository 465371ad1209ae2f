"""The measures against the slow obvious version: a loop over items, group by group."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evenloop.counts import Counts
from evenloop.groups import GroupIndex
from evenloop.measures import (
    Estimate,
    accuracy,
    bias,
    demographic_parity,
    equalized_odds,
    f1,
    false_positive_rate,
    precision,
    predictive_parity,
    selection_rate,
    true_positive_rate,
    true_share,
    worst_cell_accuracy,
)

Item = tuple[int, int, int]  # truth, prediction, group
Test = Callable[[Item], bool]
CLASSES, GROUPS = 3, 3


def share(items: list[Item], hit: Test, of: Test) -> float:
    behind = [item for item in items if of(item)]
    return sum(map(hit, behind)) / len(behind) if behind else math.nan


def slow(measure: Callable[..., Estimate], items: list[Item], k: int) -> float:
    def true(item: Item) -> bool:
        return item[0] == k

    def said(item: Item) -> bool:
        return item[1] == k

    def every(item: Item) -> bool:
        return True

    if measure is f1:
        p, r = (slow(m, items, k) for m in (precision, true_positive_rate))
        found = sum(map(true, items)) + sum(map(said, items))
        if not found:
            return math.nan
        return 0.0 if math.isnan(p + r) or p + r == 0 else 2 * p * r / (p + r)
    if measure is bias:
        return share(items, said, every) - share(items, true, every)
    parts: dict[Callable[..., Estimate], tuple[Test, Test]] = {
        selection_rate: (said, every),
        true_share: (true, every),
        true_positive_rate: (said, true),
        false_positive_rate: (said, lambda item: not true(item)),
        precision: (true, said),
    }
    return share(items, *parts[measure])


def counted(items: list[Item]) -> Counts:
    truth, predicted, cell = (torch.tensor(column) for column in zip(*items, strict=True))
    return Counts.of(predicted, truth, GroupIndex(cell, tuple("abc")), CLASSES)


def widest(rates: list[float]) -> float:
    """Largest difference of two defined rates; nan without two."""
    known = [rate for rate in rates if not math.isnan(rate)]
    return max((abs(a - b) for a, b in itertools.combinations(known, 2)), default=math.nan)


lists = st.lists(
    st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1), st.integers(0, GROUPS - 1)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(lists)
def test_rates_are_those_of_the_loop(items: list[Item]) -> None:
    counts = counted(items)
    by_group = [[item for item in items if item[2] == g] for g in range(GROUPS)]
    for g, mine in enumerate(by_group):
        want = share(mine, lambda item: item[0] == item[1], lambda item: True)
        assert accuracy(counts).value[g] == pytest.approx(want, nan_ok=True)
        for measure in (
            selection_rate,
            true_share,
            true_positive_rate,
            false_positive_rate,
            precision,
            f1,
            bias,
        ):
            for k in range(CLASSES):
                found = measure(counts, k)
                assert found.value[g] == pytest.approx(slow(measure, mine, k), nan_ok=True)
                if found.estimable[g]:
                    assert found.low[g] <= found.value[g] + 1e-12
                    assert found.value[g] <= found.high[g] + 1e-12


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(lists)
def test_gaps_are_those_of_the_loop(items: list[Item]) -> None:
    counts = counted(items)
    by_group = [[item for item in items if item[2] == g] for g in range(GROUPS)]
    parts = {
        demographic_parity: (selection_rate,),
        predictive_parity: (precision,),
        equalized_odds: (true_positive_rate, false_positive_rate),
    }
    for notion, measures in parts.items():
        classes = []
        for k in range(CLASSES):
            gaps = [widest([slow(m, mine, k) for mine in by_group]) for m in measures]
            classes.append(math.nan if any(map(math.isnan, gaps)) else max(gaps))
        known = [gap for gap in classes if not math.isnan(gap)]
        want = max(known, default=math.nan)
        found = notion(counts).difference()
        assert found.value == pytest.approx(want, nan_ok=True)
        mean = notion(counts).difference(over="mean").value
        assert mean == pytest.approx(np.mean(known) if known else math.nan, nan_ok=True)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(lists)
def test_the_worst_cell_is_that_of_the_loop(items: list[Item]) -> None:
    cells = [
        share(items, lambda i: i[0] == i[1], lambda i, g=g, k=k: i[2] == g and i[0] == k)
        for g in range(GROUPS)
        for k in range(CLASSES)
    ]
    worst = min(cell for cell in cells if not math.isnan(cell))
    assert worst_cell_accuracy(counted(items)).value[0] == pytest.approx(worst)
