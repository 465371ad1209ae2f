"""Uniform batches without replacement: a new shuffle each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.seams import Sampler

__all__ = ["Uniform"]


@dataclass(frozen=True, slots=True)
class Uniform(Sampler):
    """Every row once an epoch, in an order drawn from the epoch's stream.

    `drop_last` leaves out the last batch when it is short, as BatchNorm recipes want.

    >>> from evenloop.rng import Rng
    >>> Uniform().steps(10, 4), Uniform(drop_last=True).steps(10, 4)
    (3, 2)
    """

    drop_last: bool = False

    def steps(self, rows: int, batch: int) -> int:
        """Batches of an epoch: floor(rows / batch) when dropping the last, else the ceiling."""
        return rows // batch if self.drop_last else -(-rows // batch)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Tensor]:
        """(B,) positions; the shuffle depends on the stream and the number of rows alone."""
        order = torch.randperm(len(data), generator=rng.gen()).to(data.y.device)
        for step in range(self.steps(len(data), batch)):
            yield order[step * batch : (step + 1) * batch]
