"""Generations seed by seed: medians, quartiles, and every seed as a thin line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evenloop.measures.proportions import predicted_share
from evenloop.record import Record
from evenloop.report.generation_arms import DRIFT, JUDGED, titled
from evenloop.report.sections import Section
from evenloop.report.spread import explained, last_table, median_figure
from evenloop.report.study import Study

ORDER = 17
RATES = "difference of rates"
AUDITED = {
    "accuracy": "share right",
    "accuracy difference": RATES,
    "demographic parity difference": RATES,
    "equalized odds difference": RATES,
}
ROWS = "share of generated rows"

Floats = NDArray[np.float64]
Course = tuple[str, list[Floats]]


def build(study: Study) -> Section | None:
    """The section, for several seeds whose generated population was counted."""
    if "population" not in study.first.counts or len(study.records) < 2:
        return None
    shown = {title: course for title, course in _courses(study).items() if _known(course[1])}
    return Section(
        "Seed by seed",
        text=[
            "Chains of generations may end in states far apart, some seeds in one and some in "
            "another. Their mean then lies where no seed is, and its limits suppose "
            "a spread that the seeds do not have; the median and the seeds themselves show it.",
        ],
        figures=[
            median_figure(title, {title: curves}, ylabel=unit)
            for title, (unit, curves) in shown.items()
        ],
        note=explained([len(study.records)]),
        tables=[
            last_table({(title,): curves for title, (_, curves) in shown.items()}, ("measure",))
        ],
    )


def _courses(study: Study) -> dict[str, Course]:
    """Units and curves of single seeds by title, for what the study of generations draws."""
    population = study.first.counts["population"]
    found = {titled(metric): (unit, study.curves(metric)) for metric, unit in AUDITED.items()}
    if "audit" in study.first.counts and len(study.first.counts["audit"].classes) == 2:
        selected = [_selected(record) for record in study.records.values()]
        found["Selection rate"] = ("share predicted positive", selected)
    for what, names in (("label", population.classes), ("group", population.groups)):
        if len(names) == 2:
            noted = f"share of annotated {names[1]}" if what == "label" else f"share of {names[1]}"
            found[f"Generated rows of {what} {names[1]}"] = (ROWS, study.curves(noted, "notes"))
    drifts = {titled(metric): (ROWS, study.curves(metric, "notes")) for metric in (DRIFT, JUDGED)}
    return found | drifts


def _selected(record: Record) -> Floats:
    """(T,) share of the audit rows that each generation's classifier gives the second label."""
    pooled = [row.counts["audit"].pooled() for row in record.rows]
    return np.array([predicted_share(counts, 1).value[0] for counts in pooled])


def _known(curves: list[Floats]) -> bool:
    return any(np.isfinite(curve).any() for curve in curves)
