"""Pictures of the user: a folder tree, or a CSV, JSON lines or Parquet manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from evenloop.data import GroupedData
from evenloop.digest import row_digest
from evenloop.samplers.cells import SPLIT
from evenloop.worlds.base import Card, Normalisation, cached, check_size, find_root
from evenloop.worlds.columns import need_columns, read_table
from evenloop.worlds.frames import images_from_frame, picture
from evenloop.worlds.layout import check_layout, read_vocabulary, scan, translated
from evenloop.worlds.listing import listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImageFolder", "Manifest"]

_YOURS = "yours to state"
_YOUR_GROUPS = "the columns or folder levels you name; say how they were obtained"


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Every picture below a folder; directory names give the class and, if asked, groups.

    Attributes:
        root: the folder.
        layout: what each directory level below `root` is called, from the top. The name that is
            the `target` is the class; others become attributes: "{split}/{label}",
            "{sex}_{age}/{label}". "*" stands for anything; "{sex}/{age}/*" ends in the pictures.
            A level {source} says real or generated.
        target: the name in the layout that is the label.
        vocabulary: what the tokens of folder names mean, see `layout.read_vocabulary`: a file or a
            mapping, for some names of the layout or all. Without one a token is its own value.
        classes: class names in the order of their codes; by default those found, sorted.
        resize: side of the square every picture is stretched to; needed if sizes differ.
        gray: one channel instead of three.
        cache: folder that keeps the decoded pictures, or None.
    """

    name: ClassVar[str] = "folder"
    about: ClassVar[Card] = Card(
        "Image folder",
        "any folder with a directory of pictures per class",
        _YOURS,
        _YOUR_GROUPS,
        "your own disk",
        people=True,
    )

    root: Path | str
    layout: str = "{label}"
    target: str = "label"
    vocabulary: Path | str | Mapping[str, Any] | None = None
    classes: tuple[str, ...] = ()
    resize: int | None = None
    gray: bool = False
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_size("resize", self.resize)
        check_layout(self.layout, self.target)

    @property
    def normalisation(self) -> Normalisation | None:
        """None: measure it on the rows you train on with `images.pixel_moments`."""
        return None

    def load(self) -> GroupedData:
        """Rows sorted by path. Raises what `scan` and `frames.images_from_frame` raise.

        Raises:
            ValueError: with a level {split}, a picture lies in two splits.
        """
        root = find_root(self, self.root, "a folder of pictures")
        frame = scan(root, self.layout, self.target)
        frame, values = translated(frame, read_vocabulary(self.vocabulary))
        aside = ("path", self.target, "source")
        groups = [c for c in frame.columns if c not in aside]

        def make() -> GroupedData:
            return images_from_frame(
                frame,
                target=self.target,
                image="path",
                groups=groups,
                classes=self.classes or values.get(self.target, ()),
                resize=self.resize,
                gray=self.gray,
                vocabulary=values,
                where=str(root),
            )

        files = [*map(Path, frame["path"]), *self._said()]
        data = _apart(cached(self, self.cache, files, make), frame["path"])
        return listed(data, frame, str(root), source="source" if "source" in frame else "")

    def _said(self) -> list[Path]:
        """The file of the vocabulary, if it is one: what is kept depends on it, too."""
        given = self.vocabulary
        return [Path(given).expanduser()] if isinstance(given, (str, Path)) else []


@dataclass(frozen=True, slots=True)
class Manifest:
    """Pictures listed in a CSV, JSON lines or Parquet table, with a label and any group columns.

    The columns "split" (train, val, test), "source" (real, generated) and "weight" (a positive
    number, by which rows of one cell are drawn) are read where the table has them.

    Attributes:
        path: the table; .csv, .tsv, .jsonl (also .gz) or .parquet.
        target: the label column.
        image: the column of paths or, in Parquet, of encoded bytes (also as {bytes, path}); by
            default "image" or else "path".
        groups: group columns; "age:25,45" puts a number in bins.
        split, source, weight: what these columns are called; "" leaves one unread.
        classes: class names in the order of their codes; by default those found, sorted.
        root: folder that relative paths start from; by default the table's own.
        resize: side of the square every picture is stretched to; needed if sizes differ.
        gray: one channel instead of three.
        cache: folder that keeps the decoded pictures, or None.
    """

    name: ClassVar[str] = "manifest"
    about: ClassVar[Card] = Card(
        "Manifest of pictures",
        "any CSV, JSON lines or Parquet table with a picture, label and groups in each row",
        _YOURS,
        _YOUR_GROUPS,
        "your own disk",
        people=True,
    )

    path: Path | str
    target: str = "label"
    image: str = ""
    groups: tuple[str, ...] = ()
    split: str = "split"
    source: str = "source"
    weight: str = "weight"
    classes: tuple[str, ...] = ()
    root: Path | str | None = None
    resize: int | None = None
    gray: bool = False
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_size("resize", self.resize)

    @property
    def normalisation(self) -> Normalisation | None:
        """None: measure it on the rows you train on with `images.pixel_moments`."""
        return None

    def load(self) -> GroupedData:
        """Rows in the table's order. Raises what `images_from_frame` and `listing.listed` raise.

        Raises:
            ValueError: a picture lies in two splits.
        """
        path = Path(self.path).expanduser()
        frame = read_table(path)
        base = path.parent if self.root is None else Path(self.root).expanduser()
        image = self.image or ("image" if "image" in frame or "path" not in frame else "path")
        need_columns(frame, [image], str(path))

        def make() -> GroupedData:
            return images_from_frame(
                frame,
                target=self.target,
                image=image,
                groups=self.groups,
                classes=self.classes,
                base=base,
                resize=self.resize,
                gray=self.gray,
                where=str(path),
            )

        made = cached(self, self.cache, (path, *_files(frame[image], base)), make)
        named = {k: getattr(self, k) for k in ("split", "source", "weight")}
        there = {k: name for k, name in named.items() if name != k or name in frame}
        return _apart(listed(made, frame, str(path), **there), frame[image])


def _apart(data: GroupedData, cells: pd.Series) -> GroupedData:
    """The rows, if no picture of one split is, to the last bit, also in another."""
    if SPLIT not in (a.name for a in data.schema.attributes):
        return data
    splits, kept = data.attribute(SPLIT).tolist(), data.schema.column(SPLIT)
    values = data.schema.attributes[kept].values
    seen: dict[bytes, int] = {}
    for i, row in enumerate(data.x):
        first = seen.setdefault(row_digest(row.numpy()), i)
        if splits[first] != splits[i]:
            there, here = (
                f"{_named(cells.iloc[place], place)} in split {values[splits[place]]!r}"
                for place in (first, i)
            )
            raise ValueError(
                f"{there} and {here} are the same picture; remove one, or what is audited was "
                "trained on"
            )
    return data


def _named(cell: object, place: int) -> str:
    return cell if isinstance(cell, str) else f"row {place}"


def _files(cells: pd.Series, base: Path) -> Iterator[Path]:
    """The picture files a manifest names and that exist; a missing one is an error on reading."""
    items = (picture(cell, base, i) for i, cell in enumerate(cells.tolist()))
    return (p for p in items if isinstance(p, Path) and p.exists())
