"""What a population consists of: the share of every cell, and its distance from an ideal mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evenloop.counts import Counts
from evenloop.intervals import wilson
from evenloop.measures.estimate import Estimate

__all__ = ["Divergence", "cell_shares", "divergence", "shares"]


def shares(items: ArrayLike, names: Sequence[str], *, level: float = 0.95) -> Estimate:
    """Share of each of K cells among all items, (K,), with Wilson limits.

    The support is the number of all items: a cell without items has share 0, and only a
    population without items has none.

    Args:
        items: (K,) items of each cell.
        names: names of the cells.
        level: probability that a cell's limits hold its share.

    Raises:
        ValueError: a negative count, or as many names as cells are not given.

    >>> found = shares([3, 0, 1], ("a", "b", "c"))
    >>> found.value.tolist(), found.support.tolist()
    ([0.75, 0.0, 0.25], [4, 4, 4])
    """
    items = _items(items)
    if len(items) != len(names):
        raise ValueError(f"names must name {len(items)} cells, got {len(names)}")
    total = np.full(len(items), items.sum())
    return Estimate.of(
        "share",
        wilson(items, total, level=level),
        total,
        tuple(names),
        level=level,
        method="Wilson",
    )


def cell_shares(
    counts: Counts, *, by: Literal["truth", "predicted"] = "truth", level: float = 0.95
) -> Estimate:
    """Share of each cell of group and class among all items, (G * C,), class varying fastest.

    Args:
        counts: truth against prediction (or against the label an annotator gave).
        by: which of the two is the class of the cell.
        level: as in `shares`.

    >>> counts = Counts(np.array([[[2, 1], [0, 1]], [[0, 0], [0, 4]]]), ("a", "b"), ("no", "yes"))
    >>> found = cell_shares(counts)
    >>> dict(zip(found.groups, found.value.tolist(), strict=True))
    {'a no': 0.375, 'a yes': 0.125, 'b no': 0.0, 'b yes': 0.5}
    """
    names = [f"{group} {klass}" for group in counts.groups for klass in counts.classes]
    axis = 2 if by == "truth" else 1
    return shares(counts.table.sum(axis).ravel(), names, level=level)


@dataclass(frozen=True, slots=True)
class Divergence:
    """Distance of observed shares from an ideal mix.

    `kl` is the relative entropy sum p ln(p / q) in nats of the shares p against the ideal q (0 ln 0
    is 0; infinite if a cell occurs that the ideal excludes), `total_variation` is half the summed
    distance, in [0, 1]. `support` is the number of items, and `kl_noise` what `kl` would be on
    average if they came from the ideal, about (K - 1) / (2 n) for the K cells the ideal allows:
    a value near it is no evidence of a distance.
    """

    kl: float
    total_variation: float
    support: int
    kl_noise: float


def divergence(items: ArrayLike, ideal: ArrayLike | None = None) -> Divergence:
    """Distance of a vector of counts from an ideal mix; nan without items.

    Args:
        items: (K,) items of each cell.
        ideal: (K,) shares that sum to one; uniform by default.

    Raises:
        ValueError: a negative count, or an ideal of another length, with a negative share, or
            that does not sum to one.

    >>> found = divergence([3, 1])
    >>> round(found.kl, 4), found.total_variation, found.support, found.kl_noise
    (0.1308, 0.25, 4, 0.125)
    """
    items = _items(items)
    count = len(items)
    q = np.full(count, 1 / count) if ideal is None else np.asarray(ideal, np.float64)
    if q.shape != items.shape:
        raise ValueError(f"ideal must have shape {items.shape}, got {q.shape}")
    if not (q >= 0).all() or abs(float(q.sum()) - 1) > 1e-6:
        raise ValueError(f"ideal must be shares that sum to one, got {q.tolist()}")
    n = int(items.sum())
    if n == 0:
        return Divergence(np.nan, np.nan, 0, np.nan)
    p = items / n
    seen = p > 0
    with np.errstate(divide="ignore"):
        kl = float((p[seen] * np.log(p[seen] / q[seen])).sum())
    allowed = int((q > 0).sum())
    return Divergence(kl, float(np.abs(p - q).sum() / 2), n, (allowed - 1) / (2 * n))


def _items(items: ArrayLike) -> NDArray[np.int64]:
    counted = np.asarray(items)
    if counted.ndim != 1 or counted.size == 0 or not np.issubdtype(counted.dtype, np.integer):
        raise ValueError(
            f"items must be a vector of whole counts, got shape {counted.shape} of {counted.dtype}"
        )
    if counted.min() < 0:
        raise ValueError(f"items must not be negative, got {counted.min()}")
    return counted.astype(np.int64)
