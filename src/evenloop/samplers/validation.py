"""Held-out rows for the ratios, and how a handful of them is drawn for one update."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from evenloop.samplers.cells import REAL, CellIndex
from evenloop.samplers.rounding import Pools

__all__ = ["Draw", "Draws", "Validation"]

Draw = Literal["stratified", "uniform", "all"]
_TRIES = 2000  # whole redraws of a uniform draw before it is called hopeless


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Held-out rows: `x` is a tensor (N, ...), a dataset, or rows (n,) -> inputs; `cells` index it.

    >>> held = Validation.of((torch.eye(2), [0, 1], [0, 0]), (torch.eye(2), [0, 1], [0, 0]))
    >>> held.cells.counts.tolist(), held.fetch(torch.tensor([3])).tolist()
    ([[[1], [1]], [[1], [1]]], [[0.0, 1.0]])
    """

    x: Tensor | Dataset[Any] | Callable[[Tensor], Tensor]
    cells: CellIndex

    def __post_init__(self) -> None:
        size = len(self.x) if hasattr(self.x, "__len__") else len(self.cells)
        if size != len(self.cells):
            raise ValueError(f"x has {size} rows, cells {len(self.cells)}: give both the same rows")

    @staticmethod
    def of(
        real: tuple[Tensor, Sequence[int] | Tensor, Sequence[int] | Tensor],
        generated: tuple[Tensor, Sequence[int] | Tensor, Sequence[int] | Tensor] | None = None,
        *,
        like: CellIndex | None = None,
    ) -> Validation:
        """Held-out rows from (x, y, z) of real and, if there are any, generated data."""
        parts = [real] if generated is None else [real, generated]
        y, z = (torch.cat([torch.as_tensor(p[i]) for p in parts]) for i in (1, 2))
        source = torch.cat([torch.full((len(p[0]),), s) for s, p in enumerate(parts)])
        names: dict[str, Any] = {}
        if like is not None:
            names = {"classes": like.classes, "groups": like.groups, "sources": like.sources}
        return Validation(torch.cat([p[0] for p in parts]), CellIndex(y, z, source, **names))

    def fetch(self, rows: Tensor) -> Tensor:
        """Inputs (n, ...) of some rows."""
        if isinstance(self.x, Tensor):
            return self.x[rows.to(self.x.device)]
        if isinstance(self.x, Dataset):
            items = default_collate([self.x[i] for i in rows.tolist()])
            inputs = items[0] if isinstance(items, (list, tuple)) else items
            if not isinstance(inputs, Tensor):
                raise ValueError(
                    f"held-out rows of the dataset collate to {type(inputs).__name__}, not to a "
                    "tensor or a tuple that begins with one; give a function of rows (n,) to "
                    "inputs instead"
                )
            return inputs
        return self.x(rows)


class Draws:
    """Rows for one update after another; see `RatioController` for the three ways.

    >>> cells = CellIndex([0, 0, 0, 1, 1], [0, 0, 1, 0, 1])
    >>> draws = Draws(cells, "stratified", 1, 128, torch.Generator())
    >>> len(draws.draw()), draws.share.tolist()
    (4, [[0.4, 0.2], [0.2, 0.2]])
    """

    def __init__(
        self, cells: CellIndex, draw: Draw, per_cell: int, size: int, generator: torch.Generator
    ) -> None:
        if draw not in get_args(Draw):
            raise ValueError(f"draw must be one of {get_args(Draw)}, got {draw!r}")
        self.cells, self.draw_, self.size, self.generator = cells, draw, size, generator
        self.share = cells.share
        counts = cells.counts.flatten()
        self.pools = Pools(cells.order, counts, generator)
        self.wanted = counts.clamp_max(per_cell).numpy()
        self._by_source = [
            (cells.source == s).nonzero().flatten() for s in range(int(cells.sources))
        ]
        blind = cells.present.numel() - int(cells.present.sum())
        if blind:
            names = list(cells.empty())
            warnings.warn(
                f"no real held-out rows in {names}: these cells count in no gap", stacklevel=4
            )

    def draw(self, source: int | None = None) -> Tensor:
        """Rows in source order, of one source or all.

        Raises:
            RuntimeError: a uniform draw of `size` rows keeps missing some cell.
        """
        sources = range(int(self.cells.sources)) if source is None else (source,)
        if self.draw_ == "stratified":
            wanted = self.wanted
            if source is not None:
                wanted = wanted.copy().reshape(self.cells.sources, -1)
                wanted[[s for s in range(self.cells.sources) if s != source]] = 0
                wanted = wanted.ravel()
            return torch.from_numpy(self.pools.draw(wanted))
        if self.draw_ == "all":
            return torch.cat([self._by_source[s] for s in sources])
        return torch.cat([self._uniform(s) for s in sources])

    def _uniform(self, source: int) -> Tensor:
        rows = self._by_source[source]
        if len(rows) <= self.size:
            return rows
        held = int((self.cells.counts[source] > 0).sum())
        for _ in range(_TRIES):
            picked = rows[torch.randperm(len(rows), generator=self.generator)[: self.size]]
            if int((torch.bincount(self.cells.cell[picked]) > 0).sum()) == held:
                return picked.sort().values
        raise RuntimeError(
            f"{_TRIES} uniform draws of {self.size} held-out rows all missed some of {held} cells: "
            "use draw='stratified' or a larger size="
        )

    def shares_of(self, rows: Tensor) -> Tensor:
        """(C, G) float64 cell shares behind an objective on `rows`: true ones unless uniform."""
        if self.draw_ != "uniform":
            return self.share
        real = rows[self.cells.source[rows] == REAL]
        count = torch.bincount(self.cells.cell[real], minlength=self.cells.size).double()
        return (count / count.sum()).view(self.cells.shape)
