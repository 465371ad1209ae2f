"""What a report is made of: a study's configuration, records and measures, and its curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evenloop.config import RunConfig
from evenloop.intervals import band
from evenloop.record import Record, Row
from evenloop.report.figures import Line
from evenloop.shares import ALIKE

__all__ = ["Study"]

SIGNED = ("bias", "gap", "bound", "slack")  # differences, which may leave [0, 1]


@dataclass(frozen=True, eq=False)
class Study:
    """A study folder as a value: everything a section may read.

    Attributes:
        folder: where it lies.
        config: what was run.
        records: by seed, at least one, each with at least one row.
        table: the long table of `evenloop.metrics`.
        track: class code of the bias statistic, or None.
    """

    folder: Path
    config: RunConfig
    records: Mapping[int, Record]
    table: pd.DataFrame
    track: int | None

    @property
    def first(self) -> Row:
        """The first round of the first seed."""
        return next(iter(self.records.values())).rows[0]

    @property
    def rounds(self) -> int:
        """Rounds of the longest record."""
        return max(len(record.rows) for record in self.records.values())

    @property
    def structured(self) -> bool:
        """Whether labels are texts or frames, whose accuracy is how often they count alike."""
        return any(key.endswith(".bias") for key in self.first.moments)

    @property
    def right(self) -> str:
        """What the share of rows is called whose label counts as the class that people gave."""
        return "Agreement with people's class" if self.structured else "Accuracy"

    @cached_property
    def _by_metric(self) -> Mapping[tuple[str, str, str], pd.DataFrame]:
        grouped = self.table.groupby(["split", "metric", "group"], sort=False)
        return {(str(s), str(m), str(g)): part for (s, m, g), part in grouped}

    def has(self, metric: str, split: str = "audit", group: str = "all") -> bool:
        """Whether any round of any seed has this metric."""
        return (split, metric, group) in self._by_metric

    def curves(
        self, metric: str, split: str = "audit", group: str = "all", column: str = "value"
    ) -> list[NDArray[np.float64]]:
        """A column of the metric of every seed round by round; nan where a round has none."""
        part = self._by_metric.get((split, metric, group))
        if part is None:
            return []
        found = []
        for _, seed in part.groupby("seed"):
            curve = np.full(int(seed["round"].max()) + 1, np.nan)
            curve[seed["round"].to_numpy()] = seed[column].to_numpy()
            found.append(curve)
        return found

    def grid(
        self, metric: str, split: str = "audit", group: str = "all", column: str = "value"
    ) -> NDArray[np.float64]:
        """The same as one array (seeds that have it, rounds); nan where a seed has none."""
        curves = self.curves(metric, split, group, column)
        grid = np.full((len(curves), self.rounds), np.nan)
        for place, curve in zip(grid, curves, strict=True):
            place[: len(curve)] = curve
        return grid

    def line(self, label: str, metric: str, split: str = "audit", group: str = "all") -> Line:
        """The metric as a line: over seeds with the mean's limits, alone with its counts' own.

        Where all seeds agree to the last item their deviation is no measure of anything; the
        limits are then the widest that the counts of a single seed give. A line called as a group
        of the audit has that group's place.
        """
        return replace(self._line(label, metric, split, group), place=self.place(label))

    def place(self, group: str) -> int | None:
        """Where a group stands among those of the audit, which gives its colour on the page."""
        counts = self.first.counts.get("audit")
        names = counts.groups if counts else ()
        return names.index(group) if group in names else None

    @property
    def step(self) -> str:
        """What a round is called on the page: generators have generations."""
        return "generation" if "population" in self.first.counts else "round"

    def _line(self, label: str, metric: str, split: str, group: str) -> Line:
        if not self.has(metric, split, group):
            return Line(label, np.full(self.rounds, np.nan))
        curves = self.curves(metric, split, group)
        lows = self.grid(metric, split, group, "low")
        highs = self.grid(metric, split, group, "high")
        if len(curves) == 1:
            length = len(curves[0])
            return Line(label, curves[0], lows[0, :length], highs[0, :length])
        over = band(curves)
        length, alike = len(over.mean), (over.sd <= ALIKE)
        # np.fmin passes over nan: a seed that stopped early
        low = np.where(alike, np.fmin.reduce(lows)[:length], over.low)
        high = np.where(alike, np.fmax.reduce(highs)[:length], over.high)
        if self._is_share(metric, split, group):
            low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
        return Line(label, over.mean, low, high, thin=tuple(curves))

    def _is_share(self, metric: str, split: str, group: str) -> bool:
        """Whether the metric is a share, in [0, 1] with its limits: the mean's are cut there."""
        if metric.startswith(SIGNED):
            return False
        part = self._by_metric[(split, metric, group)]
        inside = part["value"].dropna().between(0, 1).all()
        return bool(inside and not (part["low"] < 0).any() and not (part["high"] > 1).any())

    def limits(self) -> str:
        """What the bands of this study's figures are, in words."""
        n = len(self.records)
        if n > 1:
            return f"mean of {n} seeds with 95 % Student limits, single seeds as thin lines"
        items = self.first.counts["audit"].total if "audit" in self.first.counts else 0
        return f"one seed with 95 % limits from {items} audit items; another seed can differ more"
