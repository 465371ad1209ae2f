"""What a model writes: statistics of its texts or frames over rounds, their biases, its scores.

Figures after Taori & Hashimoto, "Data Feedback Loops" (ICML 2023), Figures 4 to 6 and 8; limits,
the signed biases and the training labels beside them are ours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evenloop.report.figures import line_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

ORDER = 12
BIAS = "bias of "
OF_VERBS = ", mean of verbs"
MOST_SAID = 2  # statistics in the page's head, in the reading's order; the table has all


def build(study: Study) -> Section | None:
    """The section, for studies whose labels have structure."""
    names = _statistics(study)
    if not names:
        return None
    drawn = [name for name in names if _occurs(study, name)]
    figures = [_statistic(study, name) for name in drawn]
    figures += [_score(study, name) for name in _scores(study)]
    text = [
        "Every number is a mean over the audit rows it applies to: of what the model wrote for "
        "them, of what people gave, and of the labels the model was trained on. A statistic counts "
        "what it counts; it does not say what a text or a frame means to a reader.",
    ]
    if absent := [name for name in names if name not in drawn]:
        text.append(
            f"Not drawn, for they are 0 throughout, in what was written, given and trained on: "
            f"{', '.join(absent)}."
        )
    return Section(
        "What the model writes",
        text=text,
        figures=figures,
        note=f"Bands: {study.limits()}, one round at a time.",
        tables=[_table(study, names)],
        summary=[_words(study, name) for name in drawn[:MOST_SAID]],
    )


def _metrics(study: Study) -> list[str]:
    kept = study.table[(study.table["split"] == "audit") & (study.table["group"] == "all")]
    return list(dict.fromkeys(kept["metric"]))


def _statistics(study: Study) -> list[str]:
    return [m.removeprefix(BIAS) for m in _metrics(study) if m.startswith(BIAS)]


def _scores(study: Study) -> list[str]:
    """Metrics that compare what was written with the truth or with the training rows."""
    sides = (".predicted", ".truth", ".bias", ".bias.all")
    names = dict.fromkeys(
        key.removeprefix("audit.").removesuffix(".all")
        for key in study.first.moments
        if key.startswith("audit.") and not key.endswith(sides)
    )
    # Perplexity is the exponential of the log loss: one of the two is enough.
    cost = "perplexity" if study.has("perplexity") else "log loss"
    shown = (cost if name == "loss" else name for name in names)
    return [name for name in shown if study.has(name) and not name.endswith(OF_VERBS)]


def _score(study: Study, name: str) -> str:
    """A score, with its other mean (of verbs, or as published) in the same panel."""
    if name == "perplexity":
        lines = [study.line("all tokens alike", name)]
        if study.has("published perplexity"):
            lines.append(study.line("batches by rows, as published", "published perplexity"))
        return line_figure("Perplexity of people's texts", lines, ylabel="perplexity")
    if not study.has(name + OF_VERBS):
        return line_figure(_title(name), [study.line(name, name)], ylabel="mean")
    lines = [study.line("of images", name), study.line("of verbs", name + OF_VERBS)]
    return line_figure(_title(name), lines, ylabel="mean")


def _occurs(study: Study, name: str) -> bool:
    """Whether a statistic is anything but 0 at some round: an empty panel tells nothing."""
    sides = ((f"predicted {name}", "audit"), (f"true {name}", "audit"), (name, "train"))
    return any(np.any(np.nan_to_num(study.line("", m, split).value) != 0) for m, split in sides)


def _statistic(study: Study, name: str) -> str:
    people = study.line("given by people", f"true {name}")
    lines = [
        study.line("written", f"predicted {name}"),
        study.line("in the training labels", name, "train"),
        replace(people, low=None, high=None, thin=(), flat=True),
    ]
    return line_figure(_title(name), lines, ylabel="mean")


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def _words(study: Study, name: str) -> str:
    last, seeds = study.rounds - 1, len(study.records)
    line = study.line("", BIAS + name)
    first = line.words(0)
    later = f", {line.words(last)} at round {last}" if last else ""
    return (
        f"Bias of {name} (written minus people's): {first} at round 0{later} "
        f"({seeds} seed{'s' if seeds > 1 else ''}, 95 % limits)."
    )


def _table(study: Study, names: list[str]) -> Table:
    rows = []
    for name in names:
        line = study.line("", BIAS + name)
        part = study.table[
            (study.table["metric"] == BIAS + name)
            & (study.table["group"] == "all")
            & (study.table["split"] == "audit")
        ]
        for t in range(study.rounds):
            items = part[part["round"] == t]["n"]
            shown = "none" if items.empty else f"{int(items.min())}"
            rows.append((name, str(t), line.words(t), shown))
    head = ("statistic", "round", "bias [95 %]", "audit items")
    return Table("Bias of every statistic at every round", head, rows, folded=True)
