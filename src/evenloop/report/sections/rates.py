"""Rates of every group under classifiers of generations, with the study's differences and ratios.

Wyllie, Shumailov and Papernot, "Fairness Feedback Loops" (FAccT 2024) tabulate them for each
classifier; the second class is the one that brings the benefit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evenloop.counts import Counts
from evenloop.measures.estimate import Estimate
from evenloop.measures.proportions import (
    accuracy,
    false_negative_rate,
    false_positive_rate,
    predicted_share,
    true_negative_rate,
    true_positive_rate,
)
from evenloop.report.figures import Line, line_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

ORDER = 16
GROUPS = 4
RATIOS = ("accuracy ratio", "demographic parity ratio", "equalized odds ratio")

Floats = NDArray[np.float64]
RATES: dict[str, Callable[[Counts], Estimate]] = {
    "accuracy": accuracy,
    "selection rate": lambda counts: predicted_share(counts, 1),
    "true positive rate": lambda counts: true_positive_rate(counts, 1),
    "true negative rate": lambda counts: true_negative_rate(counts, 1),
    "false positive rate": lambda counts: false_positive_rate(counts, 1),
    "false negative rate": lambda counts: false_negative_rate(counts, 1),
}


def build(study: Study) -> Section | None:
    """The section, for two classes and groups whose generated population was counted."""
    counts = study.first.counts
    if "population" not in counts or "audit" not in counts or len(counts["audit"].classes) != 2:
        return None
    audit = counts["audit"]
    rate = f"of {audit.classes[1]}"
    selected, true, false = (
        [study.line(g, f"{name} {rate}", group=g) for g in audit.groups[:GROUPS]]
        for name in ("selection rate", "true positive rate", "false positive rate")
    )
    ratios = [study.line(name, name) for name in RATIOS]
    drawn = partial(line_figure, xlabel="generation")
    more = f" (the first {GROUPS} groups)" if len(audit.groups) > GROUPS else ""
    return Section(
        "Rates of every group",
        text=[
            f"The selection rate is the share predicted to be {audit.classes[1]}. Thin straight "
            "lines are the shares of that label among natural rows.",
        ],
        figures=[
            drawn(
                f"Selection rate by group{more}",
                [*selected, *_natural(study)],
                ylabel="share predicted positive",
            ),
            drawn(f"True positive rate by group{more}", true, ylabel="share of the positive rows"),
            drawn(
                f"False positive rate by group{more}", false, ylabel="share of the negative rows"
            ),
            drawn("Ratios between groups", ratios, ylabel="smallest over largest rate"),
        ],
        tables=[_table(study)],
        note=f"Bands: {study.limits()}. A difference is the largest rate less the smallest, a "
        "ratio the smallest over the largest; both are taken in each seed, then averaged.",
    )


def _natural(study: Study) -> list[Line]:
    """The share of the second label among the natural rows of each group, if counted alike."""
    names = study.first.counts["audit"].groups
    kept = [record.rows[0].counts.get("train") for record in study.records.values()]
    shares = [RATES["selection rate"](c).value for c in kept if c and c.groups == names]
    if not shares:
        return []
    mean = np.mean(shares, axis=0)
    return [
        Line(f"natural rows, {name}", np.full(study.rounds, share), flat=True)
        for name, share in zip(names[:GROUPS], mean, strict=False)
    ]


def _table(study: Study) -> Table:
    """Every rate at the last generation, mean over seeds, with differences and ratios."""
    last = [record.rows[-1].counts["audit"] for record in study.records.values()]
    groups = last[0].groups
    found = {name: np.array([rate(c).value for c in last]) for name, rate in RATES.items()}
    rows = []
    for name, values in found.items():
        gap, ratio = _gap(values)
        rows.append((name, *map(_text, _mean(values)), _text(_mean(gap)), _text(_mean(ratio))))
    both = [_gap(found[name]) for name in ("true positive rate", "false positive rate")]
    gap = np.fmax(both[0][0], both[1][0])
    ratio = np.fmin(both[0][1], both[1][1])
    blank = [""] * len(groups)
    rows.append(("equalized odds", *blank, _text(_mean(gap)), _text(_mean(ratio))))
    counted = [f"{int(n)}" for n in np.mean([c.support for c in last], axis=0)]
    rows.append(("audit rows", *counted, "", ""))
    head = ("rate", *groups, "difference", "ratio")
    return Table("Last generation, mean over seeds", head, rows)


def _gap(values: Floats) -> tuple[Floats, Floats]:
    """(S,) difference and ratio over groups of each seed's rates (S, G); nan where none is."""
    high, low = np.fmax.reduce(values, axis=1), np.fmin.reduce(values, axis=1)
    return high - low, np.divide(low, high, out=np.full_like(high, np.nan), where=high > 0)


def _mean(values: Floats) -> Floats:
    """Over the seeds (first axis) that have a value."""
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0.0).sum(0)
    return np.asarray(total / np.where(count > 0, count, np.nan), np.float64)


def _text(value: Floats | float) -> str:
    return "not estimable" if np.isnan(value) else f"{float(value):.3f}"
