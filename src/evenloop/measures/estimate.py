"""What a measure returns: a value per group, or one gap, never without its count and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evenloop.intervals import Bounded

__all__ = ["MIN_SUPPORT", "Estimate", "Excluded", "Gap", "check_support", "in_words"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_SUPPORT = 1
"""Fewest items behind a rate. One keeps every rate that exists, as Fairlearn does; its limits say
how little one item proves. Ask for 10 to 30 where a reader sees values without limits."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """What was left out of an aggregate, and why; `support` is the number of items it had."""

    what: str
    why: str
    support: int

    @staticmethod
    def too_few(what: str, items: int, min_support: int, rate: str = "") -> Excluded:
        """`what` left out because of its number of items, behind `rate` if there are several."""
        few = f", fewer than {min_support}" if min_support > 1 else ""
        behind = f": {rate}" if rate else ""
        return Excluded(what, f"{items} item{'' if items == 1 else 's'}{few}{behind}", items)

    def __str__(self) -> str:
        return f"{self.what} ({self.why})"


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """One measure in each group: arrays (G,), always all groups.

    `value`, `low`, `high` are float64 and nan where fewer than `min_support` items stand behind
    the value; `support` int64 counts those items (the denominator of the rate). `method` says how
    the limits were found, which hold at `level` one group at a time.

    >>> from evenloop.counts import Counts
    >>> from evenloop.measures import accuracy
    >>> counts = Counts(np.array([[[3, 1], [0, 4]], [[0, 0], [0, 0]]]), ("a", "b"), ("no", "yes"))
    >>> print(accuracy(counts))
    accuracy: a 0.875 [0.529, 0.978] (n=8); b not estimable (n=0)
    """

    name: str
    value: Floats
    low: Floats
    high: Floats
    support: Ints
    groups: tuple[str, ...]
    level: float
    method: str
    min_support: int = MIN_SUPPORT
    excluded: tuple[Excluded, ...] = ()

    @staticmethod
    def of(
        name: str,
        bounded: Bounded,
        support: NDArray[np.integer],
        groups: tuple[str, ...],
        *,
        level: float,
        method: str,
        min_support: int = MIN_SUPPORT,
        excluded: tuple[Excluded, ...] = (),
    ) -> Estimate:
        """An estimate that is nan wherever `support` is below `min_support`.

        Raises:
            ValueError: `min_support` is below 1.
        """
        enough = support >= check_support(min_support)
        kept = bounded.where(enough)
        count = np.asarray(support, np.int64)
        return Estimate(name, *kept, count, groups, level, method, min_support, excluded)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def estimable(self) -> NDArray[np.bool_]:
        """(G,) whether the group has a value."""
        return ~np.isnan(self.value)

    def left_out(self, suffix: str = "") -> tuple[Excluded, ...]:
        """The groups without a value, each with its number of items."""
        return tuple(
            Excluded.too_few(self.groups[i] + suffix, int(self.support[i]), self.min_support)
            for i in np.flatnonzero(~self.estimable)
        )

    def absolute(self) -> Estimate:
        """The sizes of signed values, with limits that start at 0 where the sign is open."""
        low = np.maximum(np.maximum(self.low, -self.high), 0)
        high = np.maximum(-self.low, self.high)
        return replace(
            self, name=f"absolute {self.name}", value=np.abs(self.value), low=low, high=high
        )

    def rows(self) -> Iterator[Mapping[str, str | float | int]]:
        """One record per group: group, metric, value, low, high, n."""
        for i, group in enumerate(self.groups):
            yield {
                "group": group,
                "metric": self.name,
                "value": float(self.value[i]),
                "low": float(self.low[i]),
                "high": float(self.high[i]),
                "n": int(self.support[i]),
            }

    def words(self, group: int = 0) -> str:
        """One group in words: its value, limits and count, or that it is not estimable."""
        limits = self.low[group], self.high[group]
        said = in_words(self.value[group], *limits, n=int(self.support[group]))
        return f"{self.groups[group]} {said}"

    def __str__(self) -> str:
        return f"{self.name}: " + "; ".join(map(self.words, range(len(self))))


@dataclass(frozen=True, slots=True)
class Gap:
    """The widest distance between two groups, or of one group from all.

    `value` is never negative for a difference and at most 1 for a ratio; nan if it cannot be
    estimated. `low`, `high` hold the true widest gap at `level`: they allow for the choice of the
    widest among all pairs, so they are not those of the two groups alone. `between` names the
    groups with the higher and the lower rate, `rate` which rate it is, `support` their counts.
    `excluded` names every group, rate or class that had too few items to take part.
    """

    name: str
    value: float
    low: float
    high: float
    between: tuple[str, str] | None
    support: tuple[int, int]
    rate: str
    reference: str
    method: str
    level: float
    excluded: tuple[Excluded, ...] = ()

    @property
    def estimable(self) -> bool:
        """Whether there is a value."""
        return not np.isnan(self.value)

    def row(self) -> Mapping[str, str | float | int]:
        """One record: metric, value, low, high, the two groups, their counts, what is left out."""
        higher, lower = self.between or ("", "")
        return {
            "metric": self.name,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "higher": higher,
            "n_higher": self.support[0],
            "lower": lower,
            "n_lower": self.support[1],
            "rate": self.rate,
            "reference": self.reference,
            "excluded": "; ".join(map(str, self.excluded)),
            "method": self.method,
        }

    def __str__(self) -> str:
        out = f"; left out: {', '.join(map(str, self.excluded))}" if self.excluded else ""
        if self.between is None:
            return f"{self.name}: not estimable{out}"
        (higher, lower), (n, m) = self.between, self.support
        said = in_words(self.value, self.low, self.high)
        pair = f"{higher} (n={n}) above {lower} (n={m})"
        return f"{self.name}: {said}, {pair}, {self.rate}{out}"


def in_words(value: float, low: float, high: float, *, n: int | None = None) -> str:
    """A value with its limits and, if given, its count; or that it is not estimable."""
    behind = "" if n is None else f" (n={n})"
    if np.isnan(value):
        return f"not estimable{behind}"
    limits = "" if np.isnan(low) else f" [{low:.3g}, {high:.3g}]"
    return f"{value:.3g}{limits}{behind}"


def check_support(min_support: int) -> int:
    """`min_support` if it is at least 1.

    Raises:
        ValueError: it is not.
    """
    if min_support < 1:
        raise ValueError(f"min_support must be at least 1, got {min_support}; a rate needs items")
    return min_support
