"""How sure a number is: limits for counts, for means, across runs, and by resampling counts.

Sources: Wilson (1927) for one proportion; Newcombe (1998) for the difference of two independent
proportions, which is the "method of variance estimates recovery" (MOVER) of Zou & Donner (2008)
applied to Wilson limits; Donner & Zou (2012) for the ratio; Bonett & Price (2012) for the
difference of two shares of the same items. Every function is vectorised: its arrays broadcast.
`comparisons` is the number of limits that must hold at the same time (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evenloop.rng import Rng

__all__ = [
    "Bounded",
    "Runs",
    "across_runs",
    "band",
    "difference",
    "mean_of",
    "normal_quantile",
    "paired_difference",
    "paired_runs",
    "percentile_bootstrap",
    "ratio",
    "resample",
    "wilson",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_DRAWN = 100_000_000
"""Counts that `resample` will hold at once, 0.8 GB."""


class Bounded(NamedTuple):
    """Values with their lower and upper limits, three float64 arrays of one shape."""

    value: Floats
    low: Floats
    high: Floats

    def where(self, keep: NDArray[np.bool_]) -> Bounded:
        """The same, nan where `keep` is false."""
        return Bounded(*(np.where(keep, part, np.nan) for part in self))

    def at(self, place: Any) -> Bounded:
        """What stands at `place`, any index of the arrays."""
        return Bounded(*(part[place] for part in self))


def normal_quantile(level: float, comparisons: int = 1) -> float:
    """Two-sided standard normal quantile that holds `comparisons` statements at `level` at once.

    Raises:
        ValueError: `level` is not between 0 and 1.

    >>> round(normal_quantile(0.95), 3), round(normal_quantile(0.95, comparisons=10), 3)
    (1.96, 2.807)
    """
    return NormalDist().inv_cdf(1 - _tail(level, comparisons))


def _tail(level: float, comparisons: int) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")
    return (1 - level) / (2 * max(comparisons, 1))


def wilson(
    hits: ArrayLike, of: ArrayLike, *, level: float = 0.95, comparisons: int | Ints = 1
) -> Bounded:
    """Proportions `hits / of` with Wilson's score limits; nan where `of` is 0.

    Args:
        hits: counts, each at most `of`.
        of: counts.
        level: probability that the limits hold the proportion.
        comparisons: proportions whose limits must hold at once; an array has one for each.

    >>> value, low, high = wilson([0, 8], [10, 10])
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.49], [0.278, 0.943])
    """
    z: float | Floats
    if isinstance(comparisons, np.ndarray):
        sizes = comparisons.ravel().tolist()
        quantiles = {many: normal_quantile(level, many) for many in set(sizes)}
        z = np.array([quantiles[many] for many in sizes]).reshape(comparisons.shape)
    else:
        z = normal_quantile(level, comparisons)
    x, n = np.asarray(hits, np.float64), np.asarray(of, np.float64)
    n = np.where(n > 0, n, np.nan)
    square = z * z
    more = n + square
    centre = (x + square / 2) / more
    half = z * np.sqrt(np.maximum(x * (n - x) / n, 0) + square / 4) / more
    low = np.where(x == 0, 0 * n, centre - half)
    high = np.where(x == n, 1.0, centre + half)
    return Bounded(x / n, low, high)


def difference(first: Bounded, second: Bounded) -> Bounded:
    """`first - second`, independent, with limits recovered from theirs (Newcombe, MOVER).

    >>> found = difference(wilson(56, 70), wilson(48, 80))   # Newcombe's example (a), method 10
    >>> round(float(found.low), 4), round(float(found.high), 4)
    (0.0524, 0.3339)
    """
    gap = first.value - second.value
    low = gap - np.hypot(first.value - first.low, second.high - second.value)
    high = gap + np.hypot(first.high - first.value, second.value - second.low)
    return Bounded(gap, low, high)


def ratio(first: Bounded, second: Bounded) -> Bounded:
    """`first / second`, non-negative and independent, with limits recovered from theirs.

    The upper limit is infinite while the denominator may be 0; 0 / 0 is nan throughout.

    >>> found = ratio(wilson(10, 20), wilson(20, 20))
    >>> round(float(found.value), 2), round(float(found.low), 2), round(float(found.high), 2)
    (0.5, 0.3, 0.73)
    """
    a, b = first.value, second.value
    with np.errstate(divide="ignore", invalid="ignore"):
        value = a / b
    # a*a - (a - low)**2, and so on: what is left of each square beyond its limit
    kept_low = first.low * (2 * a - first.low)
    kept_high = first.high * (2 * a - first.high)
    rest_low = second.low * (2 * b - second.low)
    rest_high = second.high * (2 * b - second.high)
    both = a * b
    square = both**2
    under = both + np.sqrt(np.maximum(square - kept_low * rest_high, 0))
    over = both + np.sqrt(np.maximum(square - kept_high * rest_low, 0))
    low = np.where(kept_low > 0, kept_low / np.where(under > 0, under, np.nan), 0.0)
    high = np.where(rest_low > 0, over / np.where(rest_low > 0, rest_low, np.nan), np.inf)
    return Bounded(value, low, high).where(~np.isnan(value))


def paired_difference(
    gained: ArrayLike,
    lost: ArrayLike,
    of: ArrayLike,
    *,
    level: float = 0.95,
    comparisons: int = 1,
) -> Bounded:
    """Difference of two shares of the same `of` items, from the items where they disagree.

    `(gained - lost) / of`, with the adjusted Wald limits of Bonett & Price: one item is added to
    each kind of disagreement, so a table without any is not called certain. Nan where `of` is 0.

    Args:
        gained: items that count in the first share only.
        lost: items that count in the second share only.
        of: all items.
        level: probability that the limits hold the difference.
        comparisons: differences whose limits must hold at once.

    >>> value, low, high = paired_difference(6, 1, 100)
    >>> round(float(value), 3), round(float(low), 3), round(float(high), 3)
    (0.05, -0.008, 0.106)
    """
    z = normal_quantile(level, comparisons)
    up, down = np.asarray(gained, np.float64), np.asarray(lost, np.float64)
    n = np.asarray(of, np.float64)
    n = np.where(n > 0, n, np.nan)
    value = (up - down) / n
    centre = (up - down) / (n + 2)
    half = z * np.sqrt(((up + down + 2) / (n + 2) - centre**2) / (n + 2))
    low = np.clip(np.minimum(centre - half, value), -1, 1)
    return Bounded(value, low, np.clip(np.maximum(centre + half, value), -1, 1))


def mean_of(
    n: ArrayLike,
    total: ArrayLike,
    squares: ArrayLike,
    *,
    level: float = 0.95,
    comparisons: int = 1,
) -> Bounded:
    """Means of `n` items with sum `total` and sum of squares `squares`, with Student limits.

    Nan where `n` is 0; a single item has a mean and no limits.

    >>> value, low, high = mean_of(3, 6.0, 14.0)
    >>> float(value), round(float(low), 3), round(float(high), 3)
    (2.0, -0.484, 4.484)
    """
    n, total = np.asarray(n, np.float64), np.asarray(total, np.float64)
    n = np.where(n > 0, n, np.nan)
    mean = total / n
    spread = np.maximum(np.asarray(squares, np.float64) - n * mean**2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.where(n > 1, np.sqrt(spread / (n - 1) / n), np.nan)
    half = half * _student_quantile(n - 1, level, comparisons)
    return Bounded(mean, mean - half, mean + half)


def _student_quantile(freedom: Floats, level: float, comparisons: int = 1) -> Floats:
    from scipy.special import stdtrit  # a tenth of a second that most callers do not need

    usable = np.where(freedom > 0, freedom, np.nan)
    return np.asarray(stdtrit(usable, 1 - _tail(level, comparisons)), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Independent runs (seeds) summed up: arrays of the shape of one run's value.

    `n` runs that had a value, their `mean`, their standard deviation `sd` (nan for one run) and
    Student limits `low`, `high` of the mean. `seeds` are the runs used where they are known,
    `unpaired` those that only one side of a comparison has.
    """

    n: Ints
    mean: Floats
    sd: Floats
    low: Floats
    high: Floats
    level: float
    seeds: tuple[int, ...] = ()
    unpaired: tuple[int, ...] = ()


def across_runs(values: ArrayLike, *, level: float = 0.95, ddof: Literal[0, 1] = 1) -> Runs:
    """Mean, deviation and Student limits over runs; a run without a value (nan) is not counted.

    Args:
        values: (S,) or (S, ...) one entry per run.
        level: probability that the limits hold the mean over all runs there could be.
        ddof: 1 for the sample deviation, 0 for the population deviation; the limits do not change.

    Raises:
        ValueError: there is no run.

    >>> runs = across_runs([0.1, 0.2, 0.3, float("nan")])
    >>> int(runs.n), round(float(runs.mean), 3), round(float(runs.sd), 3), round(float(runs.low), 3)
    (3, 0.2, 0.1, -0.048)
    """
    values = np.asarray(values, np.float64)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError("values must hold at least one run along its first axis, got none")
    known = ~np.isnan(values)
    n = known.sum(0)
    some = np.where(n > 0, n, np.nan)
    mean = np.where(known, values, 0).sum(0) / some
    squares = (np.where(known, values - mean, 0) ** 2).sum(0)
    sample = np.sqrt(squares / np.where(n > 1, n - 1, np.nan))
    half = _student_quantile(some - 1, level) * sample / np.sqrt(some)
    sd = sample if ddof == 1 else np.sqrt(squares / some)
    return Runs(np.asarray(n, np.int64), mean, sd, mean - half, mean + half, level)


def paired_runs(
    first: Mapping[int, ArrayLike], second: Mapping[int, ArrayLike], *, level: float = 0.95
) -> Runs:
    """`first - second` seed by seed, summed up over the seeds both have.

    Raises:
        ValueError: no seed is in both.

    >>> found = paired_runs({0: 0.9, 1: 0.8, 2: 0.7}, {0: 0.8, 1: 0.7, 5: 0.1})
    >>> found.seeds, found.unpaired, round(float(found.mean), 3)
    ((0, 1), (2, 5), 0.1)
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        raise ValueError(
            f"no seed is in both: {sorted(first)} and {sorted(second)}; run both with the same"
        )
    steps = [np.asarray(first[s], np.float64) - np.asarray(second[s], np.float64) for s in seeds]
    found = across_runs(np.stack(steps), level=level)
    alone = tuple(sorted(first.keys() ^ second.keys()))
    return Runs(found.n, found.mean, found.sd, found.low, found.high, level, seeds, alone)


def band(
    curves: Sequence[ArrayLike],
    *,
    align: Literal["round", "shortest"] = "round",
    level: float = 0.95,
    ddof: Literal[0, 1] = 1,
) -> Runs:
    """Curves (T_s,) of several runs summed up round by round.

    Args:
        curves: one curve per run; lengths may differ.
        align: "round" keeps every round and counts the runs that reached it; "shortest" cuts all
            curves to the shortest.
        level: as in `across_runs`.
        ddof: as in `across_runs`.

    Raises:
        ValueError: there is no curve.

    >>> found = band([[1.0, 2.0, 4.0], [3.0, 4.0]])
    >>> found.mean.tolist(), found.n.tolist()
    ([2.0, 3.0, 4.0], [2, 2, 1])
    """
    rows = [np.asarray(curve, np.float64) for curve in curves]
    if not rows:
        raise ValueError("curves must hold at least one run, got none")
    lengths = [len(row) for row in rows]
    length = max(lengths) if align == "round" else min(lengths)
    grid = np.full((len(rows), length), np.nan)
    for place, row in zip(grid, rows, strict=True):
        place[: len(row)] = row[:length]
    return across_runs(grid, level=level, ddof=ddof)


def resample(table: NDArray[np.integer], resamples: int, rng: Rng) -> Ints:
    """(R, G, ...) tables drawn as if the items behind `table` (G, ...) were drawn again.

    Items are drawn with replacement inside each group, so every group keeps its size: one
    multinomial draw per group and resample, whatever the number of items. An absent group stays
    absent.

    Raises:
        ValueError: `resamples` is below 1, or the tables together would not fit in memory.

    >>> drawn = resample(np.array([[[3, 1], [0, 2]], [[0, 0], [0, 0]]]), 100, Rng.of(0))
    >>> drawn.shape, set(drawn.sum((2, 3)).T[0].tolist()), int(drawn[:, 1].sum())
    ((100, 2, 2, 2), {6}, 0)
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}; 2000 is usual")
    if resamples * table.size > MOST_DRAWN:
        raise ValueError(
            f"resamples={resamples} of a table of {table.size} cells are more than {MOST_DRAWN:,} "
            "counts; take fewer, or limits that need no resampling"
        )
    flat = table.reshape(len(table), -1)
    size = flat.sum(1)
    share = flat / np.maximum(size, 1)[:, None]
    drawn = rng.numpy().multinomial(size, share, size=(resamples, len(table)))
    return np.asarray(drawn.reshape(resamples, *table.shape), np.int64)


def percentile_bootstrap(
    table: NDArray[np.integer],
    statistic: Callable[[NDArray[np.int64]], Floats],
    *,
    rng: Rng,
    resamples: int = 2000,
    level: float = 0.95,
) -> Bounded:
    """A statistic of counts with the equal-tailed percentile limits of its resamples.

    Good for smooth statistics (a rate, a mean of rates). Not for a largest gap near 0: resampling
    can only widen it, so these limits miss a true gap of 0; use `Parity.bootstrap` there.

    Args:
        table: (G, ...) counts, resampled inside each group.
        statistic: maps (R, G, ...) tables to (R, ...) values; nan where undefined.
        rng: stream of the draws.
        resamples: number of draws.
        level: share of the resamples between the limits.

    >>> table = np.array([[[40, 10], [20, 30]]])
    >>> found = percentile_bootstrap(
    ...     table, lambda t: np.trace(t, axis1=-2, axis2=-1)[..., 0] / 100, rng=Rng.of(1))
    >>> float(found.value), bool(0.6 < found.low < 0.62), bool(0.77 < found.high < 0.8)
    (0.7, True, True)
    """
    tail = _tail(level, 1)
    value = statistic(np.asarray(table, np.int64)[None])[0]
    drawn = statistic(resample(table, resamples, rng))
    low, high = _nan_quantile(drawn, np.array([tail, 1 - tail]))
    return Bounded(np.asarray(value, np.float64), low, high)


def _nan_quantile(drawn: Floats, at: Floats) -> Floats:
    """Quantiles (Q, ...) along the first axis without the nan; nan where there is nothing else."""
    known = np.isnan(drawn).sum(0) < len(drawn)
    filled = np.where(known, drawn, 0.0)
    return np.where(known, np.nanquantile(filled, at, axis=0), np.nan)
