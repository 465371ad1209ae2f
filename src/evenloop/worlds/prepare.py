"""From a whole source to the rows of a study: imbalance, injected bias, hold-out.

All choices are without replacement and keep `row`, so that every row still points to its source.

References: Taori, Hashimoto, Data Feedback Loops, arXiv 2209.03942 (the imbalance factor).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from evenloop.data import GroupedData
from evenloop.groups import LABEL, TRUTH, GroupIndex
from evenloop.rng import Rng
from evenloop.words import nearest

__all__ = ["Selection", "holdout", "imbalanced", "with_counts", "with_shares", "with_shares_given"]

Cell = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a selection asked of every cell, what was there and what was taken.

    Attributes:
        names: (G,) names of the cells.
        available: (G,) rows of the source in each.
        wanted: (G,) rows asked for.
    """

    names: tuple[str, ...]
    available: tuple[int, ...]
    wanted: tuple[int, ...]

    @property
    def taken(self) -> tuple[int, ...]:
        """(G,) rows selected: all there are where more are wanted."""
        return tuple(map(min, self.available, self.wanted))

    @property
    def short(self) -> dict[str, int]:
        """Rows that could not be had, by the name of the cell; empty if all were."""
        missing = zip(self.names, self.wanted, self.taken, strict=True)
        return {name: wanted - taken for name, wanted, taken in missing if wanted > taken}

    def text(self) -> str:
        """One line on the shortfall, or "every cell has the rows asked for"."""
        if not self.short:
            return "every cell has the rows asked for"
        taken = dict(zip(self.names, self.taken, strict=True))
        return "too few rows: " + "; ".join(
            f"{name} has {taken[name]} of {taken[name] + lack}" for name, lack in self.short.items()
        )


def holdout(data: GroupedData, *, size: int, rng: Rng) -> tuple[GroupedData, GroupedData]:
    """The train side and an audit split of `size` rows, drawn uniformly.

    One shuffle: the audit is its first `size` rows, the train side the rest in shuffled order.

    >>> from evenloop.data import Schema
    >>> data = GroupedData.of(torch.arange(6.)[:, None], [0] * 6, {}, Schema(("a",)))
    >>> train, audit = holdout(data, size=2, rng=Rng.of(0))
    >>> len(train), len(audit), sorted([*train.row.tolist(), *audit.row.tolist()])
    (4, 2, [0, 1, 2, 3, 4, 5])

    Raises:
        ValueError: `size` is not in 1..N-1.
    """
    if type(size) is not int or not 0 < size < len(data):
        raise ValueError(
            f"the audit split of {len(data)} rows must have 1..{len(data) - 1} rows, got {size!r}"
        )
    order = torch.randperm(len(data), generator=rng.gen())
    return data.take(order[size:]), data.take(order[:size])


def imbalanced(
    data: GroupedData, *, track: str | int, factor: int, rng: Rng
) -> tuple[GroupedData, Selection]:
    """Rows in which the class `track` is `factor` times as frequent as every other class.

    Of `track`, with N rows, factor * floor(N / factor) are kept; of every other class floor(N /
    factor), or all it has. Factor 1 cuts every class to the smallest. The order of rows is kept.

    Args:
        data: the source.
        track: name or code of the class.
        factor: at least 1.
        rng: the stream that draws the rows.

    Returns:
        The rows, and what was taken of every class: see `Selection.short` for a class with too few.

    Raises:
        ValueError: no such class, a factor below 1, or fewer rows of the class than the factor.
    """
    tracked = data.schema.klass(track)
    if type(factor) is not int or factor < 1:
        raise ValueError(f"imbalance factor must be a whole number from 1 on, got {factor!r}")
    groups = GroupIndex.of(data, [TRUTH])
    count = groups.count()
    if not count.all():
        absent = groups.names[int((count == 0).nonzero()[0])]
        raise ValueError(f"class {absent!r} does not occur in the data; classes must all occur")
    each = int(count[tracked]) // factor if factor > 1 else int(count.min())
    if each == 0:
        raise ValueError(
            f"class {groups.names[tracked]!r} has {int(count[tracked])} rows, too few for an "
            f"imbalance factor of {factor}"
        )
    wanted = torch.full_like(count, each)
    wanted[tracked] = each * factor
    return _select(data, groups, wanted, rng)


def with_counts(
    data: GroupedData, *, by: Cell, counts: Mapping[Cell, int], rng: Rng
) -> tuple[GroupedData, Selection]:
    """Exactly the given number of rows of every cell, in the source's order.

    Args:
        data: the source.
        by: one column or several: attributes, "truth" or "label".
        counts: cell -> rows; a cell is a value, or a tuple of values in the order of `by`. Cells
            that are not named get none.
        rng: the stream that draws the rows.

    Raises:
        ValueError: an unknown cell, a negative number, nothing asked for, or more than there is.
    """
    groups, cells = _cells(data, by)
    wanted = torch.zeros(groups.size, dtype=torch.long)
    for cell, count in counts.items():
        if type(count) is not int or count < 0:
            raise ValueError(f"count of {cell!r} must be a whole number from 0 on, got {count!r}")
        wanted[_place(cells, cell)] = count
    if not wanted.any():
        raise ValueError("counts ask for no row at all")
    available = groups.count().cpu()
    if (wanted > available).any():
        worst = int((wanted - available).argmax())
        raise ValueError(
            f"cell {groups.names[worst]!r} has {int(available[worst])} rows, "
            f"{int(wanted[worst])} are asked for"
        )
    return _select(data, groups, wanted, rng)


def with_shares(
    data: GroupedData,
    *,
    by: Cell,
    share: Mapping[Cell, float],
    rng: Rng,
    total: int | None = None,
) -> tuple[GroupedData, Selection]:
    """Rows in which every cell has a given share, P(cell), to the nearest row.

    Args:
        data: the source.
        by: one column or several: attributes, "truth" or "label".
        share: cell -> share, for every cell, summing to 1.
        rng: the stream that draws the rows.
        total: rows in all; by default as many as the scarcest cell allows.

    Raises:
        ValueError: a cell is unknown or missing, shares are negative or do not sum to 1, or a cell
            has too few rows for `total`.
    """
    groups, cells = _cells(data, by)
    table = _table(cells, share, "share")
    return _by_share(data, groups, table, total, rng)


def with_shares_given(
    data: GroupedData,
    *,
    by: str,
    given: str = TRUTH,
    share: Mapping[str, Mapping[str, float]],
    rng: Rng,
    total: int | None = None,
) -> tuple[GroupedData, Selection]:
    """Rows in which a column has given shares within every class: P(by | given).

    The shares of the classes themselves, P(given), stay those of the data.

    Args:
        data: the source.
        by: an attribute.
        given: what it is conditioned on: "truth", "label" or another attribute.
        share: value of `given` -> value of `by` -> share, summing to 1 for every value of `given`.
        rng: the stream that draws the rows.
        total: rows in all; by default as many as the scarcest cell allows.

    Raises:
        ValueError: a value is unknown or missing, shares are negative or do not sum to 1, or a cell
            has too few rows for `total`.
    """
    groups, _ = _cells(data, (given, by))
    outer, outer_cells = _cells(data, given)
    _, inner_cells = _cells(data, by)
    for value in share:
        _place(outer_cells, value)
    rows = []
    for (value,) in outer_cells:
        if value not in share:
            raise ValueError(f"share names no {given} {value!r}; give all of {list(outer.names)}")
        rows.append(_table(inner_cells, share[value], f"share given {value!r}"))
    prior = outer.count().cpu().numpy() / len(data)
    return _by_share(data, groups, (prior[:, None] * np.stack(rows)).ravel(), total, rng)


def _select(
    data: GroupedData, groups: GroupIndex, wanted: torch.Tensor, rng: Rng
) -> tuple[GroupedData, Selection]:
    available = tuple(groups.count().tolist())
    chosen = groups.draw(wanted, rng.gen()).sort().values
    return data.take(chosen), Selection(groups.names, available, tuple(wanted.tolist()))


def _cells(data: GroupedData, by: Cell) -> tuple[GroupIndex, list[tuple[str, ...]]]:
    columns = (by,) if isinstance(by, str) else tuple(by)
    values: list[Sequence[str]] = []
    for name in columns:
        if name in (LABEL, TRUTH):
            values.append(data.schema.classes)
        else:
            values.append(data.schema.attributes[data.schema.column(name)].values)
    return GroupIndex.of(data, columns), list(product(*values))


def _place(cells: Sequence[tuple[str, ...]], cell: Cell) -> int:
    key = (cell,) if isinstance(cell, str) else tuple(cell)
    if key not in cells:
        known = [" ".join(c) for c in cells]
        raise ValueError(f"no cell {cell!r}; {nearest(' '.join(map(str, key)), known)}")
    return cells.index(key)


def _table(
    cells: Sequence[tuple[str, ...]], share: Mapping[Cell, float] | Mapping[str, float], name: str
) -> NDArray[np.float64]:
    placed = {_place(cells, cell): value for cell, value in share.items()}
    for i, cell in enumerate(cells):
        if i not in placed:
            raise ValueError(f"{name} lacks the cell {' '.join(cell)!r}; give 0 for none")
    table = np.asarray([placed[i] for i in range(len(cells))], np.float64)
    if not (table >= 0).all() or abs(table.sum() - 1) > 1e-6:
        raise ValueError(f"{name} must be from 0 on and sum to 1, got {table.tolist()}")
    return table


def _by_share(
    data: GroupedData,
    groups: GroupIndex,
    share: NDArray[np.float64],
    total: int | None,
    rng: Rng,
) -> tuple[GroupedData, Selection]:
    available = groups.count().cpu().numpy()
    allows = np.where(share > 0, available / np.where(share > 0, share, 1), np.inf)
    most, scarce = int(allows.min() + 1e-9), groups.names[int(allows.argmin())]
    while most and (_apportion(share, most) > available).any():
        most -= 1
    if most == 0:
        raise ValueError(
            f"cell {scarce!r} has {int(available[allows.argmin()])} rows, too few for a share of "
            f"{share[allows.argmin()]:g}"
        )
    total = most if total is None else total
    if type(total) is not int or not 0 < total <= most:
        raise ValueError(
            f"total must be in 1..{most} for these shares (cell {scarce!r} is the scarcest), got "
            f"{total!r}"
        )
    return _select(data, groups, torch.from_numpy(_apportion(share, total)), rng)


def _apportion(share: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers nearest to share * total that sum to it (largest remainders, then order)."""
    exact = share / share.sum() * total
    whole: NDArray[np.int64] = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: total - whole.sum()]] += 1
    return whole
