"""Which rows a round of `mix` trains on, which it holds out, and which it made itself.

Private to `evenloop.loops.mix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evenloop.data import GroupedData, Origin
from evenloop.groups import LABEL, GroupIndex
from evenloop.loop import World
from evenloop.loops._mix_generated import generate
from evenloop.rng import Rng
from evenloop.samplers.cells import SPLIT, CellIndex

if TYPE_CHECKING:
    from evenloop.loops.mix import Mix

__all__ = ["RoundRows", "first_rows", "held_share", "is_generated", "made_rows", "stands_for"]

VALIDATION = ("val", "validation")


@dataclass(frozen=True, slots=True, eq=False)
class RoundRows:
    """All rows of a round; positions held out from training, and of those made by this loop."""

    data: GroupedData
    held: Tensor
    made: Tensor

    @property
    def training(self) -> GroupedData:
        """The rows that are not held out."""
        return self.data.take(_without(self.data, self.held))

    def state_dict(self) -> dict[str, Tensor]:
        """Positions, and the identities by which a later round knows that they still hold."""
        return {"held": self.held, "made": self.made, "row": self.data.row.clone()}

    @staticmethod
    def again(data: GroupedData, kept: Mapping[str, Any]) -> RoundRows:
        """The rows of an earlier round, and behind them what other loops have added since.

        Raises:
            ValueError: rows were dropped or moved since.
        """
        before = kept["row"]
        if not torch.equal(data.row[: len(before)], before.to(data.row.device)):
            raise ValueError(
                "rows of an earlier round were dropped or moved by another loop of the chain, so "
                "mix cannot tell which it held out; let that loop append rows only, or put it "
                "before mix in a run of one round"
            )
        return RoundRows(data, kept["held"], kept["made"])

    @staticmethod
    def drawn(
        loop: Mix,
        world: World,
        columns: tuple[str, ...],
        data: GroupedData,
        round: int,
        rng: Rng,
    ) -> RoundRows:
        """A new split of `data`, with rows that are made from its training part."""
        held = _held(loop, columns, data, rng)
        if loop.generator == "none" or bool(is_generated(data).any()):
            return RoundRows(data, held, torch.arange(0))
        real = data.take(_without(data, held))
        new = made_rows(loop, world, columns, real, rng.at("generator"), round)
        made = torch.arange(len(data), len(data) + len(new))
        data = data.append(new)
        more = _share_of(loop, columns, data, made, rng.at("held generated"))
        return RoundRows(data, torch.cat([held, more]), made)

    def unmade(self) -> GroupedData:
        """The data without the rows made here: they come from rows that a new split may hold."""
        return self.data.take(_without(self.data, self.made)) if len(self.made) else self.data


def is_generated(data: GroupedData) -> Tensor:
    """(N,) bool: the rows that a generator made."""
    return data.origin == int(Origin.GENERATED)


def first_rows(data: GroupedData, rows: int) -> GroupedData:
    """The first `rows` real rows and every generated one; all for 0.

    Raises:
        ValueError: there are fewer real rows.
    """
    if not rows:
        return data
    made = is_generated(data)
    if rows > int((~made).sum()):
        raise ValueError(f"rows={rows}, but the train side has {int((~made).sum())} real rows")
    return data.take(made | ((~made).cumsum(0) <= rows))


def made_rows(
    loop: Mix,
    world: World,
    columns: tuple[str, ...],
    rows: GroupedData,
    rng: Rng,
    born: int = 0,
) -> GroupedData:
    """New rows of every cell, made from these real rows alone."""
    return generate(
        world,
        rows,
        GroupIndex.of(rows, (LABEL, *columns)),
        loop.made_rows,
        rng,
        kind=loop.generator,
        noise=loop.noise,
        epochs=loop.generator_epochs,
        options=loop.generator_options,
        born=born,
    )


def stands_for(data: GroupedData) -> Tensor:
    """(N,) bool: the rows whose split says that they are for validation.

    Raises:
        ValueError: no attribute says so.
    """
    values = {a.name: a.values for a in data.schema.attributes}.get(SPLIT, ())
    named = [values.index(name) for name in VALIDATION if name in values]
    if not named:
        raise ValueError(
            f"held_out=split needs an attribute {SPLIT!r} with a value 'val'; this world has "
            f"{list(values) or 'no such attribute'}; set held_out=share, or give such a column"
        )
    return data.attribute(SPLIT) == named[0]


def held_share(loop: Mix, count: Tensor) -> Tensor:
    """How many of `count` rows of each cell are held out: the share, but never the last row."""
    return (count * loop.validation).ceil().long().minimum((count - 1).clamp_min(0))


def _held(loop: Mix, columns: tuple[str, ...], data: GroupedData, rng: Rng) -> Tensor:
    """Positions held out: a share of every cell, or the rows that the split says.

    Generated rows of which none is said to be for validation are held out by the share.
    """
    every = torch.arange(len(data))
    if loop.held_out == "share":
        return _share_of(loop, columns, data, every, rng.at("held"))
    said, made = stands_for(data).cpu(), is_generated(data).cpu()
    held = every[said]
    if bool((said & made).any()) or not bool(made.any()):
        return held
    return torch.cat([held, _share_of(loop, columns, data, every[made], rng.at("held"))])


def _share_of(
    loop: Mix, columns: tuple[str, ...], data: GroupedData, rows: Tensor, rng: Rng
) -> Tensor:
    """Positions held out among `rows`: the same share of every cell and source."""
    cells = CellIndex.of(data, columns).take(rows)
    names = tuple(map(str, range(cells.sources * cells.size)))
    groups = GroupIndex(cells.place, names)
    return rows[groups.draw(held_share(loop, groups.count()), rng.gen()).sort().values]


def _without(data: GroupedData, rows: Tensor) -> Tensor:
    """Positions of all rows but these."""
    stays = torch.ones(len(data), dtype=torch.bool)
    stays[rows] = False
    return stays.nonzero().flatten()
