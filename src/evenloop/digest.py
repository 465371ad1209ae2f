"""Fingerprints: of the installed package's own source, for manifests, and of rows."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

__all__ = ["row_digest", "source_digest"]


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
