"""A few rows of every round whose labels have structure, in words: who wrote them, what people say.

What may offend is folded away until a reader asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from evenloop.report.people import hidden
from evenloop.report.sections import Section
from evenloop.report.sections.samples import png, who
from evenloop.report.study import Study

ORDER = 61
ROUNDS_SHOWN = 4
EACH = 8


def build(study: Study) -> Section | None:
    """The section, where labels have structure: the first seed's new rows of a few rounds."""
    seed, record = next(iter(study.records.items()))
    folder = Path(record.folder or study.folder) / "samples"
    files = sorted(folder.glob("*.pt")) if folder.exists() else []
    if not files or "shown" not in torch.load(files[0], weights_only=True):
        return None
    why = hidden(study.config)
    places = np.unique(np.linspace(0, len(files) - 1, ROUNDS_SHOWN).round().astype(int))
    groups = [
        {
            "title": f"round {int(files[place].stem)}",
            "items": _items(torch.load(files[place], weights_only=True), pictures=why is None),
        }
        for place in places
    ]
    text = [
        f"New training rows of seed {seed}, drawn at random, with who wrote them. Where it was a "
        "model, what people say of the same row stands below."
    ]
    if why and torch.load(files[0], weights_only=True)["x"].dim() == 4:
        text.append(why)
    return Section("Rows that entered, in words", text=text, texts=groups)


def _items(kept: dict[str, Any], *, pictures: bool) -> list[dict[str, Any]]:
    pictures = pictures and kept["x"].dim() == 4
    items = []
    for i in range(min(EACH, len(kept["y"]))):
        said, people = kept["shown"][i], kept["shown_truth"][i]
        items.append(
            {
                "src": png(kept["x"][i]) if pictures else "",
                "said": said,
                "people": "" if said == people else people,
                "by": who(int(kept["origin"][i]), int(kept["born"][i])),
                "hidden": bool(kept["hidden"][i]),
            }
        )
    return items
