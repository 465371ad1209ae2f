"""Fingerprints: of the package's own source, for manifests, of rows, and of settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["described", "row_digest", "source_digest"]


@cache
def source_digest() -> str:
    """Sixteen hex digits over the names and bytes of every Python file of the package."""
    folder = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def row_digest(row: np.ndarray) -> bytes:
    """Sixteen bytes that are the same for arrays of one shape that are the same to the last bit.

    >>> row_digest(np.zeros(3)) == row_digest(np.array([0.0, 0.0, 0.0]))
    True
    """
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()


def described(name: str, value: Any) -> dict[str, str]:
    """Names and texts of a value and of all that it is made of, alike in every process.

    What has no fields and is no plain value is told by its type alone.

    >>> described("loop", {"n": 1.0, "by": ("sex",)})
    {'loop': 'by, n', 'loop.n': '1', 'loop.by': '1 of them', 'loop.by.0': "'sex'"}
    """
    parts: Mapping[str, Any] = {}
    if isinstance(value, (bool, str, Path)) or value is None:
        said = repr(str(value) if isinstance(value, Path) else value)
    elif isinstance(value, (int, float)):
        short = f"{value:.15g}"  # 1 and 1.0 are one value
        said = short if float(short) == value else repr(value)
    elif isinstance(value, Mapping):
        parts = {str(key): part for key, part in value.items()}
        said = ", ".join(sorted(parts))
    elif isinstance(value, (tuple, list)):
        parts = {str(place): part for place, part in enumerate(value)}
        said = f"{len(value)} of them"
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        said = type(value).__qualname__
    else:
        said = str(getattr(value, "__qualname__", type(value).__qualname__))
    found = {name: said}
    for key, part in parts.items():
        found |= described(f"{name}.{key}", part)
    return found
