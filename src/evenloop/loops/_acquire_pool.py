"""Who is still in the pool, at a cost that does not grow with the pool.

What no round changes (positions, cells, counts of the world's rows) is derived once for a world and
kept as long as its rows live. A round then looks at the rows it has labelled, never at the pool:
counts of the pool are the world's less those of the rows taken, and a random choice draws positions
and passes over the taken ones. Nothing here is state: every value follows from the world and the
rows labelled, so a run that goes on after a restart sees the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from evenloop.counts import Counts
from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.heuristics.balanced import interlaced

__all__ = ["Cells", "Shelf", "draw_cells", "first_free", "shelf_of"]

# Below this share of free rows, or above this share of them wanted, drawing positions and passing
# over the taken ones costs more than listing the free ones.
SPARSE, MOST = 1 / 16, 1 / 2


@dataclass(frozen=True, eq=False)
class Cells:
    """The world's rows that can be labelled, by cell of some columns.

    Attributes:
        index: the cell of every row of the world.
        open: (M,) positions of the rows that can be labelled, in the world's order.
    """

    index: GroupIndex
    open: Tensor

    @cached_property
    def count(self) -> Tensor:
        """(G,) rows of each cell that can be labelled."""
        return torch.bincount(self.index.cell[self.open], minlength=self.index.size)

    @cached_property
    def order(self) -> Tensor:
        """(M,) the open positions, cell by cell, in the world's order within a cell."""
        return self.open[torch.argsort(self.index.cell[self.open], stable=True)]

    def free(self, taken: Tensor) -> Tensor:
        """(G,) rows of each cell that are not at the positions `taken`."""
        return self.count - torch.bincount(self.index.cell[taken], minlength=self.index.size)


@dataclass(frozen=True, eq=False)
class Shelf:
    """Everything about a world's rows that no round changes.

    Attributes:
        rows: rows of the world, N.
        place: (R,) position of the row with each identity; -1 where the world has none.
        open: (M,) positions of rows that people can label: generated ones are not.
        cells, classes: what was asked for so far, by columns.
    """

    rows: int
    place: Tensor
    open: Tensor
    cells: dict[tuple[str, ...], Cells]
    classes: dict[tuple[str, ...], Counts]

    def by(self, data: GroupedData, columns: Sequence[str]) -> Cells:
        """The rows of `data` by cell of `columns`."""
        key = tuple(columns)
        if key not in self.cells:
            index = GroupIndex.of(data, key)
            self.cells[key] = Cells(GroupIndex(index.cell.cpu(), index.names), self.open)
        return self.cells[key]

    def taken(self, rows: Tensor) -> Tensor:
        """Positions of the rows with these identities, each once, ascending; -1 is left out."""
        places: Tensor = torch.unique(self.place[rows[rows >= 0].cpu()])
        return places

    def free(self, taken: Tensor) -> Tensor:
        """(M - L,) open positions but `taken` (L,), in order: a pass over the world, for scores."""
        mask = torch.zeros(self.rows, dtype=torch.bool)
        mask[self.open] = True
        mask[taken] = False
        return mask.nonzero().flatten()

    def pool_counts(self, data: GroupedData, columns: Sequence[str], taken: Tensor) -> Counts:
        """True classes of the rows that are not taken, by cell of `columns`."""
        key, cells = tuple(columns), self.by(data, columns).index
        names = data.schema.classes

        def of(rows: Tensor) -> Counts:
            truth = data.truth[rows].cpu()
            return Counts.of(truth, truth, cells.take(rows), names)

        if key not in self.classes:
            self.classes[key] = of(self.open)
        whole = self.classes[key]
        return Counts(whole.table - of(taken).table, whole.groups, whole.classes)


_KNOWN: WeakKeyDictionary[GroupedData, Shelf] = WeakKeyDictionary()


def shelf_of(data: GroupedData) -> Shelf:
    """The shelf of a world's rows; derived at the first call for this value and kept with it."""
    if data not in _KNOWN:
        row = data.row.cpu()
        can = (row >= 0).nonzero().flatten()  # nobody labels a generated row
        place = torch.full((int(row.max()) + 1 if len(row) else 0,), -1)
        place[row[can]] = can
        _KNOWN[data] = Shelf(len(row), place, can, {}, {})
    return _KNOWN[data]


def first_free(shelf: Shelf, taken: Tensor, n: int) -> Tensor:
    """The first `n` open positions that are not `taken`, in the world's order."""
    head = shelf.open[: n + len(taken)]
    return head[~torch.isin(head, taken)][:n]


def draw_cells(cells: Cells, taken: Tensor, quota: Tensor, generator: torch.Generator) -> Tensor:
    """`quota` (G,) positions of each cell, uniform over those not `taken`, cells interlaced.

    A cell with fewer free rows gives them all. The cost grows with the quota and the rows taken,
    not with the cells, as long as a sixteenth of a cell is free.
    """
    first, drawn = 0, []
    free = cells.free(taken).tolist()
    for size, left, wanted in zip(cells.count.tolist(), free, quota.tolist(), strict=True):
        rows = cells.order[first : first + size]
        drawn.append(_draw(rows, taken, left, min(wanted, left), generator))
        first += size
    asked = torch.cat(drawn)
    return asked[interlaced(cells.index.cell[asked], cells.index.size)]


def _draw(rows: Tensor, taken: Tensor, left: int, k: int, generator: torch.Generator) -> Tensor:
    """`k` of the `left` entries of `rows` that are not `taken`, uniformly, in the order drawn."""
    if k == 0:
        return rows[:0]
    if left < SPARSE * len(rows) or k > MOST * left:
        free = rows[~torch.isin(rows, taken)]
        return free[torch.randperm(len(free), generator=generator)[:k]]
    found = rows[:0]
    while len(found) < k:
        tries = 2 * (k - len(found)) * len(rows) // left + 8
        some = rows[torch.randint(len(rows), (tries,), generator=generator)]
        found = _distinct(torch.cat([found, some[~torch.isin(some, taken)]]))
    return found[:k]


def _distinct(values: Tensor) -> Tensor:
    """Each value once, where it stands first."""
    array: Any = values.numpy()
    first = np.unique(array, return_index=True)[1]
    first.sort()
    return values[torch.from_numpy(first)]
