"""Compression: who pays for a smaller net, on the training rows and on the audit split.

Tables in the form of Hashemizadeh et al., "Balancing Act" (ICLR 2024): accuracy, pairwise
disparity and largest excess accuracy gap for every sparsity, mean and deviation over seeds.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from evenloop.claims import ExcessGapClaim, Verdict
from evenloop.intervals import wilson
from evenloop.measures.null_excess import null_worst_excess
from evenloop.record import Row
from evenloop.report.figures import Line, line_figure
from evenloop.report.plane import Path, plane_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study
from evenloop.rng import Rng

ORDER = 12
SPLITS = {"fit": "training rows", "audit": "audit split"}
WORST, EXCESS, PAIRWISE = (
    "largest excess accuracy gap",
    "excess accuracy gap",
    "accuracy loss difference",
)
NAMED = 8
LONG = 60  # rows of a table that is folded
NOT = "not estimable"


def build(study: Study) -> Section | None:
    """The section, for studies that prune and have a compressed round."""
    fields = next((e["prune"] or {} for e in study.config.loop if "prune" in e), None)
    last = [record.rows[-1] for record in study.records.values()]
    if (
        fields is None
        or not last
        or "fit" not in last[0].counts
        or len(last[0].counts["fit"].groups) < 2
    ):
        return None
    tolerance = fields.get("tolerance")
    by = " x ".join(study.config.by)
    verdicts = [] if tolerance is None else _verdicts(study, float(tolerance))
    text = [
        f"The excess accuracy gap of a group is the accuracy it lost minus the accuracy all items "
        f"lost, against the dense net{_origin(study)}. Groups are the values of {by}.",
        *verdicts,
        "Only training rows are constrained; what carries over to the audit split is measured, not "
        "enforced. The largest of several groups is above 0 by noise alone: compare it with the "
        "range it has when no group is treated differently.",
        "Who can be harmed: the people of groups that lose more accuracy than others (quality of "
        "service). The dense net's own unevenness is taken as given, and groups that gain are not "
        "held back.",
    ]
    return Section(
        "Compression",
        text=text,
        figures=_figures(study, tolerance),
        note=f"Bands: {study.limits()}.",
        tables=[
            _by_round(study),
            *([] if tolerance is None else [_kept(study, float(tolerance))]),
            _by_group(study),
            *_layers(last[0]),
        ],
        summary=verdicts[:2],
        shows=("sparsity", "stage", "method", "tolerance", "layers", "multipliers", "fit"),
    )


def _verdicts(study: Study, tolerance: float) -> list[str]:
    lines = []
    for split, where in SPLITS.items():
        claim = ExcessGapClaim(tolerance, "fit" if split == "fit" else "audit")
        found = [claim.verdict(r.rows, len(r.rows) - 1) for r in study.records.values()]
        says = [verdict.says for verdict in found]
        counts = ", ".join(f"{says.count(s)} {s}" for s in sorted(set(says)))
        lines.append(
            f"On the {where} the largest excess gap of the last round is "
            f"{_worst(study, split, found)}, tolerance {tolerance:g}: {counts} of {len(found)}."
        )
    return lines


def _origin(study: Study) -> str:
    """Where the dense net is from: in a chain every round brings its own."""
    return " of round 0" if len(study.config.loop) == 1 else " that the round was given"


def _worst(study: Study, split: str, found: list[Verdict]) -> str:
    """Mean and range over the seeds that know it; whom it is not known of."""
    known = [verdict.measured for verdict in found if not np.isnan(verdict.measured)]
    said = []
    if known:
        said.append(f"{np.mean(known):.3f} (seeds {min(known):.3f} to {max(known):.3f})")
    if len(known) < len(found):
        rows = [record.rows[-1] for record in study.records.values()]
        names = dict.fromkeys(name for row in rows for name in _absent(row, split))
        said.append(f"{NOT}: {', '.join(names) or 'no counts'}")
        if known:
            said[-1] += f" in {len(found) - len(known)} of {len(found)} seeds"
    return "; ".join(said)


def _absent(row: Row, split: str) -> list[str]:
    """Groups without an item."""
    if split not in row.counts:
        return []
    counts = row.counts[split]
    return [g for g, n in zip(counts.groups, counts.support, strict=True) if not n]


def _figures(study: Study, tolerance: float | None) -> list[str]:
    worst = [study.line(where, WORST, split) for split, where in SPLITS.items()]
    if tolerance is not None:
        level = np.full(study.rounds, float(tolerance))
        worst.append(Line("tolerance", level, flat=True))
    figures = [
        _tradeoff(study, tolerance),
        line_figure("Largest excess accuracy gap", worst, ylabel="largest excess gap", zero=True),
    ]
    groups = study.first.counts["audit"].groups
    lines = {g: study.line(g, EXCESS, "audit", g) for g in groups}
    order = sorted(groups, key=lambda g: -np.nan_to_num(lines[g].value[-1], nan=-np.inf))
    figures.append(
        line_figure(
            "Excess gap of every group, audit split",
            [lines[g] for g in order[:NAMED]],
            ylabel="excess gap",
            zero=True,
        )
    )
    return figures + _paths(study)


def _tradeoff(study: Study, tolerance: float | None) -> str:
    """Accuracy against the largest excess gap, a mark for every sparsity."""
    rows = max((record.rows for record in study.records.values()), key=len)
    marks = [f"{100 * float(row.values['sparsity']):g}%" for row in rows]
    paths = [
        Path(where, study.grid(WORST, split), study.grid("accuracy", split), marks)
        for split, where in SPLITS.items()
    ]
    return plane_figure(
        "Accuracy against disparity, by sparsity",
        paths,
        xlabel="largest excess accuracy gap",
        ylabel="accuracy",
        limit=tolerance,
    )


def _paths(study: Study) -> list[str]:
    """The multipliers of the last round over tuning, mean of the seeds."""
    texts = [record.rows[-1].values.get("multipliers") for record in study.records.values()]
    paths: list[dict[str, Any]] = [json.loads(str(text)) for text in texts if text is not None]
    if not paths or not paths[0]["path"]:
        return []
    length = min(len(p["path"]) for p in paths)
    over = np.stack([np.asarray(p["path"])[:length] for p in paths])
    mean = over.mean(0)
    order = np.argsort(-np.abs(mean[-1]), kind="stable")[:NAMED]
    lines = [
        Line(paths[0]["groups"][g], mean[:, g], thin=tuple(over[:, :, g]) if len(over) > 1 else ())
        for g in order
    ]
    return [
        line_figure(
            "Multipliers of the last round",
            lines,
            ylabel="multiplier",
            xlabel=f"tuning, {length} points",
            zero=True,
        )
    ]


def over_seeds(values: list[float]) -> str:
    """Mean and deviation of fractions, in percent; "not estimable" where there is none."""
    known = [100 * v for v in values if not np.isnan(v)]
    if not known:
        return NOT
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{np.mean(known):.1f} ± {np.std(known, ddof=1):.1f}"


def _by_round(study: Study) -> Table:
    head = ["round", "sparsity", "density"]
    for where in SPLITS.values():
        head += [f"accuracy, {where}", "pairwise", "largest excess"]
    rows = []
    for round in range(study.rounds):
        at = [r.rows[round] for r in study.records.values() if len(r.rows) > round]
        values = at[0].values
        row = [str(round), f"{float(values['sparsity']):g}", f"{float(values['density']):.4f}"]
        for split in SPLITS:
            for metric in ("accuracy", PAIRWISE, WORST):
                curves = study.curves(metric, split)
                row.append(over_seeds([float(c[round]) for c in curves if len(c) > round]))
        rows.append(row)
    caption = "Percent; mean and standard deviation over seeds; density counts all parameters"
    return Table(caption, head, rows)


def _kept(study: Study, tolerance: float) -> Table:
    """Whether the tolerance was kept: every seed's largest gap, and the chance range beside it."""
    rows = []
    for round in range(study.rounds):
        records = {s: r.rows for s, r in study.records.items() if len(r.rows) > round}
        first = next(iter(records.values()))[round]
        row = [f"{float(first.values['sparsity']):g}"]
        for split in ("fit", "audit"):
            claim = ExcessGapClaim(tolerance, "fit" if split == "fit" else "audit")
            found = [claim.verdict(rows_, round) for rows_ in records.values()]
            says = [verdict.says for verdict in found]
            worst = [verdict.measured for verdict in found]
            seeds = ", ".join(NOT if np.isnan(w) else f"{100 * w:.1f}" for w in worst)
            row += [seeds, ", ".join(f"{says.count(s)} {s}" for s in sorted(set(says)))]
        rows.append([*row, chance_range(first)])
    head = ["sparsity", "training rows", "kept", "audit split", "kept", "by chance alone, audit"]
    caption = (
        f"Largest excess gap of every seed in percent against a tolerance of {100 * tolerance:g}; "
        "by chance alone: median and 5 to 95 % of the first seed's, were all groups damaged alike"
    )
    return Table(caption, head, rows)


def _by_group(study: Study) -> Table:
    rows = []
    for split, where in SPLITS.items():
        for round in range(study.rounds):
            at = [r.rows[round] for r in study.records.values() if len(r.rows) > round]
            if at[0].values.get("stage") != "dense" or study.rounds == 1:
                begin = [where, str(round), f"{float(at[0].values['sparsity']):g}"]
                rows += [[*begin, *cells] for cells in _groups(study, split, round, at)]
    head = ["split", "round", "sparsity", "group", "n", "dense", "compressed", "excess gap"]
    noise = _noise(next(iter(study.records.values())).rows[-1])
    caption = (
        "Every group at every sparsity: items and accuracies over all seeds together, with 95 % "
        "Wilson limits (an item that several seeds meet counts as often); excess gaps as in the "
        f"figures. {noise}"
    )
    return Table(caption, head, rows, folded=len(rows) > LONG)


def _groups(study: Study, split: str, round: int, at: list[Row]) -> list[list[str]]:
    """Group, items, dense and compressed accuracy and excess gap, each as text with its limits."""
    groups = at[0].counts[split].groups
    items = np.sum([row.counts[split].support for row in at], 0)
    shares = []
    for name in (f"{split}.reference", split):
        right = np.sum([row.counts[name].table.trace(axis1=1, axis2=2) for row in at], 0)
        shares.append(wilson(right, items))
    found = []
    for place, group in enumerate(groups):
        if not items[place]:
            found.append([group, "0", *[NOT] * 3])
            continue
        rates = [f"{s.value[place]:.3f} [{s.low[place]:.3f}, {s.high[place]:.3f}]" for s in shares]
        gap = study.line(group, EXCESS, split, group)
        known = round < len(gap.value) and not np.isnan(gap.value[round])
        shown = f"{gap.value[round]:+.3f}{_interval(gap, round)}" if known else NOT
        found.append([group, str(int(items[place])), *rates, shown])
    return found


def _interval(gap: Line, round: int) -> str:
    if gap.low is None or gap.high is None or np.isnan(gap.low[round]):
        return ""
    return f" [{gap.low[round]:+.3f}, {gap.high[round]:+.3f}]"


def _noise(row: Row) -> str:
    low, middle, high = chance(row)
    if np.isnan(middle):
        return ""
    return (
        f"With no difference between groups the largest excess gap on this audit split would be "
        f"{middle:.3f} (5 to 95 %: {low:.3f} to {high:.3f})."
    )


def chance(row: Row) -> tuple[float, float, float]:
    """5, 50 and 95 % points of the largest audit gap with no difference between groups."""
    lost = row.moments.get("audit.lost")
    if lost is None:
        return float("nan"), float("nan"), float("nan")
    low, middle, high = null_worst_excess(lost, rng=Rng.of(0).at("null").numpy()).tolist()
    return low, middle, high


def chance_range(row: Row) -> str:
    """`chance` in percent, as "median (low to high)"."""
    low, middle, high = (100 * v for v in chance(row))
    return NOT if np.isnan(middle) else f"{middle:.1f} ({low:.1f} to {high:.1f})"


def _layers(row: Row) -> list[Table]:
    text = row.values.get("layers")
    if text is None:
        return []
    layers = json.loads(str(text))
    rows = [[name, f"{100 * (1 - density):.2f}"] for name, density in layers.items()]
    return [Table("Sparsity of every layer, percent", ["layer", "zero"], rows, folded=True)]
