"""Tables as plain text, for a terminal or a pipe."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

__all__ = ["comparison_lines", "lines"]


def lines(table: pd.DataFrame) -> list[str]:
    r"""The table as aligned lines; numbers with three decimals, nan as "not estimable".

    >>> print(*lines(pd.DataFrame({"group": ["a"], "value": [0.25], "n": [8]})), sep="\n")
    group  value  n
    a      0.250  8
    """
    cells = [[str(name) for name in table.columns]]
    for row in table.itertuples(index=False):
        cells.append([_cell(value) for value in row])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "not estimable" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def comparison_lines(table: pd.DataFrame, level: float) -> list[str]:
    """`evenloop.study.compare.compare`'s table in words, one line per arm."""
    percent = f"{level:.0%}"
    out: list[str] = []
    for (metric, round), part in table.groupby(["metric", "round"], sort=False):
        where = "last round" if round == "last" else f"round {round}"
        out.append(f"{metric}, {where} (mean over seeds, {percent} limits)")
        names: Sequence[str] = [str(name) for name in part["arm"]]
        width = max(map(len, names))
        for row in part.to_dict("records"):
            limits = _between(row["low"], row["high"])
            line = f"  {row['arm']!s:<{width}}  {row['mean']:+.3f} {limits} n={row['n']}"
            if not math.isnan(row.get("difference", math.nan)):
                line += f"  {_change(row)}"
            out.append(line)
    return out


def _change(row: Mapping[Hashable, Any]) -> str:
    """The paired difference of a row with its limits, or that there is none in any pair."""
    pairs = int(row["pairs"])
    if row["difference"] == 0 and math.isnan(row["difference_low"]) and pairs > 1:
        return f"the same in all {pairs} pairs"
    limits = _between(row["difference_low"], row["difference_high"])
    return f"difference {row['difference']:+.3f} {limits}, {pairs} pairs"


def _between(low: float, high: float) -> str:
    """Limits between seeds; with one seed, or where all agree exactly, there are none."""
    return "[not estimable between seeds]" if math.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
