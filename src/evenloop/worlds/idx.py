"""The IDX files of MNIST and its successors, plain or gzip, every number in the header checked.

Format: two zero bytes, a type (8 = unsigned byte), the number of axes, one big-endian 32-bit size
per axis, then the bytes themselves (described on the MNIST home page of LeCun, Cortes, Burges).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_idx"]

_UNSIGNED_BYTE = 8


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes.

    Args:
        path: the file; gzip if its first two bytes say so, whatever its name.
        axes: how many axes it must have (labels 1, images 3).

    Raises:
        ValueError: wrong magic number, wrong number of axes, or a length other than the header's.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is a truncated or damaged gzip file: {error}") from error
    wanted = bytes((0, 0, _UNSIGNED_BYTE, axes))
    if raw[:4] != wanted:
        raise ValueError(
            f"{path} starts with {raw[:4].hex(' ') or 'nothing'}, but an IDX file of unsigned "
            f"bytes with {axes} axes starts with {wanted.hex(' ')}"
        )
    start = 4 + 4 * axes
    if len(raw) < start:
        raise ValueError(f"{path} is truncated inside its header")
    shape = struct.unpack(f">{axes}I", raw[4:start])
    size = int(np.prod(shape, dtype=np.int64))
    if len(raw) - start != size:
        raise ValueError(
            f"{path} holds {len(raw) - start} bytes of data, its header says {size} "
            f"({' x '.join(map(str, shape))}); the file is truncated or damaged"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
