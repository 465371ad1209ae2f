"""Limits against published examples, their defining equations, and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evenloop.intervals import (
    MOST_DRAWN,
    Bounded,
    across_runs,
    band,
    difference,
    mean_of,
    normal_quantile,
    paired_difference,
    paired_runs,
    percentile_bootstrap,
    ratio,
    resample,
    wilson,
)
from evenloop.rng import Rng

RNG = Rng.of(20)


def covers(bounded: Bounded, truth: float) -> float:
    """Share of simulated samples whose limits hold the truth; undefined ones count as held."""
    held = (bounded.low <= truth) & (truth <= bounded.high)
    return float((held | np.isnan(bounded.value)).mean())


# --- single proportions ---------------------------------------------------------------------


def test_wilson_limits_solve_the_score_equation() -> None:
    value, low, high = wilson([3, 8, 19], [10, 10, 20])
    n, z = np.array([10, 10, 20]), normal_quantile(0.95)
    for limit in (low, high):
        assert np.abs(value - limit) == pytest.approx(z * np.sqrt(limit * (1 - limit) / n))


def test_wilson_at_the_edges() -> None:
    value, low, high = wilson([0, 10, 0], [10, 10, 0])
    assert value.tolist()[:2] == [0, 1]
    assert (low[0], high[1]) == (0, 1)
    assert 0 < high[0] < 1
    assert 0 < low[1] < 1
    assert np.isnan([value[2], low[2], high[2]]).all()


def test_wilson_covers() -> None:
    draw = RNG.at("wilson").numpy()
    for p, n in ((0.5, 20), (0.1, 40), (0.02, 200)):
        assert 0.93 < covers(wilson(draw.binomial(n, p, 20_000), n), p) < 0.985


def test_more_comparisons_and_a_higher_level_are_wider() -> None:
    one, many, sure = wilson(5, 10), wilson(5, 10, comparisons=9), wilson(5, 10, level=0.99)
    assert many.low < sure.low < one.low < one.high < sure.high < many.high


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, float("nan")])
def test_a_level_outside_zero_and_one_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match=r"level must lie between 0 and 1, got"):
        wilson(1, 2, level=level)


def test_a_level_just_inside_passes() -> None:
    assert wilson(1, 2, level=1e-9).low == pytest.approx(0.5)
    assert wilson(1, 2, level=1 - 1e-12).low < 0.02


# --- differences and ratios -----------------------------------------------------------------

# Newcombe (1998), Statistics in Medicine 17, 873, table II, method 10.
NEWCOMBE = [
    (56, 70, 48, 80, 0.0524, 0.3339),
    (9, 10, 3, 10, 0.1705, 0.8090),
    (6, 7, 2, 7, 0.0582, 0.8062),
    (5, 56, 0, 29, -0.0381, 0.1926),
    (0, 10, 0, 20, -0.1611, 0.2775),
    (0, 10, 0, 10, -0.2775, 0.2775),
    (10, 10, 0, 20, 0.6791, 1.0000),
    (10, 10, 0, 10, 0.6075, 1.0000),
]


@pytest.mark.parametrize(("a", "m", "b", "n", "low", "high"), NEWCOMBE)
def test_differences_are_newcombes(a: int, m: int, b: int, n: int, low: float, high: float) -> None:
    found = difference(wilson(a, m), wilson(b, n))
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_swapping_the_groups_swaps_sign_and_limits() -> None:
    a, b = wilson(9, 10), wilson(3, 10)
    there, back = difference(a, b), difference(b, a)
    assert (there.value, there.low, there.high) == (-back.value, -back.high, -back.low)
    down, up = ratio(b, a), ratio(a, b)
    assert (down.low, down.high) == (pytest.approx(1 / up.high), pytest.approx(1 / up.low))


def test_ratio_limits_solve_their_equation() -> None:
    """L is the smallest R for which first - R second can be 0 within both limits."""
    a, b = wilson([10, 3], [20, 30]), wilson([15, 25], [20, 40])
    found = ratio(a, b)
    below = (a.value - a.low) ** 2 + found.low**2 * (b.high - b.value) ** 2
    assert (a.value - found.low * b.value) ** 2 == pytest.approx(below)
    above = (a.high - a.value) ** 2 + found.high**2 * (b.value - b.low) ** 2
    assert (a.value - found.high * b.value) ** 2 == pytest.approx(above)


def test_ratios_with_a_zero() -> None:
    none, half, absent = wilson(0, 20), wilson(10, 20), wilson(0, 0)
    low_side, high_side = ratio(none, half), ratio(half, none)
    assert (low_side.value, low_side.low) == (0, 0)
    assert 0 < low_side.high < 1
    assert (high_side.value, high_side.high) == (np.inf, np.inf)
    assert 1 < high_side.low < np.inf
    for undefined in (ratio(none, none), ratio(half, absent), ratio(absent, half)):
        assert np.isnan(undefined).all()


def test_differences_and_ratios_cover() -> None:
    draw = RNG.at("pairs").numpy()
    for p, n, q, m in ((0.6, 40, 0.6, 40), (0.9, 60, 0.7, 25), (0.05, 100, 0.1, 100)):
        a, b = wilson(draw.binomial(n, p, 20_000), n), wilson(draw.binomial(m, q, 20_000), m)
        assert 0.93 < covers(difference(a, b), p - q) < 0.985
        assert 0.93 < covers(ratio(a, b), p / q) < 0.985


def test_paired_differences_use_the_disagreements() -> None:
    value, low, high = paired_difference(6, 1, 100)
    z = normal_quantile(0.95)
    half = z * np.sqrt((9 / 102 - (5 / 102) ** 2) / 102)
    assert value == 0.05
    assert (low, high) == (pytest.approx(5 / 102 - half), pytest.approx(5 / 102 + half))


def test_pairs_that_never_disagree_are_not_called_certain() -> None:
    value, low, high = paired_difference([0, 0], [0, 0], [50, 0])
    assert (value[0], low[0]) == (0, -high[0])
    assert 0.03 < high[0] < 0.06
    assert np.isnan([value[1], low[1], high[1]]).all()


def test_paired_differences_cover_and_beat_unpaired_ones() -> None:
    draw = RNG.at("paired").numpy()
    cells = draw.multinomial(80, [0.5, 0.08, 0.04, 0.38], 20_000)
    both, gained, lost = cells[:, 0], cells[:, 1], cells[:, 2]
    paired = paired_difference(gained, lost, 80)
    assert 0.93 < covers(paired, 0.04) < 0.985
    apart = difference(wilson(both + gained, 80), wilson(both + lost, 80))
    assert (paired.high - paired.low).mean() < 0.7 * (apart.high - apart.low).mean()


# --- means ----------------------------------------------------------------------------------


def test_mean_limits_are_students() -> None:
    x = RNG.at("mean").numpy().normal(2, 3, 12)
    value, low, high = mean_of(len(x), x.sum(), (x**2).sum(), level=0.9)
    want = stats.t.interval(0.9, len(x) - 1, x.mean(), stats.sem(x))
    assert value == pytest.approx(x.mean())
    assert (low, high) == (pytest.approx(want[0]), pytest.approx(want[1]))


def test_a_mean_of_one_item_has_no_limits_and_of_none_no_value() -> None:
    value, low, high = mean_of([1, 0], [5.0, 0.0], [25.0, 0.0])
    assert value[0] == 5
    assert np.isnan([value[1], *low, *high]).all()


# --- runs -----------------------------------------------------------------------------------


def test_runs_are_summed_up_with_student_limits() -> None:
    x = RNG.at("runs").numpy().normal(size=(7, 3))
    found = across_runs(x)
    want = stats.t.interval(0.95, 6, x.mean(0), stats.sem(x))
    assert found.n.tolist() == [7, 7, 7]
    assert found.sd == pytest.approx(x.std(0, ddof=1))
    assert found.low == pytest.approx(want[0])
    assert found.high == pytest.approx(want[1])
    assert across_runs(x, ddof=0).sd == pytest.approx(x.std(0))


def test_a_run_without_a_value_is_not_counted_and_one_run_has_no_spread() -> None:
    found = across_runs([[1.0, np.nan, np.nan], [3.0, 2.0, np.nan]])
    assert found.n.tolist() == [2, 1, 0]
    assert found.mean[:2].tolist() == [2, 2]
    assert np.isnan([found.mean[2], *found.sd[1:], *found.low[1:], *found.high[1:]]).all()


@pytest.mark.parametrize("values", [[], 3.0])
def test_no_run_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        across_runs(values)  # type: ignore[arg-type]


def test_runs_are_paired_by_seed() -> None:
    draw = RNG.at("seeds").numpy()
    level = draw.normal(0, 10, 30)
    first = {s: level[s] + 0.5 + draw.normal(0, 0.1) for s in range(30)}
    second = {s: level[s] for s in range(5, 30)}
    found = paired_runs(first, second)
    assert found.seeds == tuple(range(5, 30))
    assert found.unpaired == tuple(range(5))
    assert 0.4 < found.low < 0.5 < found.high < 0.6, "the common level must cancel"


def test_runs_without_a_common_seed_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no seed is in both: \[0\] and \[1\]"):
        paired_runs({0: 1.0}, {1: 1.0})


def test_curves_are_aligned_by_round_or_cut() -> None:
    curves = [[1.0, 2.0, 4.0], [3.0, 4.0]]
    assert band(curves).n.tolist() == [2, 2, 1]
    assert band(curves).mean.tolist() == [2, 3, 4]
    assert band(curves, align="shortest").mean.tolist() == [2, 3]
    with pytest.raises(ValueError, match="at least one run"):
        band([])


# --- drawing counts again -------------------------------------------------------------------

TABLE = np.array([[[12, 3], [5, 20]], [[0, 0], [0, 0]], [[0, 1], [0, 0]]])


def test_resamples_keep_every_group_and_its_size() -> None:
    drawn = resample(TABLE, 500, RNG.at("resample"))
    assert drawn.shape == (500, 3, 2, 2)
    assert (drawn.sum((2, 3)) == [40, 0, 1]).all()
    assert (drawn[:, 2] == TABLE[2]).all(), "a group of one item can only repeat it"


def test_resampling_counts_is_resampling_items() -> None:
    """The slow way: draw items of the group with replacement, count them."""
    drawn = resample(TABLE[:1], 20_000, RNG.at("counts"))[:, 0].reshape(-1, 4)
    items = np.repeat(np.arange(4), TABLE[0].ravel())
    again = items[RNG.at("items").numpy().integers(0, 40, (20_000, 40))]
    slow = (again[..., None] == np.arange(4)).sum(1)
    assert drawn.mean(0) == pytest.approx(slow.mean(0), abs=0.08)
    assert np.cov(drawn.T) == pytest.approx(np.cov(slow.T), abs=0.35)


def test_the_same_stream_gives_the_same_resamples() -> None:
    one, other = RNG.at("a"), RNG.at("b")
    assert (resample(TABLE, 9, one) == resample(TABLE, 9, one)).all()
    assert (resample(TABLE, 9, one) != resample(TABLE, 9, other)).any()


def test_no_resample_is_refused() -> None:
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        resample(TABLE, 0, RNG)
    assert len(resample(TABLE, 1, RNG)) == 1


def test_more_resamples_than_memory_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="take fewer, or limits that need no resampling"):
        resample(TABLE, MOST_DRAWN // TABLE.size + 1, RNG)


def test_percentile_limits_cover_a_smooth_statistic() -> None:
    draw = RNG.at("percentile").numpy()
    held = 0
    for i in range(300):
        x = draw.binomial(60, 0.7)
        found = percentile_bootstrap(
            np.array([[x, 60 - x]]),
            lambda t: t[..., 0, 0] / t.sum((-1, -2)),
            rng=RNG.at("percentile", i),
            resamples=400,
        )
        held += bool(found.low <= 0.7 <= found.high)
    assert 0.89 < held / 300 < 0.98


def test_percentile_limits_pass_over_resamples_without_a_value() -> None:
    """One of two items is positive: a quarter of the resamples have none to be right about."""
    found = percentile_bootstrap(
        np.array([[[1, 0], [0, 1]]]),
        lambda t: t[..., 1, 1] / np.where((n := t[..., 1, :].sum(-1)) > 0, n, np.nan),
        rng=RNG,
        resamples=200,
    )
    assert [float(x[0]) for x in found] == [1, 1, 1]


def test_percentile_limits_of_an_undefined_statistic_are_missing() -> None:
    found = percentile_bootstrap(
        TABLE, lambda t: np.full(t.shape[:2], np.nan), rng=RNG, resamples=5
    )
    assert np.isnan(found).all()
