"""Asking equally often in every group: quotas first, then the best score inside each group.

The rule sees the sensitive attribute (or a prediction of it), never the inputs. Quotas are equal
or follow target shares; what a group cannot fill passes on to the others, so exactly
min(k, N) items come out. The order interlaces the groups, best of each first (Branchaud-Charron
et al. 2021, the rule they call oracle), without the original's cut at the smallest group.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from evenloop.data import UNKNOWN
from evenloop.groups import GroupIndex, ranks_within

__all__ = ["balanced_selection", "equal_share", "group_quotas", "interlaced"]


def balanced_selection(
    scores: Tensor,
    k: int,
    groups: GroupIndex | Tensor,
    *,
    share: Tensor | None = None,
    labelled_counts: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(min(k, N),) positions of the `k` items asked about, interlaced over groups.

    Args:
        scores: (N,) highest asked first.
        k: how many items, at least 0; where the pool holds fewer, all come out, with a warning.
        groups: group of each item; integer codes (N,) or a `GroupIndex`, whose group "unknown"
            gets no quota and only fills up.
        share: (G,) wanted share of each group, summing to one; equal by default.
        labelled_counts: (G,) items of each group that have a label already; the remainder of
            k over groups goes to those with the fewest.
        generator: breaks ties of the scores; without one, ties keep the order of the pool.

    Raises:
        ValueError: lengths differ, k is negative, a score is NaN, codes are no whole numbers from
            0 on, or shares are negative or do not sum to one.

    >>> import torch
    >>> group = torch.tensor([0] * 97 + [1] * 3)
    >>> asked = balanced_selection(torch.linspace(1, 0, 100), 10, group)
    >>> torch.bincount(group[asked]).tolist(), asked[:4].tolist()
    ([7, 3], [0, 97, 1, 98])
    """
    if not isinstance(groups, GroupIndex):
        if groups.is_floating_point() or (len(groups) and int(groups.min()) < 0):
            raise ValueError(
                f"groups must be integer codes from 0 on, got {groups.dtype} from "
                f"{groups.min().item()}; `GroupIndex` makes codes of columns"
            )
        size = int(groups.max()) + 1 if len(groups) else 1
        groups = GroupIndex(groups.long(), tuple(map(str, range(size))))
    if len(scores) != len(groups):
        raise ValueError(f"scores has {len(scores)} items, groups {len(groups)}")
    if bool(scores.isnan().any()):
        raise ValueError(f"scores hold NaN, first for item {int(scores.isnan().nonzero()[0])}")
    if k > len(scores):
        warnings.warn(
            f"k={k} items are wanted and the pool holds {len(scores)}: all of them come out",
            stacklevel=2,
        )
    if share is None:
        share = equal_share(groups.names)
    quota = group_quotas(k, groups.count(), share=share, labelled_counts=labelled_counts)
    tiebreak = torch.arange(len(scores), device=scores.device)
    if generator is not None:
        tiebreak = torch.randperm(len(scores), generator=generator, device=generator.device)
        tiebreak = tiebreak.to(scores.device)
    within = GroupIndex(groups.cell[tiebreak], groups.names)
    asked = tiebreak[within.top(scores[tiebreak], quota.to(scores.device))]
    return asked[interlaced(groups.cell[asked], groups.size)]


def equal_share(names: Sequence[str]) -> Tensor:
    """(G,) the same share for every group but "unknown", which has none; all, if all are.

    >>> equal_share(("f", "m", "unknown")).tolist()
    [0.5, 0.5, 0.0]
    """
    known = torch.tensor([UNKNOWN not in name.split(" ") for name in names])
    if not bool(known.any()):
        known = torch.ones_like(known)
    return known.double() / known.sum()


def interlaced(cell: Tensor, size: int) -> Tensor:
    """(N,) the order that takes the first of each cell, then the second of each, and so on.

    `cell` (N,) is sorted; within a cell the order stays.

    >>> interlaced(torch.tensor([0, 0, 0, 2]), 3).tolist()
    [0, 3, 1, 2]
    """
    return torch.argsort(ranks_within(cell, size), stable=True)


def group_quotas(
    k: int,
    available: Tensor,
    *,
    share: Tensor | None = None,
    labelled_counts: Tensor | None = None,
) -> Tensor:
    """(G,) int64 items to take from each group: min(k, total available) in all.

    Each round of filling gives every group that still has items its share of what is left,
    rounded down, and single items of the remainder to the groups with the fewest labels.

    >>> import torch
    >>> group_quotas(10, torch.tensor([50, 50, 50])).tolist()
    [4, 3, 3]
    >>> held = torch.tensor([9, 4, 0])
    >>> group_quotas(9, torch.tensor([50, 50, 0]), labelled_counts=held).tolist()
    [4, 5, 0]
    """
    if k < 0:
        raise ValueError(f"k must be at least 0, got {k}")
    available = available.cpu().long()
    groups = len(available)
    weight = (
        torch.full((groups,), 1 / groups, dtype=torch.float64)
        if share is None
        else _checked_share(share, groups)
    )
    have = torch.zeros(groups).long() if labelled_counts is None else labelled_counts.cpu().long()
    if len(have) != groups:
        raise ValueError(f"labelled_counts has {len(have)} groups, the pool {groups}")
    quota = torch.zeros(groups, dtype=torch.long)
    left = min(k, int(available.sum()))
    while left > 0:
        open_ = available > quota
        tilt = weight * open_
        if not float(tilt.sum()) > 0:
            tilt = open_.double()
        step = _floor(left * tilt / tilt.sum(), left)
        add = torch.minimum(step, available - quota)
        if int(add.sum()) == 0:
            # Ordered by labels held so far, then by the group's number.
            poorest = torch.argsort(have + quota + (tilt <= 0) * (1 << 40), stable=True)
            add = torch.zeros_like(quota)
            add[poorest[: min(left, int((tilt > 0).sum()))]] = 1
        quota += add
        left -= int(add.sum())
    return quota


def _floor(wanted: Tensor, left: int) -> Tensor:
    """Whole items of `wanted` (G,), at most `left`; 2.9999999 from a rounded share is 3."""
    near = (wanted - wanted.round()).abs() < min(1e-2, 1e-6 * left)
    snapped = torch.where(near, wanted.round(), wanted.floor()).long()
    return snapped if int(snapped.sum()) <= left else wanted.floor().long()


def _checked_share(share: Tensor, groups: int) -> Tensor:
    share = share.cpu().double()
    if share.shape != (groups,):
        raise ValueError(f"share must have shape ({groups},), got {tuple(share.shape)}")
    if float(share.min()) < 0 or abs(float(share.sum()) - 1) > 1e-6:
        got = ", ".join(f"{s:.4g}" for s in share.tolist())
        raise ValueError(f"share must be non-negative and sum to one, got {got}")
    return share
