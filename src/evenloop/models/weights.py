"""Where pretrained weights lie on this disk. Nothing here, or anywhere else, downloads them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["find_weights", "weights_folder"]


def weights_folder(name: str) -> Path:
    """EVENLOOP_DATA/weights/NAME, or ~/.cache/evenloop/weights/NAME."""
    base = os.environ.get("EVENLOOP_DATA")
    root = Path(base).expanduser() if base else Path.home() / ".cache" / "evenloop"
    return root / "weights" / name


def find_weights(name: str, given: Path | str | None, *files: str) -> Path:
    """The folder with the weights of model `name`, which holds one of `files`.

    Args:
        name: what a config calls the model.
        given: the user's own folder, or None for `weights_folder(name)`.
        files: any of these is enough; none asks for the folder only.

    Raises:
        FileNotFoundError: it is not there; says where to put it.
    """
    folder = Path(given).expanduser() if given is not None else weights_folder(name)
    if any((folder / file).is_file() for file in files) or (not files and folder.is_dir()):
        return folder
    wanted = f"{' or '.join(files)} was" if files else "its folder was"
    raise FileNotFoundError(
        f"{name}: {wanted} not found at {folder}. Nothing is downloaded: put the files there, or "
        "name their folder with weights="
    )
