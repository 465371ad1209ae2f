"""The report of a sweep: every arm against the first, seed by seed, for all and for each group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan, nan
from pathlib import Path

from evenloop import measures
from evenloop.intervals import across_runs, paired_runs
from evenloop.report.generation_arms import generation_sections
from evenloop.report.intervals import Interval, Point, forest_figure, points_figure
from evenloop.report.page import Page, read, write_page
from evenloop.report.pruned_arms import compressed_arms
from evenloop.report.sections import Section, Table
from evenloop.report.strategies import strategy_sections
from evenloop.report.study import Study
from evenloop.study.compare import last_of, rows_of

__all__ = ["Arms", "sections_of", "write_arms"]

NAMED = 8
USUAL = ("accuracy", "worst-group accuracy", "equalized odds difference")
SHARE, ANY = (0.0, 1.0), (-inf, inf)
DRAWN = "share of generated rows drawn"
Values = Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Arms:
    """The studies of a sweep, by the names of their arms; the first is what others are held to.

    Attributes:
        name: of the sweep.
        studies: at least one, each with at least one finished round.
        metrics: what to compare for the whole audit split.
        curves: arms that differ in one setting only, in its order, by the name of the curve.
    """

    name: str
    studies: Mapping[str, Study]
    metrics: Sequence[str]
    curves: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The arm that the others are compared with."""
        return next(iter(self.studies))

    @property
    def others(self) -> list[str]:
        """All arms but the first."""
        return list(self.studies)[1:]

    @property
    def seeds(self) -> int:
        """Most seeds of any arm."""
        return max(len(study.records) for study in self.studies.values())

    def values(self, arm: str, metric: str, group: str = "all", split: str = "audit") -> Values:
        """The metric of each seed at its last round."""
        kept = rows_of(self.studies[arm].table, metric, split)
        return last_of(kept[kept["group"] == group])

    def mean(self, arm: str, metric: str, group: str = "all") -> Interval:
        """The mean over seeds with Student limits; limits are nan with one seed or all alike."""
        values = self.values(arm, metric, group)
        if not values:
            return Interval(arm, nan)
        share = metric == "accuracy" or metric.endswith("difference")
        return Interval.over(arm, across_runs([*values.values()]), SHARE if share else ANY)

    def change(self, arm: str, metric: str, group: str = "all") -> Interval:
        """The mean difference from the first arm over seeds that both have, with limits."""
        mine, base = self.values(arm, metric, group), self.values(self.first, metric, group)
        if not mine.keys() & base.keys():
            return Interval(arm, nan)
        return Interval.over(arm, paired_runs(mine, base))

    def groups(self) -> list[str]:
        """Groups of the audit split, those worst off in the first arm first."""
        row = self.studies[self.first].first
        names = [*row.counts["audit"].groups] if "audit" in row.counts else []
        if len(names) < 2:
            return []
        level = {name: self.mean(self.first, "accuracy", name).value for name in names}
        return sorted(names, key=lambda name: (isnan(level[name]), level[name]))


def write_arms(
    path: Path,
    name: str,
    folders: Mapping[str, Path],
    metrics: Sequence[str],
    curves: Mapping[str, Sequence[str]] | None = None,
) -> Page:
    """Write the report of a sweep, one file that opens offline, from the stored counts alone.

    Args:
        path: of the file.
        name: of the sweep.
        folders: the study of every arm; the first arm is what the others are compared with.
        metrics: what to compare for the whole audit split; the usual ones if empty.
        curves: arms to be joined in the plane of accuracy and gap, by the name of the curve.

    Raises:
        ConfigError: a folder holds no study, or one without a finished round.
    """
    studies = {arm: read(folder) for arm, folder in folders.items()}
    if not metrics:
        metrics = [m for m in USUAL if all(study.has(m) for study in studies.values())]
    arms = Arms(name, studies, metrics, curves or {})
    return write_page(path, "arms.html", sections_of(arms), arms=arms)


def sections_of(arms: Arms) -> list[Section]:
    """The sections that apply to these arms, in order."""
    found = [
        _overall(arms),
        compressed_arms(arms.studies),
        *strategy_sections(arms.studies),
        *generation_sections(arms.studies, arms.metrics),
        _tradeoff(arms),
        _helped(arms),
        _rows_drawn(arms),
        _where(arms),
    ]
    return [section for section in found if section is not None]


def _overall(arms: Arms) -> Section:
    rows, figures = [], []
    for metric in arms.metrics:
        figures.append(
            forest_figure(
                f"Change of {metric}",
                [arms.change(arm, metric) for arm in arms.others],
                xlabel=f"difference from {arms.first!r}",
            )
        )
        for arm in arms.studies:
            change = "" if arm == arms.first else arms.change(arm, metric).words(sign=True)
            rows.append((metric, arm, arms.mean(arm, metric).words(), change))
    head = ("measure", "arm", "mean", f"difference from {arms.first!r}")
    return Section(
        "Every arm",
        text=[
            f"Arms are compared with {arms.first!r} on the same seeds, so that luck of the split "
            "and of the start cancels. A filled dot is a difference whose limits leave out zero; "
            "of twenty such comparisons one is expected to do so by chance."
        ],
        figures=figures if arms.others else [],
        note=_note(arms),
        tables=[Table("Last round, mean over seeds with 95 % limits", head, rows, folded=True)],
    )


def _note(arms: Arms) -> str:
    if arms.seeds == 1:
        return "One seed: there are no limits between seeds, and another seed can differ."
    return f"Bars: 95 % Student limits over {arms.seeds} seeds, differences in pairs of seeds."


def _tradeoff(arms: Arms) -> Section | None:
    """Accuracy against the first gap among the metrics."""
    gaps = [metric for metric in arms.metrics if metric.endswith("difference")]
    if not gaps or not any(arms.values(arm, "accuracy") for arm in arms.studies):
        return None
    gap, on_curve = gaps[0], {a for members in arms.curves.values() for a in members}

    def point(arm: str, mark: str, curve: str = "") -> Point:
        return Point(mark, arms.mean(arm, gap), arms.mean(arm, "accuracy"), curve)

    joined = [
        point(arm, mark, curve)
        for curve, members in arms.curves.items()
        for arm, mark in zip(members, _marks(members), strict=True)
    ]
    alone = [point(arm, arm) for arm in arms.studies if arm not in on_curve]
    shown = {f"Accuracy against {gap}": [*joined, *alone]}
    if joined and len(alone) > 1:  # the curves by themselves, on their own scale
        shown["The same, curves and first arm"] = [*joined, *alone[: arms.first not in on_curve]]
    return Section(
        "What a smaller gap costs",
        text=[
            "Up and to the left is better for both. A small gap with low accuracy may mean that "
            "everyone is worse off: see who was helped below."
        ],
        figures=[
            points_figure(title, points, xlabel=gap, ylabel="accuracy")
            for title, points in shown.items()
        ],
        note=_note(arms),
    )


def _marks(members: Sequence[str]) -> list[str]:
    """What tells the arms of a curve apart: their names without what all begin or end with."""
    start = _alike(members)
    end = _alike([name[start:][::-1] for name in members])
    return [name[start : len(name) - end] or name for name in members]


def _alike(names: Sequence[str]) -> int:
    """How many characters all names begin with."""
    columns = zip(*names, strict=False)
    return next((i for i, c in enumerate(columns) if len(set(c)) > 1), min(map(len, names)))


def _helped(arms: Arms) -> Section | None:
    """Who gained and who lost accuracy in every arm; None without groups or a second arm."""
    groups = arms.groups()
    if not groups or not arms.others:
        return None
    found = {g: [arms.change(arm, "accuracy", g) for arm in arms.others] for g in groups}
    study = arms.studies[arms.first]
    right = study.right
    titled = "{}" if study.structured else f"{right} of {{}}"  # the long words would be cut off
    figures = [
        forest_figure(titled.format(group), found[group], xlabel=f"change from {arms.first!r}")
        for group in groups[:NAMED]
    ]
    table = [
        (change.label, group, arms.mean(change.label, "accuracy", group).words(),
         change.words(sign=True))
        for group in groups
        for change in found[group]
    ]  # fmt: skip
    told = [
        f"Against {arms.first!r} {right.lower()} {side} with limits clear of zero: {where}."
        for side, where in _clear(found).items()
    ]
    head = ("arm", "group", right.lower(), f"change from {arms.first!r}")
    harmed = (
        "That a label counts as the class people gave does not make it a good text or frame."
        if study.structured
        else "Who can be harmed: the people of groups whose accuracy falls (quality of service), "
        "and everyone where all fall."
    )
    return Section(
        f"{right}, group by group" if study.structured else "Who was helped",
        text=[
            f"The groups with the lowest {right.lower()} in the first arm come first. With many "
            f"groups and arms some limits leave out zero by chance. {harmed}",
            *told,
        ],
        figures=figures,
        note=_note(arms),
        tables=[Table("Every group in every arm, last round", head, table, folded=True)],
        alarms=[*_levelled(arms)],
        summary=told,
    )


def _clear(found: Mapping[str, Sequence[Interval]]) -> dict[str, str]:
    """Which changes, by group, have both limits above zero and which below, in words."""
    gained = [f"{c.label} for {group}" for group, row in found.items() for c in row if c.low > 0]
    lost = [f"{c.label} for {group}" for group, row in found.items() for c in row if c.high < 0]
    return {"gained": "; ".join(gained) or "nowhere", "lost": "; ".join(lost) or "nowhere"}


def _levelled(arms: Arms) -> Iterator[str]:
    """An alarm for every arm and the seeds in which every cell lost against the first arm."""
    base = arms.studies[arms.first].records
    for arm in arms.others:
        down = []
        for seed, record in arms.studies[arm].records.items():
            if seed in base and "audit" in record.rows[-1].counts:
                before, after = (r.rows[-1].counts["audit"] for r in (base[seed], record))
                alike = before.groups == after.groups and before.classes == after.classes
                if alike and measures.levelling_down(before, after).down:
                    down.append(str(seed))
        if down:
            yield (
                f"{arm}: levelling down: every cell of group and label that can be compared is "
                f"less accurate than in {arms.first!r} (seed {', '.join(down)}; the few cells of "
                "one seed may all fall by chance)"
            )


def _rows_drawn(arms: Arms) -> Section | None:
    """How much generated data was used, for the arms that say so."""
    rows = []
    for arm in arms.studies:
        values = arms.values(arm, DRAWN, split="notes")
        if values:
            found = Interval.over(arm, across_runs([*values.values()]), SHARE)
            rows.append((arm, found.words()))
    if not rows:
        return None
    title = "Last round, mean over seeds with 95 % limits"
    table = Table(title, ("arm", "share of generated rows drawn"), rows)
    return Section("How much generated data was used", tables=[table])


def _where(arms: Arms) -> Section:
    """Where each arm's own report is made from."""
    rows = [
        (arm, str(len(study.records)), str(study.rounds), study.folder.name)
        for arm, study in arms.studies.items()
    ]
    head = ("arm", "seeds", "rounds", "folder")
    return Section("Arms", tables=[Table("Studies of this sweep", head, rows)])
