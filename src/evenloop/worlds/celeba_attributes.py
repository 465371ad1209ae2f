"""CelebA with any attribute as label and any as groups (Liu, Luo, Wang, Tang, ICCV 2015).

Real, identifiable people, labelled by annotators' impressions: show no single face, and read
"Attractive" and "Male" as what they are, judgements made about a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.worlds.base import (
    Card,
    Normalisation,
    cached,
    check_choice,
    check_size,
    find_file,
    find_root,
)
from evenloop.worlds.images import decode

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CelebAAttributes"]

SPLITS = ("train", "validation", "test")
PARTS = ("all", *SPLITS)


@dataclass(frozen=True, slots=True)
class CelebAAttributes:
    """Aligned celebrity faces: uint8 N x 3 x size x size; one attribute as label, others as groups.

    Attributes:
        root: folder with `list_attr_celeba.txt`, `list_eval_partition.txt` and the pictures in
            `img_align_celeba/`.
        target: the attribute that is the label.
        groups: attributes that are group columns; "split" is added to them.
        split: which official part; "all" is 162,770 + 19,867 + 19,962 rows.
        size: side of the square every picture is stretched to (the aspect is not kept).
        limit: at most this many rows of the part, the first in file order; None for all. All rows
            at 128 pixels take 10 GB.
        cache: folder that keeps the decoded pictures, or None.
    """

    name: ClassVar[str] = "celeba-attributes"
    about: ClassVar[Card] = Card(
        "CelebA (aligned and cropped), any attributes",
        "202,599 pictures of 10,177 celebrities with 40 yes/no attributes",
        "non-commercial research only",
        "each attribute, 'Male' included, is an annotator's judgement of the picture; none was "
        "declared by the people shown",
        "the CelebA page of Liu, Luo, Wang and Tang; img_align_celeba.zip and the two lists",
        people=True,
    )

    root: Path | str | None = None
    target: str = "Attractive"
    groups: tuple[str, ...] = ("Male",)
    split: str = "all"
    size: int = 128
    limit: int | None = None
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_choice("split", self.split, PARTS)
        check_size("size", self.size)
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, or None for all rows, got {self.limit}")
        if self.target in self.groups or len(set(self.groups)) != len(self.groups):
            raise ValueError(
                f"target={self.target!r} and groups={self.groups} must all be different"
            )

    @property
    def normalisation(self) -> Normalisation | None:
        """Nothing is taken off: the study's models see pixels in [0, 1]."""
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def load(self) -> GroupedData:
        """Rows in file order.

        Raises:
            FileNotFoundError: a list or a picture is missing.
            ValueError: an attribute or a list is not as it should be.
        """
        root = find_root(self, self.root, "a folder with list_attr_celeba.txt")
        attributes = find_file(self, root, "list_attr_celeba.txt", "Anno/list_attr_celeba.txt")
        parts = find_file(self, root, "list_eval_partition.txt", "Eval/list_eval_partition.txt")
        frame = self._rows(attributes, parts)
        folder = root / "img_align_celeba"
        nested = folder / "img_align_celeba"
        folder = nested if nested.is_dir() else folder
        paths = [folder / name for name in frame.index]

        def make() -> GroupedData:
            pixels = decode(paths, [str(p) for p in paths], resize=self.size)
            columns = {name: np.array(frame[name]) for name in (*self.groups, "split")}
            schema = Schema(
                (f"not {self.target}", self.target),
                (*(Attribute(g, (f"not {g}", g)) for g in self.groups), Attribute("split", SPLITS)),
            )
            return GroupedData.of(pixels, np.array(frame[self.target]), columns, schema)

        return cached(self, self.cache, [attributes, parts], make)

    def _rows(self, attributes: Path, parts: Path) -> pd.DataFrame:
        """Label, groups and split of the wanted rows, 0/1 codes, indexed by file name."""
        import pandas as pd

        table = pd.read_csv(attributes, sep=r"\s+", skiprows=1, header=0)
        for name in (self.target, *self.groups):
            check_choice("attribute", name, tuple(map(str, table.columns)))
        wanted = table[[self.target, *self.groups]]
        if not wanted.isin((-1, 1)).all(axis=None):
            raise ValueError(f"{attributes}: attributes must be -1 or 1")
        split = pd.read_csv(parts, sep=r"\s+", header=None, index_col=0)[1]
        lacking = wanted.index.difference(split.index)
        if len(lacking):
            raise ValueError(f"{parts} does not name {len(lacking)} pictures, first {lacking[0]}")
        frame = (wanted == 1).astype(np.int64).assign(split=split.reindex(wanted.index))
        if not frame["split"].isin((0, 1, 2)).all():
            raise ValueError(
                f"{parts}: the partition must be 0 (train), 1 (validation) or 2 (test)"
            )
        if self.split != "all":
            frame = frame[frame["split"] == SPLITS.index(self.split)]
        frame = frame if self.limit is None else frame.head(self.limit)
        if not len(frame):
            raise ValueError(f"{attributes} lists no picture of split={self.split!r}")
        return frame
