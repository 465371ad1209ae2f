"""Strategies of acquisition side by side: whose labels each bought, and what came of it.

Figures after Branchaud-Charron et al. (2021): labels by cell, loss and gaps over labels, enrichment
and, where arms differ in it, the weight of the adversary against gap and accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan

import numpy as np

from evenloop.intervals import across_runs
from evenloop.report.acquired import (
    LEVELS,
    acquires,
    cell_counts,
    cells_noted,
    enrichment,
    last_values,
    loss,
    measure,
    over_labels,
    rare,
    until_reached,
    verdicts,
)
from evenloop.report.intervals import Interval
from evenloop.report.panels import Curve, bars_figure, curves_figure, panels_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

__all__ = ["strategy_sections"]

MOST_PANELS, MOST_BARS = 6, 12
VERDICTS = ("starved", "inconclusive", "not starved")
OVER_LABELS = (
    ("accuracy", "share right"),
    ("accuracy difference", "widest difference"),
    ("predictive parity difference", "widest difference"),
    ("equalized odds difference", "widest difference"),
)
Studies = Mapping[str, Study]


def strategy_sections(studies: Studies) -> list[Section]:
    """Sections on arms that all buy labels, by name, the first being the reference; else none."""
    if not all(acquires(study) for study in studies.values()):
        return []
    found = [_bought(studies), _over_labels(studies), _adversary(studies)]
    return [section for section in found if section is not None]


def _bought(studies: Studies) -> Section:
    first = next(iter(studies.values()))
    cells = _rarest_first(first)
    panels = [
        (cell, [over_labels(s, arm, cell_counts(s)[cell]) for arm, s in studies.items()])
        for cell in cells[:MOST_PANELS]
    ]
    figures = [panels_figure("Labels by cell", panels, ylabel="labels of the cell")]
    noted = next((names for s in studies.values() if (names := cells_noted(s))), [])
    if noted:
        noted = sorted(noted, key=lambda c: cells.index(c) if c in cells else len(cells))
        series = [(arm, enrichment(s, noted[:MOST_BARS])) for arm, s in studies.items()]
        shown = noted[:MOST_BARS]
        figures.append(
            bars_figure(
                "Enrichment at the last round",
                shown,
                series,
                reference=1.0,
                xlabel="share bought / share in the pool",
            )
        )
    words = _enriched(studies)
    return Section(
        "Whose labels each strategy bought",
        text=[
            "A cell is a true class in a group; the rarest come first"
            + (f", {MOST_PANELS} of {len(cells)} are drawn. " if len(cells) > MOST_PANELS else ". ")
            + "Enrichment is a cell's share among the labels bought over its share in the pool; 1 "
            "is what a random choice does on average.",
            *words,
        ],
        figures=figures,
        note=_note(studies),
        tables=[_rare_table(studies)],
        summary=words,
    )


def _rarest_first(study: Study) -> list[str]:
    """Cell names, those with the fewest rows of the world first."""
    readers = cell_counts(study)
    # the labels of the first round are a random sample of the world, in every arm the same
    firsts = [record.rows[0] for record in study.records.values()]
    return sorted(readers, key=lambda c: sum(readers[c](row) for row in firsts))


def _enriched(studies: Studies) -> list[str]:
    """How often rare cells were bought against the first arm, seed by seed, in words."""
    (name, base), *others = studies.items()
    before, told = last_values(base, "rare.enrichment"), []
    for arm, study in others:
        mine = last_values(study, "rare.enrichment")
        shared = [s for s in mine if s in before]
        ratios = [mine[s] / before[s] for s in shared if before[s]]
        if ratios:
            over = across_runs(ratios)
            low, high = max(float(over.low), 0.0), float(over.high)
            limits = "" if isnan(high) else f" [{low:.2f}, {high:.2f}]"
            n = f"{len(shared)} seed{'s' if len(shared) > 1 else ''}"
            left_out = len(ratios) < len(shared)
            seeds = f"{len(ratios)} of {n}: {name} bought none in the rest" if left_out else n
            told.append(
                f"{arm} bought rare cells {float(over.mean):.2f}{limits} times as often as {name} "
                f"({seeds})."
            )
    return told


def _rare_table(studies: Studies) -> Table:
    rows = []
    for arm, study in studies.items():
        found, said = rare(study), verdicts(study)
        shown = "none" if found is None else _words(found)
        words = ", ".join(f"{said[word]} {word}" for word in VERDICTS if word in said)
        seeds = [*last_values(study, "rare.enrichment").values()]
        rows.append((arm, shown, ", ".join(f"{v:.2f}" for v in seeds), words))
    head = ("arm", "enrichment of rare cells", "single seeds", "seeds: upper limit below 0.8?")
    return Table("Rare cells at the last round", head, rows)


def _words(value: Interval) -> str:
    limits = "" if isnan(value.low) else f" [{value.low:.2f}, {value.high:.2f}]"
    return f"{value.value:.2f}{limits}"


def _over_labels(studies: Studies) -> Section | None:
    first = next(iter(studies.values()))
    if "audit" not in first.first.counts:
        return None
    mark = float(first.first.sizes["train"])
    figures = [
        curves_figure(
            f"{metric} over labels".capitalize(),
            [measure(s, arm, metric) for arm, s in studies.items()],
            ylabel=ylabel,
            mark=mark,
        )
        for metric, ylabel in OVER_LABELS
        if all(s.has(metric) for s in studies.values())
    ]
    curves = [over_labels(s, arm, loss) for arm, s in studies.items()]
    figures.append(curves_figure("Log loss over labels", curves, ylabel="nats", mark=mark))
    return Section(
        "What each strategy's labels were good for",
        text=[
            "On the audit split, over the labels bought. The dotted line is at the labels of the "
            "first round, which all strategies share."
        ],
        figures=figures,
        note=_note(studies),
        tables=[_until(studies)],
    )


def _until(studies: Studies) -> Table:
    rows = [
        (arm, group, *until_reached(study, group))
        for arm, study in studies.items()
        for group in study.first.counts["audit"].groups
    ]
    head = ("arm", "group", *(f"accuracy {level:g}" for level in LEVELS))
    caption = "Labels until each group first reaches an accuracy, median over all seeds"
    return Table(caption, head, rows, folded=True)


def _adversary(studies: Studies) -> Section | None:
    """The adversary's weight against gap, accuracy and probe; None unless arms differ in it."""
    weights = {arm: _weight(study) for arm, study in studies.items()}
    if len(set(weights.values())) < 2:
        return None
    arms = sorted(weights, key=lambda arm: weights[arm])
    ticks = np.arange(len(arms), dtype=np.float64)
    wanted = ("accuracy", "equalized odds difference", "accuracy difference")
    curves = [
        _along(ticks, metric, [_last(studies[arm], metric) for arm in arms])
        for metric in wanted
        if all(study.has(metric) for study in studies.values())
    ]
    probe = [_over(last_values(studies[arm], "probe")) for arm in arms]
    if not any(isnan(p.value) for p in probe):
        curves.append(_along(ticks, "probe for the group", probe))
    rows = []
    for arm in arms:
        alarms = [
            any("stuck" in alarm for row in record.rows for alarm in row.alarms)
            for record in studies[arm].records.values()
        ]
        rows.append((arm, f"{weights[arm]:g}", f"{sum(alarms)} of {len(alarms)}"))
    named = "; ".join(f"{weights[arm]:g}: {arm}" for arm in arms)
    return Section(
        "What the adversary's weight did",
        text=[
            f"From left to right {named}. The probe is a linear one on the features of pool "
            "items, mean recall over groups within classes, every cell weighing the same: the more "
            "it is above one over the number of groups, the more the features say about the group "
            "beside the class.",
        ],
        figures=[
            curves_figure(
                "Weight of the adversary",
                curves,
                ylabel="last round",
                xlabel="weight",
                ticks=[f"{weights[arm]:g}" for arm in arms],
            )
        ],
        note=_note(studies),
        tables=[Table("Class head stuck at chance", ("arm", "weight", "seeds warned"), rows)],
    )


def _weight(study: Study) -> float:
    found = [e["acquire"] or {} for e in study.config.loop if "acquire" in e]
    return float(found[0].get("adv_weight", 0.0))


def _last(study: Study, metric: str) -> Interval:
    curves = {i: c[~np.isnan(c)] for i, c in enumerate(study.curves(metric))}
    return _over({i: float(c[-1]) for i, c in curves.items() if len(c)})


def _over(values: Mapping[int, float]) -> Interval:
    if not values:
        return Interval("", nan)
    over = across_runs([*values.values()])
    return Interval("", float(over.mean), float(over.low), float(over.high))


def _along(x: np.ndarray, label: str, values: Sequence[Interval]) -> Curve:
    # shares and their differences: limits end at 0 and 1
    ends = np.clip(np.array([[v.value, v.low, v.high] for v in values]), 0, 1).T
    if np.isnan(ends[1:]).any():
        return Curve(label, x, ends[0])
    return Curve(label, x, *ends)


def _note(studies: Studies) -> str:
    seeds = max(len(study.records) for study in studies.values())
    if seeds == 1:
        return "One seed: limits between seeds are not estimable."
    return f"Bands and bars: 95 % Student limits over {seeds} seeds."
