"""The study's own data files: two or three pickles in one file, read without running code.

A pickle can call any function it names. This reader names none but those that rebuild NumPy
arrays, and refuses the rest; even so a file of unknown origin should not be opened, hence the
explicit `allow_pickle`.

Reference: Lacoste et al., Synbols: Probing Learning Algorithms with Synthetic Datasets, 2020; the
files of Branchaud-Charron et al. 2021.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.words import nearest
from evenloop.worlds.base import Card, Normalisation, cached, find_root

__all__ = ["Synbols", "UntrustedPickleError", "load_restricted"]

SPLITS = ("train", "test", "validation")
# Both places where NumPy 1 and 2 keep the same functions.
_ALLOWED = {
    (f"numpy.{core}.{part}", name)
    for core in ("core", "_core")
    for part, name in (
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class UntrustedPickleError(ValueError):
    """The file asks for something that plain data does not need."""


class _Plain(pickle.Unpickler):
    """Numbers, texts, lists, dicts and NumPy arrays; nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UntrustedPickleError(
                f"the pickle asks for {module}.{name}, which plain arrays and lists do not need; "
                "it was not run. Do not open this file, or convert it to .npz where you trust it"
            )
        return super().find_class(module, name)


def load_restricted(file: IO[bytes]) -> Any:
    """The next object of an open pickle file, plain data only.

    Raises:
        UntrustedPickleError: the file names any other function or class; it is not called.
        EOFError: the file holds no further object.

    >>> import io
    >>> load_restricted(io.BytesIO(pickle.dumps({"x": [1, 2]})))
    {'x': [1, 2]}
    """
    return _Plain(file).load()


@dataclass(frozen=True, slots=True)
class Synbols:
    """The study's pickle file: uint8 N x 3 x H x W, attributes by name, and split.

    Codes are the sorted values of the train split and the same in every split; values that only
    another split has come after them.

    Attributes:
        root: the file: two or three dumps (train, test, validation), each (x, anything, attribute
            dicts) or (x, attribute dicts).
        target: name of the attribute that is the label.
        sensitive: names of the attributes kept as columns; a number is split at 0.
        allow_pickle: must be true; says that you trust where the file comes from.
        cache: folder that keeps the rows as .npz, or None.
    """

    name: ClassVar[str] = "synbols"
    about: ClassVar[Card] = Card(
        "Synbols data files",
        "64x64 pictures of letters with their attributes, as the study wrote them",
        "of whoever made the file",
        "drawn by a generator; no person is described",
        "made by the notebooks of the study; `letters` draws such data without a file",
    )

    root: Path | str | None = None
    target: str = "char"
    sensitive: tuple[str, ...] = ("color",)
    allow_pickle: bool = False
    cache: Path | str | None = None

    @property
    def normalisation(self) -> Normalisation | None:
        """The moments the study used, those of CIFAR-10."""
        return (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

    def load(self) -> GroupedData:
        """The rows of all splits, train first.

        Raises:
            ValueError: `allow_pickle` is false, the file's structure is another, or an attribute
                is missing (the nearest names are given).
            UntrustedPickleError: the file asks for more than plain data.
        """
        path = find_root(self, self.root, "a pickle file of the study")
        if not self.allow_pickle:
            raise ValueError(
                f"{path} is a pickle, a format that can run code when opened; if you trust where "
                "it comes from, pass allow_pickle=true"
            )
        return cached(self, self.cache, [path], lambda: self._read(path))

    def _read(self, path: Path) -> GroupedData:
        splits = _splits(path)
        x = np.concatenate([images for images, _ in splits]).transpose(0, 3, 1, 2)
        part = np.repeat(np.arange(len(splits)), [len(rows) for _, rows in splits])
        rows = [row for _, rows in splits for row in rows]
        classes, truth = self._coded(rows, part, self.target)
        columns = {name: self._coded(rows, part, name) for name in self.sensitive}
        attributes = tuple(Attribute(name, values) for name, (values, _) in columns.items())
        schema = Schema(classes, (*attributes, Attribute("split", SPLITS[: len(splits)])))
        codes = {name: code for name, (_, code) in columns.items()} | {"split": part}
        return GroupedData.of(np.ascontiguousarray(x), truth, codes, schema)

    def _coded(
        self, rows: Sequence[Mapping[str, Any]], part: np.ndarray, name: str
    ) -> tuple[tuple[str, ...], np.ndarray]:
        missing = next((row for row in rows if name not in row), None)
        if missing is not None:
            raise ValueError(f"no attribute {name!r}; {nearest(name, map(str, missing))}")
        values = [row[name] for row in rows]
        if all(isinstance(v, (float, np.floating)) for v in values):
            return ("<0", ">=0"), np.array([int(v >= 0) for v in values])
        text = [str(v) for v in values]
        train = sorted({t for t, p in zip(text, part, strict=True) if p == 0})
        known = (*train, *sorted(set(text) - set(train)))
        place = {value: i for i, value in enumerate(known)}
        return known, np.array([place[t] for t in text])


def _splits(path: Path) -> list[tuple[np.ndarray, Sequence[Mapping[str, Any]]]]:
    splits: list[tuple[np.ndarray, Sequence[Mapping[str, Any]]]] = []
    with path.open("rb") as file:
        while len(splits) < len(SPLITS):
            try:
                splits.append(_split(load_restricted(file), path, len(splits)))
            except EOFError:
                break
            except pickle.UnpicklingError as error:
                raise ValueError(f"{path} is not a pickle file ({error})") from error
    if not splits:
        raise ValueError(f"{path} is empty: it should hold two or three dumps")
    return splits


def _split(dump: Any, path: Path, number: int) -> tuple[np.ndarray, Sequence[Mapping[str, Any]]]:
    where = f"dump {number + 1} of {path}"
    if not isinstance(dump, (tuple, list)) or len(dump) not in (2, 3):
        raise ValueError(f"{where} should be a tuple of 2 or 3 items, got {type(dump).__name__}")
    x, rows = np.asarray(dump[0]), dump[-1]
    if x.ndim != 4 or x.shape[3] != 3 or x.dtype != np.uint8:
        raise ValueError(f"{where}: x should be uint8 (n, H, W, 3), got {x.dtype} {x.shape}")
    rows = list(rows)
    if len(rows) != len(x) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"{where} should have one dict of attributes for each of {len(x)} images")
    return x, rows
