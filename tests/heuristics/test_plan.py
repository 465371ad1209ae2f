"""The planner's sizes against simulated tests, and its parts against each other."""

from __future__ import annotations

from math import inf, sqrt

import pytest
import torch

from evenloop.heuristics.plan import (
    detectable_gap,
    label_plan,
    labels_per_group,
    quota_to_plan,
)


def simulated_power(a: float, b: float, n: int, trials: int = 4000) -> float:
    generator = torch.Generator().manual_seed(1)
    hits = [
        torch.binomial(
            torch.full((trials,), float(n)), torch.full((trials,), p), generator=generator
        )
        for p in (a, b)
    ]
    pa, pb = (h / n for h in hits)
    mean = (pa + pb) / 2
    z = (pa - pb).abs() / (mean * (1 - mean) * 2 / n).sqrt()
    return float((z > 1.959964).float().mean())


@pytest.mark.parametrize(("gap", "rate"), [(0.1, 0.5), (0.2, 0.8), (0.05, 0.9)])
def test_the_planned_number_has_the_planned_power(gap: float, rate: float) -> None:
    n = labels_per_group(gap, rate=rate)
    power = simulated_power(rate - gap / 2, rate + gap / 2, n)
    assert (
        abs(power - 0.8) < 4 * sqrt(0.16 / 4000) + 0.015
    )  # sampling, and the normal approximation


@pytest.mark.parametrize(("gap", "rate"), [(0.1, 0.5), (0.3, 0.2), (0.02, 0.9)])
def test_the_detectable_gap_undoes_the_number_of_labels(gap: float, rate: float) -> None:
    n = labels_per_group(gap, rate=rate)
    assert detectable_gap(n, n, rate=rate) == pytest.approx(gap, rel=0.02)
    assert detectable_gap(n, n, rate=rate) <= gap + 1e-9


def test_more_labels_tell_smaller_gaps_and_the_smaller_group_decides() -> None:
    assert detectable_gap(100, 100) > detectable_gap(100, 10_000) > detectable_gap(10_000, 10_000)
    assert detectable_gap(100, 10**9) > 0.6 * detectable_gap(100, 100)


def test_an_empty_group_tells_nothing() -> None:
    assert detectable_gap(0, 100) == inf
    assert detectable_gap(1, 1) == inf


def test_a_plan_says_what_is_missing_and_drives_the_query() -> None:
    plan = label_plan(0.2, ("f", "m", "x"), torch.tensor([200, 0, 120]), torch.tensor([9, 500, 3]))
    assert plan.missing == (0, plan.need, plan.need - 120)
    assert plan.reachable == (True, True, False)
    share = quota_to_plan(plan)
    assert share is not None
    assert share.tolist() == pytest.approx(
        [0, plan.need / (2 * plan.need - 120), (plan.need - 120) / (2 * plan.need - 120)]
    )
    assert "more than the pool holds" in plan.text()
    assert "tells a gap of none now" in plan.text()
    met = label_plan(0.9, ("f", "m"), torch.tensor([500, 500]), torch.tensor([0, 0]))
    assert quota_to_plan(met) is None


def test_the_largest_group_is_held_to_the_next_not_to_itself() -> None:
    names, counts = ("f", "m", "x"), torch.tensor([900, 100, 30])
    told = label_plan(0.2, names, counts, counts, adjust=False).told
    assert told == (detectable_gap(900, 100), detectable_gap(100, 900), detectable_gap(30, 900))
    twice = label_plan(0.2, ("f", "m"), torch.tensor([50, 50]), counts[:2]).told
    assert twice == (detectable_gap(50, 50), detectable_gap(50, 50))
    alone = label_plan(0.2, ("f", "m"), torch.tensor([900, 0]), counts[:2])
    assert alone.told == (inf, inf)


def test_more_pairs_need_more_labels_unless_told_otherwise() -> None:
    counts = torch.zeros(4).long()
    names = ("a", "b", "c", "d")
    shared = label_plan(0.1, names, counts, counts)
    single = label_plan(0.1, names, counts, counts, adjust=False)
    assert shared.need > single.need == labels_per_group(0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labels_per_group(0.0), "gap must be"),
        (lambda: labels_per_group(1.5), "gap must be"),
        (lambda: labels_per_group(0.1, rate=0.0), "rate must be"),
        (lambda: labels_per_group(0.1, level=1.0), "level must be"),
        (lambda: labels_per_group(0.1, power=0.0), "power must be"),
        (lambda: label_plan(0.1, ("a",), torch.ones(1), torch.ones(1)), "two groups"),
        (lambda: label_plan(0.1, ("a", "b"), torch.ones(3), torch.ones(2)), "one count each"),
    ],
)
def test_bad_input(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_the_whole_range_of_gaps_passes() -> None:
    assert labels_per_group(1.0) >= 2
    assert labels_per_group(0.999, rate=0.9) >= 2
