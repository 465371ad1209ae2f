"""The packaged experiments and sweeps, as lines for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["preset_lines"]


def preset_lines(small: bool = False) -> Iterator[str]:
    """Every preset under its paper, with figure and cost; last how to run one, and the sweeps.

    Args:
        small: only what a laptop can run.

    >>> any("fig3-top-left:small" in line for line in preset_lines(small=True))
    True
    """
    from evenloop.config import load, preset_names
    from evenloop.study.sweep import sweep_names

    shown = [(name, load(name).about) for name in sorted(preset_names(), key=_natural)]
    for paper in dict.fromkeys(about.paper for _, about in shown):
        yield paper
        for name, about in shown:
            if about.paper != paper:
                continue
            whole = not small or (not about.small_cost and "GPU" not in about.cost)
            if whole:
                yield f"  {name}"
                yield f"      {about.figure}"
                yield f"      cost: {about.cost}"
            if about.small_cost:
                yield f"  {name}:small"
                if not whole:
                    yield f"      {about.figure}"
                yield f"      cost: {about.small_cost}"
        yield ""
    yield "run one with: evenloop run NAME [key=value ...]"
    yield f"sweeps, with evenloop sweep NAME: {', '.join(sweep_names())}"


def _natural(name: str) -> list[tuple[str, int]]:
    """A sort key in which fig3 comes before fig10."""
    return [(text, int(part or 0)) for text, part in re.findall(r"(\D+)(\d*)", name)]
