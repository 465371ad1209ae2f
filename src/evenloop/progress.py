"""What a person sees while a run goes on: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["lines", "live"]

Progress = Callable[[int, str, int, int], None]
LINE_SECONDS = 5.0


@contextmanager
def lines(name: str, seeds: Sequence[int], rounds: int) -> Iterator[Progress]:
    """One line per seed at most every five seconds, and when it ends, on standard error."""
    last = dict.fromkeys(seeds, 0.0)
    first: dict[int, tuple[int, float]] = {}  # a seed may wait for others: its own time counts

    def progress(seed: int, what: str, done: int, of: int) -> None:
        now = time.monotonic()
        if what != "round" or (now - last[seed] < LINE_SECONDS and done < of):
            return
        last[seed] = now
        begun, started = first.setdefault(seed, (done, now))
        left = (now - started) / (done - begun) * (of - done) if done > begun else 0.0
        rest = f", about {left:.0f} s left" if left else ""
        sys.stderr.write(f"{name} seed {seed}: round {done} of {of}{rest}\n")
        sys.stderr.flush()

    yield progress


@contextmanager
def live(name: str, seeds: Sequence[int], rounds: int) -> Iterator[Progress]:
    """A bar per seed with rounds, the epoch inside the running fit, rate and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rounds {task.fields[epoch]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {
            seed: bars.add_task(f"{name} seed {seed}", total=rounds, epoch="") for seed in seeds
        }

        def progress(seed: int, what: str, done: int, of: int) -> None:
            if what == "round":
                bars.update(tasks[seed], completed=done, epoch="")
            else:
                bars.update(tasks[seed], epoch=f"epoch {done} of {of}")

        yield progress
