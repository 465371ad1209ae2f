"""Calibration: whether items predicted with confidence p are right in a share p of the cases.

Read from two moments over the same cells, group by group and confidence bin by confidence bin (the
bin varies fastest): the confidence of the top class, and whether it was right. Bins are as whoever
counted made them, usually ten of equal width (Guo et al. 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evenloop.counts import Moments
from evenloop.intervals import Bounded, normal_quantile, wilson
from evenloop.measures.estimate import MIN_SUPPORT, Estimate

__all__ = ["Reliability", "expected_calibration_error", "reliability"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """A reliability diagram per group: arrays (G, B); an empty bin is nan with support 0.

    `confidence` is the mean confidence of a bin, `accuracy` the share of its items that are right
    with Wilson limits `low`, `high`, and `support` the number of its items.
    """

    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    support: NDArray[np.int64]
    groups: tuple[str, ...]
    level: float


def reliability(
    confidence: Moments, hit: Moments, *, bins: int = 10, level: float = 0.95
) -> Reliability:
    """Confidence and accuracy of every bin of every group.

    Args:
        confidence: moments of the confidence over G * `bins` cells named "group|bin".
        hit: moments of right (1) or wrong (0) over the same cells.
        bins: bins of each group.
        level: probability that a bin's limits hold its accuracy.

    Raises:
        ValueError: the two have other cells or counts, or these are not G times `bins`.

    >>> cells = ("all|0", "all|1")
    >>> confidence = Moments(np.array([[2, 0.8, 0.4], [0, 0, 0]]), cells)
    >>> hit = Moments(np.array([[2, 1.0, 1.0], [0, 0, 0]]), cells)
    >>> found = reliability(confidence, hit, bins=2)
    >>> found.accuracy.tolist(), found.confidence.tolist(), found.groups
    ([[0.5, nan]], [[0.4, nan]], ('all',))
    """
    if confidence.groups != hit.groups or (confidence.table[:, 0] != hit.table[:, 0]).any():
        raise ValueError("confidence and hit must count the same items in the same cells")
    cells = len(confidence.groups)
    if bins < 1 or cells % bins:
        raise ValueError(f"bins must divide the {cells} cells, got {bins}; use the bins counted")
    n, total = confidence.table[:, 0].reshape(-1, bins), confidence.table[:, 1].reshape(-1, bins)
    right = wilson(hit.table[:, 1].reshape(-1, bins), n, level=level)
    names = tuple(name.rpartition("|")[0] or name for name in confidence.groups[::bins])
    mean = total / np.where(n > 0, n, np.nan)
    return Reliability(mean, *right, n.astype(np.int64), names, level)


def expected_calibration_error(
    confidence: Moments,
    hit: Moments,
    *,
    bins: int = 10,
    level: float = 0.95,
    min_support: int = MIN_SUPPORT,
) -> Estimate:
    """Mean distance between confidence and accuracy over bins, weighted by their items, (G,).

    Noise in the bins' accuracies only adds to it, so it is above 0 even for a calibrated model;
    the limits allow for that: by the triangle inequality the true error is at most the weighted
    sum of the bins' own errors away, and they are that sum's quantile (normal, confidences given).

    Args: as in `reliability`, and `min_support`, the fewest items of a group.

    >>> cells = ("all|0", "all|1")
    >>> confidence = Moments(np.array([[4, 1.0, 0.3], [4, 3.0, 2.3]]), cells)
    >>> hit = Moments(np.array([[4, 1.0, 1.0], [4, 2.0, 2.0]]), cells)
    >>> found = expected_calibration_error(confidence, hit, bins=2)
    >>> found.value.tolist(), found.low.tolist(), found.support.tolist()
    ([0.125], [0.0], [8])
    """
    found = reliability(confidence, hit, bins=bins, level=level)
    n = found.support
    size = n.sum(1)
    weight = n / np.where(size > 0, size, np.nan)[:, None]
    apart = np.where(n > 0, np.abs(found.accuracy - found.confidence), 0.0)
    value = (weight * apart).sum(1)
    near = (np.where(n > 0, found.accuracy, 0.0) * n + 1) / (n + 2)
    noise = weight * np.sqrt(near * (1 - near) / (n + 2))
    one_sided = NormalDist().inv_cdf(level)
    sum_of_sizes = noise.sum(1) * (2 / pi) ** 0.5
    around = np.sqrt((noise**2).sum(1) * (1 - 2 / pi))
    reach = np.maximum(sum_of_sizes + one_sided * around, normal_quantile(level) * noise.max(1))
    return Estimate.of(
        "expected calibration error",
        Bounded(value, np.maximum(value - reach, 0), np.minimum(value + reach, 1)),
        size,
        found.groups,
        level=level,
        method=f"triangle inequality, {bins} bins",
        min_support=min_support,
    )
