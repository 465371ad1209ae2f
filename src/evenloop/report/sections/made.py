"""What generators made: pictures of every cell in the first, middle and last generations."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evenloop.report.people import hidden
from evenloop.report.sections import Section
from evenloop.report.sections.samples import png
from evenloop.report.study import Study

ORDER = 62
TITLE = "What the generators made"


def build(study: Study) -> Section | None:
    """The section, where generated pictures were kept by stratum: those of the first seed."""
    population = study.first.counts.get("population")
    seed, record = next(iter(study.records.items()))
    files = sorted((Path(record.folder or study.folder) / "samples").glob("*.pt"))
    if population is None or not files or "stratum" not in _load(files[-1]):
        return None
    if why := hidden(study.config):
        return Section(TITLE, text=[why])
    names = [f"{label} {group}" for label in population.classes for group in population.groups]
    shown = sorted({0, len(files) // 2, len(files) - 1})
    groups = [
        {"title": f"generation {int(files[at].stem)}", "items": _items(_load(files[at]), names)}
        for at in shown
    ]
    return Section(
        TITLE,
        text=[
            f"Pictures of seed {seed}, the first drawn of every cell: the label is the teacher's "
            "and the group the annotator's. An empty frame is a cell of which none was drawn. They "
            "are examples; the figures above count all rows that were drawn.",
        ],
        images=groups,
    )


def _load(path: Path) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = torch.load(path, weights_only=True)
    return kept


def _items(kept: dict[str, Tensor], names: Sequence[str]) -> list[dict[str, Any]]:
    """One tile for each cell: its pictures side by side, dashed and empty where there is none."""
    items = []
    for cell, name in enumerate(names):
        pictures = kept["x"][kept["stratum"] == cell]
        blank = kept["x"].new_zeros(1, *kept["x"].shape[1:])
        src = png(tile(pictures if len(pictures) else blank))
        caption = name if len(pictures) else f"{name}: none drawn"
        items.append({"src": src, "caption": caption, "mark": not len(pictures)})
    return items


def tile(pictures: Tensor, gap: int = 1) -> Tensor:
    """(C, H', W') one square tile of (N, C, H, W) pictures, N > 0, in rows, `gap` pixels apart.

    >>> tile(torch.ones(3, 1, 4, 4)).shape
    torch.Size([1, 9, 9])
    """
    n, channels, high, wide = pictures.shape
    side = ceil(sqrt(n))
    out = pictures.new_zeros(channels, side * (high + gap) - gap, side * (wide + gap) - gap)
    for i, picture in enumerate(pictures):
        top, left = (i // side) * (high + gap), (i % side) * (wide + gap)
        out[:, top : top + high, left : left + wide] = picture
    return out
