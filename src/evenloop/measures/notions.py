"""The parity notions, as the rates they want equal over groups.

Definitions are Fairlearn's for two classes (demographic parity; equalized odds and equal
opportunity: Hardt et al. 2016; predictive parity: Chouldechova 2017), and one class against the
rest for more. Each is a comparison of rates; none says what a fair difference would be, or who is
harmed by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evenloop.counts import Counts
from evenloop.measures.parity import Parity
from evenloop.measures.proportions import CLASS_RATES, ODDS, OneVsRest, correct, klass_code

__all__ = [
    "accuracy_parity",
    "demographic_parity",
    "equal_opportunity",
    "equalized_odds",
    "predictive_parity",
]

Ints = NDArray[np.int64]
Classes = Sequence[int | str] | None


def _codes(counts: Counts, classes: Classes) -> list[int]:
    """The classes judged: those named, else the second of two, else all."""
    if classes is not None:
        if not len(classes):
            raise ValueError("classes names no class; leave it out to judge all")
        return [klass_code(counts, klass) for klass in classes]
    return [1] if len(counts.classes) == 2 else list(range(len(counts.classes)))


def _one_rate(name: str, rate: str, counts: Counts, classes: Classes) -> Parity:
    codes = _codes(counts, classes)

    def parts(table: NDArray[np.integer]) -> tuple[Ints, Ints]:
        hits, of = CLASS_RATES[rate](OneVsRest.of(table).at(codes))
        return np.moveaxis(hits, -1, -2)[..., None, :], np.moveaxis(of, -1, -2)[..., None, :]

    return Parity(name, counts, tuple((f"{rate} of {counts.classes[c]}",) for c in codes), parts)


def accuracy_parity(counts: Counts) -> Parity:
    """Equal accuracy in every group.

    >>> counts = Counts(np.array([[[3, 1], [0, 4]], [[1, 1], [0, 0]]]), ("a", "b"), ("no", "yes"))
    >>> accuracy_parity(counts).difference().value
    0.375
    """

    def parts(table: NDArray[np.integer]) -> tuple[Ints, Ints]:
        hits, of = correct(table)
        return hits[..., None, None, :], of[..., None, None, :]

    return Parity("accuracy", counts, (("accuracy",),), parts)


def demographic_parity(counts: Counts, classes: Classes = None) -> Parity:
    """Equal selection rate P(predicted = c | group).

    Args:
        counts: truth against prediction.
        classes: names or codes; by default the second of two classes, or each of more.

    >>> counts = Counts(np.array([[[3, 1], [0, 4]], [[1, 1], [0, 2]]]), ("a", "b"), ("no", "yes"))
    >>> gap = demographic_parity(counts).difference()
    >>> gap.value, gap.between, gap.support
    (0.125, ('b', 'a'), (4, 8))
    """
    return _one_rate("demographic parity", "selection rate", counts, classes)


def equal_opportunity(counts: Counts, classes: Classes = None) -> Parity:
    """Equal true positive rate P(predicted = c | truth = c, group); arguments as above.

    >>> counts = Counts(np.array([[[3, 1], [1, 3]], [[1, 1], [2, 2]]]), ("a", "b"), ("no", "yes"))
    >>> equal_opportunity(counts).difference().value
    0.25
    """
    return _one_rate("equal opportunity", "true positive rate", counts, classes)


def predictive_parity(counts: Counts, classes: Classes = None) -> Parity:
    """Equal precision P(truth = c | predicted = c, group); arguments as above.

    A group that is never predicted to be c has no precision: it is left out and named.

    >>> counts = Counts(np.array([[[3, 1], [1, 3]], [[1, 1], [3, 1]]]), ("a", "b"), ("no", "yes"))
    >>> predictive_parity(counts).difference().value
    0.25
    """
    return _one_rate("predictive parity", "precision", counts, classes)


def equalized_odds(
    counts: Counts, classes: Classes = None, *, given: Literal["rest", "class"] = "rest"
) -> Parity:
    """Equal true and false positive rates.

    With `given="rest"` each class is one block of two rates, true positive and false positive,
    against all other classes together. With `given="class"` and more than two classes, block y
    holds P(predicted = c | truth = y, group) for every c: the prediction is to be independent of
    the group given the exact class. For two classes both are the same.

    >>> counts = Counts(np.array([[[3, 1], [1, 3]], [[1, 1], [1, 3]]]), ("a", "b"), ("no", "yes"))
    >>> equalized_odds(counts).difference().rate
    'false positive rate of yes'
    """
    codes = _codes(counts, classes)
    if given == "class" and len(counts.classes) > 2:
        return _given_class(counts, codes)

    def parts(table: NDArray[np.integer]) -> tuple[Ints, Ints]:
        cells = OneVsRest.of(table).at(codes)
        odds = zip(*(CLASS_RATES[rate](cells) for rate in ODDS), strict=True)
        hits, of = (np.moveaxis(np.stack(part, -1), -3, -1) for part in odds)
        return hits, of

    rates = tuple(tuple(f"{rate} of {counts.classes[c]}" for rate in ODDS) for c in codes)
    return Parity("equalized odds", counts, rates, parts)


def _given_class(counts: Counts, codes: list[int]) -> Parity:
    def parts(table: NDArray[np.integer]) -> tuple[Ints, Ints]:
        hits = np.moveaxis(table, -3, -1)[..., codes, :]
        of = np.moveaxis(table.sum(-1), -2, -1)[..., None, :]
        return np.asarray(hits, np.int64), np.asarray(np.broadcast_to(of, hits.shape), np.int64)

    names = counts.classes
    rates = tuple(tuple(f"share of {truth} called {names[c]}" for c in codes) for truth in names)
    return Parity("equalized odds given the class", counts, rates, parts)
