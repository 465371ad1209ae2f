"""The feedback bound: how far a statistic can drift when a model labels its own training data.

Source: Taori & Hashimoto, "Data Feedback Loops" (ICML 2023), Theorem 1, in closed form: with
n_t = n0 + t (m + k), the bound delta (1 + sum_i (k / n_i) prod_{j > i} (n_j - m) / n_j) equals
delta (1 + (k / m) (1 - P_t)), P_t = prod_{j <= t} (1 - m / n_j), and for m = 0 the sum alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["feedback_bound", "feedback_factor", "mean_path"]


def feedback_bound(
    *, n0: int, human: int, model: int, delta: float, rounds: int
) -> NDArray[np.float64]:
    """(rounds + 1,) float64 bound on the bias at rounds 0..rounds; the sign of `delta` is kept.

    Args:
        n0: human-labelled items of the first round, at least 1.
        human: human-labelled items added per round, at least 0.
        model: model-labelled items added per round, at least 0.
        delta: bias measured at round 0 (signed), in the statistic's unit.
        rounds: last round, at least 0.

    Raises:
        ValueError: a count out of range or a `delta` that is not finite.

    >>> [round(float(b), 6) for b in feedback_bound(n0=100, human=0, model=10, delta=.05, rounds=2)]
    [0.05, 0.054545, 0.058712]
    """
    if not np.isfinite(delta):
        raise ValueError(f"delta must be finite, got {delta}")
    return float(delta) * feedback_factor(n0=n0, human=human, model=model, rounds=rounds)


def feedback_factor(*, n0: int, human: int, model: int, rounds: int) -> NDArray[np.float64]:
    """(rounds + 1,) float64, the bound over its tolerance: 1 at round 0, below 1 + model / human.

    Raises:
        ValueError: a count out of range.
    """
    for name, value, least in (
        ("n0", n0, 1),
        ("human", human, 0),
        ("model", model, 0),
        ("rounds", rounds, 0),
    ):
        if isinstance(value, bool) or int(value) != value or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    n = n0 + np.arange(1, rounds + 1, dtype=np.float64) * (human + model)
    if human == 0:
        return np.concatenate([[1.0], 1.0 + np.cumsum(model / n)])
    kept = -np.expm1(np.cumsum(np.log1p(-human / n)))
    return np.concatenate([[1.0], 1.0 + (model / human) * kept])


def mean_path(
    respond: Callable[[float], float],
    *,
    n0: int,
    human: int,
    model: int,
    rounds: int,
    population: float,
    start: float | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expected share in the training labels and in the model's labels, each (rounds + 1,).

    The recursion behind the theorem: n_t f_t = n_{t-1} f_{t-1} + m p + k respond(f_{t-1}).

    Args:
        respond: the labeller: training share in [0, 1] -> the share it writes.
        n0, human, model, rounds: as in `feedback_bound`.
        population: share p that people write.
        start: share in the first training labels; the population's by default.

    A labeller that always writes its training share plus 0.05 attains the bound:

    >>> _, written = mean_path(lambda f: f + .05, n0=9, human=1, model=2, rounds=5, population=.3)
    >>> bool(np.allclose(written - .3, feedback_bound(n0=9, human=1, model=2, delta=.05, rounds=5)))
    True
    """
    share, n = population if start is None else start, n0
    trained, written = [share], [respond(share)]
    for _ in range(rounds):
        share = (n * share + human * population + model * written[-1]) / (n + human + model)
        n += human + model
        trained.append(share)
        written.append(respond(share))
    return np.array(trained), np.array(written)
