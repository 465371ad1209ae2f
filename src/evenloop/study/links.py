"""A chain's rows as its loops wrote them: without the place and verb that `chain` puts in front.

A reader of a single loop's record (a report's section, a table) then reads a chain's as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from evenloop.record import Row

__all__ = ["unlinked"]

T = TypeVar("T")
LINK = re.compile(r"^\d+\.[a-z_]+\.")


def unlinked(rows: Sequence[Row]) -> list[Row]:
    """The rows with "<place>.<verb>." taken off every name that only one link has in any round.

    >>> row = Row(0, {}, {}, values={"0.acquire.query": 5, "1.prune.sparsity": 0.9, "rows": 7})
    >>> unlinked([row])[0].values
    {'query': 5, 'sparsity': 0.9, 'rows': 7}
    >>> twice = Row(0, {}, {}, values={"0.prune.sparsity": 0.8, "1.prune.sparsity": 0.9})
    >>> list(unlinked([twice])[0].values)
    ['0.prune.sparsity', '1.prune.sparsity']
    """
    parts = ("counts", "moments", "values")
    plain = {part: _names(name for row in rows for name in getattr(row, part)) for part in parts}

    def renamed(items: Mapping[str, T], part: str) -> dict[str, T]:
        return {plain[part][name]: item for name, item in items.items()}

    return [
        replace(
            row,
            counts=renamed(row.counts, "counts"),
            moments=renamed(row.moments, "moments"),
            values=renamed(row.values, "values"),
        )
        for row in rows
    ]


def _names(names: Iterable[str]) -> dict[str, str]:
    """Every name with what it is called without its link."""
    plain = {name: LINK.sub("", name) for name in names}
    times = Counter(plain.values())
    return {name: short if times[short] == 1 else name for name, short in plain.items()}
