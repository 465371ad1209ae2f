"""Rows of a state that need not be written, because the world the run draws from has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from evenloop.data import COLUMNS, GroupedData

__all__ = ["OF_THE_WORLD", "KnownRows"]

OF_THE_WORLD = ("x", "truth", "attributes")
"""Columns that a world's row has there too: written only where a loop changed them."""
SLICE = 4096


class KnownRows:
    """The rows a run draws from, found by their identity."""

    __slots__ = ("data", "place")

    def __init__(self, data: GroupedData) -> None:
        self.data = data
        self.place: Tensor | None = None

    def at(self, row: Tensor) -> Tensor:
        """(N,) positions of rows by their identities (N,), all from 0 on; -1 where there is none.

        On the CPU; what they are looked up in is made once.
        """
        if self.place is None:
            there = self.data.row.cpu()
            known = (there >= 0).nonzero().flatten()  # a world may hold generated rows, too
            size = int(there[known].max()) + 2 if len(known) else 1
            self.place = torch.full((size,), -1)  # the last one is for all that are beyond
            self.place[there[known]] = known
        return self.place[row.cpu().clamp_max(len(self.place) - 1)]

    def holds(self, name: str, columns: Mapping[str, Tensor]) -> bool:
        """Whether the world has just these values in its rows among `columns`; compares them."""
        row, mine, there = columns["row"], columns[name], self.data.columns()[name]
        if mine.dtype != there.dtype or mine.shape[1:] != there.shape[1:]:
            return False
        for start in range(0, len(row), SLICE):
            known = row[start : start + SLICE] >= 0
            place = self.at(row[start : start + SLICE][known])
            if bool((place < 0).any()):
                return False
            ours = mine[start : start + SLICE]
            ours = ours if bool(known.all()) else ours[known.to(ours.device)]
            theirs = there.index_select(0, place.to(there.device)).to(ours.device)
            if not torch.equal(_bits(ours), _bits(theirs)):
                return False
        return True

    def restored(self, parts: Sequence[Mapping[str, Tensor]]) -> GroupedData:
        """The rows of a state; what is not in its parts is read from the world.

        A column of a part has all its rows, or those that are not the world's.

        Raises:
            ValueError: the state names a row that the world does not have.
        """
        columns = {name: torch.cat([part[name] for part in parts]) for name in COLUMNS}
        row = columns["row"]
        if bool((self.at(row[row >= 0]) < 0).any()):
            raise ValueError("the state holds rows this world does not have; is the data the same?")
        for name in OF_THE_WORLD:
            whole = [len(part[name]) == len(part["row"]) for part in parts]
            own = torch.cat([part["row"].lt(0) | w for part, w in zip(parts, whole, strict=True)])
            columns[name] = self._filled(name, columns[name], own, row)
        return GroupedData.from_columns(self.data.schema, columns)

    def _filled(self, name: str, kept: Tensor, own: Tensor, row: Tensor) -> Tensor:
        """A column of which the rows that are `own` were kept."""
        source = self.data.columns()[name]
        if bool(own.all()) and len(own):
            return kept.to(source.device)
        place = self.at(row[~own]).to(source.device)
        if not bool(own.any()):
            return source.index_select(0, place)
        full = source.new_empty((len(row), *source.shape[1:]))
        full[~own] = source[place]
        full[own] = kept.to(full.device, full.dtype)
        return full


def _bits(rows: Tensor) -> Tensor:
    """The same bits, eight bytes at a time where they divide: compared several times faster."""
    flat = rows.reshape(len(rows), -1) if len(rows) else rows
    wide = flat.numel() > 0 and flat.shape[1] * flat.element_size() % 8 == 0
    return flat.contiguous().view(torch.int64) if wide else flat
