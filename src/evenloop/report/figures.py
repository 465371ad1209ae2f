"""Line figures as inline SVG whose colours follow the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

__all__ = [
    "CROWDED",
    "FAINT",
    "INK",
    "SERIES",
    "SETTINGS",
    "STYLES",
    "Line",
    "as_element",
    "frame",
    "legend",
    "line_figure",
]

Floats = NDArray[np.float64]

# Stand-ins in the drawing for the colours of the page's style sheet: the eight of Okabe and Ito,
# which stay apart for colour-blind readers, and the ink.
CROWDED = 5
LONG = 27
INK, FAINT = "#010101", "#020202"
SERIES = tuple(f"#0{i}0{i}0f" for i in range(1, 9))
STYLES: tuple[str, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)), "-")  # type: ignore[assignment]
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "evenloop",
    "font.family": "sans-serif",
    "font.size": 9,
}
CSS = {INK: "var(--ink)", FAINT: "var(--faint)"} | {
    colour: f"var(--s{i})" for i, colour in enumerate(SERIES)
}


@dataclass(frozen=True, eq=False)
class Line:
    """A curve over rounds 0, 1, ...: values (T,), limits (T,), and single runs drawn thin.

    `flat` marks a reference (a baseline), drawn thin in ink without a band. `legible` single runs
    are to be read one by one, not a backdrop to the curve. `place` is whose colour and style a line
    has, for those that have one over the whole page; by default they go by the order of the lines.
    """

    label: str
    value: Floats
    low: Floats | None = None
    high: Floats | None = None
    thin: tuple[Floats, ...] = ()
    flat: bool = False
    legible: bool = False
    place: int | None = None

    def words(self, at: int) -> str:
        """The signed value of round `at` with its limits, to three decimals."""
        if at >= len(self.value) or np.isnan(self.value[at]):
            return "not estimable"
        if self.low is None or self.high is None or np.isnan(self.low[at]):
            return f"{self.value[at]:+.3f} (no limits)"
        return f"{self.value[at]:+.3f} [{self.low[at]:+.3f}, {self.high[at]:+.3f}]"


def line_figure(
    title: str,
    lines: Sequence[Line],
    *,
    ylabel: str,
    xlabel: str = "round",
    zero: bool = False,
    at: Sequence[int] = (),
    span: tuple[float, float] | None = None,
    size: tuple[float, float] = (4.6, 3.3),
) -> str:
    """An SVG element with one panel; colour and line style both tell the lines apart.

    Args:
        title: above the panel and, with the last values, the text for readers who cannot see it.
        lines: at most eight with a colour of their own; the rest repeat.
        ylabel, xlabel: of the axes, with units.
        zero: whether to draw the line of zero.
        at: what the points are called on the axis, where they are not 0, 1, ...
        span: ends of the vertical axis, for figures to be read side by side; fitted if None.
        size: in inches; the page scales it.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        frame(axes, title, xlabel, ylabel)
        if at:
            axes.xaxis.set_major_formatter(partial(_called, at))
        if zero:
            axes.axhline(0, color=FAINT, linewidth=0.8)
        crowded = len(lines) > CROWDED
        looks = _looks(lines)
        drawn = [_draw(axes, line, at, looks[at], crowded) for at, line in enumerate(lines)]
        if max((len(line.value) for line in lines), default=0) == 1:
            axes.set_xlim(-0.5, 0.5 + 0.12 * len(lines))  # one round is a point, not a scale
        if span is not None:
            axes.set_ylim(*span)
        if len(lines) > 1:
            legend(figure, drawn, [line.label for line in lines])
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return as_element(text.getvalue(), _described(title, lines))


def _called(at: Sequence[int], place: float, _: int | None = None) -> str:
    """What the point at a place of the axis is called; nothing between and beside them."""
    whole = round(place)
    inside = abs(place - whole) < 1e-6 and 0 <= whole < len(at)
    return str(at[whole]) if inside else ""


def legend(figure: Figure, drawn: Sequence[Artist], names: Sequence[str]) -> None:
    """Below the panel; names are set as they are: matplotlib would skip "_x" and parse "$x$"."""
    box = figure.legend(
        drawn,
        [str(place) for place in range(len(names))],
        loc="outside lower center",
        ncols=2 if all(len(name) <= LONG for name in names) else 1,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        handlelength=2.6,
    )
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set_text(name)
        text.set_parse_math(False)


def frame(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Title, axis labels, grid and spines in the page's ink."""
    heading = axes.set_title(title, color=INK, fontsize=10.5, loc="left")
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    for text in (heading, axes.xaxis.label, axes.yaxis.label):
        text.set_parse_math(False)
    axes.tick_params(colors=INK, labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=FAINT, alpha=0.35, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _looks(lines: Sequence[Line]) -> list[int]:
    """Whose colour and style each line has: its own place where all have one, else its order."""
    own = [line.place for line in lines if not line.flat]
    if None in own or len(set(own)) < len(own):
        return list(range(len(lines)))
    return [line.place or 0 for line in lines]


def _draw(axes: Axes, line: Line, place: int, look: int, crowded: bool) -> Artist:
    """A line with its band; where many lines share a panel, with limits at the last round only."""
    colour = INK if line.flat else SERIES[look % len(SERIES)]
    # The second eight have the colours of the first, so other styles.
    style = "-" if line.flat else STYLES[(look + 2 * (look // len(SERIES))) % len(STYLES)]
    rounds = np.arange(len(line.value))
    faint = (0.65, 0.8) if line.legible else (0.25, 0.6)
    for run in () if crowded else line.thin:
        axes.plot(np.arange(len(run)), run, color=colour, alpha=faint[0], linewidth=faint[1])
    if line.low is not None and line.high is not None and (crowded or len(rounds) == 1):
        last = len(rounds) - 1
        reach = np.abs([[line.value[-1] - line.low[-1]], [line.high[-1] - line.value[-1]]])
        axes.errorbar([last + 0.12 * place], line.value[-1:], reach, color=colour, capsize=2)
    elif line.low is not None and line.high is not None:
        axes.fill_between(rounds, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
    marker = "o" if len(rounds) < 3 else None
    (curve,) = axes.plot(
        rounds, line.value, color=colour, linestyle=style, linewidth=1.0 if line.flat else 1.6,
        marker=marker, markersize=4,
    )  # fmt: skip
    return curve


def _described(title: str, lines: Sequence[Line]) -> str:
    parts = []
    for line in lines:
        known = np.flatnonzero(~np.isnan(line.value))
        if len(known):
            first, last = line.value[known[0]], line.value[known[-1]]
            parts.append(f"{line.label} from {first:.3g} to {last:.3g}")
    return f"{title}: {'; '.join(parts)}"


def as_element(svg: str, described: str) -> str:
    """The bare element: page colours, a label for screen readers, no XML prologue."""
    svg = svg[svg.index("<svg") :]
    for colour, name in CSS.items():
        svg = svg.replace(colour, name)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    label = (
        described.replace("&", "&amp;")
        .replace('"', "&quot;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
    )
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
