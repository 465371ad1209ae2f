"""The tables of docs/prune.md from run folders: `python -m benchmarks.table_prune RUNS`.

Every finished round of every run below RUNS that prunes a given dense net is a row: one sparsity
of one method, over the seeds there are. Percent throughout; nothing is rounded before it is shown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evenloop.claims import ExcessGapClaim
from evenloop.config import RunConfig
from evenloop.record import Record, Row
from evenloop.report.sections.compression import chance, over_seeds
from evenloop.study.folder import read_study

METHODS = ("none", "equalized_loss", "accuracy_gap")
HEAD = (
    "sparsity", "method", "train accuracy", "train largest gap, by seed", "within",
    "audit accuracy", "audit largest gap, by seed", "audit verdicts", "by chance alone",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """One sparsity of one method: the round of every seed, with the verdicts on it."""

    config: RunConfig
    records: tuple[Record, ...]
    round: int

    @property
    def loop(self) -> dict[str, Any]:
        """The fields of `prune`."""
        return dict(self.config.loop[0]["prune"])

    @property
    def rows(self) -> list[Row]:
        """The round of every seed."""
        return [record.rows[self.round] for record in self.records]

    def accuracy(self, name: str) -> str:
        """Mean and deviation over seeds of the counts `name`."""
        tables = [row.counts[name].table.sum(0) for row in self.rows]
        return over_seeds([float(table.trace() / table.sum()) for table in tables])

    def gaps(self, split: str) -> list[float]:
        """Largest excess gap of every seed, percent."""
        claim = ExcessGapClaim(self.loop["tolerance"], "fit" if split == "fit" else "audit")
        return [100 * claim.measured(r.rows, self.round).value for r in self.records]

    def says(self, split: str) -> list[str]:
        """Verdict of every seed."""
        claim = ExcessGapClaim(self.loop["tolerance"], "fit" if split == "fit" else "audit")
        return [claim.verdict(r.rows, self.round).says for r in self.records]

    def line(self) -> str:
        """The row of the table."""
        seeds, held = len(self.records), self.says("audit")
        low, middle, high = 100 * np.mean([chance(row) for row in self.rows], 0)
        cells = [
            f"{100 * float(self.rows[0].values['sparsity']):g}",
            f"`{self.loop['method']}`",
            self.accuracy("fit"),
            ", ".join(f"{gap:.1f}" for gap in self.gaps("fit")),
            f"{self.says('fit').count('within')} of {seeds}",
            self.accuracy("audit"),
            ", ".join(f"{gap:.1f}" for gap in self.gaps("audit")),
            ", ".join(f"{held.count(word)} {word}" for word in sorted(set(held))),
            f"{middle:.1f} ({low:.1f} to {high:.1f})",
        ]
        return f"| {' | '.join(cells)} |"


def cells_below(runs: Path) -> Iterable[Cell]:
    """Every sparsity of every pruning run below `runs` that was given its dense net."""
    for manifest in sorted(runs.glob("*/manifest.json")):
        config, records = read_study(manifest.parent)
        if not config.loop or "dense" not in (config.loop[0].get("prune") or {}):
            continue
        for round in range(1, config.rounds):
            done = tuple(r for _, r in sorted(records.items()) if len(r.rows) > round)
            if done:
                yield Cell(config, done, round)


def setting(cell: Cell) -> tuple[str, str, str, float]:
    """Where from and what is predicted, whose gaps are bounded, and by what."""
    world = cell.config.world
    groups = ["class" if name == "truth" else name for name in cell.config.by]
    return world["name"], world.get("target", "class"), " x ".join(groups), cell.loop["tolerance"]


def tables(runs: Path) -> str:
    """A Markdown table for every setting."""
    found: dict[tuple[str, str, str, float], list[Cell]] = {}
    for cell in cells_below(runs):
        found.setdefault(setting(cell), []).append(cell)
    lines = []
    for (world, target, groups, tolerance), cells in sorted(found.items()):
        one = cells[0]
        lines += [
            f"**{world}: target {target}, groups {groups}**, tolerance {100 * tolerance:g}; dense "
            f"net {one.accuracy('fit.reference')} on the training rows, "
            f"{one.accuracy('audit.reference')} on the audit split",
            "",
            f"| {' | '.join(HEAD)} |",
            f"|{' --- |' * len(HEAD)}",
        ]
        cells.sort(key=lambda c: (c.rows[0].values["sparsity"], METHODS.index(c.loop["method"])))
        lines += [cell.line() for cell in cells] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables(Path(sys.argv[1])))
