"""Rates of each group, read from counts: shares of items, in Fairlearn's words.

A class is given by its code or its name and judged one against the rest. Every function takes
`level` (probability that a group's limits hold its rate) and `min_support` (fewest items behind a
rate that is to be called estimable), and returns an `Estimate` with one value per group; apply it
to `counts.pooled()` for all items at once. Limits are Wilson's unless said otherwise. A group
without the items a rate needs (no positives for a true positive rate) is nan, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evenloop.counts import Counts
from evenloop.intervals import Bounded, paired_difference, wilson
from evenloop.measures.estimate import MIN_SUPPORT, Estimate

__all__ = [
    "CLASS_RATES",
    "ODDS",
    "OneVsRest",
    "accuracy",
    "bias",
    "cell_accuracy",
    "correct",
    "error_rate",
    "f1",
    "false_negative_rate",
    "false_positive_rate",
    "klass_code",
    "precision",
    "predicted_share",
    "recall",
    "selection_rate",
    "true_negative_rate",
    "true_positive_rate",
    "true_share",
]

Ints = NDArray[np.int64]


class OneVsRest(NamedTuple):
    """Items of tables (..., G, C, C) by truth and prediction of each class: arrays (..., G, C)."""

    hit: Ints
    true: Ints
    said: Ints
    total: Ints

    @staticmethod
    def of(table: NDArray[np.integer]) -> OneVsRest:
        """`hit` both, `true` the world says the class, `said` the model does, `total` all items."""
        hit = np.diagonal(table, axis1=-2, axis2=-1)
        true, said = table.sum(-1), table.sum(-2)
        return OneVsRest(hit, true, said, np.broadcast_to(true.sum(-1)[..., None], true.shape))

    def at(self, klass: int | list[int]) -> OneVsRest:
        """The arrays of one class (..., G), or of several (..., G, K)."""
        return OneVsRest(*(part[..., klass] for part in self))


CLASS_RATES: Mapping[str, Callable[[OneVsRest], tuple[Ints, Ints]]] = {
    "selection rate": lambda c: (c.said, c.total),
    "true share": lambda c: (c.true, c.total),
    "true positive rate": lambda c: (c.hit, c.true),
    "false positive rate": lambda c: (c.said - c.hit, c.total - c.true),
    "true negative rate": lambda c: (c.total - c.true - (c.said - c.hit), c.total - c.true),
    "false negative rate": lambda c: (c.true - c.hit, c.true),
    "precision": lambda c: (c.hit, c.said),
}
"""Every rate of a class against the rest: its items, and the items it is a share of."""

ODDS = ("true positive rate", "false positive rate")
"""The rates that equalized odds compares."""


def correct(table: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Items whose predicted class is the true one, and all items, of tables (..., G, C, C)."""
    return np.trace(table, axis1=-2, axis2=-1), table.sum((-2, -1))


def klass_code(counts: Counts, klass: int | str) -> int:
    """Code of a class given by name or code.

    Raises:
        ValueError: there is none, naming the classes.
    """
    if isinstance(klass, (int, np.integer)) and 0 <= klass < len(counts.classes):
        return int(klass)
    if isinstance(klass, str) and klass in counts.classes:
        return counts.classes.index(klass)
    raise ValueError(f"klass {klass!r} is none of the classes {', '.join(counts.classes)}")


def _rate(
    name: str,
    counts: Counts,
    hits: NDArray[np.integer],
    of: NDArray[np.integer],
    level: float,
    min_support: int,
) -> Estimate:
    return Estimate.of(
        name,
        wilson(hits, of, level=level),
        of,
        counts.groups,
        level=level,
        method="Wilson",
        min_support=min_support,
    )


def _class_rate(
    name: str, counts: Counts, klass: int | str, level: float, min_support: int
) -> Estimate:
    code = klass_code(counts, klass)
    hits, of = CLASS_RATES[name](OneVsRest.of(counts.table).at(code))
    return _rate(f"{name} of {counts.classes[code]}", counts, hits, of, level, min_support)


def accuracy(counts: Counts, *, level: float = 0.95, min_support: int = MIN_SUPPORT) -> Estimate:
    """Share of items whose predicted class is the true one, (G,).

    >>> table = np.array([[[3, 1], [0, 4]], [[0, 0], [0, 0]]])
    >>> found = accuracy(Counts(table, ("a", "b"), ("no", "yes")))
    >>> found.value.tolist(), found.support.tolist()
    ([0.875, nan], [8, 0])
    """
    return _rate("accuracy", counts, *correct(counts.table), level, min_support)


def error_rate(counts: Counts, *, level: float = 0.95, min_support: int = MIN_SUPPORT) -> Estimate:
    """Share of items whose predicted class is not the true one, (G,).

    >>> error_rate(Counts(np.array([[[3, 1], [0, 4]]]), ("a",), ("no", "yes"))).value.tolist()
    [0.125]
    """
    hits, of = correct(counts.table)
    return _rate("error rate", counts, of - hits, of, level, min_support)


def predicted_share(
    counts: Counts, klass: int | str, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Share of items predicted to be `klass`, (G,): P(predicted = klass | group).

    For the class that brings a benefit this is Fairlearn's selection rate.

    >>> counts = Counts(np.array([[[3, 1], [0, 4]]]), ("a",), ("no", "yes"))
    >>> predicted_share(counts, "yes").value.tolist()
    [0.625]
    """
    return _class_rate("selection rate", counts, klass, level, min_support)


selection_rate = predicted_share


def true_share(
    counts: Counts, klass: int | str, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Share of items that truly are `klass`, (G,).

    >>> counts = Counts(np.array([[[3, 1], [0, 4]]]), ("a",), ("no", "yes"))
    >>> true_share(counts, "yes").value.tolist()
    [0.5]
    """
    return _class_rate("true share", counts, klass, level, min_support)


def true_positive_rate(
    counts: Counts, klass: int | str, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Share of the items of `klass` that are predicted so, (G,); its recall.

    >>> counts = Counts(np.array([[[3, 1], [0, 4]], [[2, 0], [0, 0]]]), ("a", "b"), ("no", "yes"))
    >>> found = true_positive_rate(counts, "yes")
    >>> found.value.tolist(), found.support.tolist()
    ([1.0, nan], [4, 0])
    """
    return _class_rate("true positive rate", counts, klass, level, min_support)


recall = true_positive_rate


def false_negative_rate(
    counts: Counts, klass: int | str, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Share of the items of `klass` that are predicted to be another class, (G,).

    >>> counts = Counts(np.array([[[3, 1], [1, 3]]]), ("a",), ("no", "yes"))
    >>> false_negative_rate(counts, "yes").value.tolist()
    [0.25]
    """
    return _class_rate("false negative rate", counts, klass, level, min_support)


def false_positive_rate(
    counts: Counts, klass: int | str, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Share of the items of other classes that are predicted to be `klass`, (G,).

    >>> counts = Counts(np.array([[[3, 1], [0, 4]]]), ("a",), ("no", "yes"))
    >>> false_positive_rate(counts, "yes").value.tolist()
    [0.25]
    """
    return _class_rate("false positive rate", counts, klass, level, min_support)


def true_negative_rate(
    counts: Counts, klass: int | str, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Share of the items of other classes that are not predicted to be `klass`, (G,).

    >>> counts = Counts(np.array([[[3, 1], [0, 4]]]), ("a",), ("no", "yes"))
    >>> true_negative_rate(counts, "yes").value.tolist()
    [0.75]
    """
    return _class_rate("true negative rate", counts, klass, level, min_support)


def precision(
    counts: Counts, klass: int | str, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Share of the items predicted to be `klass` that are, (G,): the predictive value.

    >>> counts = Counts(np.array([[[3, 1], [0, 4]], [[5, 0], [5, 0]]]), ("a", "b"), ("no", "yes"))
    >>> precision(counts, "yes").value.tolist()
    [0.8, nan]
    """
    return _class_rate("precision", counts, klass, level, min_support)


def f1(
    counts: Counts, klass: int | str, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Harmonic mean of precision and recall of `klass`, (G,).

    It is 2 J / (1 + J) for the share J of hits among the items where truth or prediction is
    `klass`; those items are the support, and Wilson's limits of J give the limits.

    >>> counts = Counts(np.array([[[3, 1], [1, 3]], [[5, 0], [0, 0]]]), ("a", "b"), ("no", "yes"))
    >>> f1(counts, "yes").value.tolist(), f1(counts, "yes").support.tolist()
    ([0.75, nan], [5, 0])
    """
    code = klass_code(counts, klass)
    cells = OneVsRest.of(counts.table).at(code)
    of = cells.true + cells.said - cells.hit
    overlap = wilson(cells.hit, of, level=level)
    value = 2 * cells.hit / np.where(of > 0, cells.true + cells.said, np.nan)
    return Estimate.of(
        f"f1 of {counts.classes[code]}",
        Bounded(value, 2 * overlap.low / (1 + overlap.low), 2 * overlap.high / (1 + overlap.high)),
        of,
        counts.groups,
        level=level,
        method="Wilson",
        min_support=min_support,
    )


def bias(
    counts: Counts, klass: int | str, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Predicted share of `klass` minus its true share on the same items, signed, (G,).

    Positive means the model says `klass` too often. The two shares are paired, so the limits come
    from the items where they disagree (Bonett & Price). `.absolute()` gives the size.

    >>> counts = Counts(np.array([[[3, 1], [0, 4]]]), ("a",), ("no", "yes"))
    >>> bias(counts, "yes").value.tolist(), bias(counts, "no").absolute().value.tolist()
    ([0.125], [0.125])
    """
    code = klass_code(counts, klass)
    cells = OneVsRest.of(counts.table).at(code)
    return Estimate.of(
        f"bias of {counts.classes[code]}",
        paired_difference(cells.said - cells.hit, cells.true - cells.hit, cells.total, level=level),
        cells.total,
        counts.groups,
        level=level,
        method="Bonett-Price",
        min_support=min_support,
    )


def cell_accuracy(
    counts: Counts, *, level: float = 0.95, min_support: int = MIN_SUPPORT
) -> Estimate:
    """Accuracy in every cell of group and true class, (G * C,), class varying fastest.

    >>> counts = Counts(np.array([[[3, 1], [0, 4]], [[2, 0], [0, 0]]]), ("a", "b"), ("no", "yes"))
    >>> found = cell_accuracy(counts)
    >>> found.groups, found.value.tolist()
    (('a no', 'a yes', 'b no', 'b yes'), [0.75, 1.0, 1.0, nan])
    """
    cells = OneVsRest.of(counts.table)
    return Estimate.of(
        "accuracy",
        wilson(cells.hit.ravel(), cells.true.ravel(), level=level),
        cells.true.ravel(),
        tuple(f"{g} {c}" for g in counts.groups for c in counts.classes),
        level=level,
        method="Wilson",
        min_support=min_support,
    )
