"""Shares in a table whose colours tell what grew and what shrank, as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from evenloop.report.figures import INK, SERIES, SETTINGS, as_element, frame

__all__ = ["heat_figure"]

Floats = NDArray[np.float64]
DEEPEST = 0.75
TALL, HIGH = 1.1, 0.27


def heat_figure(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    share: Floats,
    start: Floats,
    *,
    xlabel: str,
    ylabel: str,
) -> str:
    """An SVG element with one cell for each share, written in it as a percentage.

    A cell is blue where the share is above its start and orange where it is below, the deeper
    the farther; the deepest is the largest distance in the table. nan is written as "none".

    Args:
        title: above the panel and, with the two farthest cells, the text for screen readers.
        rows, columns: names, R and C of them, at least one.
        share: (R, C) shares.
        start: (R, C) shares they are compared with.
        xlabel, ylabel: what columns and rows are.
    """
    change = share - start
    widest = max(float(np.nanmax(np.abs(change), initial=0.0)), 1e-9)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(4.6, TALL + HIGH * len(rows)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        frame(axes, title, xlabel, ylabel)
        axes.grid(False)
        for (i, j), value in np.ndenumerate(share):
            by = 0.0 if np.isnan(change[i, j]) else float(change[i, j])
            colour, depth = SERIES[0 if by >= 0 else 1], DEEPEST * abs(by) / widest
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, alpha=depth))
            text = "none" if np.isnan(value) else f"{value:.1%}"
            axes.text(j, i, text, color=INK, ha="center", va="center", fontsize=8)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)
        text_out = io.StringIO()
        figure.savefig(text_out, format="svg", transparent=True, metadata={"Date": None})
    return as_element(text_out.getvalue(), _described(title, rows, columns, share, start))


def _described(
    title: str, rows: Sequence[str], columns: Sequence[str], share: Floats, start: Floats
) -> str:
    change = np.nan_to_num(share - start).ravel()
    parts = []
    for at in dict.fromkeys((int(change.argmin()), int(change.argmax()))):
        name = f"{rows[at // len(columns)]}, {columns[at % len(columns)]}"
        parts.append(f"{name} from {start.ravel()[at]:.3g} to {share.ravel()[at]:.3g}")
    return f"{title}: {'; '.join(parts)}"
