"""Limits of gaps: they hold the true gap, at parity too; drawing counts again."""

from __future__ import annotations

import numpy as np
import pytest

from counts_kit import ABSENT, ONE, TWO, binary, random_counts
from evenloop.counts import Counts
from evenloop.intervals import resample
from evenloop.measures import (
    Gap,
    Parity,
    accuracy_parity,
    demographic_parity,
    equal_opportunity,
    equalized_odds,
)
from evenloop.rng import Rng


def drawn_gaps(truth: np.ndarray, items: int, runs: int) -> list[Parity]:
    draw = Rng.of(3).at("cover").numpy()
    found = []
    for _ in range(runs):
        hits = draw.binomial(items, truth)
        table = np.zeros((len(truth), 2, 2), np.int64)
        table[:, 1, 1], table[:, 1, 0] = hits, items - hits
        found.append(equal_opportunity(binary(*table)))
    return found


@pytest.mark.parametrize("truth", [[0.6, 0.6], [0.9, 0.7], [0.9] * 6, [0.9] * 5 + [0.7]])
def test_limits_hold_the_true_gap_at_parity_and_away_from_it(truth: list[float]) -> None:
    gap, ratio = np.ptp(truth), min(truth) / max(truth)
    found = drawn_gaps(np.array(truth), 50, 200)
    held = [p.difference() for p in found]
    assert np.mean([g.low <= gap <= g.high for g in held]) > 0.92
    assert np.mean([(g := p.ratio()).low <= ratio <= g.high for p in found]) > 0.92
    pooled = [p.difference(reference="pooled") for p in found]
    apart = np.abs(np.array(truth) - np.mean(truth)).max()
    assert np.mean([g.low <= apart <= g.high for g in pooled]) > 0.92


@pytest.mark.parametrize("truth", [[0.6, 0.6], [0.9] * 5 + [0.6]])
def test_bootstrap_limits_hold_the_true_gap(truth: list[float]) -> None:
    gap, ratio = np.ptp(truth), min(truth) / max(truth)
    inside = []
    for i, parity in enumerate(drawn_gaps(np.array(truth), 50, 120)):
        draws = resample(parity.counts.table, 400, Rng.of(i))
        one, other = parity.bootstrap(draws), parity.bootstrap(draws, kind="ratio")
        inside.append((one.low <= gap <= one.high, other.low <= ratio <= other.high))
    assert (np.mean(inside, axis=0) > 0.91).all()


def test_percentile_limits_of_a_gap_miss_parity() -> None:
    """Why they are not the default: with six equal groups they never contain 0."""
    parities = drawn_gaps(np.full(6, 0.9), 50, 40)
    draws = [resample(p.counts.table, 200, Rng.of(i)) for i, p in enumerate(parities)]
    pairs = list(zip(parities, draws, strict=True))
    wrong = [p.bootstrap(d, limits="percentile").low > 0 for p, d in pairs]
    right = [p.bootstrap(d).low > 0 for p, d in pairs]
    assert np.mean(wrong) == 1
    assert np.mean(right) < 0.1


@pytest.mark.parametrize("kind", ["difference", "ratio"])
@pytest.mark.parametrize("limits", ["simultaneous", "percentile"])
@pytest.mark.parametrize("over", ["worst", "mean"])
def test_the_bootstrap_keeps_the_value_and_says_how(kind: str, limits: str, over: str) -> None:
    parity = equalized_odds(random_counts(3, 3, 5, least=1))
    draws = resample(parity.counts.table, 200, Rng.of(0))
    found = parity.bootstrap(draws, kind=kind, limits=limits, over=over)  # type: ignore[arg-type]
    plain: Gap = getattr(parity, kind)(over=over)
    assert (found.value, found.between, found.rate) == (plain.value, plain.between, plain.rate)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.method == f"bootstrap of counts, {limits}, 200 resamples"


def test_percentile_limits_are_those_of_the_resampled_gap() -> None:
    parity = equalized_odds(random_counts(3, 3, 2, least=2))
    draws = resample(parity.counts.table, 100, Rng.of(0))
    slow = []
    for table in draws:
        again = Counts(table, parity.counts.groups, parity.counts.classes)
        slow.append(equalized_odds(again).difference().value)
    found = parity.bootstrap(draws, limits="percentile")
    assert (found.low, found.high) == pytest.approx(tuple(np.nanquantile(slow, [0.025, 0.975])))


def test_a_resample_with_one_group_left_has_no_gap() -> None:
    """Group b has one positive, which a third of the resamples lose: they are no gap of 0."""
    counts = binary(np.array([[0, 0], [90, 10]]), np.array([[5, 0], [0, 1]]))
    parity = equal_opportunity(counts)
    found = parity.bootstrap(resample(counts.table, 300, Rng.of(0)), limits="percentile")
    assert found.value == pytest.approx(0.9)
    assert found.low > 0.8


def test_rates_that_never_move_still_get_limits() -> None:
    counts = binary(np.diag([10, 10]), np.diag([10, 10]))
    found = accuracy_parity(counts).bootstrap(resample(counts.table, 50, Rng.of(0)))
    assert found.value == 0
    assert found.low == 0
    assert 0.05 < found.high < 0.4


def test_draws_of_another_table_are_refused() -> None:
    counts = binary(ONE, TWO)
    with pytest.raises(ValueError, match=r"draws must have shape \(R, \*\(2, 2, 2\)\)"):
        accuracy_parity(counts).bootstrap(resample(binary(ONE, TWO, ONE).table, 5, Rng.of(0)))


def test_a_gap_that_is_missing_stays_missing_under_the_bootstrap() -> None:
    counts = binary(ONE, ABSENT)
    found = demographic_parity(counts).bootstrap(resample(counts.table, 5, Rng.of(0)))
    assert not found.estimable
    assert [e.what for e in found.excluded] == ["b", "selection rate of yes"]
