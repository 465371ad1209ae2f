"""The share of a class under predictions, truth and labels: the statistic of label feedback."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

from evenloop.counts import Counts

__all__ = ["Z95", "Measured", "share_bias", "share_gap"]

Z95 = 1.959963984540054


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


def share_bias(counts: Counts, klass: int) -> Measured:
    """Predicted share of a class minus its true share on the same items, signed.

    The standard error is that of a mean of paired differences, each -1, 0 or 1.

    >>> import numpy as np
    >>> seen = Counts(np.array([[[6, 2], [0, 2]]]), ("all",), ("no", "yes"))
    >>> share_bias(seen, 1).value
    0.2
    """
    table = counts.table.sum(0)
    n = int(table.sum())
    if n == 0:
        return Measured(nan, nan, 0)
    gained = float(table[:, klass].sum() - table[klass, klass])
    lost = float(table[klass].sum() - table[klass, klass])
    mean = (gained - lost) / n
    variance = max((gained + lost) / n - mean**2, 0.0)
    return Measured(mean, sqrt(variance / n), n)


def share_gap(audit: Counts, labels: Counts, klass: int) -> Measured:
    """Predicted share on the audit split minus the share in the training labels, signed.

    Only the audit side is a sample of what the labeller would do; the training labels are what
    it was given, so the standard error is that of the predicted share.
    """
    seen, given = audit.table.sum(0), labels.table.sum(0)
    n = int(seen.sum())
    if n == 0 or given.sum() == 0:
        return Measured(nan, nan, 0)
    predicted = float(seen[:, klass].sum() / n)
    learnt = float(given[:, klass].sum() / given.sum())
    return Measured(predicted - learnt, sqrt(predicted * (1 - predicted) / n), n)
