"""Rows by label, group and source: the cells whose shares in a batch are decided or learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from numbers import Integral

import torch
from torch import Tensor

from evenloop.data import GroupedData, Origin

__all__ = ["GENERATED", "REAL", "SPLIT", "WEIGHT", "CellIndex"]

REAL, GENERATED = 0, 1
SPLIT, WEIGHT = "split", "weight"
"""Attributes of the data that say which part a row is for, and how often to draw it."""

Codes = Tensor | Sequence[int]


class CellIndex:
    """Which (label, group) cell and which source every row belongs to.

    Labels are 0..C-1, groups 0..G-1 and sources 0..S-1; source 0 is real data. Several group
    variables are crossed row-major (the last varies fastest) and `sizes` remembers their sizes.
    `weight` (N,) float64, if there is one, says how often a row is drawn beside the others of its
    cell and source; counts and shares do not depend on it. The index is a value: nothing changes
    it after construction.

    >>> cells = CellIndex([0, 0, 1, 1, 1], [0, 1, 0, 0, 1], source=[0, 0, 0, 1, 1])
    >>> cells.counts.tolist()
    [[[1, 1], [1, 0]], [[0, 0], [1, 1]]]
    >>> cells.pool(1, 1, 0).tolist(), cells.quota(9).tolist()
    ([3], [6.0, 3.0])
    """

    def __init__(
        self,
        y: Codes,
        z: Codes | Mapping[str, Codes],
        source: Codes | None = None,
        *,
        classes: int | Sequence[str] | None = None,
        groups: int | Sequence[str] | Mapping[str, int | Sequence[str]] | None = None,
        sources: int | None = None,
        weight: Tensor | Sequence[float] | None = None,
    ) -> None:
        """Index `N` rows.

        Args:
            y: (N,) label codes.
            z: (N,) group codes, or name -> (N,) codes to cross several group variables.
            source: (N,) source codes, 0 real; all real when None.
            classes: number or names of the classes; the largest code seen when None.
            groups: number or names of the groups, or name -> those, like `z`.
            sources: number of sources; the largest code seen when None.
            weight: (N,) positive; rows of a cell are drawn alike when None.

        Raises:
            ValueError: lengths differ, codes are no whole numbers or out of range, a weight is not
                positive, or there are no rows.
        """
        label = _codes("y", y)
        columns = {k: _codes(k, v) for k, v in (z if isinstance(z, Mapping) else {"z": z}).items()}
        given = groups if isinstance(groups, Mapping) else dict.fromkeys(columns, groups)
        origin = torch.zeros_like(label) if source is None else _codes("source", source)
        if not len(label):
            raise ValueError("y is empty: cells need at least one row")
        class_names = _names("y", label, classes, len(label))
        values = [_names(k, v, given.get(k), len(label)) for k, v in columns.items()]
        group = torch.zeros_like(label)
        for column, names in zip(columns.values(), values, strict=True):
            group = group * len(names) + column
        self.sizes = tuple(len(v) for v in values)
        self.classes = class_names
        self.groups = tuple(" ".join(v) for v in product(*values))
        self.sources = len(_names("source", origin, sources, len(label)))
        self.label, self.group, self.source = label, group, origin
        self.weight = _weight(weight, len(label))
        self.cell = label * len(self.groups) + group
        self.place = origin * self.size + self.cell
        count = torch.bincount(self.place, minlength=self.sources * self.size)
        self.order = torch.argsort(self.place, stable=True)
        self.start = count.cumsum(0) - count
        self.counts = count.view(self.sources, len(self.classes), len(self.groups))

    @staticmethod
    def of(data: GroupedData, by: Sequence[str]) -> CellIndex:
        """Cells of `data` by its labels and the attributes `by`; generated rows are source 1.

        An attribute "weight", whose values are named by numbers, gives the weights.

        Raises:
            KeyError: a name in `by` is not an attribute of the data.
            ValueError: values of an attribute "weight" are no positive numbers.
        """
        schema = data.schema
        values = {name: schema.attributes[schema.column(name)].values for name in by}
        return CellIndex(
            data.y,
            {name: data.attribute(name) for name in by},
            (data.origin == int(Origin.GENERATED)).long(),
            classes=schema.classes,
            groups=values,
            sources=2,
            weight=_weights_of(data),
        )

    def __len__(self) -> int:
        return len(self.label)

    @property
    def size(self) -> int:
        """Number of (label, group) cells, C*G."""
        return len(self.classes) * len(self.groups)

    @property
    def shape(self) -> tuple[int, int]:
        """(C, G)."""
        return len(self.classes), len(self.groups)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the C*G cells, label first, in cell order."""
        return tuple(f"{y} | {z}" for y, z in product(self.classes, self.groups))

    @property
    def present(self) -> Tensor:
        """(C, G) bool: the cells that hold real rows. Only these can be given a share."""
        return self.counts[REAL] > 0

    @property
    def share(self) -> Tensor:
        """(C, G) float64 shares N[y,z] / N of the cells in real data."""
        real = self.counts[REAL].double()
        return real / real.sum()

    def quota(self, total: float) -> Tensor:
        """(C,) float64 members of each label in a batch of `total`: its share of REAL rows."""
        return self.share.sum(1) * total

    def check_batch(self, batch_size: object) -> None:
        """Raise `ValueError` unless a batch can hold a row of every cell that has real rows."""
        present = int(self.present.sum())
        if not isinstance(batch_size, Integral) or int(batch_size) < present:
            raise ValueError(
                f"batch_size must be at least the number of cells, {present}, so that each can be "
                f"drawn; got {batch_size!r}"
            )

    def pool(self, source: int, label: int, group: int) -> Tensor:
        """(n,) int64 rows of one cell from one source, in row order."""
        place = source * self.size + label * len(self.groups) + group
        start = int(self.start[place])
        return self.order[start : start + int(self.counts.flatten()[place])]

    def take(self, rows: Tensor) -> CellIndex:
        """The index of some rows; all names and sources stay."""
        picked = object.__new__(CellIndex)
        picked.__init__(  # type: ignore[misc]
            self.label[rows],
            self.group[rows],
            self.source[rows],
            classes=self.classes,
            groups=self.groups,
            sources=self.sources,
            weight=None if self.weight is None else self.weight[rows],
        )
        picked.sizes = self.sizes
        return picked

    def empty(self, source: int = REAL) -> tuple[str, ...]:
        """Names of the cells that hold no row of a source."""
        none = (self.counts[source].flatten() == 0).nonzero().flatten().tolist()
        return tuple(self.names[i] for i in none)


def _weight(given: Tensor | Sequence[float] | None, rows: int) -> Tensor | None:
    if given is None:
        return None
    weight = torch.as_tensor(given, dtype=torch.float64).cpu()
    if weight.shape != (rows,):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, y has {rows} rows")
    bad = ~(weight.isfinite() & (weight > 0))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"weight must be positive numbers, got {float(weight[row])} in row {row}; leave out "
            "rows that must not be drawn"
        )
    return weight


def _weights_of(data: GroupedData) -> Tensor | None:
    named = {a.name: a.values for a in data.schema.attributes}.get(WEIGHT)
    if named is None:
        return None
    try:
        values = torch.tensor([float(value) for value in named], dtype=torch.float64)
    except ValueError:
        raise ValueError(
            f"values of the attribute {WEIGHT!r} must be numbers, got {named}; give the column "
            "another name"
        ) from None
    return values[data.attribute(WEIGHT).cpu()]


def _codes(name: str, values: Codes) -> Tensor:
    try:
        codes = torch.as_tensor(values).cpu()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be integer codes, got {_kind(values)}; number the values, for example "
            f"with pandas.factorize({name}, sort=True)[0]"
        ) from error
    if codes.ndim != 1 or codes.is_floating_point():
        raise ValueError(
            f"{name} must be a vector of integer codes, got shape {tuple(codes.shape)} of "
            f"{codes.dtype}"
        )
    return codes.long()


def _kind(values: object) -> str:
    first = next(iter(values), None) if isinstance(values, Iterable) else None
    of = "" if first is None else f" of {type(first).__name__} such as {first!r}"
    return f"{type(values).__name__}{of}"


def _names(
    what: str, codes: Tensor, given: int | Sequence[str] | None, rows: int
) -> tuple[str, ...]:
    if len(codes) != rows:
        raise ValueError(f"{what} has {len(codes)} rows, y has {rows}")
    low, high = int(codes.min()), int(codes.max())
    if given is None:
        given = high + 1
    names = tuple(map(str, range(given))) if isinstance(given, int) else tuple(given)
    if low < 0 or high >= len(names):
        bad = low if low < 0 else high
        raise ValueError(f"{what} holds code {bad}, but its codes are 0..{len(names) - 1}")
    return names
