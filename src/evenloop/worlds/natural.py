"""Photographs of ten or a hundred kinds of things: CIFAR-10, CIFAR-100 and CINIC-10.

References: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009); Darlow,
Crowley, Antoniou, Storkey, CINIC-10 is not ImageNet or CIFAR-10, arXiv 1810.03505; Taori,
Hashimoto, Data Feedback Loops, arXiv 2209.03942 (the moments of CINIC-10, and its `compat`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evenloop.data import GroupedData
from evenloop.worlds.base import (
    Card,
    Normalisation,
    Source,
    cached,
    check_choice,
    find_file,
    find_root,
)
from evenloop.worlds.batches import Batch, read_binary_batch, read_python_batch
from evenloop.worlds.columns import Coded, check_codes, code_labels, need_columns, read_table
from evenloop.worlds.frames import assemble, picture
from evenloop.worlds.images import decode
from evenloop.worlds.layout import scan
from evenloop.worlds.vocabulary import (
    CIFAR10_CLASSES,
    CIFAR100_CLASSES,
    CIFAR100_SUPERCLASSES,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CIFAR10", "CIFAR100", "CINIC10"]

CIFAR_MOMENTS = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
CINIC_MOMENTS = (
    (0.47889522, 0.47227842, 0.43047404),
    (0.24205776, 0.23828046, 0.25874835),
)
SPLITS = ("all", "train", "test")
CINIC_SPLITS = ("train", "valid", "test")
CINIC_FOLDERS = ("airplane", "automobile", *CIFAR10_CLASSES[2:])
_CIFAR_HOME = "the CIFAR home page at the University of Toronto (binary version, no pickle)"
_CIFAR_LICENCE = "none stated; for research, cite Krizhevsky 2009"
_NO_GROUPS = "none; the classes are the groups of a study"


@dataclass(frozen=True, slots=True)
class _Files:
    """Where a CIFAR set keeps its batches: sub-folder, train files and test files, per format."""

    binary: tuple[str, tuple[str, ...], tuple[str, ...]]
    python: tuple[str, tuple[str, ...], tuple[str, ...]]
    keys: tuple[str, ...]


_FILES10 = _Files(
    (
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        ("test_batch.bin",),
    ),
    ("cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",)),
    ("labels",),
)
_FILES100 = _Files(
    ("cifar-100-binary", ("train.bin",), ("test.bin",)),
    ("cifar-100-python", ("train",), ("test",)),
    ("coarse_labels", "fine_labels"),
)


@dataclass(frozen=True, slots=True)
class CIFAR10:
    """CIFAR-10: uint8 N x 3 x 32 x 32 in ten classes, attribute "split".

    Attributes:
        root: folder of the official batches (binary or Python), or a Parquet table with columns
            image, label 0..9 and, if wanted, split; None for what `evenloop data get` fetched.
        split: "train", "test", or "all" (train, then test; a table keeps its own order).
        allow_pickle: read the Python batches. They are pickles; the reader runs none of their code.
        cache: folder that keeps the decoded pictures of a table, or None.
    """

    name: ClassVar[str] = "cifar10"
    about: ClassVar[Card] = Card(
        "CIFAR-10",
        "50,000 + 10,000 colour photographs of 32x32 pixels; the label is one of ten things",
        _CIFAR_LICENCE,
        _NO_GROUPS,
        _CIFAR_HOME,
    )

    root: Path | str | None = None
    split: Literal["all", "train", "test"] = "all"
    allow_pickle: bool = False
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)

    @property
    def normalisation(self) -> Normalisation | None:
        """The moments of the training pictures."""
        return CIFAR_MOMENTS

    def load(self) -> GroupedData:
        """Rows in file order. Raises what the readers in `batches` and `frames` raise."""
        root = find_root(self, self.root, "a folder of CIFAR-10 batches or a Parquet table")
        if root.is_file():
            return cached(self, self.cache, [root], lambda: _from_table(root, self.split))
        images, labels, split = _from_batches(self, root, _FILES10, self.split, self.allow_pickle)
        return assemble(images, check_codes(labels[0], CIFAR10_CLASSES, root), {"split": split})


@dataclass(frozen=True, slots=True)
class CIFAR100:
    """CIFAR-100: uint8 N x 3 x 32 x 32 in 100 classes, attributes "superclass" (20) and "split".

    Attributes:
        root: folder of the official files (binary or Python); None for what `evenloop data get`
            fetched.
        split: "train", "test", or "all" (train, then test).
        allow_pickle: read the Python files. They are pickles; the reader runs none of their code.
    """

    name: ClassVar[str] = "cifar100"
    about: ClassVar[Card] = Card(
        "CIFAR-100",
        "50,000 + 10,000 colour photographs of 32x32 pixels; the label is one of 100 things",
        _CIFAR_LICENCE,
        "superclass: 20 sets of five classes, made by its authors",
        _CIFAR_HOME,
    )

    root: Path | str | None = None
    split: Literal["all", "train", "test"] = "all"
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)

    @property
    def normalisation(self) -> Normalisation | None:
        """The moments in use for CIFAR-100."""
        return (0.507, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)

    def load(self) -> GroupedData:
        """Rows in file order. Raises what the readers in `batches` raise."""
        root = find_root(self, self.root, "a folder with CIFAR-100's train and test files")
        images, labels, split = _from_batches(self, root, _FILES100, self.split, self.allow_pickle)
        coarse = check_codes(labels[0], CIFAR100_SUPERCLASSES, root)
        fine = check_codes(labels[1], CIFAR100_CLASSES, root)
        return assemble(images, fine, {"superclass": coarse, "split": split})


@dataclass(frozen=True, slots=True)
class CINIC10:
    """CINIC-10: uint8 N x 3 x 32 x 32 in CIFAR-10's classes, attribute "split".

    Attributes:
        root: folder with train, valid and test, each with ten class folders of .png files; None for
            what `evenloop data get` fetched.
        split: one of the three, or "all" (train, valid, test).
        compat: repeat a fault of the original feedback study: its pictures were normalised, cast to
            8 bits (times 255, modulo 256), and normalised again. `x` then holds the cast values.
        cache: folder that keeps the decoded pictures (270,000 small files are slow to open).
    """

    name: ClassVar[str] = "cinic10"
    about: ClassVar[Card] = Card(
        "CINIC-10",
        "270,000 colour photographs of 32x32 pixels from CIFAR-10 and ImageNet in three equal "
        "splits; the label is one of CIFAR-10's ten classes",
        "Creative Commons Attribution 4.0 (its own part); ImageNet's terms for the rest",
        _NO_GROUPS,
        "Edinburgh DataShare, record 10283/3192",
    )

    root: Path | str | None = None
    split: Literal["all", "train", "valid", "test"] = "all"
    compat: bool = False
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_choice("split", self.split, ("all", *CINIC_SPLITS))

    @property
    def normalisation(self) -> Normalisation | None:
        """The published moments; with `compat` they are applied to the cast values once more."""
        return CINIC_MOMENTS

    def load(self) -> GroupedData:
        """Rows by split, class and file name.

        Raises:
            FileNotFoundError: a split is missing.
            ValueError: the class folders are not the ten, or a picture is not 32 x 32.
        """
        import pandas as pd

        root = find_root(self, self.root, "a folder with train, valid and test")
        root = root / "CINIC-10" if (root / "CINIC-10").is_dir() else root
        wanted = CINIC_SPLITS if self.split == "all" else (self.split,)
        frames = [_cinic_split(self, root, part) for part in wanted]
        frame = pd.concat(frames, ignore_index=True)

        def make() -> GroupedData:
            paths = frame["path"].tolist()
            x = _thumbnails(decode([Path(p) for p in paths], paths), root)
            label = Coded(frame["label"].map(CINIC_FOLDERS.index).to_numpy(), CIFAR10_CLASSES)
            split = Coded(frame["split"].map(CINIC_SPLITS.index).to_numpy(), CINIC_SPLITS)
            return assemble(_cast_twice(x) if self.compat else x, label, {"split": split})

        return cached(self, self.cache, map(Path, frame["path"]), make)


def _from_batches(
    source: Source, root: Path, files: _Files, split: str, allow_pickle: bool
) -> tuple[NDArray[np.uint8], list[NDArray[np.int64]], Coded]:
    """Images, label columns and split codes of the batches of one format, binary if both exist."""
    kinds = (("binary", files.binary), ("python", files.python))
    places = [
        (kind, place, names)
        for kind, names in kinds
        for place in (root, root / names[0])
        if any((place / file).is_file() for file in (*names[1], *names[2]))
    ]
    if not places:
        find_file(source, root, files.binary[1][0], files.python[1][0])
    kind, place, (_, train, test) = places[0]
    if kind == "python" and not allow_pickle:
        raise ValueError(
            f"the batches in {place} are Python pickles. Give allow_pickle=true to read them by "
            "a reader that runs none of their code, or use the binary version of the data set"
        )
    wanted = [(f, 0) for f in train if split != "test"] + [(f, 1) for f in test if split != "train"]
    batches: list[Batch] = []
    codes: list[int] = []
    for file, code in wanted:
        path = find_file(source, place, file)
        binary = kind == "binary"
        batch = (
            read_binary_batch(path, len(files.keys))
            if binary
            else read_python_batch(path, files.keys)
        )
        batches.append(batch)
        codes.extend([code] * len(batch.images))
    images = np.concatenate([b.images for b in batches])
    labels = [np.concatenate(column) for column in zip(*(b.labels for b in batches), strict=True)]
    return images, labels, Coded(np.asarray(codes), ("train", "test"))


def _from_table(path: Path, split: str) -> GroupedData:
    frame = read_table(path)
    need_columns(frame, ["image", "label"], str(path))
    if split != "all":
        need_columns(frame, ["split"], str(path))
        frame = frame[frame["split"].astype(str) == split]
        if not len(frame):
            raise ValueError(f"{path} has no row whose split is {split!r}")
    label = code_labels(frame["label"], "label", CIFAR10_CLASSES)
    known = {"split": code_labels(frame["split"], "split", SPLITS[1:])} if "split" in frame else {}
    items = [picture(cell, path.parent, i) for i, cell in enumerate(frame["image"].tolist())]
    x = decode(items, [f"row {i} of {path}" for i in frame.index])
    return assemble(_thumbnails(x, path), label, known)


def _thumbnails(x: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    if x.shape[1:] != (3, 32, 32):
        raise ValueError(f"pictures in {path} are {x.shape[2]} x {x.shape[3]}, not 32 x 32")
    return x


def _cinic_split(source: Source, root: Path, part: str) -> pd.DataFrame:
    if not (root / part).is_dir():
        raise FileNotFoundError(
            f"{source.name}: {root} has no folder {part!r}; where it may be found: "
            f"{source.about.home}"
        )
    frame = scan(root / part)
    found = sorted(set(frame["label"]))
    if found != sorted(CINIC_FOLDERS):
        raise ValueError(
            f"{root / part} must hold the class folders {', '.join(CINIC_FOLDERS)}; it holds "
            f"{', '.join(found)}. For other classes use the world 'folder'"
        )
    return frame.assign(split=part)


def _cast_twice(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Normalise, times 255, drop the fraction, modulo 256: a look-up table per channel."""
    mean, deviation = (np.asarray(m, np.float32)[:, None] for m in CINIC_MOMENTS)
    level = np.arange(256, dtype=np.float32) / np.float32(255)
    wrapped = (np.trunc((level - mean) / deviation * 255).astype(np.int64) & 255).astype(np.uint8)
    return np.stack([wrapped[c][x[:, c]] for c in range(3)], axis=1)
