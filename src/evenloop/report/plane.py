"""Two measures against each other: a path through a plane, such as accuracy against disparity."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator
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

__all__ = ["Path", "plane_figure"]

Floats = NDArray[np.float64]
MARKERS = "osD^vPX*"


@dataclass(frozen=True, eq=False)
class Path:
    """A path of (R, T) points: R runs of the same T settings; drawn as means with single runs.

    `x` and `y` are (R, T), nan where a run has no value; `marks` names the T settings.
    """

    label: str
    x: Floats
    y: Floats
    marks: Sequence[str] = ()


def plane_figure(
    title: str,
    paths: Sequence[Path],
    *,
    xlabel: str,
    ylabel: str,
    limit: float | None = None,
    size: tuple[float, float] = (4.6, 3.6),
) -> str:
    """An SVG element: the mean of every path as a line with a mark per setting, runs as dots.

    Args:
        title: above the panel and, with the ends of the paths, the text for screen readers.
        paths: at most eight with a colour of their own; the rest repeat.
        xlabel, ylabel: of the axes, with units.
        limit: a tolerance on x, drawn as an upright line.
        size: in inches; the page scales it.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        frame(axes, title, xlabel, ylabel)
        axes.xaxis.set_major_locator(AutoLocator())
        axes.margins(0.12)
        if limit is not None:
            axes.axvline(limit, color=INK, linewidth=1.0)
        drawn = []
        for place, path in enumerate(paths):
            colour, at = SERIES[place % len(SERIES)], (_mean(path.x), _mean(path.y))
            marker = MARKERS[place % len(MARKERS)]
            axes.scatter(path.x, path.y, s=14, color=colour, alpha=0.4, marker=marker, linewidths=0)
            style = STYLES[place % len(STYLES)]
            drawn += axes.plot(*at, color=colour, linestyle=style, marker=marker, markersize=5)
            for x, y, mark in zip(*at, path.marks, strict=False):
                if np.isfinite(x) and np.isfinite(y):
                    axes.annotate(
                        mark, (x, y), (4, 4), textcoords="offset points", color=FAINT, fontsize=7.5
                    )
        if len(paths) > 1:
            legend(figure, drawn, [path.label for path in paths])
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return as_element(text.getvalue(), f"{title}: {'; '.join(map(_ends, paths))}")


def _mean(values: Floats) -> Floats:
    """(T,) mean over the runs that have a value; nan where none has."""
    known = ~np.isnan(values)
    total, n = np.where(known, values, 0).sum(0), known.sum(0)
    mean: Floats = np.divide(total, n, out=np.full(values.shape[1], np.nan), where=n > 0)
    return mean


def _ends(path: Path) -> str:
    x, y = _mean(path.x), _mean(path.y)
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not len(known):
        return f"{path.label} without a point"
    first, last = known[0], known[-1]
    return f"{path.label} from ({x[first]:.3g}, {y[first]:.3g}) to ({x[last]:.3g}, {y[last]:.3g})"
