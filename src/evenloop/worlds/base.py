"""What every world shares: its card, where its files are sought, a cache of decoded rows.

A world here is a *source* of rows: a frozen value whose fields say which rows, with `load` to read
them. What a loop is given (rows, net, recipe) is `evenloop.loop.World`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol

import numpy as np

from evenloop.data import Attribute, GroupedData, Schema, Structure
from evenloop.words import nearest
from evenloop.worlds.download import REMOTE, data_folder

__all__ = [
    "Card",
    "Normalisation",
    "Source",
    "cached",
    "check_choice",
    "check_size",
    "find_file",
    "find_root",
    "key_of",
    "whole_file",
]

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

_CACHE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Card:
    """What a reader should know before using a data set.

    Attributes:
        title: its name as its authors write it.
        what: how many rows of what, and what the label is.
        licence: terms of use, as far as its authors state them.
        groups: how the group attributes were obtained, or why there are none.
        home: where its files may be found, in words.
        people: whether real people are, or may be, recognisable in single pictures; a report then
            shows none.
    """

    title: str
    what: str
    licence: str
    groups: str
    home: str
    people: bool = False

    def text(self) -> str:
        """The card as labelled lines.

        >>> print(Card("Toy", "3 rows", "CC0", "drawn by us", "this file").text())
        Toy
          what:    3 rows
          licence: CC0
          groups:  drawn by us
          home:    this file
        """
        rows = (("what", self.what), ("licence", self.licence), ("groups", self.groups))
        shown = "no single picture in a report: people may be recognised"
        last = (("home", self.home), *([("shown", shown)] if self.people else ()))
        lines = [f"  {label + ':':<9}{value}" for label, value in (*rows, *last)]
        return "\n".join([self.title, *lines])


class Source(Protocol):
    """A data set as a value: its fields are its parameters.

    `name` is what a config calls it, `about` its card. `normalisation` holds the mean and the
    standard deviation of every channel of `x / 255`, or None where none is established.
    """

    name: ClassVar[str]
    about: ClassVar[Card]

    @property
    def normalisation(self) -> Normalisation | None:
        """Mean and standard deviation per channel, pixels in [0, 1]."""

    def load(self) -> GroupedData:
        """All rows in the source's own order; `x` uint8 (N, C, H, W) or float32 (N, F)."""


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise `ValueError` unless the parameter `name` has one of the `allowed` values."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; {nearest(str(value), allowed)}")


def check_size(name: str, value: int | None) -> None:
    """Raise `ValueError` unless the parameter `name` is None or a positive integer."""
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"{name} must be a positive number of pixels, got {value!r}")


def find_root(source: Source, root: Path | str | None, wants: str, option: str = "root") -> Path:
    """The folder or file that holds a source's files.

    Args:
        source: whose name and card are used for the message.
        root: the user's own copy, or None for the folder that `evenloop data get` fills.
        wants: what should be there, for the message.
        option: the source's field that `root` is.

    Raises:
        FileNotFoundError: nothing is there; says what is missing, where it may be found and which
            option takes the user's copy.
    """
    path = Path(root).expanduser() if root is not None else data_folder(source.name)
    if path.exists():
        return path
    raise FileNotFoundError(_missing(source, path, wants, option))


def find_file(source: Source, folder: Path, *candidates: str) -> Path:
    """The first of `candidates` that is a file below `folder`.

    Raises:
        FileNotFoundError: none is; names them, the data set's home and the option `root`.
    """
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    raise FileNotFoundError(_missing(source, folder, " or ".join(candidates)))


def _missing(source: Source, path: Path, wants: str, option: str = "root") -> str:
    fetch = f"run `evenloop data get {source.name}`, or " if source.name in REMOTE else ""
    return (
        f"{source.name}: {wants} not found at {path}. {fetch[:1].upper() + fetch[1:]}"
        f"{'p' if fetch else 'P'}ass {option}= with the path of your own copy. "
        f"Where it may be found: {source.about.home}"
    )


def cached(
    source: Source,
    cache: Path | str | None,
    files: Iterable[Path],
    make: Callable[[], GroupedData],
) -> GroupedData:
    """What `make` returns, kept as one .npz in the folder `cache` (None: not kept).

    The file's name holds a hash of every parameter of `source` and of path, size and time of every
    one of `files`: change any and the rows are made anew. No pickle is written or read.

    Args:
        source: a dataclass; its fields but `cache` are the key.
        cache: folder, made if needed.
        files: everything the rows are made of.
        make: reads the rows; must not depend on anything else.

    Raises:
        ValueError: the kept file is damaged.
    """
    if cache is None:
        return make()
    path = Path(cache).expanduser() / f"{source.name}-{key_of(source, files)}.npz"
    if path.exists():
        return _read(path)
    data = make()
    _write(path, data)
    return data


def key_of(source: Source, files: Iterable[Path]) -> str:
    """Hash of a source's parameters (but `cache`) and of path, size and time of its files."""
    import PIL

    described: Any = source
    parameters = {f.name: repr(getattr(source, f.name)) for f in fields(described)}
    parameters.pop("cache", None)
    stamps = [(str(p.absolute()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    parts = [_CACHE_FORMAT, PIL.__version__, source.name, parameters, stamps]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that gets its name when it is complete, and otherwise leaves no trace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _write(path: Path, data: GroupedData) -> None:
    schema: dict[str, Any] = {
        "classes": data.schema.classes,
        "attributes": [(a.name, a.values) for a in data.schema.attributes],
    }
    if (structure := data.schema.structure) is not None:
        schema["structure"] = (structure.length, structure.codes)
    with whole_file(path) as file:
        np.savez(
            file,
            x=data.x.numpy(),
            truth=data.truth.numpy(),
            attributes=data.attributes.numpy(),
            schema=np.frombuffer(json.dumps(schema).encode(), np.uint8),
        )


def _read(path: Path) -> GroupedData:
    try:
        # NumPy leaves a damaged archive open unless it is handed the open file
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            x, truth, columns = kept["x"], kept["truth"], kept["attributes"]
            names = json.loads(kept["schema"].tobytes())
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"the cached file {path} is damaged ({error}); delete it") from error
    attributes = tuple(Attribute(name, tuple(values)) for name, values in names["attributes"])
    codes = {a.name: columns[:, i] for i, a in enumerate(attributes)}
    structure = Structure(*names["structure"]) if "structure" in names else None
    return GroupedData.of(x, truth, codes, Schema(tuple(names["classes"]), attributes, structure))
