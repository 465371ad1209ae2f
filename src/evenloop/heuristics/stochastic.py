"""Asking at random, more often where the score is high (stochastic batch acquisition).

The top k of a score are often near copies of one another; drawing k items without replacement,
with probabilities that grow with the score, avoids that at no cost (Kirsch et al. 2023,
"Stochastic Batch Acquisition", table 1):

    power    s^(1/temperature)
    softmax  exp(s/temperature)
    rank     r^(-1/temperature), r = 1 for the highest score, ties share their mean rank

Drawing is by the Gumbel top-k trick: one noise per item and one top-k, whatever k is.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Rule", "acquisition_probabilities", "random_order_top", "stochastic_selection"]

Rule = Literal["power", "softmax", "rank"]


def acquisition_probabilities(score: Tensor, rule: Rule, *, temperature: float = 1.0) -> Tensor:
    """(N,) float64 chance of each item to be the first one drawn.

    >>> import torch
    >>> acquisition_probabilities(torch.tensor([3.0, 1.0]), "power").tolist()
    [0.75, 0.25]

    Args:
        score: (N,) scores, highest wanted most; non-negative for "power".
        rule: "power", "softmax" or "rank".
        temperature: positive; towards 0 the draw becomes the top k, large is uniform.

    Raises:
        ValueError: the temperature is not positive, the rule is unknown, a score is NaN, or
            "power" meets a negative score.
    """
    log_weight = _log_weights(score, rule, temperature)
    if log_weight.numel() and bool((log_weight == -torch.inf).all()):
        return torch.full_like(log_weight, 1 / len(log_weight))
    return torch.softmax(log_weight, 0)


def stochastic_selection(
    score: Tensor,
    k: int,
    rule: Rule,
    *,
    temperature: float = 1.0,
    generator: torch.Generator,
) -> Tensor:
    """(min(k, N),) positions drawn without replacement by `rule`, in the order drawn.

    Items of weight 0 (score 0 under "power") come last, in random order: only when too few others
    remain.

    >>> import torch
    >>> gen = torch.Generator().manual_seed(0)
    >>> sorted(stochastic_selection(torch.tensor([0.0, 2.0, 1.0]), 2, "power", generator=gen)
    ...        .tolist())
    [1, 2]
    """
    if k < 0:
        raise ValueError(f"k must be at least 0, got {k}")
    log_weight = _log_weights(score, rule, temperature)
    noise = torch.rand(
        len(score), generator=generator, device=generator.device, dtype=torch.float64
    ).to(score.device)
    # Gumbel noise from uniforms in [0, 1): the smallest positive double keeps the logs finite.
    gumbel = -(-noise.clamp_min(torch.finfo(torch.float64).tiny).log()).log()
    weightless = log_weight == -torch.inf
    key = (log_weight + gumbel).masked_fill(weightless, 0.0)
    if bool(weightless.any()):
        floor = key[~weightless].min() if bool((~weightless).any()) else key.new_zeros(())
        key = torch.where(weightless, floor - 1 - noise, key)
    return key.topk(min(k, len(score))).indices


def random_order_top(score: Tensor, k: int, *, generator: torch.Generator) -> Tensor:
    """(min(k, N),) positions of the highest scores, ties broken by the generator, highest first.

    Raises:
        ValueError: k is negative, or a score is NaN: nothing would rank it.

    >>> import torch
    >>> random_order_top(torch.tensor([1.0, 3.0, 2.0]), 2,
    ...                  generator=torch.Generator().manual_seed(0)).tolist()
    [1, 2]
    """
    if k < 0:
        raise ValueError(f"k must be at least 0, got {k}")
    _check_known(score)
    shuffle = torch.randperm(len(score), generator=generator, device=generator.device)
    shuffle = shuffle.to(score.device)
    shuffled = score[shuffle]
    k = min(k, len(score))
    if k == 0:
        return shuffle[:0]
    # topk leaves the choice among ties open; every item above the k-th score is in, and the rest
    # is filled from the shuffled ties in their order.
    kth = shuffled.topk(k).values[-1]
    above = (shuffled > kth).nonzero().flatten()
    ties = (shuffled == kth).nonzero().flatten()[: k - len(above)]
    chosen = torch.cat([above, ties])
    chosen = chosen[torch.argsort(shuffled[chosen], descending=True, stable=True)]
    return shuffle[chosen]


def _log_weights(score: Tensor, rule: Rule, temperature: float) -> Tensor:
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    score = score.double()
    _check_known(score)
    if rule == "power":
        if score.numel() and float(score.min()) < 0:
            raise ValueError(
                f"rule 'power' needs scores of at least 0, got {float(score.min()):.4g}; "
                "use 'softmax' or 'rank'"
            )
        return score.log() / temperature
    if rule == "softmax":
        return score / temperature
    if rule == "rank":
        return -_mean_ranks(score).log() / temperature
    raise ValueError(f"rule must be 'power', 'softmax' or 'rank', got {rule!r}")


def _check_known(score: Tensor) -> None:
    if bool(score.isnan().any()):
        bad = int(score.isnan().nonzero()[0])
        raise ValueError(
            f"scores hold NaN, first for item {bad}; check the model's outputs, or leave such "
            "items out"
        )


def _mean_ranks(score: Tensor) -> Tensor:
    """(N,) rank of each score, 1 for the highest; equal scores share the mean of their ranks."""
    _, inverse, count = torch.unique(-score, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    rank: Tensor = last - (count.double() - 1) / 2
    return rank[inverse]
