"""CelebA by its attribute table, and generated faces in folders named by their attributes.

Liu, Luo, Wang, Tang (2015), "Deep Learning Face Attributes in the Wild", ICCV. The positions of the
splits and attributes are those of the published table. The folder layout and the resizing are those
of Roh et al. (2023), "Dr-Fairness", TMLR. Pictures of real people: show no single face.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evenloop.data import Attribute, GroupedData, Origin, Schema
from evenloop.samplers.cells import SPLIT
from evenloop.words import nearest
from evenloop.worlds.base import (
    Card,
    Normalisation,
    cached,
    check_choice,
    find_file,
    find_root,
)
from evenloop.worlds.columns import Coded
from evenloop.worlds.layout import check_tokens, scan
from evenloop.worlds.listing import with_attribute

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["VALUES", "CelebA", "GeneratedFaces", "celeba_codes", "folder_codes", "squeeze"]

IMAGENET_MOMENTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
VALUES: Mapping[str, tuple[str, ...]] = {
    "gender": ("female", "male"),
    "age": ("old", "young"),
    "glasses": ("noglasses", "glasses"),
    "smiling": ("nosmile", "smile"),
    "haircolors": ("blackhair", "blondhair", "otherhair"),
}
"""Attribute -> names of its codes, which are also the tokens of generated folders."""
TARGETS = tuple(VALUES)
LAYOUT = "{age}_{gender}_{smiling}_{glasses}_{haircolors}"
SPLITS = (("train", 162_770), ("val", 19_867), ("test", 19_962))
_COLUMNS = {"gender": "Male", "age": "Young", "glasses": "Eyeglasses", "smiling": "Smiling"}


def celeba_codes(
    columns: Sequence[str], values: NDArray[np.integer[Any]]
) -> dict[str, NDArray[np.int64]]:
    """Attribute -> (N,) codes from the table's columns and its (N, M) values of -1 and 1.

    Hair is black, else blond, else other: black wins where both are marked.

    Raises:
        ValueError: a column is missing, or a value is neither -1 nor 1.

    >>> table = np.array([[1, -1, -1, 1, 1, 1]])
    >>> names = ["Male", "Young", "Eyeglasses", "Smiling", "Black_Hair", "Blond_Hair"]
    >>> {name: int(codes[0]) for name, codes in celeba_codes(names, table).items()}
    {'gender': 1, 'age': 0, 'glasses': 0, 'smiling': 1, 'haircolors': 0}
    """
    if not np.isin(values, (-1, 1)).all():
        row = int(np.argwhere(~np.isin(values, (-1, 1)))[0][0])
        raise ValueError(f"attribute values must be -1 or 1; row {row} holds another")
    at = {name: i for i, name in enumerate(columns)}
    for name in (*_COLUMNS.values(), "Black_Hair", "Blond_Hair"):
        if name not in at:
            raise ValueError(f"the table has no column {name!r}: {nearest(name, at)}")
    codes = {name: (values[:, at[c]] == 1).astype(np.int64) for name, c in _COLUMNS.items()}
    black, blond = values[:, at["Black_Hair"]] == 1, values[:, at["Blond_Hair"]] == 1
    codes["haircolors"] = np.where(black, 0, np.where(blond, 1, 2)).astype(np.int64)
    return codes


def folder_codes(
    found: Mapping[str, Sequence[str]], vocabulary: Mapping[str, Sequence[str]] = VALUES
) -> dict[str, NDArray[np.int64]]:
    """Attribute -> (N,) codes of the tokens that a folder layout gave for each picture.

    Raises:
        ValueError: an attribute or token is not in the vocabulary (named, with the nearest one).

    >>> folder_codes({"age": ["young", "old"]})["age"].tolist()
    [1, 0]
    """
    codes = {}
    for name, tokens in found.items():
        if name not in vocabulary:
            raise ValueError(f"no vocabulary for {name!r}: {nearest(name, vocabulary)}")
        known = {token: code for code, token in enumerate(vocabulary[name])}
        check_tokens(name, tokens, known)
        codes[name] = np.array([known[token] for token in tokens], np.int64)
    return codes


def squeeze(image: Picture, *, through: int = 64, to: int = 256, crop: int = 224) -> Any:
    """uint8 (3, crop, crop): the shorter side to `through`, then to `to` pixels, then the centre.

    Bilinear and antialiased. The detour hides that real and generated pictures differ in
    resolution.

    >>> from PIL import Image
    >>> squeeze(Image.new("RGB", (178, 218))).shape
    (3, 224, 224)
    """
    from PIL import Image

    image = image.convert("RGB")
    for side in (through, to):
        width, height = image.size
        short = min(width, height)
        size = (side * width // short, side * height // short)
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
    image = image.crop((left, top, left + crop, top + crop))
    return np.ascontiguousarray(np.asarray(image, np.uint8).transpose(2, 0, 1))


@dataclass(frozen=True, slots=True)
class CelebA:
    """CelebA: uint8 N x 3 x crop x crop; every other attribute of `VALUES` is a group column.

    Attributes:
        root: folder of list_attr_celeba.txt and img_align_celeba.
        target: the label, one of gender, age, glasses, smiling, haircolors.
        split: "train", "val", "test" by position in the table, or "all" with a column "split".
        limit: only the first rows of the split.
        through: side the shorter side is first brought to.
        to: side it is then brought to.
        crop: side of the square cut from the centre.
        cache: folder that keeps the decoded pictures, or None.
    """

    name: ClassVar[str] = "celeba"
    about: ClassVar[Card] = Card(
        "CelebA",
        "202,599 aligned celebrity pictures of 178x218 pixels with 40 binary attributes",
        "non-commercial research only",
        "marked by hired annotators on two values each, not declared by the people shown",
        "the CelebA home page of the Multimedia Laboratory, Chinese University of Hong Kong",
        people=True,
    )

    root: Path | str | None = None
    target: str = "age"
    split: Literal["train", "val", "test", "all"] = "train"
    limit: int | None = None
    through: int = 64
    to: int = 256
    crop: int = 224
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGETS)
        check_choice("split", self.split, ("all", *(name for name, _ in SPLITS)))
        _check_sides(self.through, self.to, self.crop)
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")

    @property
    def normalisation(self) -> Normalisation | None:
        """ImageNet's moments, as in the published study."""
        return IMAGENET_MOMENTS

    def load(self) -> GroupedData:
        """Rows in the table's order; `row` is the position in the whole table.

        Raises:
            FileNotFoundError: the table or the folder is missing.
            ValueError: the table is not in its published form, or a picture cannot be read.
        """
        root = find_root(self, self.root, "list_attr_celeba.txt and img_align_celeba")
        table = find_file(self, root, "list_attr_celeba.txt", "Anno/list_attr_celeba.txt")
        files, columns, values = _read_table(table)
        rows = _split(self.split, len(files))[: self.limit]
        codes = celeba_codes(columns, values[rows])
        paths = [root / "img_align_celeba" / files[i] for i in rows]

        def make() -> GroupedData:
            x = _pictures(paths, self.through, self.to, self.crop)
            return _assemble(x, codes, self.target, rows)

        data = cached(self, self.cache, [table, *(p for p in paths if p.exists())], make)
        if self.split != "all":
            return data
        ends = np.cumsum([size for _, size in SPLITS])
        names = tuple(name for name, _ in SPLITS)
        part = np.searchsorted(ends, rows, side="right").clip(max=len(names) - 1)
        return with_attribute(data, SPLIT, Coded(part.astype(np.int64), names))


@dataclass(frozen=True, slots=True)
class GeneratedFaces:
    """Generated pictures in folders named by attribute tokens, ready to append to `CelebA` rows.

    Attributes:
        root: the folder of folders.
        target: the label, as in `CelebA`.
        limit: at most so many pictures, evenly spread over the sorted paths and so over folders.
        layout: how folder names are made; every attribute of `VALUES` once.
        through: side the shorter side is first brought to.
        to: side it is then brought to.
        crop: side of the square cut from the centre.
        cache: folder that keeps the decoded pictures, or None.
    """

    name: ClassVar[str] = "generated-faces"
    about: ClassVar[Card] = Card(
        "Generated faces",
        "pictures in folders such as old_male_nosmile_glasses_blackhair",
        "that of the generator",
        "what the generator was asked for, which may not be what it made",
        "any conditional generator whose pictures are put into such folders",
        people=True,  # a generator can give back a face it was trained on
    )

    root: Path | str
    target: str = "age"
    limit: int | None = None
    layout: str = LAYOUT
    through: int = 64
    to: int = 256
    crop: int = 224
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_choice("target", self.target, TARGETS)
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        _check_sides(self.through, self.to, self.crop)
        for name in VALUES:
            if self.layout.count("{" + name + "}") != 1:
                raise ValueError(f"layout must hold {{{name}}} once, got {self.layout!r}")

    @property
    def normalisation(self) -> Normalisation | None:
        """ImageNet's moments, as for the real pictures."""
        return IMAGENET_MOMENTS

    def load(self) -> GroupedData:
        """Generated rows sorted by path.

        Raises:
            ValueError: a folder does not fit the layout, a token is unknown, or a picture cannot
                be read.
        """
        root = find_root(self, self.root, "a folder of folders of generated pictures")
        frame = scan(root, self.layout, self.target)
        if self.limit is not None and self.limit < len(frame):
            frame = frame.iloc[np.arange(self.limit) * len(frame) // self.limit]
        codes = folder_codes({name: frame[name].tolist() for name in VALUES})
        paths = [Path(p) for p in frame["path"]]

        def make() -> GroupedData:
            x = _pictures(paths, self.through, self.to, self.crop)
            return _assemble(x, codes, self.target, None)

        return cached(self, self.cache, paths, make)


def _check_sides(through: int, to: int, crop: int) -> None:
    for name, value in (("through", through), ("to", to), ("crop", crop)):
        if value < 1:
            raise ValueError(f"{name} must be a positive number of pixels, got {value}")
    if crop > to:
        raise ValueError(f"crop must be at most to={to}, got {crop}")


def _read_table(path: Path) -> tuple[list[str], list[str], NDArray[np.int8]]:
    """File names, the 40 attribute names and (N, 40) values."""
    lines = path.read_text().splitlines()
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise ValueError(f"{path} must begin with the number of rows and a line of 40 names")
    columns = lines[1].split()
    parts = [line.split() for line in lines[2:] if line.strip()]
    for i, part in enumerate(parts):
        if len(part) != len(columns) + 1:
            raise ValueError(f"{path}, line {i + 3}: {len(part) - 1} values for {len(columns)}")
    values = np.array([part[1:] for part in parts]).astype(np.int8)
    return [part[0] for part in parts], columns, values


def _split(split: str, rows: int) -> NDArray[np.int64]:
    """Positions of a split; a shortened table is cut at the same positions."""
    if split == "all":
        return np.arange(rows)
    start = 0
    for name, size in SPLITS:
        if name == split:
            part = np.arange(start, min(start + size, rows))
            if not len(part):
                raise ValueError(f"split {split!r} starts at row {start}, the table has {rows}")
            return part
        start += size
    raise ValueError(f"no split {split!r}")


def _pictures(paths: Sequence[Path], through: int, to: int, crop: int) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    out = np.empty((len(paths), 3, crop, crop), np.uint8)

    def read(i: int) -> None:
        try:
            with Image.open(paths[i]) as image:
                out[i] = squeeze(image, through=through, to=to, crop=crop)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise ValueError(
                f"{paths[i]} cannot be read as a picture ({error}); replace or remove it"
            ) from error

    _each(read, len(paths))
    return out


def _each(do: Callable[[int], None], n: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(do, range(n), chunksize=64):
            pass


def _assemble(
    x: NDArray[np.uint8],
    codes: Mapping[str, NDArray[np.int64]],
    target: str,
    rows: NDArray[np.int64] | None,
) -> GroupedData:
    import torch

    others = [name for name in VALUES if name != target]
    schema = Schema(VALUES[target], tuple(Attribute(name, VALUES[name]) for name in others))
    return GroupedData.of(
        torch.from_numpy(x),
        codes[target],
        {name: codes[name] for name in others},
        schema,
        origin=Origin.GENERATED if rows is None else Origin.WORLD,
        row=None if rows is None else torch.from_numpy(rows),
    )
