"""The share of a class under predictions, truth and labels: the statistic of label feedback.

Sources of the limits: Bonett & Price (2012) for the bias, two shares of the same items; Wilson
(1927) for a predicted share, from which the gap differs by a share that is counted, not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evenloop.counts import Counts
from evenloop.intervals import Bounded, across_runs, paired_difference, wilson

__all__ = [
    "ALIKE",
    "UNKNOWN",
    "Z95",
    "Limited",
    "Measured",
    "share_bias",
    "share_gap",
    "slack_over_runs",
]

Z95 = 1.959963984540054
ALIKE = 1e-12
"""Deviation below which runs are the same but for rounding: they tell nothing of other runs."""

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Measured:
    """A value with its standard error and the number of items it rests on."""

    value: float
    se: float
    n: int

    def __sub__(self, other: Measured) -> Measured:
        """The difference of two measurements taken as independent."""
        error = sqrt(self.se**2 + other.se**2)
        return Measured(self.value - other.value, error, min(self.n, other.n))

    def surely_above(self, limit: float) -> bool:
        """Whether the lower 95 % limit is above `limit`."""
        return self.value - Z95 * self.se > limit


@dataclass(frozen=True, slots=True)
class Limited:
    """A signed difference of shares: its standard error, its limits and the items behind it.

    >>> Limited(-0.2, 0.05, -0.3, -0.1, 100).size()
    (0.1, 0.3)
    """

    value: float
    se: float
    low: float
    high: float
    n: int

    def size(self) -> tuple[float, float]:
        """Limits of the absolute value; the lower one is 0 where the sign is not sure."""
        if isnan(self.low):
            return nan, nan
        least = 0.0 if self.low <= 0 <= self.high else min(abs(self.low), abs(self.high))
        return least, max(abs(self.low), abs(self.high))


UNKNOWN = Limited(nan, nan, nan, nan, 0)


def share_bias(counts: Counts, klass: int, *, level: float = 0.95) -> Limited:
    """Predicted share of a class minus its true share on the same items, signed.

    Every item gives -1, 0 or 1. Standard error and limits count one item more of each kind of
    disagreement, so that a model without any is not called certain. Nan without items.

    >>> import numpy as np
    >>> seen = Counts(np.array([[[6, 2], [0, 2]]]), ("all",), ("no", "yes"))
    >>> share_bias(seen, 1).value
    0.2
    """
    table = counts.table.sum(0)
    n = int(table.sum())
    if n == 0:
        return UNKNOWN
    gained = float(table[:, klass].sum() - table[klass, klass])
    lost = float(table[klass].sum() - table[klass, klass])
    value, low, high = (float(v) for v in paired_difference(gained, lost, n, level=level))
    centre = (gained - lost) / (n + 2)
    error = sqrt(((gained + lost + 2) / (n + 2) - centre**2) / (n + 2))
    return Limited(value, error, low, high, n)


def share_gap(audit: Counts, labels: Counts, klass: int, *, level: float = 0.95) -> Limited:
    """Predicted share on the audit split minus the share in the training labels, signed.

    Only the audit side is a sample of what the labeller would do; the training labels are what
    it was given, so the limits are those of the predicted share. Nan where a side has no items.

    >>> import numpy as np
    >>> seen = Counts(np.array([[[6, 2], [0, 2]]]), ("all",), ("no", "yes"))
    >>> given = Counts(np.array([[[9, 0], [0, 1]]]), ("all",), ("no", "yes"))
    >>> round(share_gap(seen, given, 1).value, 3)
    0.3
    """
    seen, given = audit.table.sum(0), labels.table.sum(0)
    n = int(seen.sum())
    if n == 0 or given.sum() == 0:
        return UNKNOWN
    value, low, high = (float(v) for v in wilson(seen[:, klass].sum(), n, level=level))
    learnt = float(given[:, klass].sum() / given.sum())
    error = sqrt(value * (1 - value) / n)
    return Limited(value - learnt, error, low - learnt, high - learnt, n)


def slack_over_runs(
    first: ArrayLike, later: ArrayLike, factor: ArrayLike, *, level: float = 0.95
) -> Bounded:
    """Room below a bound for the means over runs: factor |E first| - |E later|, paired by run.

    Both signed differences, factor * first - later and factor * first + later, get Student limits
    over runs; the room's limits follow from theirs. Each of them may be wrong on one side with
    (1 - level) / 2, so "the mean is above its bound" is said wrongly at a rate of at most
    1 - level in each column, whatever the two means are. That also holds where the sign of `first`
    is noise, which a comparison of absolute values would mistake for a bias. The level covers all
    columns together (Bonferroni). Nan where runs do not differ or fewer than two have a value.

    Args:
        first: (S,) tolerance of every run, signed.
        later: (S, T) bias of every run at T rounds, signed; nan where a run has none.
        factor: (T,) or (S, T) bound over tolerance.
        level: probability that all T statements hold.

    >>> slack = slack_over_runs([.1, .2, .3, .2], [[.5], [.7], [.8], [.6]], [2.0])
    >>> slack.value.round(2).tolist(), bool(slack.high[0] < 0)
    ([-0.25], True)
    """
    delta, bias = np.asarray(first, np.float64)[:, None], np.asarray(later, np.float64)
    scaled = delta * np.asarray(factor, np.float64)
    each = 1 - (1 - level) / max(bias.shape[1], 1)
    under = across_runs(scaled - bias, level=each)
    over = across_runs(scaled + bias, level=each)

    # The room is the larger of min(under, over) and -max(under, over): monotone in limits of both.
    def room(least: Pair, most: Pair) -> NDArray[np.float64]:
        return np.maximum(np.minimum(*least), -np.maximum(*most))

    means, lows, highs = (under.mean, over.mean), (under.low, over.low), (under.high, over.high)
    value, low, high = room(means, means), room(lows, highs), room(highs, lows)
    sure = (under.sd > ALIKE) & (over.sd > ALIKE)
    return Bounded(value, np.where(sure, low, np.nan), np.where(sure, high, np.nan))
