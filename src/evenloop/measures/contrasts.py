"""Groups held against each other: arrays of contrasts, folded to the widest one.

Rates come as arrays (K, F, G): K blocks, F rates in each, G groups. Contrasts are (K, F, G, H).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evenloop.intervals import Bounded, difference, normal_quantile, ratio

__all__ = [
    "KINDS",
    "Kind",
    "Over",
    "against_all",
    "apart",
    "fold",
    "pairs",
    "percentile_limits",
    "simultaneous_limits",
    "widest",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Kind = Literal["difference", "ratio"]
KINDS: tuple[Kind, Kind] = ("difference", "ratio")
Over = Literal["worst", "mean"]

CHUNK = 2_000_000
"""Numbers in one working array, of the bootstrap or of all pairs of groups."""


def pairs(rate: Bounded, kind: Kind) -> Bounded:
    """Group i against group j at [..., i, j]; nan against itself."""
    first = Bounded(*(part[..., :, None] for part in rate))
    second = Bounded(*(part[..., None, :] for part in rate))
    found = difference(first, second) if kind == "difference" else ratio(first, second)
    return found.where(~np.eye(rate.value.shape[-1], dtype=bool))


def against_all(rate: Bounded, rest: Bounded, share: Floats, kind: Kind) -> Bounded:
    """Group against all at [..., 0], all against group at [..., 1], from group against the rest.

    A group is part of "all", so the two are not independent; but group minus all is (1 - share)
    times group minus rest, and their ratio grows with the ratio to the rest.
    """
    if kind == "difference":
        apart = Bounded(*((1 - share) * part for part in difference(rate, rest)))
        back = Bounded(-apart.value, -apart.high, -apart.low)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = [1 / (share + (1 - share) / part) for part in ratio(rate, rest)]
            apart = Bounded(*inverse)
            back = Bounded(1 / apart.value, 1 / apart.high, 1 / apart.low)
    return Bounded(*(np.stack(pair, -1) for pair in zip(apart, back, strict=True)))


def apart(top: Floats, bottom: Floats, kind: Kind) -> Floats:
    """The widest contrast of rates of which `top` is the highest and `bottom` the lowest."""
    if kind == "difference":
        return np.asarray(top - bottom)
    return np.asarray(bottom / np.where(top > 0, top, np.nan))


def widest(contrast: Bounded, kind: Kind) -> Bounded:
    """The widest of each block of contrasts (K, ...), (K,), with the limits of the widest."""
    pick = np.fmax if kind == "difference" else np.fmin
    value, low, high = (pick.reduce(part.reshape(len(part), -1), axis=1) for part in contrast)
    return Bounded(value, np.maximum(low, 0), high if kind == "difference" else np.minimum(high, 1))


def fold(
    contrast: Bounded, void: Bools, kind: Kind, over: Over
) -> tuple[tuple[float, float, float], tuple[int, ...] | None]:
    """Value, low and high of the widest contrast (K, F, G, H), and where it is."""
    keep = ~void[:, None, None, None]
    kept = contrast.where(keep)
    value, low, high = widest(kept, kind)
    if np.isnan(value).all():
        return (np.nan, np.nan, np.nan), None
    best = _over_blocks(value, kind, "worst")
    where = np.unravel_index(int(np.argmax(kept.value == best)), kept.value.shape)
    value, low, high = (_over_blocks(part, kind, over) for part in (value, low, high))
    return (float(value), float(low), float(high)), tuple(int(i) for i in where)


def _over_blocks(block: Floats, kind: Kind, over: Over) -> Floats:
    """The widest along the last axis, or the mean of those there are."""
    if over == "worst":
        pick = np.fmax if kind == "difference" else np.fmin
        return np.asarray(pick.reduce(block, axis=-1))
    known = ~np.isnan(block)
    count = known.sum(-1)
    mean = np.where(known, block, 0.0).sum(-1) / np.where(count > 0, count, np.nan)
    return np.asarray(mean, np.float64)


def percentile_limits(
    hits: Ints, of: Ints, usable: Bools, kind: Kind, over: Over, level: float
) -> tuple[float, float]:
    """Equal-tailed quantiles of the gap over resamples (R, K, F, G)."""
    known = usable & (of > 0)
    rate = hits / np.where(known & (known.sum(-1, keepdims=True) > 1), of, np.nan)
    top, bottom = np.fmax.reduce(rate, axis=-1), np.fmin.reduce(rate, axis=-1)
    pick = np.fmax if kind == "difference" else np.fmin
    block = pick.reduce(apart(top, bottom, kind), axis=-1)
    gap = _over_blocks(block, kind, over)
    tail = (1 - level) / 2
    low, high = np.nanquantile(gap, [tail, 1 - tail])
    return float(low), float(high)


def simultaneous_limits(
    hits: Ints,
    of: Ints,
    drawn: Ints,
    drawn_of: Ints,
    defined: Bools,
    void: Bools,
    kind: Kind,
    over: Over,
    level: float,
) -> tuple[float, float]:
    """Limits of the gap from the largest studentised error of any pair in each resample.

    A rate that is 0 or 1 never moves when its items are drawn again; its standard error is that
    of the rate with one item added on either side, and the quantile is at least one pair's.
    """
    centre, error = _scaled(hits, of, kind)
    usable = np.where(defined & ~void[:, None, None, None], 1.0, np.nan)
    step = max(1, CHUNK // usable.size)
    widest = []
    for start in range(0, len(drawn), step):
        part = slice(start, start + step)
        again, noise = _scaled(drawn[part], drawn_of[part], kind)
        moved = again - centre
        size = np.abs(moved[..., :, None] - moved[..., None, :]) * usable
        student = size / np.hypot(noise[..., :, None], noise[..., None, :])
        widest.append(np.fmax.reduce(student.reshape(len(student), -1), axis=1))
    reach = max(float(np.nanquantile(np.concatenate(widest), level)), normal_quantile(level))
    apart = centre[..., :, None] - centre[..., None, :]
    away = reach * np.hypot(error[..., :, None], error[..., None, :]) * usable
    limits = Bounded(apart, apart - away, apart + away)
    if kind == "ratio":
        limits = Bounded(*(np.exp(part) for part in limits))
    (_, low, high), _ = fold(limits.where(defined), void, kind, over)
    return low, high


def _scaled(hits: Ints, of: Ints, kind: Kind) -> tuple[Floats, Floats]:
    """Rates, or their logarithms for ratios, with standard errors; nan without items."""
    n = np.where(of > 0, of, np.nan)
    near = (hits + 1) / (n + 2)
    if kind == "difference":
        return hits / n, np.sqrt(near * (1 - near) / (n + 2))
    return np.log((hits + 0.5) / (n + 1)), np.sqrt((1 - near) / near / (n + 2))
