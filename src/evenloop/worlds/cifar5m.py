"""CIFAR-5m: six million generated pictures in CIFAR-10's classes, read in pieces.

Reference: Nakkiran, Neyshabur, Sedghi, The Deep Bootstrap Framework, arXiv 2010.08127.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
from numpy.typing import NDArray

from evenloop.data import GroupedData, Schema
from evenloop.worlds.base import Card, Normalisation, find_file, find_root, key_of, whole_file
from evenloop.worlds.columns import check_codes
from evenloop.worlds.natural import CIFAR_MOMENTS
from evenloop.worlds.vocabulary import CIFAR10_CLASSES

__all__ = ["CIFAR5m"]

PARTS = 6
_ROWS = 4096  # pictures held at a time while reading: 12 MB
_IMAGE = (32, 32, 3)


@dataclass(frozen=True, slots=True)
class CIFAR5m:
    """CIFAR-5m: uint8 N x 3 x 32 x 32 in CIFAR-10's classes, about a million rows a part (3 GB).

    The archives are read in pieces, so that memory holds the result and no second copy. With
    `cache` the result is a file mapped into memory, and a later load starts at once.

    Attributes:
        root: folder of part0.npz, part1.npz, ...; None for what `evenloop data get` fetched.
        parts: how many parts, 1..6, from part0 on.
        cache: folder for the mapped pictures, or None to hold them in memory.
    """

    name: ClassVar[str] = "cifar5m"
    about: ClassVar[Card] = Card(
        "CIFAR-5m",
        "about 6 million 32x32 pictures drawn by a diffusion model and labelled by a classifier",
        "none stated; published by Google Research",
        "none; the classes are the groups of a study. Labels are a model's, not people's",
        "the repository cifar5m of Preetum Nakkiran; six files part0.npz to part5.npz",
    )

    root: Path | str | None = None
    parts: int = 3
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        if type(self.parts) is not int or not 1 <= self.parts <= PARTS:
            raise ValueError(f"parts must be in 1..{PARTS}, got {self.parts!r}")

    @property
    def normalisation(self) -> Normalisation | None:
        """CIFAR-10's moments."""
        return CIFAR_MOMENTS

    def load(self) -> GroupedData:
        """Rows in file order, part by part.

        Raises:
            FileNotFoundError: a part is missing.
            ValueError: a part is damaged, or its arrays are not X uint8 (N, 32, 32, 3) and Y (N,)
                whole numbers in 0..9.
        """
        root = find_root(self, self.root, "part0.npz, part1.npz, ...")
        paths = [find_file(self, root, f"part{i}.npz") for i in range(self.parts)]
        labels = [_labels(path) for path in paths]
        n = sum(map(len, labels))
        if self.cache is None:
            x = np.empty((n, 3, 32, 32), np.uint8)
            done = 0
            for piece in _all_pieces(paths, labels):
                x[done : done + len(piece)] = piece
                done += len(piece)
        else:
            file = Path(self.cache).expanduser() / f"{self.name}-{key_of(self, paths)}.npy"
            if not file.exists():
                _write(file, n, _all_pieces(paths, labels))
            # copy on write: a tensor over it may be written without touching the file
            x = np.load(file, mmap_mode="c", allow_pickle=False)
        return GroupedData.of(x, np.concatenate(labels), {}, Schema(CIFAR10_CLASSES))


def _labels(path: Path) -> NDArray[np.int64]:
    with _array(path, "Y") as (shape, dtype, read):
        if len(shape) != 1 or dtype.kind not in "iu":
            raise ValueError(f"{path}: Y must be whole numbers (N,), got {dtype} {shape}")
        labels = np.frombuffer(read(shape[0]), dtype).astype(np.int64)
    return check_codes(labels, CIFAR10_CLASSES, path).codes


def _all_pieces(paths: list[Path], labels: list[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
    for path, y in zip(paths, labels, strict=True):
        with _array(path, "X") as (shape, dtype, read):
            if shape != (len(y), *_IMAGE) or dtype != np.uint8:
                raise ValueError(
                    f"{path}: X must be uint8 ({len(y)}, 32, 32, 3) like its labels, got {dtype} "
                    f"{shape}"
                )
            for start in range(0, len(y), _ROWS):
                rows = min(_ROWS, len(y) - start)
                piece = np.frombuffer(read(rows), np.uint8).reshape(rows, *_IMAGE)
                yield piece.transpose(0, 3, 1, 2)


@contextmanager
def _array(
    path: Path, member: str
) -> Iterator[tuple[tuple[int, ...], np.dtype[np.generic], Callable[[int], bytes]]]:
    """Shape, type and a reader of the next rows of one array in an .npz; checks its checksum."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
            shape, fortran, dtype = _header(stream)
            if fortran or dtype.hasobject or not shape:
                raise ValueError(f"{path}: {member} must be a plain array in C order")
            row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize

            def read(rows: int) -> bytes:
                raw = stream.read(rows * row)
                if len(raw) != rows * row:
                    raise ValueError(f"{path}: {member} ends early; the file is truncated")
                return raw

            yield shape, dtype, read
    except KeyError as error:
        raise ValueError(f"{path} holds no array {member!r}") from error
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _write(file: Path, n: int, pieces: Iterator[NDArray[np.uint8]]) -> None:
    """One .npy (n, 3, 32, 32), complete or not there. Written plainly: a full disk is an error."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, 3, 32, 32)}
    with whole_file(file) as out:
        np.lib.format.write_array_header_1_0(out, header)
        for piece in pieces:
            out.write(np.ascontiguousarray(piece).data)
