"""What happens to every group: accuracy per group over rounds, and the distances between groups."""

from __future__ import annotations

from functools import partial

import numpy as np

from evenloop.report.figures import Line, line_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

ORDER = 20
NAMED = 8
GAPS = (
    "accuracy difference",
    "demographic parity difference",
    "equalized odds difference",
    "equal opportunity difference",
    "predictive parity difference",
)


def build(study: Study) -> Section | None:
    """The section, where the audit split has more than one group."""
    if "audit" not in study.first.counts or len(study.first.counts["audit"].groups) < 2:
        return None
    counts = study.first.counts["audit"]
    lines = {g: study.line(g, "accuracy", group=g) for g in counts.groups}
    shown = _worst_first(lines)[:NAMED]
    by = " x ".join(study.config.by)
    more = len(counts.groups) - len(shown)
    noun = study.right
    right = "share of audit rows" if study.structured else "share right"
    title = f"{noun} by {by}"
    drawn = partial(line_figure, xlabel=study.step)
    figures = [drawn(title, [lines[g] for g in shown], ylabel=right)]
    gaps = [study.line(gap, gap) for gap in GAPS if study.has(gap)]
    gaps = [gap for gap in gaps if not np.isnan(gap.value).all()]
    if gaps:
        figures.append(drawn("Distance between groups", gaps, ylabel="difference of rates"))
    if study.has("expected calibration error"):
        error = [
            study.line(g, "expected calibration error", group=g)
            for g in shown
            if study.has("expected calibration error", group=g)
        ]
        figures.append(drawn("Calibration error", error, ylabel="expected calibration error"))
    ends = _extremes(lines, f"{noun} at the last {study.step}")
    text = [
        f"Groups are the values of {by}. "
        + (
            f"The {len(shown)} where it is lowest at the last {study.step} are drawn; {more} more "
            "are in the table. "
            if more
            else ""
        )
        + "A distance is the widest between any two groups; it says nothing of who is low, which "
        "the curves do. Group labels are measurements and may be wrong themselves.",
        ends,
    ]
    return Section(
        "Every group",
        text=text,
        figures=figures,
        note=f"Bands: {study.limits()}.",
        tables=[_table(study)],
        summary=[ends],
    )


def _last(line: Line) -> float:
    known = line.value[~np.isnan(line.value)]
    return float(known[-1]) if len(known) else float("nan")


def _worst_first(lines: dict[str, Line]) -> list[str]:
    return sorted(lines, key=lambda g: (np.isnan(_last(lines[g])), _last(lines[g])))


def _extremes(lines: dict[str, Line], noun: str) -> str:
    order = [g for g in _worst_first(lines) if not np.isnan(_last(lines[g]))]
    if len(order) < 2:
        return "Fewer than two groups can be estimated."
    low, high = lines[order[0]], lines[order[-1]]
    return (
        f"{noun} is lowest for {order[0]}, {_with_limits(low)}, "
        f"and highest for {order[-1]}, {_with_limits(high)}."
    )


def _with_limits(line: Line) -> str:
    if line.low is None or line.high is None:
        return f"{_last(line):.3f}"
    return f"{_last(line):.3f} [{line.low[-1]:.3f}, {line.high[-1]:.3f}]"


def _table(study: Study) -> Table:
    table = study.table
    kept = table[(table["split"] == "audit") & (table["metric"] == "accuracy")]
    last = kept[kept["round"] == kept.groupby(["seed", "group"])["round"].transform("max")]
    rows = []
    for row in last.to_dict("records"):
        known = not np.isnan(row["value"])
        value = f"{row['value']:.3f}" if known else "not estimable"
        limits = f"[{row['low']:.3f}, {row['high']:.3f}]" if known else ""
        rows.append((str(row["seed"]), str(row["group"]), value, limits, str(row["n"])))
    noun = study.right
    head = ("seed", "group", noun.lower(), "95 % limits", "audit items")
    return Table(f"{noun} of every group at the last {study.step}", head, rows, folded=True)
