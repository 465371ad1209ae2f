"""One number from many: the worst group or cell, means, the spread over groups.

Nothing is dropped silently: what had too few items to take part is named in `excluded`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evenloop.counts import Counts, Moments
from evenloop.intervals import Bounded, mean_of
from evenloop.measures.contrasts import fold, pairs
from evenloop.measures.estimate import MIN_SUPPORT, Estimate, Gap
from evenloop.measures.proportions import accuracy, cell_accuracy, precision, recall

__all__ = ["macro", "mean", "spread", "worst_cell_accuracy", "worst_group_accuracy"]

Measure = Callable[..., Estimate]


def worst_group_accuracy(
    counts: Counts, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """The lowest accuracy of any group, as an estimate with that one group.

    The limits hold the true lowest accuracy, whichever group has it.

    >>> counts = Counts(np.array([[[3, 1], [0, 4]], [[1, 1], [0, 0]]]), ("a", "b"), ("no", "yes"))
    >>> found = worst_group_accuracy(counts)
    >>> found.groups, found.value.tolist()
    (('b',), [0.5])
    """
    return _lowest(accuracy, counts, level, min_support, "worst-group accuracy")


def worst_cell_accuracy(
    counts: Counts, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """The lowest accuracy of any cell of group and true class, as an estimate with that cell.

    >>> counts = Counts(np.array([[[3, 1], [0, 4]], [[1, 1], [0, 0]]]), ("a", "b"), ("no", "yes"))
    >>> found = worst_cell_accuracy(counts)
    >>> found.groups, found.value.tolist(), [str(e) for e in found.excluded]
    (('b no',), [0.5], ['b yes (0 items)'])
    """
    return _lowest(cell_accuracy, counts, level, min_support, "worst-cell accuracy")


def _lowest(
    measure: Measure, counts: Counts, level: float, min_support: int, name: str
) -> Estimate:
    found = measure(counts, level=level, min_support=min_support)
    out = found.left_out()
    many = max(int(found.estimable.sum()), 1)
    sure = measure(counts, level=1 - (1 - level) / many, min_support=min_support)
    if out and len(out) == len(found):
        bounded, group, support = Bounded(*np.full((3, 1), np.nan)), "none", 0
    else:
        worst = int(np.nanargmin(found.value))
        group, support = found.groups[worst], int(found.support[worst])
        limits = (found.value, sure.low, sure.high)
        bounded = Bounded(*(np.fmin.reduce(part, keepdims=True) for part in limits))
    return Estimate(
        name,
        *bounded,
        np.array([support], np.int64),
        (group,),
        level,
        f"{found.method}, Bonferroni over {many}",
        min_support,
        out,
    )


def macro(
    measure: Measure, counts: Counts, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Unweighted mean over classes of a class measure such as `recall`, `precision` or `f1`, (G,).

    A class that is not estimable in a group is left out of that group's mean and named in
    `excluded`; the support is that of the class with the fewest items among those used. Classes
    are separate samples for recall (by truth) and precision (by prediction), so the reach of their
    limits adds up in quadrature; for other measures, such as F1, whose classes share items, it
    adds up in full, which no dependence exceeds.

    >>> from evenloop.measures import recall
    >>> counts = Counts(np.array([[[3, 1], [0, 4]], [[2, 0], [0, 0]]]), ("a", "b"), ("no", "yes"))
    >>> found = macro(recall, counts)
    >>> found.value.tolist(), [str(e) for e in found.excluded]
    ([0.875, 1.0], ['b, class yes (0 items)'])
    """
    parts = [
        measure(counts, klass, level=level, min_support=min_support)
        for klass in range(len(counts.classes))
    ]
    value = np.stack([part.value for part in parts])
    known = ~np.isnan(value)
    used = known.sum(0)
    some = np.where(used > 0, used, np.nan)

    separate = measure in (recall, precision)

    def reach(limits: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        away = np.abs(np.where(known, np.stack(limits) - value, 0.0))
        return np.asarray((np.sqrt((away**2).sum(0)) if separate else away.sum(0)) / some)

    centre = np.where(known, value, 0.0).sum(0) / some
    low, high = reach([part.low for part in parts]), reach([part.high for part in parts])
    support = np.stack([part.support for part in parts])
    fewest = np.where(used > 0, np.where(known, support, np.iinfo(np.int64).max).min(0), 0)
    out = tuple(
        excluded
        for part, klass in zip(parts, counts.classes, strict=True)
        for excluded in part.left_out(f", class {klass}")
    )
    return Estimate(
        f"macro {parts[0].name.removesuffix(f' of {counts.classes[0]}')}",
        *Bounded(centre, np.maximum(centre - low, 0), np.minimum(centre + high, 1)),
        fewest,
        counts.groups,
        level,
        f"{parts[0].method}, {'quadrature' if separate else 'sum'} over classes",
        min_support,
        out,
    )


def mean(
    moments: Moments,
    *,
    name: str = "mean",
    level: float = 0.95,
    min_support: int = MIN_SUPPORT,
) -> Estimate:
    """Mean of a per-item statistic in each group, (G,), with Student limits.

    >>> moments = Moments(np.array([[2.0, 4.0, 10.0], [0.0, 0.0, 0.0]]), ("a", "b"))
    >>> mean(moments).value.tolist(), mean(moments).support.tolist()
    ([2.0, nan], [2, 0])
    """
    n, total, squares = moments.table.T
    return Estimate.of(
        name,
        mean_of(n, total, squares, level=level),
        n.astype(np.int64),
        moments.groups,
        level=level,
        method="Student",
        min_support=min_support,
    )


def spread(
    measure: Callable[..., Estimate], *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Gap:
    """Widest difference between groups of any estimate whose groups are independent.

    Args:
        measure: takes `level` and `min_support`; `functools.partial` fills in the rest.
        level: probability that the limits hold the true widest difference.
        min_support: fewest items behind a group's value for it to take part.

    >>> from functools import partial
    >>> from evenloop.counts import Moments
    >>> from evenloop.measures import mean
    >>> loss = Moments(np.array([[2.0, 4.0, 10.0], [2.0, 1.0, 0.6], [0.0, 0.0, 0.0]]), tuple("abc"))
    >>> gap = spread(partial(mean, loss, name="loss"))
    >>> gap.value, gap.between, [str(e) for e in gap.excluded]
    (1.5, ('a', 'b'), ['c (0 items)'])
    """
    found = measure(level=level, min_support=min_support)
    groups = int(found.estimable.sum())
    many = max(groups * (groups - 1) // 2, 1)
    sure = measure(level=1 - (1 - level) / many, min_support=min_support)
    contrast = pairs(Bounded(found.value, sure.low, sure.high), "difference")
    block = Bounded(*(part[None, None] for part in contrast))
    folded, where = fold(block, np.array([groups < 2]), "difference", "worst")
    between, support = None, (0, 0)
    if where is not None:
        i, j = where[2:]
        between = (found.groups[i], found.groups[j])
        support = (int(found.support[i]), int(found.support[j]))
    method = f"MOVER of {found.method}, Bonferroni over {many}"
    return Gap(
        f"{found.name} difference",
        *folded,
        between,
        support,
        found.name,
        "pairwise",
        method,
        level,
        found.left_out(),
    )
