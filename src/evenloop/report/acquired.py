"""What a record of acquisition says about its cells and its labels, for reports to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, log, nan

import numpy as np
from numpy.typing import NDArray

from evenloop.intervals import across_runs, band
from evenloop.record import Row
from evenloop.report.intervals import Interval
from evenloop.report.panels import Curve, Steps
from evenloop.report.study import Study

__all__ = [
    "LEVELS",
    "acquires",
    "cell_counts",
    "cells_noted",
    "enrichment",
    "histograms",
    "labels_until",
    "last_values",
    "loss",
    "measure",
    "over_labels",
    "rare",
    "until_reached",
    "verdicts",
]

Floats = NDArray[np.float64]
LEVELS = (0.6, 0.7, 0.8, 0.9)
RATIO = (0.0, inf)  # a ratio has no limit below 0
BINS = "pool.bald.bins"


def acquires(study: Study) -> bool:
    """Whether the study's loop buys labels."""
    return any("acquire" in entry for entry in study.config.loop)


def over_labels(study: Study, label: str, read: Callable[[Row], float]) -> Curve:
    """What `read` finds in every round over the labels of the round, mean over seeds."""
    rows = [record.rows for record in study.records.values()]
    x = band([np.array([row.sizes["train"] for row in of], np.float64) for of in rows]).mean
    found = [np.array([read(row) for row in of], np.float64) for of in rows]
    if len(found) == 1:
        return Curve(label, x, found[0])
    over = band(found)
    return Curve(label, x, over.mean, over.low, over.high)


def measure(study: Study, label: str, metric: str) -> Curve:
    """A measure of the audit split over labels."""
    line = study.line(label, metric)
    rows = [record.rows for record in study.records.values()]
    x = band([np.array([row.sizes["train"] for row in of], np.float64) for of in rows]).mean
    return Curve(label, x[: len(line.value)], line.value, line.low, line.high)


def cell_counts(study: Study) -> dict[str, Callable[[Row], float]]:
    """How to read the labelled rows of each (group, true class) cell, by its name."""
    counts = study.first.counts["train"]
    names = [f"{c} {g}" if g != "all" else c for g in counts.groups for c in counts.classes]

    def reader(place: int) -> Callable[[Row], float]:
        return lambda row: float(row.counts["train"].table.sum(2).reshape(-1)[place])

    return {name: reader(place) for place, name in enumerate(names)}


def loss(row: Row) -> float:
    """Mean log loss on the audit split, nats."""
    n, total, _ = row.moments["audit.loss"].table.sum(0)
    return float(total / n)


def cells_noted(study: Study) -> list[str]:
    """The cells whose enrichment was noted, in order."""
    names: dict[str, None] = {}
    for record in study.records.values():
        for row in record.rows:
            names |= dict.fromkeys(n for n in row.values if n.startswith("enrichment."))
    return [n.removeprefix("enrichment.") for n in names]


def last_values(study: Study, name: str) -> dict[int, float]:
    """The last known value of a note, by seed."""
    found = {}
    for seed, record in study.records.items():
        known = [v for row in record.rows if isinstance(v := row.values.get(name), (int, float))]
        known = [v for v in known if v == v]
        if known:
            found[seed] = float(known[-1])
    return found


def enrichment(study: Study, cells: Sequence[str]) -> list[Interval]:
    """The enrichment of each cell at the last round, over seeds."""
    found = []
    for cell in cells:
        values = last_values(study, f"enrichment.{cell}")
        runs = [*values.values()] or [nan]
        found.append(Interval.over(cell, across_runs(runs), RATIO))
    return found


def rare(study: Study) -> Interval | None:
    """The enrichment of all rare cells together at the last round; None if there are none.

    With one seed the limits are those of its own counts.
    """
    values = last_values(study, "rare.enrichment")
    if not values:
        return None
    if len(values) == 1:
        low, high = (last_values(study, f"rare.{end}") for end in ("low", "high"))
        (seed,) = values
        return Interval("rare", values[seed], low.get(seed, nan), high.get(seed, nan))
    return Interval.over("rare", across_runs([*values.values()]), RATIO)


def verdicts(study: Study) -> dict[str, int]:
    """In how many seeds the last word on rare cells is "starved", "not starved", "inconclusive"."""
    said: dict[str, int] = {}
    for record in study.records.values():
        words = [str(row.values["rare.says"]) for row in record.rows if "rare.says" in row.values]
        if words:
            said[words[-1]] = said.get(words[-1], 0) + 1
    return said


def labels_until(rows: Sequence[Row], group: str, level: float) -> int | None:
    """Labels of the first round whose audited accuracy of the group is at least `level`."""
    for row in rows:
        counts = row.counts["audit"]
        table = counts.table[counts.groups.index(group)]
        if table.sum() and table.trace() / table.sum() >= level:
            return row.sizes["train"]
    return None


def until_reached(study: Study, group: str) -> list[str]:
    """The labels until the group reaches each of `LEVELS`, median over all seeds, in words.

    A seed that never gets there counts as infinitely many, so the median is "not reached" where
    half of the seeds or more are not.
    """
    cells = []
    for level in LEVELS:
        reached = [labels_until(r.rows, group, level) for r in study.records.values()]
        missing = reached.count(None)
        median = np.median([inf if n is None else n for n in reached])
        shown = f"{median:.0f}" if np.isfinite(median) else "not reached"
        some = 0 < missing < len(reached)
        cells.append(f"{shown} ({missing} of {len(reached)} never)" if some else shown)
    return cells


def histograms(study: Study) -> tuple[dict[str, list[Steps]], Floats]:
    """BALD of the pool by cell in the first and the last round that has it, and the bins' edges.

    Items of all seeds together, and each panel's name says of how many. Empty where nothing was
    scored.
    """
    rounds: dict[int, Mapping[str, Floats]] = {}
    seeds: dict[int, int] = {}
    for record in study.records.values():
        for row in record.rows:
            if BINS in row.moments:
                now = _by_cell(row)
                before = rounds.get(row.round, {})
                seeds[row.round] = seeds.get(row.round, 0) + 1
                rounds[row.round] = {c: n + before.get(c, np.zeros_like(n)) for c, n in now.items()}
    if not rounds:
        return {}, np.zeros(1)
    found = {}
    for round in sorted({min(rounds), max(rounds)}):
        of = f"{seeds[round]} seeds together" if seeds[round] > 1 else "1 seed"
        found[f"round {round}, {of}"] = [
            Steps(cell, n / n.sum() if n.sum() else np.full(len(n), nan))
            for cell, n in rounds[round].items()
        ]
    bins = len(next(iter(rounds[min(rounds)].values())))
    classes = len(study.first.counts["train"].classes)
    return found, log(max(2, classes)) * (np.arange(bins + 1) / bins) ** 2


def _by_cell(row: Row) -> dict[str, Floats]:
    """Items in each bin, (B,), by cell."""
    moments = row.moments[BINS]
    cells = list(dict.fromkeys(name.rsplit("|", 1)[0] for name in moments.groups))
    table = moments.table[:, 0].reshape(len(cells), -1)
    return {cell: table[i] for i, cell in enumerate(cells)}
