"""Arms of chains of generations side by side: their course, who is left, and where they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import isnan

import numpy as np
import torch
from numpy.typing import NDArray

from evenloop.heuristics.population import absorbed
from evenloop.report.sections import Section, Table
from evenloop.report.spread import course_figures, explained, last_table
from evenloop.report.study import Study
from evenloop.study.compare import NOTES, Arm, compare

__all__ = ["DRIFT", "JUDGED", "ending", "generation_sections", "left", "titled"]

DRIFT = "group drift"
JUDGED = "group drift (judge)"
BY_JUDGE = (
    " It is measured by the annotator that curates, whose errors pass for a drift or hide one, and "
    "again by a judge, which has errors of its own and chooses no row."
)
Studies = Mapping[str, Study]


def generation_sections(studies: Studies, metrics: Sequence[str]) -> list[Section]:
    """Sections on arms that all describe a generated population, the first the reference."""
    if not all("population" in study.first.counts for study in studies.values()):
        return []
    return [_course(studies, metrics), _ends(studies)]


def _course(studies: Studies, metrics: Sequence[str]) -> Section:
    """Every metric, generation by generation, and the differences of the last one in words."""
    figures: list[str] = []
    ends: dict[tuple[str, ...], list[NDArray[np.float64]]] = {}
    numbers = [len(study.records) for study in studies.values()]
    wanted = [*dict.fromkeys([*metrics, DRIFT])]
    judged = all(study.has(JUDGED, NOTES) for study in studies.values())
    if judged and JUDGED not in wanted:
        wanted.insert(wanted.index(DRIFT) + 1, JUDGED)
    for metric in wanted:
        split = "audit" if all(s.has(metric) for s in studies.values()) else NOTES
        if all(s.has(metric, split) for s in studies.values()):
            figures += course_figures(titled(metric), studies, metric, split, ylabel=metric)
            ends |= {(metric, arm): s.curves(metric, split) for arm, s in studies.items()}
    text = (
        "Group drift is the distance of the groups' shares in the generated population from "
        "their shares among natural rows: half the sum of the differences, so 0 is no drift "
        "and 1 is a population of other groups altogether."
    )
    several = max(numbers) > 1
    return Section(
        "Generation by generation",
        text=[text + BY_JUDGE if judged else text],
        figures=figures,
        note=f"A mean has 95 % Student limits between seeds. {explained(numbers)}"
        if several
        else f"Bands: {next(iter(studies.values())).limits()}.",
        tables=[last_table(ends, ("measure", "arm"))] if several else [],
        summary=[*_sentences(studies, [m for m in wanted if m in (*metrics, JUDGED)])],
    )


def titled(metric: str) -> str:
    """What a figure of the metric is called."""
    return {DRIFT: "Drift of the groups' shares", JUDGED: "Drift of the groups, by the judge"}.get(
        metric, metric.capitalize()
    )


def _sentences(studies: Studies, metrics: Sequence[str]) -> Iterator[str]:
    """What each arm changed at the last generation, paired by seed, with limits."""
    arms = [Arm(name, study.config, study.table) for name, study in studies.items()]
    table = compare(arms, metrics, rounds=(None,))
    for row in table[table["arm"] != arms[0].name].to_dict("records"):
        low, high = row["difference_low"], row["difference_high"]
        if isnan(row["difference"]):
            continue
        limits = "no limits between seeds" if isnan(low) else f"{low:+.3f} to {high:+.3f}"
        yield (
            f"{row['metric']}, last generation: {row['arm']} differs from {arms[0].name} by "
            f"{row['difference']:+.3f} ({limits}, {int(row['pairs'])} pairs of seeds)."
        )


def ending(study: Study) -> Counter[str]:
    """Seeds by the absorbing state that the last classifier is in, "none" for the others."""
    return Counter(states[-1] for states in _states(study))


def left(study: Study) -> tuple[int, int]:
    """Seeds whose classifier was in an absorbing state, and those of them that left one later."""
    held = [[s for s in states if s != "none"] for states in _states(study)]
    gone = [any(a not in ("none", b) for a, b in pairwise(states)) for states in _states(study)]
    return sum(map(bool, held)), sum(gone)


def _states(study: Study) -> list[list[str]]:
    """The absorbing state of every generation's classifier, seed by seed."""
    return [
        [absorbed(torch.as_tensor(row.counts["audit"].table)) for row in record.rows]
        for record in study.records.values()
    ]


def _ends(studies: Studies) -> Section:
    rows, tables = [], []
    if all(s.first.counts["audit"].table.shape[1] == 2 for s in studies.values()):
        for arm, study in studies.items():
            states = ending(study)
            held = sum(n for state, n in states.items() if state != "none")
            which = ", ".join(f"{n} {state}" for state, n in states.items() if state != "none")
            ever, gone = left(study)
            rows.append((arm, f"{held} of {sum(states.values())}", which, f"{gone} of {ever}"))
        head = ("arm", "seeds in an absorbing state", "which", "seeds that left one earlier")
        tables.append(Table("Last generation", head, rows))
    tables.append(_shares(studies))
    return Section(
        "Where the arms ended",
        text=[
            "Absorbing states are the end states of the study's collapsed chains: a classifier "
            "that always says one label, or follows the group alone. A chain may move between "
            "them or out of one; the last column counts the seeds that did, of those that were "
            "ever in one."
        ],
        tables=tables,
    )


def _shares(studies: Studies) -> Table:
    """Share of each group in the last generated population, and its distance in features."""
    rows = []
    for arm, study in studies.items():
        for group in study.first.counts["population"].groups:
            rows.append((arm, group, *_last(study, f"share of {group}", f"frechet.{group}")))
    head = ("arm", "group", "share of the generated rows", "squared Frechet distance")
    return Table("Groups at the last generation, mean over seeds", head, rows, folded=True)


def _last(study: Study, *metrics: str) -> Iterator[str]:
    for metric in metrics:
        value = (
            study.line("", metric, NOTES).value[-1] if study.has(metric, NOTES) else float("nan")
        )
        yield "not estimable" if isnan(value) else f"{value:.3f}"
