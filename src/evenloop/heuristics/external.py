"""Rules from other libraries, called with what a round has at hand.

scikit-activeml comes with the `active` extra; BaaL's heuristics are duck-typed objects that the
user already has (BaaL itself is no dependency).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenloop.heuristics.uncertainty import Kind, probabilities

__all__ = ["from_baal", "skactiveml_selection"]


def from_baal(heuristic: Any) -> Callable[..., Tensor]:
    """A rule `(draws (N, C, T), *, kind) -> (N,)`, highest asked first, from a BaaL heuristic.

    The heuristic's `compute_score(probabilities)` is given probabilities, so its guess about
    logits never matters; its `reversed` flag says whether its highest score comes first.

    >>> class Surest:
    ...     reversed = False
    ...     def compute_score(self, p): return p.mean(-1).max(1)
    >>> from_baal(Surest())(torch.tensor([[[0.75], [0.25]]])).tolist()
    [-0.75]
    """
    if not callable(getattr(heuristic, "compute_score", None)):
        raise TypeError(
            f"{type(heuristic).__name__} has no compute_score(probabilities); pass a BaaL heuristic"
        )

    def rule(draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> Tensor:
        score = heuristic.compute_score(probabilities(draws, kind=kind).cpu().numpy())
        score = torch.as_tensor(np.asarray(score), dtype=torch.float64)
        return score if heuristic.reversed else -score

    return rule


def skactiveml_selection(
    strategy: Any,
    pool: Tensor,
    labelled: Tensor,
    y: Tensor,
    k: int,
    **options: Any,
) -> Tensor:
    """(min(k, M),) pool positions that a scikit-activeml pool strategy asks about.

    Args:
        strategy: an instance with `query(X, y, candidates=..., batch_size=..., ...)`.
        pool: (M, F) features of the pool.
        labelled: (L, F) features of the labelled items.
        y: (L,) their labels.
        k: how many.
        options: passed on to `query` (such as `clf=` or `discriminator=`).

    Raises:
        ModuleNotFoundError: scikit-activeml is not installed; names the extra.
        ValueError: the strategy returned positions outside the pool, or one twice.
    """
    try:
        from skactiveml.utils import MISSING_LABEL
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scikit-activeml strategies need the extra `active`: pip install 'evenloop[active]'"
        ) from error
    x = torch.cat([labelled, pool]).flatten(1).double().cpu().numpy()
    known = np.full(len(x), MISSING_LABEL, dtype=float)
    known[: len(y)] = y.cpu().numpy()
    k = min(k, len(pool))
    candidates = np.arange(len(labelled), len(x))
    picked = strategy.query(x, known, candidates=candidates, batch_size=k, **options)
    chosen = torch.as_tensor(np.asarray(picked), dtype=torch.long) - len(labelled)
    if len(chosen) != k or len(set(chosen.tolist())) != k or bool((chosen < 0).any()):
        raise ValueError(
            f"{type(strategy).__name__} returned {len(chosen)} positions, not {k} distinct ones "
            "of the pool"
        )
    return chosen
