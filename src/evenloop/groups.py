"""What a group is: integer cells from attribute columns. The only file that knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from evenloop.data import GroupedData

__all__ = ["LABEL", "TRUTH", "GroupIndex", "columns_named", "ranks_within"]

LABEL = "label"
TRUTH = "truth"


@dataclass(frozen=True, slots=True, eq=False)
class GroupIndex:
    """The cell of every row; `size` cells whatever rows are present.

    `cell` is (N,) int64 in [0, size); `names` has `size` entries. An intersection of columns is
    numbered row-major (the last column varies fastest). A group that no row belongs to keeps its
    number: its count is 0 and its mean is nan.

    >>> import torch
    >>> groups = GroupIndex(torch.tensor([0, 2, 2]), ("a", "b", "c"))
    >>> groups.count().tolist(), groups.mean(torch.tensor([1.0, 2.0, 4.0])).tolist()
    ([1, 0, 2], [1.0, nan, 3.0])
    """

    cell: Tensor
    names: tuple[str, ...]

    @staticmethod
    def of(data: GroupedData, by: Sequence[str] = ()) -> GroupIndex:
        """Cells of `data` by any product of its columns.

        Args:
            data: the rows.
            by: attribute names, "label" (the learner's `y`) or "truth"; none gives one cell "all".

        Raises:
            KeyError: a name is not an attribute of the data.
            TypeError: `by` is one text instead of several.
            ValueError: groups by label, where labels have structure and are no classes.
        """
        cell = torch.zeros(len(data), dtype=torch.long, device=data.y.device)
        values: list[tuple[str, ...]] = []
        for name in columns_named(by):
            names = _values(data, name)
            cell = cell * len(names) + _codes(data, name)
            values.append(names)
        return GroupIndex(cell, _names(by, values) if by else ("all",))

    @property
    def size(self) -> int:
        """Number of cells, G."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self.cell)

    def take(self, index: Tensor) -> GroupIndex:
        """The cells of the rows at `index`; all names stay."""
        return GroupIndex(self.cell[index], self.names)

    def together(self) -> GroupIndex:
        """The same rows as one group called "all"."""
        return GroupIndex(torch.zeros_like(self.cell), ("all",))

    def count(self) -> Tensor:
        """(G,) int64 rows of each cell."""
        return torch.bincount(self.cell, minlength=self.size)

    def sum(self, values: Tensor) -> Tensor:
        """(G,) sum of per-row `values` (N,); 0 for an absent cell. Differentiable."""
        return values.new_zeros(self.size).index_add(0, self.cell, values)

    def mean(self, values: Tensor) -> Tensor:
        """(G,) mean of per-row `values` (N,); nan for an absent cell. Differentiable."""
        return self.sum(values) / self.count().to(values.dtype)

    def draw(self, per_cell: Tensor, generator: torch.Generator) -> Tensor:
        """Positions of up to `per_cell` (G,) rows of each cell, uniformly without replacement.

        A cell with fewer rows gives all it has: compare the result's length with the request.
        """
        score = torch.rand(len(self.cell), generator=generator, device=generator.device)
        return self.top(score.to(self.cell.device), per_cell)

    def top(self, score: Tensor, per_cell: Tensor) -> Tensor:
        """Positions of the `per_cell` (G,) highest `score` (N,) rows of each cell, cell by cell.

        Ties are kept in row order.
        """
        order = torch.argsort(score, descending=True, stable=True)
        order = order[torch.argsort(self.cell[order], stable=True)]
        rank = ranks_within(self.cell[order], self.size)
        return order[rank < per_cell.to(order.device)[self.cell[order]]]


def columns_named(by: Sequence[str]) -> tuple[str, ...]:
    """`by` as the names of columns, which one text is not: it would be taken letter by letter.

    Raises:
        TypeError: it is one text, or a name is no text.
    """
    if isinstance(by, str):
        raise TypeError(f"by must hold names of columns, got the text {by!r}; write by=({by!r},)")
    for name in by:
        if not isinstance(name, str):
            raise TypeError(f"by must hold names of columns, got {name!r} in it")
    return tuple(by)


def ranks_within(cell: Tensor, size: int) -> Tensor:
    """(N,) position of each row among the rows of its cell, for `cell` (N,) sorted by cell."""
    # Not bincount, which reads the largest cell from the device to know its own length.
    zero = torch.zeros(size, dtype=torch.long, device=cell.device)
    count = zero.scatter_add_(0, cell, torch.ones_like(cell))
    first = count.cumsum(0) - count
    return torch.arange(len(cell), device=cell.device) - first[cell]


def _names(by: Sequence[str], values: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """A name per cell; where two would be alike, or like the pooled "all", columns are named."""
    plain = tuple(" ".join(v) for v in product(*values))
    if len(set(plain)) == len(plain) and "all" not in plain:
        return plain
    cells = product(*values)
    return tuple(
        ", ".join(f"{name}={value}" for name, value in zip(by, v, strict=True)) for v in cells
    )


def _values(data: GroupedData, name: str) -> tuple[str, ...]:
    if name in (LABEL, TRUTH):
        if data.schema.structure is not None:
            raise ValueError(
                f"by={name} needs labels that are classes; these have several codes each: choose "
                f"from {', '.join(a.name for a in data.schema.attributes) or 'no attribute'}"
            )
        return data.schema.classes
    return data.schema.attributes[data.schema.column(name)].values


def _codes(data: GroupedData, name: str) -> Tensor:
    if name == LABEL:
        return data.y
    return data.truth if name == TRUTH else data.attribute(name)
