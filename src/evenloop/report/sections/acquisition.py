"""Whose labels were bought: cells of the labelled set, enrichment, uncertainty, labels needed.

Figures after Branchaud-Charron et al., "Can Active Learning Preemptively Mitigate Fairness Issues?"
(2021): the labelled set by cell and the curves over labels. Enrichment, uncertainty by cell and
labels until an accuracy is reached are ours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evenloop.intervals import across_runs, band
from evenloop.record import Row
from evenloop.report.figures import Line, line_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

ORDER = 12
LEVELS = (0.6, 0.7, 0.8, 0.9)
Curve = NDArray[np.float64]


def build(study: Study) -> Section | None:
    """The section, for studies whose loop acquires."""
    if not any("acquire" in entry for entry in study.config.loop):
        return None
    words = _words(study)
    return Section(
        "Whose labels were bought",
        text=[
            "A cell is a true class in a group. Its enrichment is its share among the labels "
            "bought so far over its share in the pool they were bought from: 1 is what a random "
            "choice does on average, below 1 the cell is asked about less than it is there.",
            *words,
            "Who can be harmed: people of a cell that is rarely asked about get a model that "
            "learned little about them, whatever its overall accuracy; see every group below.",
        ],
        figures=_figures(study),
        note=f"Bands: {study.limits()}. Cells are counted by true labels, which the loop does not "
        "see before it has bought them.",
        tables=_tables(study),
        summary=words[:1],
    )


def _figures(study: Study) -> list[str]:
    figures = [
        line_figure(
            "Labelled set by cell",
            [_over(study, name, _train_cell(i)) for i, name in enumerate(_cells(study))],
            ylabel="labels",
        )
    ]
    bought = [f"enrichment.{name}" for name in _noted(study)]
    if bought:
        lines = [study.line(n.removeprefix("enrichment."), n, split="notes") for n in bought]
        even = Line("as in the pool", np.ones(study.rounds), flat=True)
        figures.append(line_figure("Enrichment by cell", [*lines, even], ylabel="share / share"))
    for name, title in (("bald", "BALD in the pool"), ("entropy", "Entropy in the pool")):
        cells = _moment_names(study, f"pool.{name}")
        if cells:
            lines = [
                _over(study, cell, _pool_mean(f"pool.{name}", i)) for i, cell in enumerate(cells)
            ]
            figures.append(line_figure(title, lines, ylabel="mean, nats"))
    if "audit.loss" in study.first.moments:
        loss = _over(study, "audit split", _loss)
        figures.append(line_figure("Log loss on the audit split", [loss], ylabel="nats"))
    if study.has("probe", split="notes"):
        probe = study.line("linear probe", "probe", split="notes")
        figures.append(
            line_figure("What the features say about the group", [probe], ylabel="mean recall")
        )
    return figures


def _words(study: Study) -> list[str]:
    words = []
    if study.has("enrichment.rare", split="notes"):
        last = [c[~np.isnan(c)][-1] for c in study.curves("enrichment.rare", split="notes")]
        over = across_runs(last)
        limits = f" [{float(over.low):.2f}, {float(over.high):.2f}]" if len(last) > 1 else ""
        words.append(
            f"Rare cells were bought {float(over.mean):.2f}{limits} times as often as they stand "
            f"in the pool, over {len(last)} seed{'s' if len(last) > 1 else ''}."
        )
    if study.has("auroc.rare", split="notes"):
        curves = study.curves("auroc.rare", split="notes")
        last = [c[~np.isnan(c)][-1] for c in curves if not np.isnan(c).all()]
        if last:
            words.append(
                f"The score tells rare cells from the others with an AUROC of {np.mean(last):.2f} "
                "at the last round (0.5 is blind to them, below it passes them over)."
            )
    return words


def _tables(study: Study) -> list[Table]:
    rows = []
    for group in study.first.counts["audit"].groups if "audit" in study.first.counts else ():
        cells = [group]
        for level in LEVELS:
            reached = [_labels_until(r.rows, group, level) for r in study.records.values()]
            known = [n for n in reached if n is not None]
            missing = len(reached) - len(known)
            shown = f"{np.median(known):.0f}" if known else "not reached"
            cells.append(f"{shown} ({missing} never)" if known and missing else shown)
        rows.append(cells)
    head = ("group", *(f"accuracy {level:g}" for level in LEVELS))
    caption = "Labels until each group first reaches an accuracy, median over seeds"
    return [Table(caption, head, rows)] if rows else []


def _labels_until(rows: list[Row], group: str, level: float) -> int | None:
    """Labels of the first round whose audited accuracy of the group is at least `level`."""
    for row in rows:
        counts = row.counts["audit"]
        table = counts.table[counts.groups.index(group)]
        if table.sum() and table.trace() / table.sum() >= level:
            return row.sizes["train"]
    return None


def _cells(study: Study) -> list[str]:
    """Names of the (group, class) cells in the order of the flattened count table."""
    counts = study.first.counts["train"]
    return [f"{c} {g}" if g != "all" else c for g in counts.groups for c in counts.classes]


def _noted(study: Study) -> list[str]:
    names = {
        name.removeprefix("enrichment.")
        for record in study.records.values()
        for row in record.rows
        for name in row.values
        if name.startswith("enrichment.")
    }
    return sorted(names - {"rare"})


def _moment_names(study: Study, name: str) -> tuple[str, ...]:
    for record in study.records.values():
        for row in record.rows:
            if name in row.moments:
                return row.moments[name].groups
    return ()


def _train_cell(place: int) -> Callable[[Row], float]:
    return lambda row: float(row.counts["train"].table.sum(2).reshape(-1)[place])


def _pool_mean(name: str, place: int) -> Callable[[Row], float]:
    def read(row: Row) -> float:
        if name not in row.moments:
            return np.nan
        n, total, _ = row.moments[name].table[place]
        return float(total / n) if n else np.nan

    return read


def _loss(row: Row) -> float:
    n, total, _ = row.moments["audit.loss"].table.sum(0)
    return float(total / n)


def _over(study: Study, label: str, read: Callable[[Row], float]) -> Line:
    curves = [np.array([read(row) for row in r.rows]) for r in study.records.values()]
    if len(curves) == 1:
        return Line(label, curves[0])
    over = band(curves)
    return Line(label, over.mean, over.low, over.high, thin=tuple(curves))
