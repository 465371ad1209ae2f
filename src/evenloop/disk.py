"""Files that are whole or not there: written aside, then renamed; tensors without pickle."""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["FolderKeep", "Watch", "check_plain", "load", "save", "write_atomically"]

PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None)),
    *(torch.Size, torch.dtype, torch.device),
)
Watch = Callable[[str, int, int, int], None]


@dataclass(frozen=True, slots=True)
class FolderKeep:
    """Progress of long fits as files; without a folder only the watcher is told."""

    folder: Path | None
    watch: Watch | None

    def _path(self, name: str) -> Path | None:
        digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        return self.folder / f"fit-{digest}.pt" if self.folder else None

    def load(self, name: str) -> dict[str, Any] | None:
        """What was last saved under `name`, or None."""
        path = self._path(name)
        return load(path) if path and path.exists() else None

    def save(self, name: str, progress: dict[str, Any]) -> None:
        """Keep `progress` under `name`, replacing what was there."""
        if path := self._path(name):
            save(path, progress)

    def epoch(self, name: str, epoch: int, epochs: int, rows: int) -> None:
        """Tell the watcher that an epoch ended."""
        if self.watch:
            self.watch(name, epoch, epochs, rows)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace `path` by `content`; a reader sees the old bytes or the new ones, never a part.

    It is on the disk when this returns. If it cannot be written, nothing is left behind.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def save(path: Path, value: dict[str, Any]) -> None:
    """Keep tensors, numbers, texts and dicts of them in `path`, atomically.

    Raises:
        TypeError: a value that could be written and not be read again; names it.
    """
    for name, part in value.items():
        check_plain(name, part)
    # Through memory: torch's own writer tells of a full disk as an internal assertion.
    content = io.BytesIO()
    torch.save(value, content)
    # Released at once, also where the disk is full: a buffer that is exported cannot be freed.
    with content.getbuffer() as view:
        write_atomically(path, view)


def check_plain(name: str, value: object) -> None:
    """Whether `value` is read again as it was written, without pickle.

    >>> check_plain("extra", {"seen": [1, 2.5, None, torch.zeros(2)]})
    >>> import numpy as np
    >>> check_plain("extra", {"seen": [1, np.float64(2.5)]})
    Traceback (most recent call last):
    TypeError: extra['seen'][1] is a numpy.float64, which cannot be read back; keep tensors, numbers
    or texts of Python, or dicts, lists and tuples of them
    """
    if type(value) in PLAIN or isinstance(value, Tensor):
        return
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        parts = [(f"{name}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, (list, tuple, set)) and type(value) in (list, tuple, set):
        parts = [(f"{name}[{place}]", part) for place, part in enumerate(value)]
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise TypeError(
            f"{name} is a {kind}, which cannot be read back; keep tensors, numbers or texts of "
            "Python, or dicts, lists and tuples of them"
        )
    for where, part in parts:
        check_plain(where, part)


def load(path: Path) -> dict[str, Any]:
    """What `save` kept, on the CPU."""
    return dict(torch.load(path, map_location="cpu", weights_only=True))
