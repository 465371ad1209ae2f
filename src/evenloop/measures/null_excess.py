"""How large the largest excess accuracy gap is when no group is treated differently at all.

The largest of many noisy groups is well above 0 by chance: read a measured gap against this. After
Hashemizadeh et al., "Balancing Act" (ICLR 2024), whose published held-out gaps lie near it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evenloop.counts import Moments

__all__ = ["null_worst_excess"]


def null_worst_excess(
    lost: Moments,
    *,
    rng: np.random.Generator,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    draws: int = 2000,
) -> NDArray[np.float64]:
    """Quantiles of max_g psi_g under one damage for all, for groups of these sizes.

    Every item is damaged (right before, wrong after) or repaired with the pooled rates of `lost`,
    whatever its group; the largest excess gap of each of `draws` such worlds is taken.

    Args:
        lost: moments of right before minus right after (-1, 0 or 1) by group.
        rng: where the draws come from.
        quantiles: in [0, 1].
        draws: simulated worlds, at least 1.

    Raises:
        ValueError: no items, no draw, or moments of something else.

    >>> lost = Moments(np.array([[100.0, 8.0, 24.0], [50.0, 4.0, 12.0]]), ("a", "b"))
    >>> low, middle, high = null_worst_excess(lost, rng=np.random.default_rng(0))
    >>> bool(0 <= low < middle < high < 0.3)
    True
    """
    n, total, moved = lost.table.T
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if n.sum() < 1:
        raise ValueError("lost holds no items; there is nothing to compare with")
    damaged, repaired = (moved + total).sum() / (2 * n.sum()), (moved - total).sum() / (2 * n.sum())
    if damaged < 0 or repaired < 0 or damaged + repaired > 1:
        raise ValueError("lost must be moments of right before minus right after: -1, 0 or 1")
    size = n[n > 0].astype(np.int64)
    worse = rng.binomial(size, damaged, (draws, len(size)))
    rate = repaired / (1 - damaged) if damaged < 1 else 0.0
    better = rng.binomial(size - worse, rate)
    gap = (worse - better) / size - ((worse - better).sum(1) / size.sum())[:, None]
    return np.asarray(np.quantile(gap.max(1), quantiles))
