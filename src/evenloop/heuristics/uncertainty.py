"""How unsure a model is about an item, from draws of its predictive distribution.

With p_t the class probabilities of posterior draw t, p their mean over draws and H the Shannon
entropy in nats:

    BALD                H(p) - mean_t H(p_t)                (Houlsby et al. 2011, eq. 2)
    predictive entropy  H(p)
    margin              top1(p) - top2(p)
    certainty           max p
    variance            mean over classes of var_t p_t      (population variance)

Logits become probabilities draw by draw, before anything is averaged: the entropy of the softmax
of mean logits is another, smaller number. What the draws are is said by the caller (`kind`),
never guessed from their values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "SCORES",
    "DrawSums",
    "Kind",
    "Score",
    "bald",
    "certainty",
    "margin",
    "mean_probs",
    "predictive_entropy",
    "probabilities",
    "variance",
]

Kind = Literal["probs", "logits"]

# Rows are worked off in slices of about this many numbers, so that the double-precision copies of
# a large (N, C, T) tensor never exist at once.
_SLICE = 1 << 20
# Single-precision softmax output of many classes sums to one only to about this.
_SUM_TOLERANCE = 1e-3


def probabilities(draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> Tensor:
    """Float64 class probabilities (N, C, T) of draws (N, C, T), converted draw by draw.

    >>> import torch
    >>> probabilities(torch.zeros(1, 2, 3), kind="logits").tolist()
    [[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]]

    Raises:
        ValueError: the shape is not (N, C, T), `kind` is unknown, a logit is NaN or infinite, or
            the values are declared probabilities and are not in [0, 1] or do not sum to one over
            classes.
    """
    draws = torch.as_tensor(draws)
    if draws.ndim != 3:
        raise ValueError(f"draws must have shape (N, C, T), got {tuple(draws.shape)}")
    wide = draws.double()
    if kind == "logits":
        if not bool(wide.isfinite().all()):
            bad = int((~wide.isfinite()).nonzero()[0, 0])
            raise ValueError(
                f"draws hold NaN or infinite logits, first for item {bad}: the model's outputs "
                "are broken before any score; lower lr or clip gradients"
            )
        return torch.softmax(wide, 1)
    if kind != "probs":
        raise ValueError(f"kind must be 'probs' or 'logits', got {kind!r}")
    _check_probs(wide)
    return wide


def _check_probs(probs: Tensor) -> None:
    if probs.numel() == 0:
        return
    low, high = float(probs.min()), float(probs.max())
    if not (low >= 0 and high <= 1 + _SUM_TOLERANCE):
        raise ValueError(
            f"draws declared kind='probs' run from {low:.4g} to {high:.4g}, outside [0, 1]; "
            "pass kind='logits' if they are logits"
        )
    off = float((probs.sum(1) - 1).abs().max())
    if not off <= _SUM_TOLERANCE:
        raise ValueError(
            f"draws declared kind='probs' do not sum to one over axis 1 (off by up to {off:.4g}); "
            "classes are axis 1 and draws axis 2; pass kind='logits' if they are logits"
        )


def _entropy(probs: Tensor) -> Tensor:
    """Shannon entropy in nats over axis 1, with 0 ln 0 = 0."""
    surprise: Tensor = torch.special.entr(probs)
    return surprise.sum(1)


def _rowwise(rule: Callable[[Tensor], Tensor], draws: Tensor | np.ndarray, kind: Kind) -> Tensor:
    draws = torch.as_tensor(draws)
    rows = max(1, _SLICE // max(1, draws[0].numel())) if draws.ndim == 3 and len(draws) else 1
    parts = [rule(probabilities(part, kind=kind)) for part in torch.split(draws, rows)]
    return torch.cat(parts)


def bald(draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> Tensor:
    """(N,) float64 mutual information of label and weights, in nats; highest is asked first.

    Between 0 and min(ln C, ln T, H(p)); rounding below 0 is cut off.

    Args:
        draws: (N, C, T) predictive draws, draws on the last axis.
        kind: what they are, "probs" or "logits".

    Raises:
        ValueError: the draws are not what `kind` says (see `probabilities`).

    >>> import torch
    >>> two = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
    >>> [round(s, 6) for s in bald(two).tolist()]
    [0.693147, 0.0]
    """
    return _rowwise(lambda p: (_entropy(p.mean(2)) - _entropy(p).mean(1)).clamp_min(0), draws, kind)


def predictive_entropy(draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> Tensor:
    """(N,) float64 entropy in nats of the mean prediction over draws (N, C, T); highest first.

    >>> import torch
    >>> round(float(predictive_entropy(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))), 6)
    0.693147
    """
    return _rowwise(lambda p: _entropy(p.mean(2)), draws, kind)


def margin(draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> Tensor:
    """(N,) float64 gap in [0, 1] between the two likeliest classes of the mean; lowest first.

    >>> import torch
    >>> margin(torch.tensor([[[0.75], [0.25]]])).tolist()
    [0.5]
    """

    def rule(p: Tensor) -> Tensor:
        top = p.mean(2).topk(min(2, p.shape[1]), 1).values
        return top[:, 0] - top[:, 1] if top.shape[1] == 2 else top[:, 0]

    return _rowwise(rule, draws, kind)


def certainty(draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> Tensor:
    """(N,) float64 probability in [1/C, 1] of the likeliest class of the mean; lowest first.

    >>> import torch
    >>> certainty(torch.tensor([[[0.75], [0.25]]])).tolist()
    [0.75]
    """
    return _rowwise(lambda p: p.mean(2).amax(1), draws, kind)


def variance(draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> Tensor:
    """(N,) float64 population variance over draws, averaged over classes; highest first.

    >>> import torch
    >>> variance(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).tolist()
    [0.25]
    """
    return _rowwise(lambda p: p.var(2, correction=0).mean(1), draws, kind)


def mean_probs(draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> Tensor:
    """(N, C) float64 Bayesian prediction: the mean over draws of the probabilities.

    >>> import torch
    >>> mean_probs(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).tolist()
    [[0.5, 0.5]]
    """
    return _rowwise(lambda p: p.mean(2), draws, kind)


@dataclass(frozen=True, slots=True)
class Score:
    """A per-item rule: `of` maps draws (N, C, T) to (N,); `highest_first` says how it is read."""

    of: Callable[..., Tensor]
    highest_first: bool

    def urgency(self, draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> Tensor:
        """(N,) score turned so that the highest is asked first, never negative.

        Margin and certainty lie in [0, 1] and become 1 - score, so that power sampling can be
        used with every rule.
        """
        score = self.of(draws, kind=kind)
        return score if self.highest_first else 1 - score


SCORES = {
    "bald": Score(bald, True),
    "entropy": Score(predictive_entropy, True),
    "margin": Score(margin, False),
    "certainty": Score(certainty, False),
    "variance": Score(variance, True),
}


@dataclass(slots=True, eq=False)
class DrawSums:
    """Sums over draws that arrive one at a time for the whole pool, (N, C) each; no (N, C, T).

    For posteriors whose draw is a whole net (ensemble members, one set of weights at a time).

    >>> import torch
    >>> sums = DrawSums.empty(1, 2)
    >>> for p in ([[1.0, 0.0]], [[0.0, 1.0]]):
    ...     sums.add(torch.tensor(p))
    >>> [round(float(s), 4) for s in (sums.bald(), sums.entropy(), sums.variance())]
    [0.6931, 0.6931, 0.25]
    """

    probs: Tensor
    squares: Tensor
    entropies: Tensor
    draws: int = 0

    @staticmethod
    def empty(n: int, classes: int, device: torch.device | str = "cpu") -> DrawSums:
        """Sums over no draw, for `n` items."""
        zeros = torch.zeros(n, classes, dtype=torch.float64, device=device)
        return DrawSums(zeros, zeros.clone(), zeros.new_zeros(n))

    def add(self, draw: Tensor, *, kind: Kind = "probs") -> None:
        """Take in one draw (N, C) of every item."""
        p = probabilities(draw[:, :, None], kind=kind)[:, :, 0].to(self.probs.device)
        self.probs += p
        self.squares += p * p
        self.entropies += _entropy(p)
        self.draws += 1

    def mean(self) -> Tensor:
        """(N, C) mean prediction."""
        if not self.draws:
            raise ValueError("no draw has been added, so there is nothing to average")
        return self.probs / self.draws

    def bald(self) -> Tensor:
        """(N,) BALD of the draws so far."""
        return (_entropy(self.mean()) - self.entropies / self.draws).clamp_min(0)

    def entropy(self) -> Tensor:
        """(N,) predictive entropy of the draws so far."""
        return _entropy(self.mean())

    def margin(self) -> Tensor:
        """(N,) margin of the mean of the draws so far."""
        return margin(self.mean()[:, :, None])

    def certainty(self) -> Tensor:
        """(N,) certainty of the mean of the draws so far."""
        return self.mean().amax(1)

    def variance(self) -> Tensor:
        """(N,) variance over the draws so far."""
        return (self.squares / self.draws - self.mean() ** 2).clamp_min(0).mean(1)
