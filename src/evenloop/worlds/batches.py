"""The file formats of CIFAR-10 and CIFAR-100: binary records, and Python batches read as data.

A pickle is a program. `read_python_batch` runs none of it: the five names that the official
batches mention are replaced by inert stand-ins, and any other name is refused.

Reference: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009), and the
description of both formats on the CIFAR home page.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "read_binary_batch", "read_python_batch"]

PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images (N, 3, 32, 32) uint8 and one label column (N,) int64 per name, the finest last."""

    images: NDArray[np.uint8]
    labels: tuple[NDArray[np.int64], ...]


def read_binary_batch(path: Path, label_bytes: int) -> Batch:
    """Records of `label_bytes` labels (1 for CIFAR-10, 2 for CIFAR-100) and 3,072 pixels.

    Raises:
        ValueError: the file is empty or its length is no whole number of records.
    """
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    record = label_bytes + PIXELS
    if len(raw) == 0 or len(raw) % record:
        raise ValueError(
            f"{path} has {len(raw)} bytes, which is no whole number of records of {record}; the "
            "file is truncated or is not a CIFAR binary batch"
        )
    rows = raw.reshape(-1, record)
    labels = tuple(rows[:, i].astype(np.int64) for i in range(label_bytes))
    return Batch(np.ascontiguousarray(rows[:, label_bytes:]).reshape(-1, 3, 32, 32), labels)


def read_python_batch(path: Path, label_keys: tuple[str, ...]) -> Batch:
    """An official Python batch: a dict with "data" (N, 3072) uint8 and lists of labels.

    Args:
        path: the file.
        label_keys: the entries that hold labels ("labels", or "coarse_labels", "fine_labels").

    Raises:
        ValueError: the file names anything but plain arrays, is damaged, or holds other shapes.
    """
    try:
        content = _Reader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"{path} is no CIFAR batch that can be read safely: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dict with 'data'")
    named = {
        k.decode("ascii", "replace") if isinstance(k, bytes) else k: content[k] for k in content
    }
    for key in ("data", *label_keys):
        if key not in named:
            raise ValueError(f"{path} has no entry {key!r}; it has: {', '.join(map(str, named))}")
    images = named["data"]
    if not isinstance(images, _Array):
        raise ValueError(f"{path}: 'data' is a {type(images).__name__}, not an array of bytes")
    pixels = images.pixels(path)
    return Batch(pixels, tuple(_labels(named[key], len(pixels), key, path) for key in label_keys))


def _labels(values: Any, n: int, key: str, path: Path) -> NDArray[np.int64]:
    if not isinstance(values, list) or len(values) != n or {type(v) for v in values} - {int}:
        raise ValueError(f"{path}: {key!r} must be a list of {n} whole numbers")
    return np.asarray(values, np.int64)


class _Type:
    """Stands in for a numpy dtype: remembers its code, runs nothing."""

    __slots__ = ("code",)

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, _: object) -> None:
        """Byte order and alignment: of no meaning for single bytes."""


class _Array:
    """Stands in for a numpy array: remembers shape, type and bytes, runs nothing."""

    __slots__ = ("state",)

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def pixels(self, path: Path) -> NDArray[np.uint8]:
        """The bytes as images (N, 3, 32, 32)."""
        match self.state:
            case (int(), (int(n), int(width)), _Type(code="u1" | b"u1"), bool(fortran), bytes(raw)):
                if n > 0 and width == PIXELS and len(raw) == n * PIXELS:
                    rows = np.frombuffer(raw, np.uint8).reshape(
                        (n, PIXELS), order="F" if fortran else "C"
                    )
                    return np.ascontiguousarray(rows).reshape(n, 3, 32, 32)
        raise ValueError(f"{path}: 'data' must be whole images, unsigned bytes of shape (N, 3072)")


def _latin_1(text: object, encoding: object) -> bytes:
    """How Python 3 writes bytes in an old pickle protocol."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("unexpected encoded text")
    return text.encode("latin-1")


class _Reader(pickle.Unpickler):
    """Resolves the names of the official batches to stand-ins and refuses every other one."""

    def find_class(self, module: str, name: str, /) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy._core.multiarray", "_reconstruct"): _Array,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Type,
            ("_codecs", "encode"): _latin_1,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return known[module, name]
