"""A few rows of every round as pictures: who labelled them, and what people would have said."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evenloop.data import Origin
from evenloop.report.people import hidden
from evenloop.report.sections import Section
from evenloop.report.study import Study

ORDER = 60
ROUNDS_SHOWN = 4
EACH = 16


def build(study: Study) -> Section | None:
    """The section, where rows are images: the first seed's new rows of a few rounds."""
    seed, files = kept_files(study)
    if not files or "shown" in torch.load(files[0], weights_only=True):
        return None  # labels with structure are shown in words
    if {"cell", "stratum"} & torch.load(files[-1], weights_only=True).keys():
        return None  # what was bought, and what a generator made, have sections of their own
    if why := hidden(study.config):
        return Section("Rows that entered", text=[why])
    classes = study.first.counts["train"].classes
    groups = [{"title": title, "items": _items(kept, classes)} for title, kept in few_rounds(files)]
    text = [
        f"New training rows of seed {seed}, drawn at random. A label a model wrote is marked with "
        "its round; where it is not the world's, the world's label stands after it."
    ]
    return Section("Rows that entered", text=text, images=groups)


def kept_files(study: Study) -> tuple[int, list[Path]]:
    """The first seed, and the files of its new rows that a report may show, by round."""
    seed, record = next(iter(study.records.items()))
    folder = Path(record.folder or study.folder) / "samples"
    return seed, sorted(folder.glob("*.pt")) if folder.exists() else []


def few_rounds(files: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
    """Title and rows of the first and the last round and of some between."""
    places = np.unique(np.linspace(0, len(files) - 1, ROUNDS_SHOWN).round().astype(int))
    chosen = [files[place] for place in places]
    return [(f"round {int(f.stem)}", torch.load(f, weights_only=True)) for f in chosen]


def _items(kept: dict[str, Tensor], classes: Sequence[str]) -> list[dict[str, Any]]:
    items = []
    for i in range(min(EACH, len(kept["y"]))):
        said, truth = classes[int(kept["y"][i])], classes[int(kept["truth"][i])]
        by = who(int(kept["origin"][i]), int(kept["born"][i]))
        wrong = said != truth
        caption = f"{said} ({by})" + (f", people: {truth}" if wrong else "")
        items.append({"src": png(kept["x"][i]), "caption": caption, "mark": wrong})
    return items


def who(origin: int, born: int) -> str:
    """Who made a label, in words."""
    names = {Origin.WORLD: "people", Origin.GENERATED: f"generated, round {born}"}
    return names.get(Origin(origin), f"model, round {born}")


def png(pixels: Tensor) -> str:
    """Pixels (C, H, W), uint8 or in [0, 1], as the address of a picture in the page itself."""
    array = pixels.numpy()
    if array.dtype != np.uint8:
        array = (np.clip(array, 0, 1) * 255).astype(np.uint8)
    array = array.transpose(1, 2, 0)
    if array.shape[2] == 2:
        array = np.concatenate([array, np.zeros_like(array[:, :, :1])], 2)
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array[:, :, :3])
    out = io.BytesIO()
    picture.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
