"""Tables of counts that tests of measures share."""

from __future__ import annotations

import numpy as np

from evenloop.counts import Counts
from evenloop.rng import Rng

BINARY = ("no", "yes")
ABSENT = np.zeros((2, 2), np.int64)
ONE = np.array([[3, 1], [1, 5]])
TWO = np.array([[4, 4], [3, 3]])


def binary(*tables: np.ndarray) -> Counts:
    return Counts(np.stack(tables), tuple("abcdefgh"[: len(tables)]), BINARY)


def random_counts(groups: int, classes: int, seed: int, least: int = 0) -> Counts:
    draw = Rng.of(seed).at("table").numpy()
    table = draw.integers(least, 20, (groups, classes, classes))
    names = tuple(f"g{i}" for i in range(groups))
    return Counts(table, names, tuple(map(str, range(classes))))
