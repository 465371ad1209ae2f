"""Before against after on the same items: who pays for a change of the model.

The excess accuracy gap (Hashemizadeh et al., "Balancing Act", ICLR 2024) is how much more accuracy
a group loses than all items do. Its sum weighted by group sizes is 0. The largest of many groups'
gaps is well above 0 by noise alone, so read it with its limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evenloop.counts import Counts, Moments
from evenloop.intervals import Bounded, difference, normal_quantile, paired_difference
from evenloop.measures.aggregates import spread
from evenloop.measures.estimate import MIN_SUPPORT, Estimate, Excluded, Gap
from evenloop.measures.proportions import accuracy, cell_accuracy

__all__ = [
    "ExcessGap",
    "Levelling",
    "accuracy_loss",
    "by_column",
    "excess_gap",
    "levelling_down",
]

Floats = NDArray[np.float64]
Says = Literal["within", "exceeds", "inconclusive", "not estimable"]


def accuracy_loss(
    dense: Counts,
    sparse: Counts,
    *,
    lost: Moments | None = None,
    level: float = 0.95,
    min_support: int = MIN_SUPPORT,
) -> Estimate:
    """Accuracy before minus accuracy after, (G,); positive means the group lost.

    Args:
        dense, sparse: counts of the two models on the same items.
        lost: moments of the per-item change, right before minus right after (-1, 0 or 1), over
            the same groups. With it the limits are those of paired items; without it the two
            are taken as independent, which is safe and wider, as pruning mostly keeps decisions.
        level: probability that a group's limits hold its loss.
        min_support: fewest items of a group.

    Raises:
        ValueError: the three do not have the same groups and items.

    >>> dense = Counts(np.array([[[4, 0], [0, 4]]]), ("a",), ("no", "yes"))
    >>> sparse = Counts(np.array([[[3, 1], [0, 4]]]), ("a",), ("no", "yes"))
    >>> accuracy_loss(dense, sparse).value.tolist()
    [0.125]
    """
    _same_items(dense, sparse, lost)
    if lost is None:
        pair = (accuracy(model, level=level) for model in (dense, sparse))
        first, second = (Bounded(one.value, one.low, one.high) for one in pair)
        bounded, method = difference(first, second), "Newcombe, unpaired"
    else:
        n, total, moved = lost.table.T
        bounded = paired_difference((moved + total) / 2, (moved - total) / 2, n, level=level)
        method = "Bonett-Price"
    return Estimate.of(
        "accuracy loss",
        bounded,
        dense.support,
        dense.groups,
        level=level,
        method=method,
        min_support=min_support,
    )


@dataclass(frozen=True, slots=True, eq=False)
class ExcessGap:
    """Excess accuracy gap of every group against a tolerance.

    `excess` (G,) is the group's loss minus the overall loss, `loss` (G,) the loss, `overall` the
    loss of all items. `worst` is the largest excess with limits that hold the true largest;
    `pairwise` the distance between the groups that lost most and least. `says` is the verdict on
    worst <= tolerance, `by_group` that on each group alone.
    """

    excess: Estimate
    loss: Estimate
    overall: float
    tolerance: float
    worst: Gap
    pairwise: Gap
    says: Says
    by_group: tuple[Says, ...]


def excess_gap(
    dense: Counts,
    sparse: Counts,
    *,
    tolerance: float,
    lost: Moments | None = None,
    level: float = 0.95,
    min_support: int = MIN_SUPPORT,
) -> ExcessGap:
    """Excess accuracy gaps of `sparse` against `dense`, and whether they keep to a tolerance.

    Args:
        dense, sparse, lost, level, min_support: as in `accuracy_loss`.
        tolerance: largest excess that is accepted, at least 0.

    Raises:
        ValueError: a negative tolerance, or other groups or items.

    >>> dense = Counts(np.array([[[4, 0], [0, 4]]] * 2), ("a", "b"), ("no", "yes"))
    >>> sparse = Counts(np.array([[[4, 0], [0, 4]], [[2, 2], [2, 2]]]), ("a", "b"), ("no", "yes"))
    >>> found = excess_gap(dense, sparse, tolerance=0.1)
    >>> found.excess.value.tolist(), found.overall, found.pairwise.value, found.says
    ([-0.25, 0.25], 0.25, 0.5, 'inconclusive')
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")

    def loss_at(*, level: float, min_support: int) -> Estimate:
        return accuracy_loss(dense, sparse, lost=lost, level=level, min_support=min_support)

    loss = loss_at(level=level, min_support=min_support)
    overall = float(accuracy_loss(dense.pooled(), sparse.pooled()).value[0])
    value = loss.value - overall
    error = _error_of_excess(dense, sparse, lost)
    reach = normal_quantile(level) * error
    excess = Estimate.of(
        "excess accuracy gap",
        Bounded(value, value - reach, value + reach),
        dense.support,
        dense.groups,
        level=level,
        method="normal, paired" if lost is not None else "normal, unpaired",
        min_support=min_support,
    )
    worst = _largest(excess, error, level)
    return ExcessGap(
        excess,
        loss,
        overall,
        tolerance,
        worst,
        spread(loss_at, level=level, min_support=min_support),
        _says(worst.value, worst.low, worst.high, tolerance),
        tuple(
            _says(value, low, high, tolerance)
            for value, low, high in zip(excess.value, excess.low, excess.high, strict=True)
        ),
    )


def _error_of_excess(dense: Counts, sparse: Counts, lost: Moments | None) -> Floats:
    """(G,) standard error of loss_g minus the size-weighted mean loss; nan for absent groups."""
    n = dense.support.astype(np.float64)
    if lost is None:
        near = [(np.trace(c.table, axis1=1, axis2=2) + 1) / (n + 2) for c in (dense, sparse)]
        variance = sum(p * (1 - p) for p in near) / (n + 2)
    else:
        _, total, moved = lost.table.T
        variance = ((moved + 2) / (n + 2) - (total / (n + 2)) ** 2) / (n + 2)
    share = n / max(n.sum(), 1)
    variance = np.where(n > 0, variance, 0.0)
    others = (share**2 * variance).sum() - share**2 * variance
    return np.where(n > 0, np.sqrt((1 - share) ** 2 * variance + others), np.nan)


def _largest(excess: Estimate, error: Floats, level: float) -> Gap:
    known = excess.estimable
    many = max(int(known.sum()), 1)
    method = f"{excess.method}, Bonferroni over {many}"
    between, support, triple = None, (0, 0), (np.nan, np.nan, np.nan)
    if known.any():
        at = int(np.nanargmax(excess.value))
        reach = normal_quantile(level, many) * error
        limits = (excess.value, excess.value - reach, excess.value + reach)
        value, low, high = (float(np.fmax.reduce(np.where(known, x, np.nan))) for x in limits)
        triple = (value, low, high)
        between = (excess.groups[at], "all")
        support = (int(excess.support[at]), int(excess.support.sum()))
    return Gap(
        "largest excess accuracy gap",
        *triple,
        between,
        support,
        "accuracy loss",
        "pooled",
        method,
        level,
        excess.left_out(),
    )


def _says(value: float, low: float, high: float, tolerance: float) -> Says:
    if np.isnan(value):
        return "not estimable"
    if high <= tolerance:
        return "within"
    return "exceeds" if low > tolerance else "inconclusive"


@dataclass(frozen=True, slots=True, eq=False)
class Levelling:
    """Whether a change made things worse for everyone.

    `down` is True if the accuracy of every cell that could be compared fell, None if none could;
    `change` is after minus before per cell; `excluded` names the cells that took no part.
    """

    down: bool | None
    change: Estimate
    excluded: tuple[Excluded, ...]


def levelling_down(
    before: Counts,
    after: Counts,
    *,
    cells: bool = True,
    level: float = 0.95,
    min_support: int = MIN_SUPPORT,
) -> Levelling:
    """Whether `after` is less accurate than `before` in every cell: a gap closed by harm to all.

    Args:
        before, after: counts of the same groups and classes, not necessarily the same items.
        cells: compare every cell of group and true class; otherwise every group.
        level: probability that a cell's limits hold its change (Newcombe, unpaired).
        min_support: fewest items of a cell on either side.

    Raises:
        ValueError: other groups or classes.

    >>> before = Counts(np.array([[[4, 0], [0, 4]], [[3, 1], [1, 3]]]), ("a", "b"), ("no", "yes"))
    >>> after = Counts(np.array([[[2, 2], [2, 2]], [[2, 2], [2, 2]]]), ("a", "b"), ("no", "yes"))
    >>> levelling_down(before, after).down
    True
    """
    if (before.groups, before.classes) != (after.groups, after.classes):
        raise ValueError("before and after must have the same groups and classes")
    measure = cell_accuracy if cells else accuracy
    old, new = (measure(c, level=level, min_support=min_support) for c in (before, after))
    support = np.minimum(old.support, new.support)
    change = Estimate.of(
        "change of accuracy",
        difference(Bounded(new.value, new.low, new.high), Bounded(old.value, old.low, old.high)),
        support,
        old.groups,
        level=level,
        method="Newcombe, unpaired",
        min_support=min_support,
    )
    known = change.estimable
    down = bool((change.value[known] < 0).all()) if known.any() else None
    return Levelling(down, change, change.left_out())


def by_column(
    table: NDArray[np.generic], columns: Sequence[Sequence[str]]
) -> tuple[NDArray[np.generic], ...]:
    """Tables (G, ...) of joint groups, added up to one table for each column they are made of.

    Args:
        table: a row for each joint group, row-major: the last column varies fastest.
        columns: the values of each column.

    Raises:
        ValueError: the table has not as many groups as the columns have combinations.

    >>> [one.tolist() for one in by_column(np.array([1, 2, 3, 4]), (("a", "b"), ("c", "d")))]
    [[3, 7], [4, 6]]
    """
    sizes = tuple(len(values) for values in columns)
    if len(table) != np.prod(sizes, dtype=np.int64):
        raise ValueError(f"{len(table)} joint groups are not the product of columns of {sizes}")
    split = table.reshape(*sizes, *table.shape[1:])
    axes = range(len(sizes))
    return tuple(split.sum(tuple(a for a in axes if a != at)) for at in axes)


def _same_items(dense: Counts, sparse: Counts, lost: Moments | None) -> None:
    if dense.groups != sparse.groups or (dense.support != sparse.support).any():
        raise ValueError("dense and sparse must count the same items in the same groups")
    if lost is None:
        return
    if lost.groups != dense.groups or (lost.table[:, 0] != dense.support).any():
        raise ValueError("lost must be moments of the same items in the same groups")
    hits = [np.trace(c.table, axis1=1, axis2=2) for c in (dense, sparse)]
    if (np.abs(lost.table[:, 1] - (hits[0] - hits[1])) > 1e-6).any():
        raise ValueError("lost must sum to the hits of dense minus those of sparse in each group")
