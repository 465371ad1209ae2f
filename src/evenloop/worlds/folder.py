"""Pictures of the user: a folder tree, or a CSV or Parquet manifest."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from evenloop.data import GroupedData
from evenloop.worlds.base import Card, Normalisation, cached, check_size, find_root
from evenloop.worlds.columns import need_columns, read_table
from evenloop.worlds.frames import images_from_frame, picture
from evenloop.worlds.generated import pixel_digest
from evenloop.worlds.images import SUFFIXES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImageFolder", "Manifest", "scan"]

_YOURS = "yours to state"
_YOUR_GROUPS = "the columns or folder levels you name; say how they were obtained"


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Every picture below a folder; directory names give the class and, if asked, groups.

    Attributes:
        root: the folder.
        layout: what each directory level below `root` is called, from the top. "{label}" is the
            class; other names become attributes: "{split}/{label}", "{sex}_{age}/{label}".
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
    classes: tuple[str, ...] = ()
    resize: int | None = None
    gray: bool = False
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_size("resize", self.resize)
        _level_patterns(self.layout)

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
        frame = scan(root, self.layout)
        groups = [c for c in frame.columns if c not in ("path", "label")]

        def make() -> GroupedData:
            return images_from_frame(
                frame,
                target="label",
                image="path",
                groups=groups,
                classes=self.classes,
                resize=self.resize,
                gray=self.gray,
                where=str(root),
            )

        return _apart(cached(self, self.cache, map(Path, frame["path"]), make), frame["path"])


@dataclass(frozen=True, slots=True)
class Manifest:
    """Pictures listed in a CSV or Parquet table, with a label and any group columns.

    Attributes:
        path: the table; .csv, .csv.gz, .tsv or .parquet.
        target: the label column.
        image: the column of paths or, in Parquet, of encoded bytes (also as {bytes, path}).
        groups: group columns; "age:25,45" puts a number in bins.
        classes: class names in the order of their codes; by default those found, sorted.
        root: folder that relative paths start from; by default the table's own.
        resize: side of the square every picture is stretched to; needed if sizes differ.
        gray: one channel instead of three.
        cache: folder that keeps the decoded pictures, or None.
    """

    name: ClassVar[str] = "manifest"
    about: ClassVar[Card] = Card(
        "Manifest of pictures",
        "any CSV or Parquet table with a picture, a label and group columns in each row",
        _YOURS,
        _YOUR_GROUPS,
        "your own disk",
        people=True,
    )

    path: Path | str
    target: str = "label"
    image: str = "image"
    groups: tuple[str, ...] = ()
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
        """Rows in the table's order. Raises what `frames.images_from_frame` raises.

        Raises:
            ValueError: with a group column "split", a picture lies in two splits.
        """
        path = Path(self.path).expanduser()
        frame = read_table(path)
        base = path.parent if self.root is None else Path(self.root).expanduser()
        need_columns(frame, [self.image], str(path))

        def make() -> GroupedData:
            return images_from_frame(
                frame,
                target=self.target,
                image=self.image,
                groups=self.groups,
                classes=self.classes,
                base=base,
                resize=self.resize,
                gray=self.gray,
                where=str(path),
            )

        made = cached(self, self.cache, (path, *_files(frame[self.image], base)), make)
        return _apart(made, frame[self.image])


def _apart(data: GroupedData, cells: pd.Series) -> GroupedData:
    """The rows, if no picture of one split is, to the last bit, also in another."""
    if "split" not in (a.name for a in data.schema.attributes):
        return data
    splits, kept = data.attribute("split").tolist(), data.schema.column("split")
    values = data.schema.attributes[kept].values
    seen: dict[bytes, int] = {}
    for i, row in enumerate(data.x):
        first = seen.setdefault(pixel_digest(row.numpy()), i)
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


def scan(root: Path, layout: str = "{label}") -> pd.DataFrame:
    """Every picture below `root`, sorted: a column "path" and one column per name in `layout`.

    Hidden files and files that are no pictures (by their ending) are passed over; directories below
    the last level of the layout belong to it.

    Raises:
        ValueError: a directory does not fit the layout or holds no picture, a picture lies above
            the last level, or there is none at all.
    """
    import pandas as pd

    patterns = _level_patterns(layout)
    rows: list[dict[str, str]] = []
    leaves: dict[tuple[str, ...], bool] = {}
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = sorted(d for d in below if not d.startswith("."))
        pictures = sorted(f for f in files if _is_picture(f))
        parts = Path(folder).relative_to(root).parts
        if len(parts) < len(patterns):
            if pictures:
                raise ValueError(
                    f"{Path(folder) / pictures[0]} lies above the directories of the layout "
                    f"{layout!r}; move it, or give another layout"
                )
            continue
        leaf = parts[: len(patterns)]
        leaves[leaf] = leaves.get(leaf, False) or bool(pictures)
        named = _match(patterns, leaf, layout, folder)
        rows.extend({"path": os.path.join(folder, f), **named} for f in pictures)
    for leaf, filled in leaves.items():
        if not filled:
            raise ValueError(f"directory {root.joinpath(*leaf)} holds no picture")
    if not rows:
        raise ValueError(f"{root} holds no directories of pictures in the layout {layout!r}")
    return pd.DataFrame(rows)


def _is_picture(file: str) -> bool:
    return not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES


def _match(
    patterns: list[re.Pattern[str]], parts: tuple[str, ...], layout: str, folder: str
) -> dict[str, str]:
    named: dict[str, str] = {}
    for pattern, part in zip(patterns, parts, strict=True):
        found = pattern.fullmatch(part)
        if found is None:
            raise ValueError(f"directory {folder} does not fit the layout {layout!r}")
        named |= found.groupdict()
    return named


def _level_patterns(layout: str) -> list[re.Pattern[str]]:
    """One pattern per directory level; every {name} takes as little as it can."""
    names: list[str] = []
    patterns = []
    for level in layout.split("/"):
        pattern = ""
        for text, name, _, _ in string.Formatter().parse(level):
            pattern += re.escape(text)
            if name is not None:
                names.append(name)
                pattern += f"(?P<{name}>.+?)" if name.isidentifier() else "("
        try:
            patterns.append(re.compile(pattern))
        except re.error as error:
            raise ValueError(
                f"layout {layout!r} must name directory levels like '{{split}}/{{label}}', each "
                "name once"
            ) from error
    if names.count("label") != 1 or "path" in names or len(set(names)) != len(names):
        raise ValueError(
            f"layout {layout!r} must hold {{label}} once, every other name once, and no {{path}}"
        )
    return patterns
