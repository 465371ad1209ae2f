"""Mixing: which shares were learned, what was drawn, and whether anyone gained by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evenloop import measures
from evenloop.counts import Counts
from evenloop.intervals import across_runs
from evenloop.record import Row
from evenloop.report.figures import Line, line_figure
from evenloop.report.intervals import Interval
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

Floats = NDArray[np.float64]
ORDER = 14
NAMED = 8
GAP = "equalized odds difference"
SHOWN = (
    "lambda *", "mu *", "drawn *", "ratio path", "objective", "method", "generated", "held out",
)  # fmt: skip
Reference = Literal["pairwise", "pooled"]


def build(study: Study) -> Section | None:
    """The section, for studies that mix."""
    if not any("mix" in entry for entry in study.config.loop):
        return None
    prefix = _prefix(study)
    cells = _cells(study.first, f"{prefix}lambda ")
    last = [record.rows[-1] for record in study.records.values()]
    reference = _reference(study)
    text = [
        *_minimised(last, prefix),
        "lambda is the share of a group inside its label, mu the share of real rows inside a cell "
        "of label and group; labels keep their share of the real rows. Neither is a score of "
        "quality: a share also drifts where its gradient keeps its sign.",
        *_verdicts(last, reference),
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
        summary=_verdicts(last, reference)[:1],
        shows=[f"{prefix}{name}" for name in SHOWN],
    )


def _reference(study: Study) -> Reference:
    """What gaps are measured from in the loop that mixes: pairs of groups, or pooled rows."""
    fields = next(entry["mix"] or {} for entry in study.config.loop if "mix" in entry)
    pooled = fields.get("reference") == "pooled"
    return "pooled" if pooled else "pairwise"


def _minimised(last: Sequence[Row], prefix: str) -> list[str]:
    """What was made small on held-out rows, where a method makes anything small."""
    words = last[0].values.get(f"{prefix}objective")
    return [] if words is None else [f"Made small while training, on real held-out rows: {words}."]


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
            lines, at = inside[symbol], inside["at"]
        else:
            named = [f"{prefix}{symbol} {cell}" for cell in cells]
            lines = [
                study.line(cell, name, "notes")
                for cell, name in zip(cells, named, strict=True)
                if study.has(name, "notes")
            ]
            at = []
        lines = sorted(lines, key=lambda line: -_travel(line))
        if lines:
            title = title if len(lines) <= NAMED else f"{title} (the {NAMED} that moved most)"
            xlabel = f"update ({len(at)} points)" if at else "round"
            figures.append(line_figure(title, lines[:NAMED], ylabel=symbol, xlabel=xlabel, at=at))
    return figures


def _inside(study: Study, prefix: str) -> dict[str, Any] | None:
    """Lines of both shares over the updates of the last round, by cell; None if not noted."""
    texts = [r.rows[-1].values.get(f"{prefix}ratio path") for r in study.records.values()]
    paths: list[dict[str, Any]] = [json.loads(str(text)) for text in texts if text is not None]
    points = min((len(path["updates"]) for path in paths), default=0)
    if points < 2:
        return None
    found: dict[str, Any] = {"at": paths[0]["updates"][:points]}
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


def _noted(rows: Sequence[Row], name: str) -> Floats:
    """(S,) the note of every seed."""
    return np.array([float(row.values[name]) for row in rows])


def _words(values: ArrayLike, sign: bool = False, within: tuple[float, float] = (0, 1)) -> str:
    """The mean over seeds (S,) with Student limits, cut to what the quantity can be."""
    return Interval.over("", across_runs(values), within).words(sign=sign)


def _drawn(last: Sequence[Row], prefix: str) -> Table | None:
    """Rows drawn from every cell and source in the last round, mean over seeds."""
    cells = _cells(last[0], f"{prefix}drawn real ")
    if not cells:
        return None
    rows = []
    for cell in cells:
        real, made = (
            _noted(last, f"{prefix}drawn {kind} {cell}") for kind in ("real", "generated")
        )
        both = np.where(real + made > 0, real + made, np.nan)
        share = _words(made / both) if (real + made).any() else "none drawn"
        rows.append((cell, f"{real.mean():.0f}", f"{made.mean():.0f}", share))
    head = ("label | group", "real", "generated", "share generated [95 % limits]")
    return Table("Rows really drawn in the last round, mean over seeds", head, rows)


def _agreement(last: Sequence[Row]) -> Table | None:
    """How often a model that did not train on a generated row gives it the label asked for."""
    name = next((n for n in last[0].counts if n.endswith("generated")), None)
    if name is None:
        return None
    held = name.removesuffix("generated") + "held out"
    judged = f"{held}.reference" in last[0].counts
    who = "the model of real rows only gives" if judged else "the model gives held-out"
    held += ".reference" * judged
    made, real = ([measures.accuracy(row.counts[n]) for row in last] for n in (name, held))
    rows = [
        (cell, _seeds(made, i), _seeds(real, i), str(sum(int(e.support[i]) for e in made)))
        for i, cell in enumerate(made[0].groups)
    ]
    head = ("label group", "generated rows", "real held-out rows", "generated rows judged")
    title = f"Share of rows that {who} the label they were asked for, {_over(last)}"
    return Table(title, head, rows, folded=True)


def _over(last: Sequence[Row]) -> str:
    if len(last) == 1:
        return "one seed: limits over rows only"
    return "mean over seeds with 95 % limits between them"


def _seeds(found: Sequence[measures.Estimate], i: int, sign: bool = False) -> str:
    """Entry `i` over seeds; with one seed its own limits over rows."""
    if len(found) == 1:
        return _share(found[0], i)
    values = [e.value[i] if e.estimable[i] else np.nan for e in found]
    return _words(values, sign, (-1, 1) if sign else (0, 1))


def _share(estimate: measures.Estimate, i: int) -> str:
    if not estimate.estimable[i]:
        return "not estimable"
    return f"{estimate.value[i]:.3f} [{estimate.low[i]:.3f}, {estimate.high[i]:.3f}]"


def _changes(last: Sequence[Row]) -> Table | None:
    """Accuracy of every cell minus that of the real-only reference, in pairs of seeds."""
    if "audit.reference" not in last[0].counts:
        return None
    found = [
        measures.levelling_down(row.counts["audit.reference"], row.counts["audit"]).change
        for row in last
    ]
    rows = [
        (cell, _seeds(found, i, sign=True), str(sum(int(e.support[i]) for e in found)))
        for i, cell in enumerate(found[0].groups)
    ]
    head = ("group label", "change of accuracy", "audit items, all seeds")
    title = f"Against real rows only: who gained and who lost, {_over(last)}"
    return Table(title, head, rows)


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


def _verdicts(last: Sequence[Row], reference: Reference) -> list[str]:
    """The gap and the worst cell beside those of the reference model, where there is one."""
    if "audit.reference" not in last[0].counts:
        return []
    mixed, real = (
        [_measured(row.counts[table], reference) for row in last]
        for table in ("audit", "audit.reference")
    )
    parts = []
    for i, name in enumerate((f"{GAP} ({reference})", "accuracy", "worst cell")):
        was, now = (np.array([found[i] for found in arm]) for arm in (real, mixed))
        change = _words(now - was, sign=True, within=(-1, 1))
        parts.append(f"{name} {now.mean():.3f}, real rows only {was.mean():.3f}, change {change}")
    count = f"mean of {len(last)} seeds, 95 % limits in pairs" if len(last) > 1 else "one seed"
    return [f"Mixed against real rows only: {'; '.join(parts)} ({count})."]


def _measured(counts: Counts, reference: Reference) -> tuple[float, float, float]:
    """Gap of rates, accuracy and accuracy of the worst cell."""
    return (
        float(measures.equalized_odds(counts).difference(reference=reference).value),
        float(measures.accuracy(counts.pooled()).value[0]),
        float(measures.worst_cell_accuracy(counts).value[0]),
    )
