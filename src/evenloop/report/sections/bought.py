"""The items that labels were bought for, round by round and cell by cell, to look through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenloop.record import Record
from evenloop.report.people import hidden
from evenloop.report.sections import Section
from evenloop.report.sections.samples import png
from evenloop.report.study import Study

ORDER = 61
ROUNDS_SHOWN = 10
TITLE = "Items that labels were bought for"


def build(study: Study) -> Section | None:
    """The section, for image studies whose loop acquires: the first seed's purchases."""
    seed, record = next(iter(study.records.items()))
    kept = _kept(record, study.folder)
    if not kept or "population" in study.first.counts:
        return None
    if why := hidden(study.config):
        return Section(TITLE, text=[why])
    places = np.unique(np.linspace(0, len(kept) - 1, ROUNDS_SHOWN).round().astype(int))
    rounds = [sorted(kept)[place] for place in places]
    classes = study.first.counts["train"].classes
    groups = [
        {
            "title": f"round {round}, {_spread(kept[round], _cells(record, round))}",
            "items": _items(kept[round], classes, _cells(record, round)),
            "folded": place > 0,
        }
        for place, round in enumerate(rounds)
    ]
    return Section(
        TITLE,
        text=[
            f"Of seed {seed}, the first items of a round in the order they were asked about, "
            "sorted by cell. A dashed frame marks a label that is not the true one."
        ],
        images=groups,
    )


def _kept(record: Record, folder: Path) -> dict[int, dict[str, Tensor]]:
    """The items kept of every round that bought some."""
    files = sorted((Path(record.folder or folder) / "samples").glob("*.pt"))
    loaded = {int(file.stem): torch.load(file, weights_only=True) for file in files}
    return {round: kept for round, kept in loaded.items() if "cell" in kept}


def _cells(record: Record, round: int) -> list[str]:
    """Names of the (class, group) cells, by code, as the round noted them."""
    row = next(row for row in record.rows if row.round == round)
    names = [n.removeprefix("enrichment.") for n in row.values if n.startswith("enrichment.")]
    return [name for name in names if name != "rare"]


def _spread(kept: Mapping[str, Tensor], names: Sequence[str]) -> str:
    """How many of the items are of each cell, in words."""
    count = torch.bincount(kept["cell"], minlength=len(names)).tolist()
    told = [f"{n} {name}" for n, name in zip(count, names, strict=True) if n]
    return f"{len(kept['cell'])} shown: {', '.join(told)}"


def _items(
    kept: Mapping[str, Tensor], classes: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    items = []
    for i in torch.argsort(kept["cell"], stable=True).tolist():
        wrong = bool(kept["y"][i] != kept["truth"][i])
        caption = names[int(kept["cell"][i])]
        if wrong:
            caption += f", labelled {classes[int(kept['y'][i])]}"
        items.append({"src": png(kept["x"][i]), "caption": caption, "mark": wrong})
    return items
