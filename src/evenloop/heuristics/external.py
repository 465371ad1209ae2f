"""Rules from other libraries, called with what a round has at hand.

scikit-activeml comes with the `active` extra; BaaL's heuristics are duck-typed objects that the
user already has (BaaL itself is no dependency).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenloop.heuristics.uncertainty import Kind, probabilities

__all__ = ["STRATEGIES", "from_baal", "skactiveml_selection", "strategy"]

# Pool strategies that need features alone, by the name a loop knows them under.
STRATEGIES = {"typiclust": "TypiClust", "probcover": "ProbCover"}


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


def strategy(name: str, *, seed: int) -> Any:
    """A scikit-activeml pool strategy that spreads over the feature space and asks no model.

    "typiclust" (Hacohen et al. 2022) or "probcover" (Yehuda et al. 2022); both draw from `seed`.

    Raises:
        ModuleNotFoundError: scikit-activeml is not installed; names the extra.
        ValueError: an unknown name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; there are: {', '.join(STRATEGIES)}")
    return getattr(_skactiveml("skactiveml.pool"), STRATEGIES[name])(random_state=seed)


def _skactiveml(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scikit-activeml strategies need the extra `active`: pip install 'evenloop[active]'"
        ) from error


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
    missing = _skactiveml("skactiveml.utils").MISSING_LABEL
    x = torch.cat([labelled, pool]).flatten(1).double().cpu().numpy()
    known = np.full(len(x), missing, dtype=float)
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
