"""CPU seconds of two programs in turn, and rows of the table: the clock of `bench_regenerate`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

__all__ = ["Row", "cpu", "in_turn", "paired", "row"]

Row = dict[str, Any]
REPEATS = 3


def cpu(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Least CPU seconds of `work` in this process over a few repeats."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def paired(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int = REPEATS
) -> tuple[float, float]:
    """Least CPU seconds of both, run in turn, so that a busy machine slows both alike."""
    seconds = [(cpu(ours, 1), cpu(theirs, 1)) for _ in range(repeats)]
    return min(mine for mine, _ in seconds), min(other for _, other in seconds)


def in_turn(
    works: Mapping[str, Callable[[], object]],
    theirs: Callable[[], object],
    repeats: int = 2,
    calls: int = 1,
) -> Iterator[tuple[str, float, float]]:
    """Of every work its name and CPU seconds, and theirs, all run in turn: the least of `repeats`.

    What is too short for the clock is called `calls` times in each turn, and the mean counts.
    """
    least = dict.fromkeys(works, math.inf)
    other = math.inf
    for _ in range(repeats):
        other = min(other, cpu(theirs, 1))
        for name, work in works.items():
            least[name] = min(least[name], cpu(partial(again, work, calls), 1) / calls)
    for name, seconds in least.items():
        yield name, seconds, other


def again(work: Callable[[], object], calls: int) -> None:
    """`work`, so many times."""
    for _ in range(calls):
        work()


def row(name: str, ours: float, baseline: float, target: str, unit: str = "CPU s") -> Row:
    """One line of the table; the ratio says how many times less ours takes."""
    return {
        "name": name,
        "ours": ours,
        "baseline": baseline,
        "ratio": baseline / ours,
        "target": target,
        "unit": unit,
    }
