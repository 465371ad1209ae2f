"""Who is left out where rows that lack a value are dropped: by group, by class, and how surely.

Dropping incomplete rows is a choice about people. Where one group's values are missing more often,
what is left is no sample of that group, and every rate of it is one of those who are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evenloop.intervals import Bounded, difference, wilson

__all__ = ["Dropped", "SaysDropped", "Split"]

MOST_SHOWN = 12  # values of a column in one sentence
LEVEL = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of every value of a column: `kept` and `dropped` (G,) int64 by `values`."""

    values: tuple[str, ...]
    kept: NDArray[np.int64]
    dropped: NDArray[np.int64]

    @staticmethod
    def of(codes: NDArray[np.int64], values: tuple[str, ...], keep: NDArray[np.bool_]) -> Split:
        """The counts of codes (N,) of which those of `keep` (N,) stay; a code of -1 has no value.

        >>> keep = np.array([True, True, False, True])
        >>> split = Split.of(np.array([0, 1, 1, -1]), ("f", "m"), keep)
        >>> split.kept.tolist(), split.dropped.tolist()
        ([1, 1], [0, 1])
        """
        known, size = codes >= 0, len(values)
        kept = np.bincount(codes[known & keep], minlength=size)
        return Split(values, kept, np.bincount(codes[known & ~keep], minlength=size))

    def text(self) -> str:
        """Dropped of all rows of each value, the first values where there are many."""
        of = self.kept + self.dropped
        said = [
            f"{value} {gone} of {n}" + (f" ({_percent(gone / n)})" if n else "")
            for value, gone, n in zip(self.values, self.dropped, of, strict=True)
        ]
        more = [f"and {len(said) - MOST_SHOWN} more values"] if len(said) > MOST_SHOWN else []
        return ", ".join([*said[:MOST_SHOWN], *more])

    def excess(self) -> Bounded:
        """(G,) share dropped of each value minus that of all other rows, with Newcombe's limits.

        The limits of all values hold at once at 95 %; nan where either side has no row.

        >>> split = Split(("f", "m"), np.array([10, 90]), np.array([90, 10]))
        >>> split.excess().value.tolist(), bool(split.excess().low[0] > 0.5)
        ([0.8, -0.8], True)
        """
        gone, of = self.dropped, self.dropped + self.kept
        many = len(of)
        inside = wilson(gone, of, level=LEVEL, comparisons=many)
        outside = wilson(gone.sum() - gone, of.sum() - of, level=LEVEL, comparisons=many)
        return difference(inside, outside)


def _percent(share: float) -> str:
    """A share in percent; one that rounds to nothing, but is something, says so."""
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


@dataclass(frozen=True, slots=True, eq=False)
class Dropped:
    """What `missing="drop"` left out of a table.

    Attributes:
        kept, dropped: rows.
        lacking: rows without a value, by feature or label column that has such rows.
        columns: the group columns and the label, by name.
    """

    kept: int
    dropped: int
    lacking: Mapping[str, int]
    columns: Mapping[str, Split]

    def notes(self) -> tuple[str, ...]:
        """Sentences about who is left out; none where nobody is.

        >>> split = Split(("f", "m"), np.array([2, 3]), np.array([1, 0]))
        >>> for line in Dropped(5, 1, {"income": 1}, {"sex": split}).notes():
        ...     print(line)
        missing=drop leaves out 1 of 6 rows (16.7%): income is missing in 1
        left out by sex: f 1 of 3 (33.3%), m 0 of 3 (0.0%)
        """
        if not self.dropped:
            return ()
        of = self.kept + self.dropped
        why = ", ".join(f"{name} is missing in {n}" for name, n in self.lacking.items())
        whole = (
            f"missing=drop leaves out {self.dropped} of {of} rows ({_percent(self.dropped / of)})"
        )
        by = (f"left out by {name}: {split.text()}" for name, split in self.columns.items())
        return (f"{whole}: {why}", *by)

    def alarms(self) -> tuple[str, ...]:
        """One for every column of which a value clearly loses more of its rows than the others."""
        if not self.dropped:
            return ()
        found = []
        for name, split in self.columns.items():
            value, low, high = split.excess()
            if not (low > 0).any():
                continue
            worst = int(np.where(low > 0, value, -np.inf).argmax())
            gone, n = split.dropped[worst], split.dropped[worst] + split.kept[worst]
            rest = self.kept + self.dropped - n
            found.append(
                f"missing=drop leaves out {gone} of {n} rows of {name}={split.values[worst]} "
                f"({_percent(gone / n)}) and {self.dropped - gone} of {rest} others (difference "
                f"{value[worst]:.3f} [{low[worst]:.3f}, {high[worst]:.3f}]): what is measured of "
                f"{split.values[worst]} is of those who are left; fill in "
                f"{', '.join(self.lacking)}, leave the column out, or say so beside every figure"
            )
        return tuple(found)


@runtime_checkable
class SaysDropped(Protocol):
    """A source that may leave rows out, and says whose."""

    def left_out(self) -> Dropped:
        """Kept and dropped rows by group and class."""
        ...
