"""Two of every four weights: the sparsity that GPUs multiply at full speed.

Mishra et al., "Accelerating Sparse Deep Neural Networks" (2021): in every four neighbours along a
layer's inputs at most two weights are left. Half of the weights go, whatever the layer; NVIDIA
cards from compute capability 8.0 on skip them (`torch.sparse.to_sparse_semi_structured` on the
finished net). On other hardware it is a pattern like any other and saves no time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evenloop.surgery.schedule import pruned_count

__all__ = ["MOST", "is_two_of_four", "two_of_four"]

MOST = 0.5  # share of weights that the pattern removes in the end


def _fours(weight: Tensor) -> Tensor | None:
    """(n, 4) neighbours along the inputs (of each kernel position); None where they do not fit."""
    if weight.ndim < 2 or weight.shape[1] % 4:
        return None
    return weight.movedim(1, -1).reshape(-1, 4)


@torch.no_grad()
def two_of_four(score: Tensor, sparsity: float) -> Tensor:
    """Bool mask like `score` (O, I, ...) on the way to 2:4: only the lower two of four may go.

    Of those candidates the smallest are dropped until `sparsity` (of the layer) is reached; at
    0.5 all of them are. A layer whose inputs are no multiple of four is left whole. With a score
    below all others for weights that are pruned already, masks of rising sparsity are nested.

    Raises:
        ValueError: `sparsity` is outside [0, 0.5].

    >>> two_of_four(torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.5, 8.0, 9.0, 7.0]]), 0.25).tolist()
    [[True, False, True, True, False, True, True, True]]
    >>> two_of_four(torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.5, 8.0, 9.0, 7.0]]), 0.5).tolist()
    [[True, False, True, False, False, True, True, False]]
    """
    if not 0 <= sparsity <= MOST:
        raise ValueError(f"2:4 removes at most half of the weights, got sparsity {sparsity}")
    fours = _fours(score)
    if fours is None:
        return torch.ones_like(score, dtype=torch.bool)
    lower = torch.zeros_like(fours, dtype=torch.bool)
    lower.scatter_(1, fours.argsort(dim=1, stable=True)[:, :2], True)
    ranked = fours.masked_fill(~lower, float("inf")).flatten().argsort(stable=True)
    kept = torch.ones(fours.numel(), dtype=torch.bool, device=score.device)
    kept[ranked[: min(pruned_count(sparsity, fours.numel()), fours.numel() // 2)]] = False
    inner = (score.shape[0], *score.shape[2:], score.shape[1])
    return kept.view(inner).movedim(-1, 1)


def is_two_of_four(weight: Tensor) -> bool:
    """Whether every four neighbours along the inputs hold at least two zeros.

    >>> is_two_of_four(torch.tensor([[1.0, 0.0, 2.0, 0.0]]))
    True
    >>> is_two_of_four(torch.tensor([[1.0, 0.0, 2.0, 3.0]]))
    False
    """
    fours = _fours(weight)
    return fours is not None and bool(((fours != 0).sum(1) <= 2).all())
