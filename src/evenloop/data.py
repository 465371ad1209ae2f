"""What a model learns from: resident columns whose rows remember where they came from.

Four columns are never mixed up: `x` what is seen, `y` the label the learner is given, `truth` the
label the world gives (nothing in this package writes it) and `attributes`, the codes of the
group columns. `origin`, `born` and `row` say who made a row, in which round, and which row of the
world it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from evenloop.schema import (
    NOTHING,
    UNKNOWN,
    Attribute,
    Codes,
    Schema,
    Structure,
    check_attribute,
    check_columns,
    check_finite,
    check_truth,
    codes,
)

__all__ = [
    "COLUMNS",
    "NOTHING",
    "UNKNOWN",
    "Attribute",
    "GroupedData",
    "Origin",
    "Schema",
    "Structure",
]

COLUMNS = ("x", "y", "truth", "attributes", "origin", "born", "row")


class Origin(IntEnum):
    """Who made a row's label: the world, a model relabelling a world row, or a generator."""

    WORLD = 0
    RELABELLED = 1
    GENERATED = 2


class _Store:
    """Columns with spare room behind them, shared by the values that view it.

    Stores of one `line` hold one growing sequence of rows: a longer value extends a shorter one.
    """

    __slots__ = ("columns", "filled", "line")

    def __init__(self, columns: dict[str, Tensor], filled: int, line: object = None) -> None:
        self.columns = columns
        self.filled = filled
        self.line = line or object()

    def has_room(self, rows: int) -> bool:
        return len(self.columns["row"]) - self.filled >= rows

    def grown(self, rows: int, capacity: int) -> _Store:
        """The first `rows` rows with room for `capacity`; continues the line if they are newest."""
        newest = self.filled == rows
        bigger = {}
        for name, column in self.columns.items():
            room = column.new_empty((capacity, *column.shape[1:]))
            room[:rows] = column[:rows]
            bigger[name] = room
        if newest:
            self.filled = -1  # whoever appends to this store from now on starts a line of its own
        return _Store(bigger, rows, self.line if newest else None)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class GroupedData:
    """`N` rows with provenance. Frozen: `take`, `append`, `relabel`, `without` return new values.

    Growth is by preallocated buffers: appending k rows to the newest value of a chain writes k
    rows; older values keep seeing exactly the rows they had.

    >>> import torch
    >>> schema = Schema(("no", "yes"), (Attribute("sex", ("f", "m")),))
    >>> data = GroupedData.of(torch.eye(3), [0, 1, 1], {"sex": [0, 1, 0]}, schema)
    >>> guess = data.take([2]).relabel(torch.tensor([0]), round=4)
    >>> grown = data.append(guess)
    >>> len(data), len(grown), grown.y.tolist(), grown.truth.tolist(), grown.born.tolist()
    (3, 4, [0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 4])
    """

    schema: Schema
    _store: _Store = field(repr=False)
    _n: int

    @staticmethod
    def of(
        x: Tensor | np.ndarray,
        truth: Codes,
        attributes: Mapping[str, Codes],
        schema: Schema,
        *,
        origin: Origin = Origin.WORLD,
        born: int = 0,
        row: Tensor | None = None,
    ) -> GroupedData:
        """Data from arrays, checked once here so that nothing downstream has to.

        Args:
            x: (N, ...) inputs; uint8 images (N, C, H, W), float features (N, F), token ids...
            truth: (N,) class codes in [0, C), or (N, length) codes of structured labels; also the
                first `y`.
            attributes: name -> (N,) codes, one entry for every attribute of the schema.
            schema: names of the classes and attribute values.
            origin: who made the rows.
            born: the round in which they were made.
            row: (N,) int64 identity; by default 0..N-1 for world rows and -1 for generated ones.

        Raises:
            ValueError: lengths differ, a code is missing, no whole number or out of range, or `x`
                holds NaN or infinity.
        """
        x = torch.as_tensor(x)
        labels = codes("truth", truth)
        grouped = check_columns(x, labels, attributes, schema)
        n, groups = len(x), [code.to(torch.int32) for code in grouped.values()]
        if row is None:
            generated = origin is Origin.GENERATED
            row = torch.full((n,), -1) if generated else torch.arange(n)
        columns = {
            "x": x,
            "y": labels.clone(),
            "truth": labels.clone(),
            "attributes": torch.stack(groups, 1)
            if groups
            else torch.zeros(n, 0, dtype=torch.int32),
            "origin": torch.full((n,), int(origin), dtype=torch.uint8),
            "born": torch.full((n,), born, dtype=torch.int32),
            "row": row,
        }
        return GroupedData(schema, _Store(columns, n), n)

    @staticmethod
    def from_columns(schema: Schema, columns: Mapping[str, Tensor]) -> GroupedData:
        """Data from exactly the tensors named in `COLUMNS`, trusted as they are.

        Rows that changed are better made by `with_x`, `with_attribute` and `relabel`.
        """
        owned = {name: columns[name] for name in COLUMNS}
        return GroupedData(schema, _Store(owned, len(owned["row"])), len(owned["row"]))

    def __len__(self) -> int:
        return self._n

    def _column(self, name: str) -> Tensor:
        column = self._store.columns[name]
        return column if len(column) == self._n else column[: self._n]

    @property
    def x(self) -> Tensor:
        """(N, ...) inputs."""
        return self._column("x")

    @property
    def y(self) -> Tensor:
        """(N,) int64, the labels the learner is given; (N, length) where they have structure."""
        return self._column("y")

    @property
    def truth(self) -> Tensor:
        """The labels the world gives, shaped as `y`; never written."""
        return self._column("truth")

    @property
    def attributes(self) -> Tensor:
        """(N, D) int32 codes named by the schema."""
        return self._column("attributes")

    @property
    def origin(self) -> Tensor:
        """(N,) uint8 codes of `Origin`."""
        return self._column("origin")

    @property
    def born(self) -> Tensor:
        """(N,) int32, the round in which the row's label was made."""
        return self._column("born")

    @property
    def row(self) -> Tensor:
        """(N,) int64, the row's identity in the world; -1 for generated rows."""
        return self._column("row")

    def columns(self, start: int = 0) -> dict[str, Tensor]:
        """Views of every column from row `start` on."""
        return {name: self._column(name)[start:] for name in COLUMNS}

    def attribute(self, name: str) -> Tensor:
        """(N,) int64 codes of one attribute."""
        return self.attributes[:, self.schema.column(name)].long()

    def take(self, index: Tensor | np.ndarray | Iterable[int]) -> GroupedData:
        """The rows at `index` (positions from 0 on, not identities, or a mask), copied.

        Raises:
            ValueError: a mask of another length.
        """
        if not isinstance(index, Tensor):
            found = np.asarray(index if isinstance(index, np.ndarray) else list(index))
            index = torch.as_tensor(found if found.dtype == bool else found.astype(np.int64))
        index = index.to(self.row.device)
        if index.dtype == torch.bool:
            if index.shape != (len(self),):
                raise ValueError(f"a mask must have shape ({len(self)},), got {tuple(index.shape)}")
            index = index.nonzero().flatten()
        columns = self.columns().items()  # index_select: pictures painted later stay unpainted
        return GroupedData.from_columns(
            self.schema, {name: column.index_select(0, index) for name, column in columns}
        )

    def relabel(self, y: Tensor, *, round: int) -> GroupedData:
        """The same rows with labels a model wrote in `round`; `truth` stays.

        Args:
            y: (N,) class codes, or (N, length) where labels have structure.
            round: the round in which they were written.

        Raises:
            ValueError: the shape is another, or a code is out of range.
        """
        check_truth("y", y, len(self), self.schema)
        columns = self.columns()
        columns["y"] = y.to(self.y.device, torch.long)
        made = int(Origin.RELABELLED)
        columns["origin"] = self.origin.where(self.origin == int(Origin.GENERATED), made)
        columns["born"] = torch.full_like(self.born, round)
        return GroupedData.from_columns(self.schema, columns)

    def as_of(self, round: int) -> GroupedData:
        """The same rows, noted as having joined in `round`."""
        columns = self.columns() | {"born": torch.full_like(self.born, round)}
        return GroupedData.from_columns(self.schema, columns)

    def with_x(self, x: Tensor) -> GroupedData:
        """The same rows as they look now: a population that reacts, pictures taken again.

        Who the rows are stays (`row`, `origin`, `born`, labels and groups). A record keeps what
        differs from the world, so that a resumed run sees the same.

        Args:
            x: (N, ...) of the shape and type of the rows' own, on their device.

        Raises:
            ValueError: another shape or type, or NaN or infinity.

        >>> data = GroupedData.of(torch.zeros(2, 1), [0, 1], {}, Schema(("no", "yes")))
        >>> moved = data.with_x(data.x + 1)
        >>> moved.x.tolist(), moved.row.tolist(), data.x.tolist()
        ([[1.0], [1.0]], [0, 1], [[0.0], [0.0]])
        """
        if x.shape != self.x.shape or x.dtype != self.x.dtype:
            raise ValueError(
                f"x must have shape {tuple(self.x.shape)} and type {self.x.dtype} as the rows it "
                f"replaces, got {tuple(x.shape)} and {x.dtype}"
            )
        check_finite(x)
        columns = self.columns() | {"x": x.detach().to(self.row.device)}
        return GroupedData.from_columns(self.schema, columns)

    def with_attribute(self, name: str, values: Codes) -> GroupedData:
        """The same rows with other codes (N,) of one attribute: people who say it otherwise.

        Raises:
            KeyError: there is no such attribute.
            ValueError: not one code a row, or one out of range.
        """
        place = self.schema.column(name)
        found = check_attribute(self.schema.attributes[place], values, len(self))
        attributes = self.attributes.clone()
        attributes[:, place] = found.to(attributes)
        columns = self.columns() | {"attributes": attributes}
        return GroupedData.from_columns(self.schema, columns)

    def append(self, other: GroupedData) -> GroupedData:
        """These rows followed by those of `other`; writes only the new rows when it can.

        Raises:
            ValueError: the two schemas or the shapes or types of `x` differ.
        """
        _check_same_kind(self, other)
        n, k = len(self), len(other)
        store = self._store
        if store.filled != n or not store.has_room(k):
            store = store.grown(n, n + max(k, n // 2))
        for name, column in other.columns().items():
            store.columns[name][n : n + k] = column
        store.filled = n + k
        return GroupedData(self.schema, store, n + k)

    def extends(self, other: GroupedData) -> bool:
        """Whether this value is `other` with rows appended, known without comparing rows."""
        return self._store.line is other._store.line and len(self) >= len(other)

    def without(self, rows: Tensor) -> Tensor:
        """(M,) int64 positions, in order, of the rows whose identity is not in `rows`."""
        rows = rows[rows >= 0]
        top = int(torch.cat([self.row, rows]).max()) + 1 if len(self) + len(rows) else 0
        free = torch.ones(top, dtype=torch.bool, device=self.row.device)
        free[rows] = False
        return free[self.row].nonzero().flatten()

    def to(self, device: torch.device | str) -> GroupedData:
        """The same rows on another device (the same value if they are there already)."""
        if self.x.device == torch.empty(0, device=device).device:
            return self
        moved = {name: column.to(device) for name, column in self.columns().items()}
        return GroupedData.from_columns(self.schema, moved)


def _check_same_kind(a: GroupedData, b: GroupedData) -> None:
    if a.schema != b.schema:
        raise ValueError("rows of another schema cannot be appended; encode both with one schema")
    if a.x.shape[1:] != b.x.shape[1:] or a.x.dtype != b.x.dtype:
        raise ValueError(
            f"x of shape {tuple(b.x.shape[1:])} and type {b.x.dtype} cannot be appended to "
            f"{tuple(a.x.shape[1:])}, {a.x.dtype}"
        )
