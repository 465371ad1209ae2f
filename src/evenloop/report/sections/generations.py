"""Generators that train on their own samples: who is left in what they make, and what STAR did."""

from __future__ import annotations

from functools import partial

import numpy as np

from evenloop.report.figures import Line, line_figure
from evenloop.report.generation_arms import DRIFT, JUDGED, ending, left
from evenloop.report.heat import heat_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

ORDER = 15
CELLS = 8
SHOWN = (
    "population", DRIFT, JUDGED, "share of *", "*_annotator", "group_agreement*", "group_judge*",
    "margin.*",
    "frechet.*", "divergence from ideal", "distance from ideal", "generator_loss",
    "*.missing_share", "*.first_share.*",
)  # fmt: skip
_drawn = partial(line_figure, xlabel="generation")
JUDGING = (
    "The judge is a second group annotator with a start of its own, which chooses no row. Where "
    "the two part, one of them errs, and a drift is not of the groups alone; errors that both "
    "learned from natural rows stay hidden from both."
)


def build(study: Study) -> Section | None:
    """The section, where a generated population was counted."""
    counts = study.first.counts.get("population")
    if counts is None:
        return None
    groups = [_note(study, name, f"share of {name}") for name in counts.groups]
    cells = [f"{c} {g}" for c in counts.classes for g in counts.groups]
    labels = [
        _note(study, f"{name}, {who}", f"share of {key} {name}")
        for name in counts.classes[1:]
        for who, key in (("first annotator", "annotated"), ("teacher", "taught"))
    ]
    figures = [
        _drawn("Groups in the generated population", groups, ylabel="share"),
        _drawn("Labels in the generated population", labels, ylabel="share"),
    ]
    if len(groups) > CELLS:
        figures[0] = _group_map(study, groups)
    if len(cells) <= CELLS:
        lines = [_note(study, cell, f"share of {cell}") for cell in cells]
        figures.append(_drawn("Every cell of label and group", lines, ylabel="share"))
    shares = [[f"share of {c} {g}" for c in counts.classes] for g in counts.groups]
    figures.append(_cell_map(study, "Every cell at the last generation", shares))
    if study.has(DRIFT, "notes"):
        figures.append(_drift(study))
    figures.append(_divergence(study))
    found = (_agreement(study), _curation(study), *_first_draws(study, cells), _quality(study))
    figures += [f for f in (*found, _margins(study), _loss(study)) if f]
    states = _absorbed(study)
    text = [
        "Labels and groups of generated rows are what annotators trained on natural rows say: a "
        "drift here is a drift of what the annotators see. The teacher is the classifier whose "
        "labels train the next one. In figures of cells blue is a share above that among "
        "natural rows (or of the first generation, where those were not counted), orange one "
        "below; the deepest colour is the farthest of the figure.",
        *([JUDGING] if study.has(JUDGED, "notes") else []),
        states,
    ]
    return Section(
        "The generated population",
        text=text,
        figures=figures,
        note=f"Bands: {study.limits()}. A cell that vanished may return, for a network may draw "
        "what it no longer sees; only the generator `count` never does without natural rows.",
        tables=[_annotators(study)],
        summary=[_moved(study, groups), states],
        shows=SHOWN,
    )


def _note(study: Study, label: str, metric: str) -> Line:
    return study.line(label, metric, "notes")


def _drift(study: Study) -> str:
    """By the group annotator and, where there is one, by the judge."""
    drifts = [_note(study, "by the group annotator", DRIFT)]
    if study.has(JUDGED, "notes"):
        drifts.append(_note(study, "by the judge", JUDGED))
    return _drawn("Drift of the groups from their natural shares", drifts, ylabel="share")


def _agreement(study: Study) -> str | None:
    """On how many generated rows the judge names the group that A_S names."""
    if not study.has("accuracy", "group_agreement"):
        return None
    line = study.line("judge and group annotator", "accuracy", "group_agreement")
    title = "Rows on which both annotators name one group"
    return _drawn(title, [line], ylabel="share of generated rows")


def _natural(study: Study) -> np.ndarray | None:
    """(G, C) shares of group and label among natural rows, mean over seeds, if they were counted.

    They were not under the same names where an earlier stage had other groups.
    """
    names = study.first.counts["population"].groups
    kept = [record.rows[0].counts.get("train") for record in study.records.values()]
    tables = [counts.table.sum(1) for counts in kept if counts and counts.groups == names]
    return np.mean([t / t.sum() for t in tables], axis=0) if tables else None


def _cell_map(study: Study, title: str, metrics: list[list[str]]) -> str:
    """Shares (G, C) of all cells at the last generation, coloured by their drift."""
    counts, natural = study.first.counts["population"], _natural(study)
    course = np.array([[_note(study, "", name).value for name in row] for row in metrics])
    last = course[:, :, -1]
    return heat_figure(
        title,
        counts.groups,
        counts.classes,
        last,
        course[:, :, 0] if natural is None else natural,
        xlabel="label",
        ylabel="group",
    )


def _group_map(study: Study, groups: list[Line]) -> str:
    """Shares of many groups, a row each and a column for each generation."""
    share, natural = np.array([line.value for line in groups]), _natural(study)
    start = share[:, :1] if natural is None else natural.sum(1, keepdims=True)
    return heat_figure(
        "Groups in the generated population",
        [line.label for line in groups],
        [str(generation) for generation in range(share.shape[1])],
        share,
        np.broadcast_to(start, share.shape),
        xlabel="generation",
        ylabel="group",
    )


def _first_draws(study: Study, cells: list[str]) -> list[str]:
    """What curated batches' first draws held, before anything was kept or filled."""
    figures, counts = [], study.first.counts["population"]
    for side in ("classifier", "generator"):
        name = f"{side}.first_share."
        if not all(study.has(name + cell, "notes") for cell in cells):
            continue
        title = f"First draws of the {side}'s batches, by stratum"
        if len(cells) <= CELLS:
            lines = [_note(study, cell, name + cell) for cell in cells]
            figures.append(_drawn(title, lines, ylabel="share"))
        else:
            shares = [[f"{name}{c} {g}" for c in counts.classes] for g in counts.groups]
            figures.append(_cell_map(study, f"{title}, at the last generation", shares))
    return figures


def _loss(study: Study) -> str | None:
    line = _note(study, "last epoch", "generator_loss")
    if np.isfinite(line.value).sum() < 2:  # one generator for all generations has no course
        return None
    return _drawn("Loss of the generator", [line], ylabel="mean over the last epoch")


def _divergence(study: Study) -> str:
    """The relative entropy or, where the ideal excludes a cell that occurs, half the distance."""
    name, metric, unit = "relative entropy", "divergence from ideal", "nats"
    if not all(np.isfinite(c).all() for c in study.curves(metric, "notes")):
        name, metric, unit = "total variation", "distance from ideal", "share of the rows"
    line = _note(study, name, metric)
    return _drawn("Distance of the population from the ideal mix", [line], ylabel=unit)


def _curation(study: Study) -> str | None:
    found = [
        _note(study, side, f"{side}.missing_share")
        for side in ("classifier", "generator")
        if study.has(f"{side}.missing_share", "notes")
    ]
    title = "Rows that curated batches lacked after filtering"
    return _drawn(title, found, ylabel="share of the batch") if found else None


def _quality(study: Study) -> str | None:
    groups = study.first.counts["population"].groups
    found = [_note(study, g, f"frechet.{g}") for g in groups if study.has(f"frechet.{g}", "notes")]
    title = "Distance of generated from natural rows, by group"
    return _drawn(title, found, ylabel="squared Frechet distance") if found else None


def _margins(study: Study) -> str | None:
    groups = study.first.counts["population"].groups
    found = [_note(study, g, f"margin.{g}") for g in groups if study.has(f"margin.{g}", "notes")]
    title = "How sure the group annotator is"
    return _drawn(title, found, ylabel="mean margin of sure rows") if found else None


def _moved(study: Study, groups: list[Line]) -> str:
    name, line = groups[-1].label, groups[-1]
    return (
        f"The share of {name} in the generated population moves from {line.value[0]:.3f} to "
        f"{line.value[-1]:.3f} in {len(line.value)} generations."
    )


def _absorbed(study: Study) -> str:
    """How many seeds end in a state like those of the study's collapsed chains, and left one."""
    if study.first.counts["audit"].table.shape[1] != 2:
        return "Absorbing states are named for two classes only."
    states, seeds = ending(study), len(study.records)
    held = sum(n for state, n in states.items() if state != "none")
    which = ", ".join(f"{n} in '{state}'" for state, n in states.items() if state != "none")
    ever, gone = left(study)
    moved = (
        f" Of {ever} that were ever in one, {gone} left it for another or for none." if ever else ""
    )
    return (
        f"Absorbing states at the last generation: {held} of {seeds} seeds"
        + (f" ({which})." if held else ".")
        + moved
    )


def _annotators(study: Study) -> Table:
    rows = []
    for seed, record in study.records.items():
        for name in ("label_annotator", "group_annotator", "group_judge"):
            counts = record.rows[0].counts.get(name)
            if counts is not None:
                right = counts.table.trace(axis1=1, axis2=2)
                by = [
                    f"{r / n:.3f}" if n else "no rows"
                    for r, n in zip(right, counts.support, strict=True)
                ]
                total = f"{right.sum() / max(counts.total, 1):.3f}"
                rows.append((str(seed), name.replace("_", " "), total, *by, str(counts.total)))
    groups = study.first.counts["population"].groups
    head = ("seed", "annotator", "accuracy", *groups, "rows")
    return Table("The annotators on the rows that try them", head, rows, folded=True)
