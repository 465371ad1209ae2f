"""Whose labels were bought: cells of the labelled set, enrichment, uncertainty, labels needed.

Figures after Branchaud-Charron et al., "Can Active Learning Preemptively Mitigate Fairness Issues?"
(2021): the labelled set by cell, the curves over labels and BALD by cell. Enrichment with its
limits and labels until an accuracy is reached are ours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evenloop.intervals import across_runs, band
from evenloop.record import Row
from evenloop.report.acquired import (
    LEVELS,
    acquires,
    cell_counts,
    cells_noted,
    enrichment,
    histograms,
    last_values,
    loss,
    measure,
    over_labels,
    rare,
    until_reached,
    verdicts,
)
from evenloop.report.figures import Line, line_figure
from evenloop.report.panels import bars_figure, curves_figure, steps_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

ORDER = 12
MOST_CELLS = 8
GAPS = ("accuracy difference", "predictive parity difference", "equalized odds difference")


def build(study: Study) -> Section | None:
    """The section, for studies whose loop acquires."""
    if not acquires(study):
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
        figures=[*_bought(study), *_over_labels(study), *_uncertainty(study)],
        note=f"Bands: {study.limits()}. Cells are counted by true labels, which the loop does not "
        "see before it has bought them.",
        tables=_tables(study),
        summary=words[:1],
        shows=("enrichment.*", "rare.*", "auroc.rare", "probe"),
    )


def _bought(study: Study) -> list[str]:
    lines = [_over(study, name, read) for name, read in cell_counts(study).items()]
    figures = [line_figure("Labelled set by cell", lines, ylabel="labels")]
    cells = [name for name in cells_noted(study) if last_values(study, f"enrichment.{name}")]
    if not cells:
        return figures
    lines = [study.line(name, f"enrichment.{name}", split="notes") for name in cells[:MOST_CELLS]]
    even = Line("as in the pool", np.ones(study.rounds), flat=True)
    figures.append(line_figure("Enrichment by cell", [*lines, even], ylabel="share / share"))
    bars = [("labels bought", enrichment(study, cells))]
    ratio = "share bought / share in the pool"
    title = "Enrichment at the last round"
    figures.append(bars_figure(title, cells, bars, xlabel=ratio, reference=1.0))
    return figures


def _over_labels(study: Study) -> list[str]:
    """Accuracy, gaps and loss on the audit split over the labels, from the first round's on."""
    if "audit" not in study.first.counts:
        return []
    mark = float(study.first.sizes["train"])
    figures = [
        curves_figure(
            "Accuracy over labels",
            [measure(study, "accuracy", "accuracy")],
            ylabel="share right",
            mark=mark,
        )
    ]
    gaps = [measure(study, gap, gap) for gap in GAPS if study.has(gap)]
    if gaps:
        figures.append(
            curves_figure("Gaps over labels", gaps, ylabel="widest difference", mark=mark)
        )
    curve = over_labels(study, "audit split", loss)
    figures.append(curves_figure("Log loss over labels", [curve], ylabel="nats", mark=mark))
    return figures


def _uncertainty(study: Study) -> list[str]:
    figures = []
    for name, title in (("bald", "BALD in the pool"), ("entropy", "Entropy in the pool")):
        cells = _moment_names(study, f"pool.{name}")
        lines = [_over(study, cell, _pool_mean(f"pool.{name}", i)) for i, cell in enumerate(cells)]
        if lines:
            figures.append(line_figure(title, lines, ylabel="mean, nats"))
    panels, edges = histograms(study)
    if panels:
        shown = [(f"BALD by cell, {name}", s[:MOST_CELLS]) for name, s in panels.items()]
        figures.append(
            steps_figure(
                "BALD by cell", shown, edges, xlabel="BALD, nats", ylabel="share of the cell"
            )
        )
    if study.has("probe", split="notes"):
        probe = study.line("linear probe", "probe", split="notes")
        title = "What the features say about the group"
        figures.append(line_figure(title, [probe], ylabel="mean recall within classes"))
    return figures


def _words(study: Study) -> list[str]:
    words, found, said = [], rare(study), verdicts(study)
    seeds = len(study.records)
    if found is not None:
        limits = "" if np.isnan(found.low) else _limits(found.low, found.high)
        words.append(
            f"Rare cells were bought {found.value:.2f}{limits} times as often as they stand in the "
            f"pool, over {seeds} seed{'s' if seeds > 1 else ''}."
        )
    if said:
        told = "; ".join(f"{word} in {said[word]}" for word in sorted(said))
        words.append(
            f"By the limits of each seed's own counts the rare cells were: {told} of {seeds}. "
            "Starved means that the upper limit is below 0.8; inconclusive, that 0.8 lies between "
            "the limits, which are those of independent choices."
        )
    aurocs = [*last_values(study, "auroc.rare").values()]
    if aurocs:
        over, n = across_runs(aurocs), len(aurocs)
        low, high = max(float(over.low), 0.0), min(float(over.high), 1.0)
        limits = "" if np.isnan(over.low) else _limits(low, high)
        words.append(
            f"The score tells rare cells from the others with an AUROC of {over.mean:.2f}{limits} "
            f"at the last round it was read in, over {n} seed{'s' if n > 1 else ''} (0.5 is blind "
            "to them, below it passes them over)."
        )
    return words


def _limits(low: float, high: float) -> str:
    return f" [{low:.2f}, {high:.2f}]"


def _tables(study: Study) -> list[Table]:
    groups = study.first.counts["audit"].groups if "audit" in study.first.counts else ()
    rows = [(group, *until_reached(study, group)) for group in groups]
    head = ("group", *(f"accuracy {level:g}" for level in LEVELS))
    caption = "Labels until each group first reaches an accuracy, median over all seeds"
    return [Table(caption, head, rows)] if rows else []


def _moment_names(study: Study, name: str) -> tuple[str, ...]:
    for record in study.records.values():
        for row in record.rows:
            if name in row.moments:
                return row.moments[name].groups
    return ()


def _pool_mean(name: str, place: int) -> Callable[[Row], float]:
    def read(row: Row) -> float:
        if name not in row.moments:
            return np.nan
        n, total, _ = row.moments[name].table[place]
        return float(total / n) if n else np.nan

    return read


def _over(study: Study, label: str, read: Callable[[Row], float]) -> Line:
    curves = [np.array([read(row) for row in r.rows]) for r in study.records.values()]
    if len(curves) == 1:
        return Line(label, curves[0])
    over = band(curves)
    return Line(label, over.mean, over.low, over.high, thin=tuple(curves))
