"""A few rows of every round whose labels have structure, in words: who wrote them, what people say.

What may offend is folded away until a reader asks for it.
"""

from __future__ import annotations

from typing import Any

import torch

from evenloop.report.people import hidden
from evenloop.report.sections import Section
from evenloop.report.sections.samples import few_rounds, kept_files, png, who
from evenloop.report.study import Study

ORDER = 61
EACH = 8


def build(study: Study) -> Section | None:
    """The section, where labels have structure: the first seed's new rows of a few rounds."""
    seed, files = kept_files(study)
    if not files or "shown" not in torch.load(files[0], weights_only=True):
        return None
    why = hidden(study.config)
    rounds = few_rounds(files)
    groups = [{"title": t, "items": _items(kept, pictures=why is None)} for t, kept in rounds]
    text = [
        f"New training rows of seed {seed}, drawn at random, with who wrote them. Where it was a "
        "model, what people say of the same row stands below."
    ]
    if why and rounds[0][1]["x"].dim() == 4:
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
