"""Group rates and gaps of anyone's predictions: three arrays in, a table out.

Words follow Fairlearn, and the numbers equal its where both are defined; where a rate has no items
behind it, it is missing here instead of 0. `group_counts` is the same without a table: one
`Counts` per attribute, to be read with `evenloop.measures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from evenloop.counts import Counts
from evenloop.intervals import resample, wilson
from evenloop.measures import (
    MIN_SUPPORT,
    Gap,
    Parity,
    accuracy_parity,
    demographic_parity,
    equal_opportunity,
    equalized_odds,
    predictive_parity,
)
from evenloop.measures.contrasts import KINDS
from evenloop.measures.estimate import check_support
from evenloop.measures.proportions import correct
from evenloop.measures.table import OF_CLASS, class_rates
from evenloop.rates.count import OVERALL, group_counts
from evenloop.rng import Rng

__all__ = ["bootstrap_gaps", "group_gaps", "group_rates"]

METRICS = [rate.replace(" ", "_") for rate in OF_CLASS]


def group_rates(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: ArrayLike | Mapping[str, ArrayLike],
    *,
    classes: Sequence[Any] | None = None,
    level: float = 0.95,
    min_support: int = MIN_SUPPORT,
) -> pd.DataFrame:
    """Every rate of every group, with its limits and the count behind it.

    Args:
        y_true: (N,) true class labels: numbers, strings or booleans.
        y_pred: (N,) predicted class labels (not scores).
        sensitive_features: (N,) group labels, or name -> (N,) for several attributes; these are
            tabled one by one and crossed. A missing value is the group "unknown".
        classes: all class labels in order, if some may not occur; for two classes the second is
            the one whose selection counts. By default those found, sorted.
        level: probability that a group's limits hold its rate.
        min_support: fewest items behind a rate for it to be estimable.

    Returns:
        One row per attribute ("overall" first, crossed attributes last), group and metric, with
        columns attribute, group, metric, class, value, low, high, n. `value` is nan where n is
        below `min_support`; `n` counts the items the rate is a share of. With two classes the
        rates are those of the second, with more every class has its own, against the rest.

    Raises:
        ValueError: lengths differ, there are no rows, a label is missing or a score, or labels of
            different kinds are mixed.

    >>> table = group_rates([0, 1, 1, 0], [0, 1, 0, 0], ["f", "f", "m", "m"])
    >>> table.query("metric == 'true_positive_rate'")[["group", "value", "n"]].values.tolist()
    [['overall', 0.5, 2], ['f', 1.0, 1], ['m', 0.0, 1]]
    """
    counted = group_counts(y_true, y_pred, sensitive_features, classes=classes)
    least = check_support(min_support)
    named: dict[str, list[str]] = {"attribute": [], "group": [], "metric": [], "class": []}
    found = []
    for attribute, counts in counted.items():
        codes = _judged(counts)
        parts = zip(correct(counts.table), class_rates(counts.table, codes), strict=True)
        hits, of = (np.append(right, np.moveaxis(rest, -1, 0)) for right, rest in parts)
        found.append((*wilson(hits, of, level=level).where(of >= least), of))
        rates = [("accuracy", ""), *((m, counts.classes[k]) for k in codes for m in METRICS)]
        named["attribute"] += [attribute] * len(of)
        named["group"] += counts.groups * len(rates)
        named["metric"] += [metric for metric, _ in rates for _ in counts.groups]
        named["class"] += [klass for _, klass in rates for _ in counts.groups]
    numbers = map(np.concatenate, zip(*found, strict=True))
    return pd.DataFrame(named | dict(zip(("value", "low", "high", "n"), numbers, strict=True)))


def group_gaps(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: ArrayLike | Mapping[str, ArrayLike],
    *,
    classes: Sequence[Any] | None = None,
    level: float = 0.95,
    min_support: int = MIN_SUPPORT,
) -> pd.DataFrame:
    """The widest gaps between groups, with limits, the two groups and what was left out.

    Args:
        y_true, y_pred, sensitive_features, classes: as in `group_rates`.
        level: probability that the limits hold the true widest gap.
        min_support: fewest items behind a group's rate for it to take part.

    Returns:
        One row per attribute and metric: difference and ratio of accuracy, demographic parity,
        equal opportunity, equalized odds and predictive parity; for more than two classes that
        of the worst class. Columns attribute, metric, value, low, high, higher, n_higher, lower,
        n_lower, rate, reference, excluded, method. `value` is nan, with the reason in `excluded`,
        if fewer than two groups have enough items.

    Raises:
        ValueError: as in `group_rates`.

    >>> table = group_gaps([0, 1, 1, 0], [0, 1, 0, 0], ["f", "f", "m", "m"])
    >>> table.set_index("metric").loc["demographic_parity_difference", ["higher", "lower"]].tolist()
    ['f', 'm']
    """
    gaps = {
        attribute: [
            gap
            for notion in _notions(counts)
            for gap in notion.both(level=level, min_support=min_support)
        ]
        for attribute, counts in _by_attribute(y_true, y_pred, sensitive_features, classes).items()
    }
    return _gap_table(gaps)


def bootstrap_gaps(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: ArrayLike | Mapping[str, ArrayLike],
    *,
    classes: Sequence[Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    min_support: int = MIN_SUPPORT,
) -> pd.DataFrame:
    """The table of `group_gaps` with limits from counts drawn again inside each group.

    Drawing counts is the same as drawing the items themselves, group by group, and costs no more
    for a million items than for a hundred. The limits hold for all pairs of groups at once, so
    they contain 0 (or 1 for a ratio) where parity cannot be ruled out.

    Args:
        y_true, y_pred, sensitive_features, classes, level, min_support: as in `group_gaps`.
        resamples: number of draws.
        seed: the same seed gives the same limits.

    Raises:
        ValueError: as in `group_rates`, or `resamples` is below 1.

    >>> table = bootstrap_gaps([0, 1] * 50, [0, 1] * 40 + [1, 1] * 10, ["f"] * 60 + ["m"] * 40)
    >>> gap = table.set_index("metric").loc["accuracy_difference"]
    >>> float(gap["value"]), bool(0 < gap["low"] < gap["high"] < 0.5)
    (0.25, True)
    """
    root = Rng.of(seed).at("bootstrap_gaps")
    gaps: dict[str, list[Gap]] = {}
    for attribute, counts in _by_attribute(y_true, y_pred, sensitive_features, classes).items():
        draws = resample(counts.table, resamples, root.at(attribute))
        gaps[attribute] = [
            notion.bootstrap(draws, kind=kind, level=level, min_support=min_support)
            for notion in _notions(counts)
            for kind in KINDS
        ]
    return _gap_table(gaps)


def _by_attribute(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: ArrayLike | Mapping[str, ArrayLike],
    classes: Sequence[Any] | None,
) -> dict[str, Counts]:
    found = group_counts(y_true, y_pred, sensitive_features, classes=classes)
    del found[OVERALL]
    return found


def _judged(counts: Counts) -> list[int]:
    """The second of two classes, or every class."""
    return [1] if len(counts.classes) == 2 else list(range(len(counts.classes)))


def _notions(counts: Counts) -> list[Parity]:
    return [
        accuracy_parity(counts),
        demographic_parity(counts),
        equal_opportunity(counts),
        equalized_odds(counts),
        predictive_parity(counts),
    ]


def _gap_table(gaps: Mapping[str, Sequence[Gap]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"attribute": attribute, **gap.row(), "metric": gap.name.replace(" ", "_")}
            for attribute, found in gaps.items()
            for gap in found
        ]
    )
