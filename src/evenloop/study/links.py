"""A chain's rows as its loops wrote them: without the place and verb that `chain` puts in front.

A reader of a single loop's record (a report's section, a table) then reads a chain's as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from evenloop.record import Row

__all__ = ["unlinked"]

T = TypeVar("T")
LINK = re.compile(r"^\d+\.[a-z_]+\.")


def unlinked(rows: Sequence[Row]) -> list[Row]:
    """The rows with "<place>.<verb>." taken off every name that stays the only one of its kind.

    >>> row = Row(0, {}, {}, values={"0.acquire.query": 5, "1.prune.sparsity": 0.9, "rows": 7})
    >>> unlinked([row])[0].values
    {'query': 5, 'sparsity': 0.9, 'rows': 7}
    >>> twice = Row(0, {}, {}, values={"0.prune.sparsity": 0.8, "1.prune.sparsity": 0.9})
    >>> list(unlinked([twice])[0].values)
    ['0.prune.sparsity', '1.prune.sparsity']
    """
    return [
        replace(
            row,
            counts=_unlinked(row.counts),
            moments=_unlinked(row.moments),
            values=_unlinked(row.values),
        )
        for row in rows
    ]


def _unlinked(items: Mapping[str, T]) -> dict[str, T]:
    plain = {name: LINK.sub("", name) for name in items}
    times = Counter(plain.values())
    return {plain[name] if times[plain[name]] == 1 else name: item for name, item in items.items()}
