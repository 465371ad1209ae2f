"""Figures of means with their limits: one row for each arm, or arms in a plane of two measures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, isnan, nan

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evenloop.intervals import Runs
from evenloop.report.figures import (
    FAINT,
    INK,
    SERIES,
    SETTINGS,
    STYLES,
    as_element,
    frame,
    legend,
)
from evenloop.shares import ALIKE

__all__ = ["Interval", "Point", "forest_figure", "points_figure"]

MARKERS = "osD^vPX*"
ROW_INCHES, HEAD_INCHES = 0.21, 0.95
TICKS = 5  # at most, between the ends of an axis: more run into each other


@dataclass(frozen=True, slots=True)
class Interval:
    """A named value with its limits; limits are nan where there are none."""

    label: str
    value: float
    low: float = nan
    high: float = nan

    @staticmethod
    def over(label: str, runs: Runs, within: tuple[float, float] = (-inf, inf)) -> Interval:
        """The mean and limits of runs, the limits cut to what the quantity can be.

        There are none with one run, or where all agree to the last item, which proves nothing.
        """
        if not runs.sd > ALIKE:
            return Interval(label, float(runs.mean))
        low, high = np.clip((runs.low, runs.high), *within).tolist()
        return Interval(label, float(runs.mean), low, high)

    def words(self, *, sign: bool = False) -> str:
        """The value and its limits to three decimals.

        >>> Interval("a", 0.25, 0.125, 0.375).words(), Interval("a", 0.25).words(sign=True)
        ('0.250 [0.125, 0.375]', '+0.250 [not estimable between seeds]')
        """
        if isnan(self.value):
            return "not estimable"
        form = "+.3f" if sign else ".3f"
        if isnan(self.low):
            return f"{self.value:{form}} [not estimable between seeds]"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


@dataclass(frozen=True, slots=True)
class Point:
    """An arm in the plane; arms of one `curve` are joined in order, "" stands alone."""

    label: str
    x: Interval
    y: Interval
    curve: str = ""


def forest_figure(title: str, rows: Sequence[Interval], *, xlabel: str, zero: bool = True) -> str:
    """An SVG element with one line per row: a dot and its limits; rows clear of zero are filled.

    Args:
        title: above the panel and, with every value, the text for readers who cannot see it.
        rows: from top to bottom.
        xlabel: of the axis, with units.
        zero: whether values are differences, to be seen against zero.
    """
    size = (4.6, HEAD_INCHES + ROW_INCHES * max(len(rows), 1))
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        frame(axes, title, xlabel, "")
        axes.xaxis.set_major_locator(MaxNLocator(TICKS))
        if zero:
            axes.axvline(0, color=FAINT, linewidth=0.9)
        for place, row in enumerate(rows):
            clear = zero and (row.low > 0 or row.high < 0)
            _bars(axes, row.value, place, row, None, SERIES[0])
            face = SERIES[0] if clear or not zero else "none"
            axes.plot(row.value, place, "o", color=SERIES[0], markerfacecolor=face, markersize=5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [row.label for row in rows], color=INK, fontsize=8.5)
        for text in axes.get_yticklabels():
            text.set_parse_math(False)
        svg = _svg(figure)
    told = "; ".join(f"{row.label} {_words(row)}" for row in rows)
    return as_element(svg, f"{title}: {told}")


def points_figure(title: str, points: Sequence[Point], *, xlabel: str, ylabel: str) -> str:
    """An SVG element: every arm a point with limits in both directions; curves are joined.

    Args:
        title: above the panel and, with every point, the text for screen readers.
        points: in order along their curves, named beside the mark; a point alone in the legend.
        xlabel, ylabel: of the axes, with units.
    """
    parts: dict[str, list[Point]] = {}
    for point in points:
        parts.setdefault(point.curve or point.label, []).append(point)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(4.6, 3.8 + ROW_INCHES * (len(parts) // 2)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        frame(axes, title, xlabel, ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(TICKS))
        axes.yaxis.set_major_locator(MaxNLocator(TICKS))
        drawn = []
        for place, part in enumerate(parts.values()):
            colour = SERIES[place % len(SERIES)]
            marker = MARKERS[(place + place // len(SERIES)) % len(MARKERS)]
            at = np.array([[p.x.value, p.y.value] for p in part]).T
            style = STYLES[place % len(STYLES)] if part[0].curve else "none"
            drawn += axes.plot(*at, color=colour, linestyle=style, marker=marker, markersize=5)
            for point in part:
                _cross(axes, point, colour)
        legend(figure, drawn, list(parts))
        svg = _svg(figure)
    told = "; ".join(f"{p.label} at {_words(p.x)}, {_words(p.y)}" for p in points)
    return as_element(svg, f"{title}: {told}")


def _cross(axes: Axes, point: Point, colour: str) -> None:
    """The limits of a point in both directions, and its name if it is one of a curve."""
    at = (point.x.value, point.y.value)
    if not (isfinite(at[0]) and isfinite(at[1])):
        return
    _bars(axes, *at, point.x, point.y, colour, 0.45)
    if point.curve:
        name = axes.annotate(
            point.label, at, (4, 4), textcoords="offset points", color=FAINT, fontsize=7.5
        )
        name.set_parse_math(False)


def _bars(
    axes: Axes,
    x: float,
    y: float,
    along_x: Interval | None,
    along_y: Interval | None,
    colour: str,
    alpha: float = 1.0,
) -> None:
    """Limits along either axis, where they are known."""
    reach = [
        None if one is None or isnan(one.low) else [[one.value - one.low], [one.high - one.value]]
        for one in (along_x, along_y)
    ]
    axes.errorbar(
        x, y, xerr=reach[0], yerr=reach[1], fmt="none", color=colour, ecolor=colour,
        elinewidth=1.2, capsize=2, alpha=alpha,
    )  # fmt: skip


def _words(row: Interval) -> str:
    if isnan(row.low):
        return f"{row.value:.3g}"
    return f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]"


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()
