"""The newest k values of every group, as one tensor: no loop over items or groups, no host sync.

The replay buffer of Hashemizadeh et al. (ICLR 2024), vectorised.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evenloop.objectives.reference import group_count, spread

__all__ = ["GroupRing"]


class GroupRing(nn.Module):
    """First-in-first-out memory of per-item values, `capacity` (G,) values for each group.

    Everything is a buffer, so `state_dict` holds it, and it moves with `.to(device)`. A group has
    an estimate once it is full. Memory: 4 bytes times G times the largest capacity.

    Raises:
        ValueError: a capacity below 1, or no group.

    >>> ring = GroupRing(torch.tensor([3, 3]))
    >>> ring.push(torch.tensor([1.0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 0]))
    >>> ring.contents()[0].tolist(), ring.mean().tolist(), ring.full.tolist()
    ([0.0, 1.0, 1.0], [0.6666666865348816, 0.0], [True, False])
    """

    capacity: Tensor
    values: Tensor
    cursor: Tensor
    fill: Tensor
    total: Tensor

    def __init__(self, capacity: Tensor) -> None:
        super().__init__()
        if capacity.ndim != 1 or not len(capacity) or int(capacity.min()) < 1:
            raise ValueError(
                f"capacity must be (G,) with at least 1 for every group, got {capacity.tolist()}"
            )
        size, self.width = len(capacity), int(capacity.max())
        self.register_buffer("capacity", capacity.long())
        # One slot more than the table: values that newer ones of their batch overtake go there.
        self.register_buffer("values", torch.zeros(size * self.width + 1))
        self.register_buffer("cursor", torch.zeros(size, dtype=torch.long))
        self.register_buffer("fill", torch.zeros(size, dtype=torch.long))
        self.register_buffer("total", torch.zeros(size))

    @property
    def table(self) -> Tensor:
        """(G, K) view of the slots, in no particular order; 0 where nothing was pushed."""
        return self.values[:-1].view(-1, self.width)

    @property
    def full(self) -> Tensor:
        """(G,) bool, whether the group has filled its memory."""
        return self.fill == self.capacity

    @torch.no_grad()
    def push(self, values: Tensor, cell: Tensor) -> None:
        """Append `values` (B,) of the items in `cell` (B,) or (B, A), in item order."""
        values, cell = spread(values.detach().to(self.values.dtype), cell)
        size = len(self.capacity)
        cell, order = torch.sort(cell, stable=True)
        count = group_count(cell, size).long()
        rank = torch.arange(len(cell), device=cell.device) - (count.cumsum(0) - count)[cell]
        room = self.capacity[cell]
        slot = cell * self.width + (self.cursor[cell] + rank) % room
        kept = rank >= count[cell] - room
        slot = slot.where(kept, torch.full_like(slot, size * self.width))
        self.values.scatter_(0, slot, values[order])
        self.cursor.add_(count).remainder_(self.capacity)
        self.fill.copy_(torch.minimum(self.fill + count, self.capacity))
        self._sum(cell)

    def _sum(self, cell: Tensor) -> None:
        # Summed afresh rather than updated: a NaN leaves when its value does. Only rows of the
        # batch can have changed, so the cost does not grow with the number of groups.
        if len(self.capacity) <= len(cell):
            self.total.copy_(self.table.sum(1))
        else:
            self.total.index_copy_(0, cell, self.table[cell].sum(1))

    def mean(self) -> Tensor:
        """(G,) mean of each full group; 0 for a group that is not full."""
        return torch.where(self.full, self.total / self.capacity, 0)

    def contents(self) -> list[Tensor]:
        """For inspection: the values of each group, oldest first."""
        groups = zip(self.table, self.cursor.tolist(), self.fill.tolist(), strict=True)
        capacity = self.capacity.tolist()
        return [
            torch.cat([row[at:room], row[:at]]) if n == room else row[:n].clone()
            for (row, at, n), room in zip(groups, capacity, strict=True)
        ]
