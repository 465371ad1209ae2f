"""Seeds in their own right: their median, the middle half of them, and each one thin.

Chains that end in absorbing states leave seeds in heaps, between which a mean lies where no seed
is. The figures here stand beside those of means with limits, they do not replace them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evenloop.report.figures import CROWDED, Line, line_figure
from evenloop.report.sections import Table
from evenloop.report.study import Study

__all__ = ["FEWEST", "course_figures", "explained", "last_table", "median_figure", "middle"]

Floats = NDArray[np.float64]
FEWEST = 5
"""Seeds from which on quartiles are drawn: of fewer each quarter would hold less than one seed."""


def middle(label: str, curves: Sequence[Floats]) -> Line:
    """Curves (T_s,) of single seeds as their median, thin lines and, from `FEWEST` on, quartiles.

    Quantiles interpolate between seeds in order; a round counts the seeds that have a value there.

    >>> line = middle("all", [np.array([float(i)]) for i in (0, 1, 2, 3, 10)])
    >>> line.value.tolist(), line.low.tolist(), line.high.tolist()
    ([2.0], [1.0], [3.0])
    """
    grid = np.full((len(curves), max(map(len, curves))), np.nan)
    for place, curve in zip(grid, curves, strict=True):
        place[: len(curve)] = curve
    known = (~np.isnan(grid)).sum(0)
    filled = np.where(known > 0, grid, 0.0)  # a quantile of nothing is an error
    found = np.nanquantile(filled, (0.25, 0.5, 0.75), axis=0)
    low, value, high = np.where(known > 0, found, np.nan)
    enough = known >= FEWEST
    if not enough.any():
        return Line(label, value, thin=tuple(curves), legible=True)
    low, high = (np.where(enough, part, np.nan) for part in (low, high))
    return Line(label, value, low, high, thin=tuple(curves), legible=True)


def median_figure(
    title: str,
    arms: Mapping[str, Sequence[Floats]],
    *,
    ylabel: str,
    span: tuple[float, float] | None = None,
) -> str:
    """An SVG element: every arm's median over seeds with quartiles and single seeds.

    Args:
        title: of what is measured; the number of seeds is added.
        arms: curves of single seeds, at least one, by the name of the line.
        ylabel: of the vertical axis, with units.
        span: its ends.
    """
    lines = [middle(name, curves) for name, curves in arms.items()]
    title = f"{title}: median of {_seeds([len(curves) for curves in arms.values()])}"
    return line_figure(title, lines, ylabel=ylabel, xlabel="generation", span=span)


def course_figures(
    title: str, studies: Mapping[str, Study], metric: str, split: str, *, ylabel: str
) -> list[str]:
    """A metric's course in every arm: means with limits and, beside them, medians with seeds.

    One figure alone where no arm has a second seed; its limits are then those of the counts.
    """
    means = [study.line(arm, metric, split) for arm, study in studies.items()]
    curves = {arm: study.curves(metric, split) for arm, study in studies.items()}
    numbers = [len(found) for found in curves.values()]
    if max(numbers) < 2:
        return [line_figure(title, means, ylabel=ylabel, xlabel="generation")]
    bare = [replace(line, thin=()) for line in means]
    drawn = [part for m in means for part in (m.value, m.low, m.high, *m.thin) if part is not None]
    span = _span(np.concatenate(drawn))
    mean = f"{title}: mean of {_seeds(numbers)}"
    return [
        line_figure(mean, bare, ylabel=ylabel, xlabel="generation", span=span),
        median_figure(title, curves, ylabel=ylabel, span=span),
    ]


def _span(drawn: Floats) -> tuple[float, float] | None:
    """Ends of an axis that holds all that is drawn, with a little room; None for nothing."""
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return None
    room = 0.05 * float(np.ptp(known)) or 0.05
    return float(known.min()) - room, float(known.max()) + room


def explained(numbers: Sequence[int]) -> str:
    """What bands and thin lines of such figures are, for arms of `numbers` seeds."""
    crowded = len(numbers) > CROWDED
    said = f"No quartiles are drawn of fewer than {FEWEST} seeds."
    if max(numbers) >= FEWEST:
        drawn = "bar at the last generation" if crowded else "band"
        said = (
            f"Of a median the {drawn} reaches from the lower to the upper quartile, between which "
            "the middle half of the seeds lies."
        ) + (f" {said}" if min(numbers) < FEWEST else "")
    return said if crowded else f"{said} Thin lines are single seeds."


def last_table(rows: Mapping[tuple[str, ...], Sequence[Floats]], head: Sequence[str]) -> Table:
    """Median, quartiles and range of each measure's seeds at their own last generation."""
    found = []
    for name, curves in rows.items():
        last = np.array([curve[-1] for curve in curves])
        known = last[~np.isnan(last)]
        if not len(known):
            found.append((*name, *["not estimable"] * 4, "0"))
            continue
        at = np.quantile(known, (0, 0.25, 0.5, 0.75, 1))
        lowest, low, median, high, highest = (f"{value:.3f}" for value in at)
        between = f"{low} to {high}" if len(known) >= FEWEST else f"fewer than {FEWEST} seeds"
        found.append((*name, median, between, lowest, highest, str(len(known))))
    columns = ("median", "quartiles", "lowest seed", "highest seed", "seeds")
    title = "Last generation, median over seeds"
    return Table(title, (*head, *columns), found, folded=True)


def _seeds(numbers: Sequence[int]) -> str:
    """A number of seeds, or the range of those of several arms."""
    low, high = min(numbers), max(numbers)
    if low == high:
        return f"{high} seed{'s' if high > 1 else ''}"
    return f"{low} to {high} seeds"
