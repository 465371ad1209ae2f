"""Fixed ways to choose rows: balanced over cells, a subset, groups topped up with generated rows.

The usual comparisons for learned ratios. None of them looks at the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.cells import GENERATED, REAL, CellIndex
from evenloop.samplers.rounding import Ints, Pools, Rounding, whole_numpy
from evenloop.seams import Sampler

__all__ = ["CellBalanced", "CellPools", "Rows", "top_up"]


class CellPools:
    """Shuffled pools of the rows of some sources, one pool per (label, group) cell.

    With weights in `cells`, rows of a pool are drawn by them.

    >>> pools = CellPools(CellIndex([0, 1, 1], [0, 0, 0]), (REAL,), torch.Generator())
    >>> pools.count.tolist(), sorted(pools.draw(np.array([1, 2])).tolist())
    ([1, 2], [0, 1, 2])
    """

    def __init__(
        self,
        cells: CellIndex,
        sources: Sequence[int],
        generator: torch.Generator,
        *,
        replacement: bool = False,
    ) -> None:
        """Pools of the rows of `cells` whose source is in `sources`.

        Raises:
            ValueError: no row is of any of those sources.
        """
        rows = torch.isin(cells.source, torch.tensor(list(sources))).nonzero().flatten()
        if not len(rows):
            raise ValueError(f"no rows of sources {tuple(sources)}; 0 is real, 1 generated")
        cell = cells.cell[rows]
        self.count = torch.bincount(cell, minlength=cells.size)
        order = rows[torch.argsort(cell, stable=True)]
        weight = None if cells.weight is None else cells.weight[order]
        self.pools = Pools(order, self.count, generator, replacement=replacement, weight=weight)

    def draw(self, counts: Ints) -> Ints:
        """Rows of each cell, (sum of counts,), in a random order."""
        rows = self.pools.draw(counts)
        return np.asarray(rows[torch.randperm(len(rows), generator=self.pools.generator).numpy()])


class CellBalanced(Sampler):
    """Batches with equally many rows of every (label, group) cell that has any.

    >>> cells = CellIndex([0, 0, 0, 1], [0, 0, 1, 0])
    >>> balanced = CellBalanced(cells, generator=torch.Generator().manual_seed(0))
    >>> sorted(cells.cell[torch.tensor(next(balanced.batches(3)))].tolist())
    [0, 1, 2]
    """

    def __init__(
        self,
        cells: CellIndex,
        *,
        generator: torch.Generator,
        sources: Sequence[int] = (REAL,),
        rounding: Rounding = "stochastic",
    ) -> None:
        """A sampler of the rows of `cells` from `sources` (0 real, 1 generated)."""
        self.cells, self.rounding = cells, rounding
        self.pools = CellPools(cells, sources, generator)

    def batches(self, batch: int) -> Iterator[list[int]]:
        """Batches without end, as lists of rows."""
        while True:
            yield self._draw(batch).tolist()

    def _draw(self, batch: int) -> Ints:
        held = (self.pools.count > 0).numpy()
        target = held * (batch / held.sum())
        generator = self.pools.pools.generator
        return self.pools.draw(whole_numpy(target, batch, self.rounding, generator))

    def steps(self, rows: int, batch: int) -> int:
        """Batches that give as many rows as the real data holds."""
        return max(int(self.cells.counts[REAL].sum()) // batch, 1)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Tensor]:
        """(B,) positions in `data`, whose rows are those of `cells`."""
        self.pools.pools.generator = rng.gen()
        for _ in range(self.steps(len(data), batch)):
            yield torch.from_numpy(self._draw(batch)).to(data.y.device)

    def state_dict(self) -> dict[str, Any]:
        """The pools and the generator: drawing goes on where it was."""
        pools = self.pools.pools
        return {"pools": pools.state_dict(), "generator": pools.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.pools.pools.load_state_dict(state["pools"])
        self.pools.pools.generator.set_state(state["generator"])


class Rows(Sampler):
    """Uniform batches over some rows only, each once an epoch; short last batches are left out.

    `length` rows make an epoch (all by default), so that arms over different rows can be given
    the same number of steps. With weights every batch is drawn by them instead.

    >>> Rows(torch.arange(10)).steps(50, 4), Rows(torch.arange(10), length=20).steps(50, 4)
    (2, 5)
    """

    def __init__(
        self, rows: Tensor, *, length: int | None = None, weight: Tensor | None = None
    ) -> None:
        """A sampler of `rows` (M,) int64 positions, by positive weights (M,) if there are any.

        Raises:
            ValueError: there are no rows.
        """
        if not len(rows):
            raise ValueError("rows is empty: there is nothing to draw from")
        self.rows, self.length, self.weight = rows.cpu(), length or len(rows), weight

    def steps(self, rows: int, batch: int) -> int:
        """Full batches in `length` rows, at least one."""
        return max(self.length // batch, 1)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Tensor]:
        """(B,) positions; passes over the rows follow one another, each in its own order."""
        generator, wanted = rng.gen(), self.steps(len(data), batch) * batch
        if self.weight is not None:
            pool = Pools(self.rows, torch.tensor([len(self.rows)]), generator, weight=self.weight)
            for _ in range(wanted // batch):
                yield torch.from_numpy(pool.draw(np.array([batch]))).to(data.y.device)
            return
        passes = -(-wanted // len(self.rows))
        order = torch.cat(
            [torch.randperm(len(self.rows), generator=generator) for _ in range(passes)]
        )
        for part in self.rows[order[:wanted]].split(batch):  # type: ignore[no-untyped-call]
            yield part.to(data.y.device)


def top_up(cells: CellIndex, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Real rows plus generated ones until every group of a label is as large as the largest.

    Returns:
        (M,) int64 rows, distinct, and (C, G) int64 rows that were wanted but not there.

    >>> cells = CellIndex([0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1])
    >>> rows, short = top_up(cells, torch.Generator())
    >>> rows.tolist(), short.tolist()
    ([0, 1, 2, 3, 4], [[0, 1]])
    """
    real = cells.counts[REAL]
    wanted = (real.max(1, keepdim=True).values - real) * cells.present
    if cells.sources == 1:
        return (cells.source == REAL).nonzero().flatten(), wanted
    held = cells.counts[GENERATED]
    taken = torch.minimum(wanted, held)
    pools = Pools(cells.order, cells.counts.flatten(), generator)
    asked = torch.zeros_like(cells.counts)
    asked[GENERATED] = taken
    extra = torch.from_numpy(pools.draw(asked.flatten().numpy()))
    rows = torch.cat([(cells.source == REAL).nonzero().flatten(), extra])
    return rows.sort().values, wanted - taken
