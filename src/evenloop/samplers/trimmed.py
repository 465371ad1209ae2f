"""Uniform batches whose padding is cut off.

Texts are stored at one width; a batch of short ones need not be computed at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from evenloop.data import NOTHING, GroupedData
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform
from evenloop.seams import Batch, Sampler

__all__ = ["Trimmed"]


@dataclass(frozen=True, slots=True)
class Trimmed(Sampler):
    """The batches of `Uniform`, with `x` (B, P) and `y` (B, L) as wide as their longest row.

    Only columns that are padding (`NOTHING`) in every row of the batch are cut, so nothing that is
    computed from them changes. The widths of all batches of an epoch are read at once.

    >>> from evenloop.data import Schema, Structure
    >>> schema = Schema(("a", "b"), structure=Structure(3, 9))
    >>> x = torch.tensor([[1, 2, -1], [3, -1, -1]])
    >>> data = GroupedData.of(x, torch.tensor([[4, -1, -1], [5, -1, -1]]), {}, schema)
    >>> (batch,) = Trimmed().epoch(data, GroupIndex.of(data), batch=2, rng=Rng.of(0))
    >>> batch.x.shape, batch.y.shape
    (torch.Size([2, 2]), torch.Size([2, 1]))
    """

    drop_last: bool = False
    uniform: Uniform = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uniform", Uniform(drop_last=self.drop_last))

    def steps(self, rows: int, batch: int) -> int:
        """Number of batches in one epoch over `rows` rows."""
        return self.uniform.steps(rows, batch)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Batch]:
        """Batches of one epoch, cut to their own widths."""
        drawn = list(self.uniform.epoch(data, groups, batch=batch, rng=rng))
        wide = torch.stack([_lengths(data.x), _lengths(data.y)], 1)
        widths = torch.stack([wide[index].amax(0) for index in drawn]).tolist() if drawn else []
        for index, (prompt, label) in zip(drawn, widths, strict=True):
            x, y = data.x[index, :prompt], data.y[index, :label]
            yield Batch(x, y, groups.cell[index], index)


def _lengths(rows: Tensor) -> Tensor:
    """(N,) columns up to the last that is not padding, for rows (N, W)."""
    place = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    return (place * (rows != NOTHING)).amax(1)
