"""What each group's newest values were, as tensors: no loop over items or groups, no host sync.

`GroupRing` is the replay buffer of Hashemizadeh et al. (ICLR 2024): the newest k values.
`GroupAverage` forgets gradually instead of all at once and keeps three numbers a group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evenloop.objectives.reference import group_count, spread

__all__ = ["GroupAverage", "GroupRing", "check_capacity"]


def check_capacity(capacity: Tensor) -> Tensor:
    """(G,) int64 copy; ValueError unless there is a group and every capacity is at least 1."""
    if capacity.ndim != 1 or not len(capacity) or int(capacity.min()) < 1:
        raise ValueError(
            f"capacity must be (G,) with at least 1 for every group, got {capacity.tolist()}"
        )
    return capacity.long()


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
        self.register_buffer("capacity", check_capacity(capacity))
        size, self.width = len(capacity), int(capacity.max())
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

    def error(self) -> Tensor:
        """(G,) standard error of each full group's mean, from its values; 0 if it is not full."""
        second = self.table.square().sum(1) / self.capacity
        variance = (second - self.mean() ** 2).clamp(min=0) / self.capacity
        return torch.where(self.full, variance.sqrt(), 0)

    def contents(self) -> list[Tensor]:
        """For inspection: the values of each group, oldest first."""
        groups = zip(self.table, self.cursor.tolist(), self.fill.tolist(), strict=True)
        capacity = self.capacity.tolist()
        return [
            torch.cat([row[at:room], row[:at]]) if n == room else row[:n].clone()
            for (row, at, n), room in zip(groups, capacity, strict=True)
        ]


class GroupAverage(nn.Module):
    """Exponential average of per-item values with a memory of about `capacity` (G,) items a group.

    An item's weight falls by (1 - 1 / capacity) with every later item of its group, so a group
    forgets at the pace of its own items, however rare. Hits and weights are averaged alike: the
    estimate has no bias towards a start value. A group has an estimate once it has met `capacity`
    items. The weights add up to less than `capacity` (1 - 1/e of it when the group counts as
    full), and the effective number of items tends to 2 capacity - 1.

    Raises:
        ValueError: a capacity below 1, or no group.

    >>> average = GroupAverage(torch.tensor([2, 2]))
    >>> average.push(torch.tensor([1.0, 1.0]), torch.tensor([0, 0]))
    >>> average.push(torch.tensor([0.0]), torch.tensor([0]))
    >>> [round(v, 3) for v in average.mean().tolist()], average.full.tolist()
    ([0.429, 0.0], [True, False])
    """

    capacity: Tensor
    weight: Tensor
    weight_squared: Tensor
    total: Tensor
    total_squared: Tensor
    fill: Tensor

    def __init__(self, capacity: Tensor) -> None:
        super().__init__()
        self.register_buffer("capacity", check_capacity(capacity))
        for name in ("weight", "weight_squared", "total", "total_squared"):
            self.register_buffer(name, torch.zeros(len(capacity)))
        self.register_buffer("fill", torch.zeros(len(capacity), dtype=torch.long))

    @property
    def full(self) -> Tensor:
        """(G,) bool, whether the group has met as many items as its capacity."""
        return self.fill == self.capacity

    @torch.no_grad()
    def push(self, values: Tensor, cell: Tensor) -> None:
        """Take in `values` (B,) of the items in `cell` (B,) or (B, A); a batch counts as one time.

        All items of a group in one batch get the same weight, so their order does not matter.
        """
        values, cell = spread(values.detach().to(self.total.dtype), cell)
        size = len(self.capacity)
        count = group_count(cell, size)
        kept = (1 - 1 / self.capacity) ** count
        fresh = torch.where(count > 0, (1 - kept) * self.capacity / count.clamp(min=1), 0)
        zero = torch.zeros_like(self.total)
        self.weight.mul_(kept).add_(fresh * count)
        self.weight_squared.mul_(kept**2).add_(fresh**2 * count)
        self.total.mul_(kept).add_(fresh * zero.index_add(0, cell, values))
        self.total_squared.mul_(kept).add_(fresh * zero.index_add(0, cell, values**2))
        self.fill.copy_(torch.minimum(self.fill + count.long(), self.capacity))

    def mean(self) -> Tensor:
        """(G,) weighted mean of each full group; 0 for a group that is not full."""
        return torch.where(self.full, self.total / self.weight.clamp(min=1e-12), 0)

    def error(self) -> Tensor:
        """(G,) standard error of each full group's mean, from its values; 0 if it is not full."""
        weight = self.weight.clamp(min=1e-12)
        variance = (self.total_squared / weight - self.mean() ** 2).clamp(min=0)
        return torch.where(self.full, (variance * self.weight_squared / weight**2).sqrt(), 0)
