"""Figures of acquisition: curves over labels, small panels, bars by cell, histograms."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, MaxNLocator
from numpy.typing import NDArray

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
from evenloop.report.intervals import Interval

__all__ = ["Curve", "Steps", "bars_figure", "curves_figure", "panels_figure", "steps_figure"]

Floats = NDArray[np.float64]
BAR_INCHES, HEAD_INCHES = 0.17, 1.25
SCARCE = 0.005  # bins that hold less of every cell, to the right of all others, are not drawn


@dataclass(frozen=True, eq=False)
class Curve:
    """Values (T,) over `x` (T,), with limits (T,) where there are several seeds."""

    label: str
    x: Floats
    value: Floats
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True, eq=False)
class Steps:
    """A histogram: the share of each of B bins, (B,); nan where nothing was counted."""

    label: str
    share: Floats


def curves_figure(
    title: str,
    curves: Sequence[Curve],
    *,
    ylabel: str,
    xlabel: str = "labels",
    mark: float | None = None,
    ticks: Sequence[str] = (),
) -> str:
    """An SVG element with one panel of curves and a vertical line at `mark`, if given.

    With `ticks` the places 0, 1, ... are named along the axis.
    """

    def fill(figure: Figure) -> list[Artist]:
        axes = figure.add_subplot()
        frame(axes, title, xlabel, ylabel)
        if mark is not None:
            axes.axvline(mark, color=FAINT, linewidth=0.9, linestyle=":")
        drawn = [_curve(axes, curve, place) for place, curve in enumerate(curves)]
        if ticks:
            axes.set_xticks(range(len(ticks)), list(ticks))
        return drawn

    return _drawn((4.6, 3.3), fill, [c.label for c in curves], f"{title}: {_told(curves)}")


def panels_figure(
    title: str,
    panels: Sequence[tuple[str, Sequence[Curve]]],
    *,
    ylabel: str,
    xlabel: str = "labels",
) -> str:
    """An SVG element with a panel for each name, two in a row; all have the curves of the first."""
    rows = -(-len(panels) // 2)

    def fill(figure: Figure) -> list[Artist]:
        drawn: list[Artist] = []
        grid = figure.subplots(rows, 2, squeeze=False, sharex=True)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.set_visible(False)
                continue
            name, curves = panels[place]
            below = place + 2 >= len(panels)
            frame(axes, name, xlabel if below else "", ylabel if place % 2 == 0 else "")
            drawn = [_curve(axes, curve, at) for at, curve in enumerate(curves)]
        return drawn

    told = "; ".join(f"{name}: {_told(curves)}" for name, curves in panels)
    names = [curve.label for curve in panels[0][1]]
    return _drawn((4.6, 0.7 + 1.6 * rows), fill, names, f"{title}: {told}")


def bars_figure(
    title: str,
    cells: Sequence[str],
    series: Sequence[tuple[str, Sequence[Interval]]],
    *,
    xlabel: str,
    reference: float | None = None,
) -> str:
    """An SVG element with lying bars: for each cell one of every series, with its limits.

    Args:
        title: above the panel and, with every value, the text for readers who cannot see it.
        cells: from top to bottom.
        series: a name and a value for every cell.
        xlabel: of the axis, with units.
        reference: where to draw a line, such as 1 for a ratio.
    """
    thick = 0.8 / max(1, len(series))
    height = HEAD_INCHES + BAR_INCHES * len(cells) * (len(series) + 0.6)

    def fill(figure: Figure) -> list[Artist]:
        axes, drawn = figure.add_subplot(), list[Any]()
        frame(axes, title, xlabel, "")
        axes.xaxis.set_major_locator(AutoLocator())
        for at, (_, values) in enumerate(series):
            y = np.arange(len(cells)) - 0.4 + thick * (at + 0.5)
            ends = np.array([[v.value, v.low, v.high] for v in values], np.float64).T
            colour = SERIES[at % len(SERIES)]
            drawn.append(axes.barh(y, ends[0], thick * 0.9, color=colour, alpha=0.75))
            known = ~np.isnan(ends).any(0)
            reach = np.abs(ends[1:] - ends[0])[:, known]
            axes.errorbar(
                ends[0][known], y[known], xerr=reach, fmt="none", ecolor=INK, elinewidth=1,
                capsize=1.5,
            )  # fmt: skip
        if reference is not None:
            axes.axvline(reference, color=INK, linewidth=0.9)
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.set_yticks(range(len(cells)), list(cells))
        for text in axes.get_yticklabels():
            text.set_parse_math(False)
        return drawn

    told = "; ".join(
        f"{name}: " + ", ".join(f"{c} {v.value:.3g}" for c, v in zip(cells, values, strict=True))
        for name, values in series
    )
    return _drawn((4.6, height), fill, [name for name, _ in series], f"{title}: {told}")


def steps_figure(
    title: str,
    panels: Sequence[tuple[str, Sequence[Steps]]],
    edges: Floats,
    *,
    xlabel: str,
    ylabel: str,
) -> str:
    """An SVG element with histograms as step lines, a panel below the other, on one root scale.

    Bins are drawn equally wide, which they are in the square root of `edges` (B + 1,).
    """
    at = np.arange(len(edges))
    shares = np.nan_to_num([one.share for _, steps in panels for one in steps])
    last = int(np.flatnonzero((shares >= SCARCE).any(0)).max(initial=0)) + 1

    def fill(figure: Figure) -> list[Artist]:
        drawn: list[Artist] = []
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)
        for place, axes in enumerate(grid.flat):
            name, steps = panels[place]
            frame(axes, name, xlabel if place == len(panels) - 1 else "", ylabel)
            drawn = [
                axes.stairs(
                    np.nan_to_num(one.share), at, color=SERIES[i % len(SERIES)], linewidth=1.5,
                    linestyle=STYLES[i % len(STYLES)],
                )
                for i, one in enumerate(steps)
            ]  # fmt: skip
            axes.set_xlim(0, last)
            few = at[: last + 1 : max(1, last // 5)]
            axes.set_xticks(few, [f"{edges[i]:.2g}" for i in few])
        return drawn

    told = "; ".join(
        f"{name}: " + ", ".join(f"{s.label} most often {_mode(s, edges)}" for s in steps)
        for name, steps in panels
    )
    names = [one.label for one in panels[0][1]]
    return _drawn((4.6, 0.8 + 1.8 * len(panels)), fill, names, f"{title}: {told}")


def _mode(steps: Steps, edges: Floats) -> str:
    if np.isnan(steps.share).all():
        return "absent"
    top = int(np.nanargmax(steps.share))
    return f"{edges[top]:.2g} to {edges[top + 1]:.2g}"


def _curve(axes: Axes, curve: Curve, place: int) -> Artist:
    colour, style = SERIES[place % len(SERIES)], STYLES[place % len(STYLES)]
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
    marker = "o" if len(curve.x) < 3 else None
    (line,) = axes.plot(
        curve.x, curve.value, color=colour, linestyle=style, linewidth=1.6, marker=marker,
        markersize=4,
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    return line


def _told(curves: Sequence[Curve]) -> str:
    parts = []
    for curve in curves:
        known = np.flatnonzero(~np.isnan(curve.value))
        if len(known):
            first, last = curve.value[known[0]], curve.value[known[-1]]
            parts.append(f"{curve.label} from {first:.3g} to {last:.3g}")
    return "; ".join(parts)


def _drawn(
    size: tuple[float, float],
    fill: Callable[[Figure], list[Artist]],
    names: Sequence[str],
    described: str,
) -> str:
    """The figure that `fill` draws, with a legend of what it returns."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        drawn = fill(figure)
        if len(names) > 1:
            legend(figure, drawn, names)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return as_element(text.getvalue(), described)
