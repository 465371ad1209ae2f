"""What a loop noted that no section of its own shows: counts by group, numbers, texts.

Most of what a new loop measures is here before anybody wrote a section for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import numpy as np

from evenloop.counts import Counts
from evenloop.intervals import across_runs
from evenloop.measures import RateTable, rate_table
from evenloop.report.figures import line_figure
from evenloop.report.intervals import Interval
from evenloop.report.sections import Section, Table
from evenloop.report.sections.groups import GAPS
from evenloop.report.study import Study
from evenloop.study.compare import NOTES

__all__ = ["ORDER", "build"]

ORDER = 70
NAMED, DRAWN, CHARACTERS = 8, 12, 90
KNOWN = ("audit", "train", "trained", "*.reference")


def build(study: Study, shown: Sequence[str]) -> Section | None:
    """The section, where a loop noted counts or values that no pattern of `shown` matches."""
    rows = [row for record in study.records.values() for row in record.rows]
    counts = _left((n for row in rows for n in row.counts), [*KNOWN, *shown])
    values = _left((n for row in rows for n in row.values), shown)
    if not counts and not values:
        return None
    numbers = [name for name in values if study.has(name, NOTES)]
    families = _families(study, numbers)
    judged = [name for name in counts if _errs(study, name)]
    figures = [figure for name in judged for figure in _figures(study, name)]
    for title, names in [*families.items()][:DRAWN]:
        lines = [study.line(name, name, NOTES) for name in names[:NAMED]]
        figures.append(line_figure(title, lines, ylabel=title, xlabel=study.step))
    text = [
        "What the loop itself counted and noted beside the audit. Its counts are on rows of its "
        "own side, which it may have trained on or changed: the audit split is above.",
        *(_said(study, name) for name in judged),
    ]
    if len(families) > DRAWN or any(len(names) > NAMED for names in families.values()):
        text.append(
            f"The first {DRAWN} figures of numbers are drawn, {NAMED} lines at most in each."
        )
    tables = [t for name in counts for t in _rates(study, name)]
    return Section(
        "Other measurements",
        text=text,
        figures=figures,
        note=f"Bands: {study.limits()}." if figures else "",
        tables=[*tables, *_notes(study, values, numbers)],
        summary=[_said(study, name) for name in judged],
    )


def _left(names: Iterator[str], shown: Sequence[str]) -> list[str]:
    """The names, each once, that no pattern matches."""
    once = dict.fromkeys(names)
    return [name for name in once if not any(fnmatchcase(name, one) for one in shown)]


def _said(study: Study, name: str) -> str:
    """The accuracy of counts at the last round, in words."""
    line = study.line("", "accuracy", name)
    known = np.flatnonzero(~np.isnan(line.value))
    if not len(known):
        return f"Accuracy in {name} is not estimable."
    at = known[-1]
    limits = ""
    if line.low is not None and line.high is not None and not np.isnan(line.low[at]):
        limits = f" [{line.low[at]:.3f}, {line.high[at]:.3f}]"
    return f"Accuracy in {name} at {study.step} {at}: {line.value[at]:.3f}{limits}."


def _figures(study: Study, name: str) -> Iterator[str]:
    """Accuracy of every group and the distances between groups, over rounds."""
    groups = _groups(study, name)
    lines = [study.line(g, "accuracy", name, g) for g in groups[:NAMED]]
    lines = lines if len(groups) > 1 else [study.line("all", "accuracy", name)]
    more = f" (the first {NAMED} groups)" if len(groups) > NAMED else ""
    yield line_figure(f"Accuracy in {name}{more}", lines, ylabel="share right", xlabel=study.step)
    gaps = [study.line(gap, gap, name) for gap in GAPS if study.has(gap, name)]
    gaps = [gap for gap in gaps if not np.isnan(gap.value).all()]
    if gaps:
        yield line_figure(
            f"Distance between groups in {name}",
            gaps,
            ylabel="difference of rates",
            xlabel=study.step,
        )


def _groups(study: Study, name: str) -> Sequence[str]:
    return _kept(study, name)[-1].groups


def _kept(study: Study, name: str) -> list[Counts]:
    rows = (row for record in study.records.values() for row in record.rows)
    return [row.counts[name] for row in rows if name in row.counts]


def _families(study: Study, numbers: Sequence[str]) -> dict[str, list[str]]:
    """Numbers noted in two rounds or more, those of one name before the dot together."""
    found: dict[str, list[str]] = {}
    for name in numbers:
        if any((~np.isnan(curve)).sum() > 1 for curve in study.curves(name, NOTES)):
            found.setdefault(name.partition(".")[0], []).append(name)
    return found


def _errs(study: Study, name: str) -> bool:
    """Whether any of the counts is a mistake; rows counted by their true labels have none."""
    return any(c.total > c.table.trace(axis1=1, axis2=2).sum() for c in _kept(study, name))


def _rates(study: Study, name: str) -> Iterator[Table]:
    """Every rate of every group at the last round of each seed, and the widest distances."""
    last = {seed: r.rows[-1].counts.get(name) for seed, r in study.records.items()}
    classes = _kept(study, name)[-1].classes
    for klass in classes[1:] if len(classes) == 2 else classes[:NAMED]:
        rows = [
            (str(seed), *row)
            for seed, counts in last.items()
            if counts is not None
            for row in _rows(rate_table(counts, klass))
        ]
        title = f"Rates of {klass} in {name} at the last {study.step}"
        head = ("seed", "rate", "group", "value", "95 % limits", "items")
        yield Table(title, head, rows, folded=True)


def _rows(table: RateTable) -> Iterator[tuple[str, ...]]:
    for place, rate in enumerate(table.rates):
        for at, group in enumerate(table.groups):
            found = (bound[place, at] for bound in (table.rate.value, table.rate.low,
                                                    table.rate.high))  # fmt: skip
            yield rate, group, *_words(*found), str(int(table.support[place, at]))
    for gap in table.gaps if len(table.groups) > 1 else ():
        between = table.gap(gap)
        yield (
            gap,
            "widest between groups",
            *_words(*map(float, (between.value, between.low, between.high))),
            "",
        )


def _words(value: float, low: float, high: float) -> tuple[str, str]:
    if np.isnan(value):
        return "not estimable", ""
    return f"{value:.3f}", "" if np.isnan(low) else f"[{low:.3f}, {high:.3f}]"


def _notes(study: Study, values: Sequence[str], numbers: Sequence[str]) -> Iterator[Table]:
    """Numbers at the first and last round as means over seeds; texts of each seed's last round."""
    rows = []
    for name in numbers:
        curves = [curve[~np.isnan(curve)] for curve in study.curves(name, NOTES)]
        ends = [[float(c[at]) for c in curves if len(c)] for at in (0, -1)]
        rows.append((name, *(_mean(end) for end in ends)))
    if rows:
        head = ("number", "first noted", "last noted")
        yield Table("Numbers, mean over seeds with 95 % Student limits", head, rows, folded=True)
    texts = [
        (str(seed), name, _short(str(record.rows[-1].values[name])))
        for seed, record in study.records.items()
        for name in values
        if isinstance(record.rows[-1].values.get(name), str)
    ]
    if texts:
        head = ("seed", "text", f"at the last {study.step}")
        yield Table("Texts (whole in rows.jsonl)", head, texts, folded=True)


def _mean(values: Sequence[float]) -> str:
    return Interval.over("", across_runs(values)).words() if values else "never"


def _short(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} ..."
