"""Image quality by group: Frechet distance between features of real and generated rows.

Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, "GANs Trained by a Two Time-Scale Update Rule"
(NeurIPS 2017), with features of the study's own annotator instead of an Inception net: distances
compare generations and groups of one run, not runs with other annotators.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evenloop.groups import GroupIndex

__all__ = ["frechet", "frechet_by_group"]


def frechet(a: Tensor, b: Tensor) -> Tensor:
    """Squared Frechet distance of Gaussians fitted to features a (N, F) and b (M, F).

    |mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)) with covariances A, B; at least 0, float64.
    nan where a side has fewer than two rows.

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> float(frechet(x, x + 3))
    9.0
    """
    if len(a) < 2 or len(b) < 2:
        return a.new_full((), float("nan"), dtype=torch.float64)
    a, b = a.double(), b.double()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    # tr (A B)^(1/2) is the nuclear norm of the product of the two centred data matrices.
    left = (a - a.mean(0)) / (len(a) - 1) ** 0.5
    right = (b - b.mean(0)) / (len(b) - 1) ** 0.5
    cross: Tensor = torch.linalg.svdvals(_root(left) @ _root(right).T).sum()
    spread = left.square().sum() + right.square().sum() - 2 * cross
    distance: Tensor = shift + spread.clamp_min(0)
    return distance


def _root(centred: Tensor) -> Tensor:
    """(R, F) with the same Gram matrix as `centred` (N, F), R at most F."""
    if len(centred) <= centred.shape[1]:
        return centred
    root: Tensor = torch.linalg.qr(centred, mode="r").R
    return root


def frechet_by_group(
    real: Tensor, real_groups: GroupIndex, made: Tensor, made_groups: GroupIndex
) -> Tensor:
    """(G,) distance of each group's generated features from its real ones; nan where absent.

    Raises:
        ValueError: the two indices have other groups.
    """
    if real_groups.names != made_groups.names:
        raise ValueError(f"groups differ: {real_groups.names} and {made_groups.names}")
    pairs = (
        frechet(real[real_groups.cell == g], made[made_groups.cell == g])
        for g in range(real_groups.size)
    )
    return torch.stack(list(pairs))
