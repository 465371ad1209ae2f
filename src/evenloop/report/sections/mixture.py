"""Mixing: which shares were learned, what was drawn, and whether anyone gained by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from evenloop import measures
from evenloop.counts import Counts
from evenloop.intervals import across_runs
from evenloop.record import Row
from evenloop.report.figures import Line, line_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

ORDER = 14
NAMED = 8
GAP = "equalized odds difference"


def build(study: Study) -> Section | None:
    """The section, for studies that mix."""
    if not any("mix" in entry for entry in study.config.loop):
        return None
    prefix = _prefix(study)
    cells = _cells(study.first, f"{prefix}lambda ")
    last = [record.rows[-1] for record in study.records.values()]
    text = [
        "lambda is the share of a group inside its label, mu the share of real rows inside a cell "
        "of label and group; labels keep their share of the real rows. Neither is a score of "
        "quality: a share also drifts where its gradient keeps its sign.",
        *_verdicts(last),
        "Who can be harmed: the people of cells whose accuracy fell (quality of service). A small "
        "gap can be reached by making everyone worse off, which the change of every cell shows and "
        "the gap does not.",
    ]
    return Section(
        "Mixture",
        text=text,
        figures=_paths(study, prefix, cells),
        note=f"Bands: {study.limits()}.",
        tables=[t for t in (_drawn(last, prefix), _agreement(last), _changes(last)) if t],
        alarms=_levelled(study),
        summary=_verdicts(last)[:1],
    )


def _prefix(study: Study) -> str:
    """What the loop's notes begin with: nothing, or its place in a chain."""
    names = [name for name in study.first.values if name.endswith("method")]
    return names[0].removesuffix("method") if names else ""


def _cells(row: Row, start: str) -> list[str]:
    return [name.removeprefix(start) for name in row.values if name.startswith(start)]


def _paths(study: Study, prefix: str, cells: Sequence[str]) -> list[str]:
    """Both shares over rounds, or inside the training where there was one round only."""
    figures = []
    inside = _inside(study, prefix) if study.rounds == 1 else None
    for symbol, title in (("lambda", "Share inside the label"), ("mu", "Share of real rows")):
        if inside is not None:
            lines, xlabel = inside[symbol], inside["over"]
        else:
            named = [f"{prefix}{symbol} {cell}" for cell in cells]
            lines = [
                study.line(cell, name, "notes")
                for cell, name in zip(cells, named, strict=True)
                if study.has(name, "notes")
            ]
            xlabel = "round"
        lines = sorted(lines, key=lambda line: -_travel(line))
        if lines:
            title = title if len(lines) <= NAMED else f"{title} (the {NAMED} that moved most)"
            figures.append(line_figure(title, lines[:NAMED], ylabel=symbol, xlabel=xlabel))
    return figures


def _inside(study: Study, prefix: str) -> dict[str, Any] | None:
    """Lines of both shares over the updates of the last round, by cell; None if not noted."""
    texts = [r.rows[-1].values.get(f"{prefix}ratio path") for r in study.records.values()]
    paths: list[dict[str, Any]] = [json.loads(str(text)) for text in texts if text is not None]
    points = min((len(path["updates"]) for path in paths), default=0)
    if points < 2:
        return None
    found: dict[str, Any] = {
        "over": f"{points} points from update {paths[0]['updates'][0]} to "
        f"{paths[0]['updates'][points - 1]}"
    }
    for symbol in ("lambda", "mu"):
        over = np.array([path[symbol][:points] for path in paths])
        lines = []
        for i, cell in enumerate(paths[0]["cells"]):
            runs = across_runs(over[:, :, i])
            low, high = (np.clip(side, 0, 1) for side in (runs.low, runs.high))
            single = tuple(over[:, :, i])
            lines.append(
                Line(cell, runs.mean, low, high, thin=single)
                if len(paths) > 1
                else Line(cell, runs.mean)
            )
        found[symbol] = lines
    return found


def _travel(line: Line) -> float:
    return float(np.nanmax(line.value) - np.nanmin(line.value))


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean([float(row.values[name]) for row in rows if name in row.values]))


def _drawn(last: Sequence[Row], prefix: str) -> Table | None:
    """Rows drawn from every cell and source in the last round, mean over seeds."""
    cells = _cells(last[0], f"{prefix}drawn real ")
    if not cells:
        return None
    rows = []
    for cell in cells:
        real, made = (_mean(last, f"{prefix}drawn {kind} {cell}") for kind in ("real", "generated"))
        share = f"{made / (real + made):.2f}" if real + made else "none drawn"
        rows.append((cell, f"{real:.0f}", f"{made:.0f}", share))
    head = ("label | group", "real", "generated", "share generated")
    return Table("Rows really drawn in the last round, mean over seeds", head, rows)


def _agreement(last: Sequence[Row]) -> Table | None:
    """How often the last model gives a generated row the label it was asked for."""
    name = next((n for n in last[0].counts if n.endswith("generated")), None)
    if name is None:
        return None
    counts = last[0].counts[name]
    for row in last[1:]:
        counts = counts + row.counts[name]
    found = measures.accuracy(counts)
    held = measures.accuracy(_sum(last, name.replace("generated", "held out")))
    rows = [
        (cell, _share(found, i), _share(held, i), str(int(found.support[i])))
        for i, cell in enumerate(counts.groups)
    ]
    head = ("label group", "generated rows", "real held-out rows", "generated rows judged")
    return Table("Share of rows that the model labels as asked for", head, rows, folded=True)


def _sum(rows: Sequence[Row], name: str) -> Counts:
    counts = rows[0].counts[name]
    for row in rows[1:]:
        counts = counts + row.counts[name]
    return counts


def _share(estimate: measures.Estimate, i: int) -> str:
    if not estimate.estimable[i]:
        return "not estimable"
    return f"{estimate.value[i]:.3f} [{estimate.low[i]:.3f}, {estimate.high[i]:.3f}]"


def _changes(last: Sequence[Row]) -> Table | None:
    """Accuracy of every cell minus that of the real-only reference, counts of all seeds."""
    if "audit.reference" not in last[0].counts:
        return None
    found = measures.levelling_down(_sum(last, "audit.reference"), _sum(last, "audit"))
    rows = []
    for i, cell in enumerate(found.change.groups):
        rows.append((cell, _share(found.change, i), str(int(found.change.support[i]))))
    head = ("group label", "change of accuracy", "audit items, all seeds")
    return Table("Against real rows only: who gained and who lost", head, rows)


def _levelled(study: Study) -> list[str]:
    """An alarm for every seed whose every cell is worse off than with real rows only."""
    alarms = []
    for seed, record in study.records.items():
        row = record.rows[-1]
        if "audit.reference" not in row.counts:
            continue
        if measures.levelling_down(row.counts["audit.reference"], row.counts["audit"]).down:
            alarms.append(
                f"seed {seed}: levelling down: every cell of group and label that can be compared "
                "is less accurate than with real rows only"
            )
    return alarms


def _verdicts(last: Sequence[Row]) -> list[str]:
    """The gap and the worst cell beside those of the reference, where there is one."""
    if "audit.reference" not in last[0].counts:
        return []
    parts = []
    for name, table in (("mixed", "audit"), ("real rows only", "audit.reference")):
        counts = [row.counts[table] for row in last]
        gap = np.mean([measures.equalized_odds(c).difference().value for c in counts])
        right = np.mean([measures.accuracy(c.pooled()).value[0] for c in counts])
        worst = np.mean([measures.worst_cell_accuracy(c).value[0] for c in counts])
        parts.append(f"{name}: {GAP} {gap:.3f}, accuracy {right:.3f}, worst cell {worst:.3f}")
    return ["; ".join(parts) + f" (mean of {len(last)} seeds)."]
