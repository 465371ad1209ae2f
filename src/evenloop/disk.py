"""Files that are whole or not there: written aside, then renamed; tensors without pickle."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["FolderKeep", "Watch", "load", "save", "write_atomically"]

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
    """Keep tensors, numbers, texts and dicts of them in `path`, atomically."""
    # Through memory: torch's own writer tells of a full disk as an internal assertion.
    content = io.BytesIO()
    torch.save(value, content)
    # Released at once, also where the disk is full: a buffer that is exported cannot be freed.
    with content.getbuffer() as view:
        write_atomically(path, view)


def load(path: Path) -> dict[str, Any]:
    """What `save` kept, on the CPU."""
    return dict(torch.load(path, map_location="cpu", weights_only=True))
