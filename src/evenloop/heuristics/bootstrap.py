"""Stand-in generators for tables of numbers: rows of a cell smoothed, or rows of no cell at all.

Silverman and Young (1987), "The bootstrap: to smooth or not to smooth?", Biometrika 74. They cost
nothing to train, so that a method that mixes generated rows in can be tried on any table, with a
source that is good and one that is poor.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from evenloop.groups import GroupIndex

__all__ = ["Kind", "resampled"]

Kind = Literal["smoothed", "blind"]


def resampled(
    x: Tensor,
    groups: GroupIndex,
    per_cell: int,
    *,
    generator: torch.Generator,
    kind: Kind = "smoothed",
    noise: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """New rows for every cell that has any: (M, F) inputs and their (M,) cells.

    "smoothed": rows of the cell drawn with replacement, plus Gaussian noise of `noise` times the
    cell's standard deviation of each feature. "blind": rows of any cell under the cell's name, plus
    noise of a whole standard deviation: labels and groups say nothing about the features.

    Args:
        x: (N, F) floating-point features.
        groups: the cell of every row.
        per_cell: new rows of each cell.
        generator: draws rows and noise.
        kind: which of the two.
        noise: of "smoothed", relative.

    Raises:
        ValueError: `x` is not a table of floating-point numbers, or a number is out of range.

    >>> groups = GroupIndex(torch.tensor([0, 0, 2]), ("a", "b", "c"))
    >>> x = torch.tensor([[1.0], [1.0], [5.0]])
    >>> new, cell = resampled(x, groups, 2, generator=torch.Generator(), noise=0.0)
    >>> new.flatten().tolist(), cell.tolist()
    ([1.0, 1.0, 5.0, 5.0], [0, 0, 2, 2])
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(
            f"only tables of floating-point numbers can be resampled, x is {x.dtype} of shape "
            f"{tuple(x.shape)}; give generated rows of your own"
        )
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {get_args(Kind)}, got {kind!r}")
    if per_cell < 1 or noise < 0:
        raise ValueError(f"per_cell must be >= 1 and noise >= 0, got {per_cell} and {noise}")
    count = groups.count()
    held = (count > 0).nonzero().flatten()
    cell = held.repeat_interleave(per_cell)
    luck = torch.rand(len(cell), generator=generator, dtype=torch.float64).to(x.device)
    shake = torch.randn(len(cell), x.shape[1], generator=generator, dtype=torch.float64)
    shake = shake.to(x.device, x.dtype)
    if kind == "blind":
        return x[(luck * len(x)).long()] + shake * x.std(0, correction=0), cell
    order = torch.argsort(groups.cell, stable=True)
    first = count.cumsum(0) - count
    picked = order[first[cell] + (luck * count[cell]).long()]
    mean = x.new_zeros(groups.size, x.shape[1]).index_add_(0, groups.cell, x)
    mean = mean / count.clamp_min(1)[:, None]
    spread = x.new_zeros(groups.size, x.shape[1])
    spread = spread.index_add_(0, groups.cell, (x - mean[groups.cell]) ** 2)
    spread = (spread / count.clamp_min(1)[:, None]).sqrt()
    return x[picked] + noise * spread[cell] * shake, cell
