"""Faces with annotated or declared attributes: UTKFace and FairFace.

Research sets of real people: show no single face in a report, and read the annotations as what
they are, guesses about how a person is seen. References: Zhang, Song, Qi, Age
Progression/Regression by CAAE, CVPR 2017 (UTKFace); Karkkainen, Joo, FairFace, WACV 2021.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from evenloop.data import GroupedData
from evenloop.worlds.base import (
    Card,
    Normalisation,
    cached,
    check_choice,
    check_size,
    find_file,
    find_root,
)
from evenloop.worlds.columns import Coded, code, code_labels, need_columns, read_table
from evenloop.worlds.frames import assemble, picture
from evenloop.worlds.images import decode

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FairFace", "UTKFace"]

IMAGENET_MOMENTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TARGETS = ("race", "gender", "age")
UTK_RACES = ("White", "Black", "Asian", "Indian", "Other")
UTK_GENDERS = ("male", "female")
FAIR_RACES = (
    "East Asian", "Indian", "Black", "White", "Middle Eastern", "Latino_Hispanic",
    "Southeast Asian",
)  # fmt: skip
FAIR_GENDERS = ("Male", "Female")
FAIR_AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
FAIR_SPLITS = ("train", "val")
STUDY_SPLITS = ("train", "validation", "test")
STUDY_TEST_ROWS = 10_954
"""First rows of the training list that the generator-feedback study tests on."""
UTK_SPLITS = ("train", "test")
UTK_SEED, UTK_TEST_SHARE = 1357, 0.2
"""UTKFace has no official split; these make the one of Hashemizadeh et al. (ICLR 2024)."""

_log = logging.getLogger(__name__)
_UTK_NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_.*\.jpe?g", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UTKFace:
    """UTKFace: uint8 N x 3 x H x W, attributes "gender", "race", "age" (in bins), maybe "split".

    Attributes:
        root: folder of `age_gender_race_date.jpg` files (also with a sub-folder UTKFace), or a
            Parquet table with columns image, age, gender and race.
        target: which of the three is the label.
        age_edges: ascending ages; bin i holds ages in [edge i-1, edge i).
        splits: "none", or "published": a "split" of train and test, the fifth that Hashemizadeh et
            al. (ICLR 2024) hold out. Theirs on the full set of files; of a table or a part of the
            files it is a fixed fifth as well, of other faces.
        resize: side of the square every face is stretched to; needed if sizes differ.
        cache: folder that keeps the decoded pictures, or None.
    """

    name: ClassVar[str] = "utkface"
    about: ClassVar[Card] = Card(
        "UTKFace",
        "23,705 usable face pictures of 200x200 pixels, aligned and cropped",
        "non-commercial research only",
        "age, gender (two values) and race (five) estimated by a model and checked by annotators, "
        "not declared by the people shown",
        "the UTKFace home page of Zhang, Song and Qi; files age_gender_race_date.jpg",
        people=True,
    )

    root: Path | str | None = None
    target: Literal["race", "gender", "age"] = "race"
    age_edges: tuple[float, ...] = (10, 15, 20, 25, 30, 40, 50, 60)
    splits: Literal["none", "published"] = "none"
    resize: int | None = None
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGETS)
        check_choice("splits", self.splits, ("none", "published"))
        check_size("resize", self.resize)
        if not self.age_edges or list(self.age_edges) != sorted(set(self.age_edges)):
            raise ValueError(f"age_edges must be ascending ages, got {self.age_edges!r}")

    @property
    def normalisation(self) -> Normalisation | None:
        """ImageNet's moments, as in the published studies on this set."""
        return IMAGENET_MOMENTS

    def load(self) -> GroupedData:
        """Rows sorted by file name; a table keeps its order.

        A file whose name lacks one of the three codes is left out: the log has their number and
        `broken` lists them.

        Raises:
            ValueError: no usable picture, an attribute out of range, or sizes that differ.
        """
        root = find_root(self, self.root, "a folder of age_gender_race_date.jpg files or a table")
        if root.is_file():
            return cached(self, self.cache, [root], lambda: self._from_table(root))
        paths, matches, broken = _utk_files(root)
        if broken:
            _log.warning(
                "utkface: left out %d of %d files whose names lack age, gender or race: %s",
                len(broken), len(broken) + len(paths), ", ".join(broken[:5]),
            )  # fmt: skip
        if not paths:
            raise ValueError(f"{root} holds no file named like age_gender_race_date.jpg")

        def make() -> GroupedData:
            import pandas as pd

            codes = [tuple(map(int, m.groups())) for m in matches]
            frame = pd.DataFrame(codes, columns=["age", "gender", "race"])
            return self._assemble(frame, paths, [str(p) for p in paths])

        return cached(self, self.cache, paths, make)

    def broken(self) -> tuple[str, ...]:
        """The picture files that `load` leaves out because their names lack a code."""
        root = find_root(self, self.root, "a folder of age_gender_race_date.jpg files or a table")
        return () if root.is_file() else tuple(_utk_files(root)[2])

    def _from_table(self, path: Path) -> GroupedData:
        frame = read_table(path)
        need_columns(frame, ["image", "age", "gender", "race"], str(path))
        items = [picture(cell, path.parent, i) for i, cell in enumerate(frame["image"].tolist())]
        return self._assemble(frame, items, [f"row {i} of {path}" for i in range(len(items))])

    def _assemble(
        self, frame: pd.DataFrame, items: Sequence[bytes | Path], names: Sequence[str]
    ) -> GroupedData:
        coded = {
            "gender": code_labels(frame["gender"], "gender", UTK_GENDERS),
            "race": code_labels(frame["race"], "race", UTK_RACES),
            "age": code(frame["age"], "age", self.age_edges),
        }
        if self.splits == "published":
            coded["split"] = _published_split(len(frame))
        return assemble(decode(items, names, resize=self.resize), coded[self.target], coded)


def _published_split(rows: int) -> Coded:
    """A fifth, rounded down, of a permutation that never changes is test; rows sorted by name."""
    # NumPy's old generator on purpose: its stream is frozen, and the authors drew from it.
    order = np.random.RandomState(UTK_SEED).permutation(rows)
    codes = np.zeros(rows, dtype=np.int64)
    codes[order[: int(UTK_TEST_SHARE * rows)]] = 1
    return Coded(codes, UTK_SPLITS)


def _utk_files(root: Path) -> tuple[list[Path], list[re.Match[str]], list[str]]:
    """Usable files and their codes, and the names of unusable ones; sorted by name."""
    folder = root / "UTKFace" if (root / "UTKFace").is_dir() else root
    files = sorted(
        (p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg") and p.name[0] != "."),
        key=lambda p: p.name,
    )
    matched = [(p, _UTK_NAME.fullmatch(p.name)) for p in files]
    usable = [(p, m) for p, m in matched if m is not None]
    broken = [p.name for p, m in matched if m is None]
    return [p for p, _ in usable], [m for _, m in usable], broken


@dataclass(frozen=True, slots=True)
class FairFace:
    """FairFace: uint8 N x 3 x H x W, attributes "gender", "race", "age" (in bins) and "split".

    Attributes:
        root: folder of fairface_label_train.csv, fairface_label_val.csv and the folders train and
            val they name.
        target: which of race, gender and age is the label.
        split: "train", "val", or "all" (train, then val).
        ages: "bins" (the nine of the set) or "binary" (0-29 and 30 or more), with which gender,
            race and age make the 28 strata of Wyllie, Shumailov and Papernot (FAccT 2024).
        splits: "official", or "study": of the training list the first 10,954 rows are the test
            rows, and the official validation list validates; with split="all".
        resize: side of the square every face is stretched to.
        cache: folder that keeps the decoded pictures, or None.
    """

    name: ClassVar[str] = "fairface"
    about: ClassVar[Card] = Card(
        "FairFace",
        "86,744 + 10,954 face pictures of 224x224 pixels (padding 0.25)",
        "Creative Commons Attribution 4.0",
        "race (seven), gender (two) and age (nine bins) as seen by three crowd workers each, not "
        "declared by the people shown",
        "the repository FairFace of Joo Jungseock; two CSV files and an archive of pictures",
        people=True,
    )

    root: Path | str | None = None
    target: Literal["race", "gender", "age"] = "race"
    split: Literal["all", "train", "val"] = "all"
    ages: Literal["bins", "binary"] = "bins"
    splits: Literal["official", "study"] = "official"
    resize: int | None = None
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGETS)
        check_choice("split", self.split, ("all", *FAIR_SPLITS))
        check_choice("ages", self.ages, ("bins", "binary"))
        check_choice("splits", self.splits, ("official", "study"))
        if self.splits == "study" and self.split != "all":
            raise ValueError(
                f"splits='study' cuts the training list and needs split='all', got {self.split!r}"
            )
        check_size("resize", self.resize)

    @property
    def normalisation(self) -> Normalisation | None:
        """ImageNet's moments, as in the published studies on this set."""
        return IMAGENET_MOMENTS

    def load(self) -> GroupedData:
        """Rows in the order of the CSV files.

        Raises:
            FileNotFoundError: a CSV file is missing.
            ValueError: a column is missing, a value is unknown, or a picture cannot be read.
        """
        import pandas as pd

        root = find_root(self, self.root, "a folder with fairface_label_train.csv")
        parts = []
        for split in FAIR_SPLITS if self.split == "all" else (self.split,):
            table = find_file(self, root, f"fairface_label_{split}.csv")
            part = read_table(table)
            need_columns(part, ["file", "age", "gender", "race"], str(table))
            parts.append(part.assign(split=split))
        frame = pd.concat(parts, ignore_index=True)
        paths = [root / file for file in frame["file"].astype(str)]

        def make() -> GroupedData:
            coded: dict[str, Coded] = {
                "gender": code_labels(frame["gender"], "gender", FAIR_GENDERS),
                "race": code_labels(frame["race"], "race", FAIR_RACES),
                "age": _ages(code_labels(frame["age"], "age", FAIR_AGES), self.ages),
                "split": _splits(code_labels(frame["split"], "split", FAIR_SPLITS), self.splits),
            }
            x = decode(paths, [str(p) for p in paths], resize=self.resize)
            return assemble(x, coded[self.target], coded)

        return cached(self, self.cache, (p for p in paths if p.exists()), make)


def _ages(age: Coded, ages: str) -> Coded:
    """The nine bins, or 0 up to "20-29" and 1 from "30-39" on."""
    if ages == "bins":
        return age
    return Coded((age.codes > FAIR_AGES.index("20-29")).astype(np.int64), ("0-29", "30 or more"))


def _splits(split: Coded, splits: str) -> Coded:
    """The official splits, or those of the generator-feedback study; train comes before val."""
    if splits == "official":
        return split
    early = np.arange(len(split.codes)) < STUDY_TEST_ROWS
    return Coded(np.where(split.codes == 1, 1, np.where(early, 2, 0)), STUDY_SPLITS)
