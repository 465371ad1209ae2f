"""Where pretrained weights lie on this disk. Nothing here, or anywhere else, downloads them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

__all__ = ["GGUF", "MODEL_FILES", "find_gguf", "find_weights", "weights_folder"]

GGUF = "*.gguf"
MODEL_FILES = (
    "config.json, model.safetensors and the tokenizer (tokenizer.json, or vocab.json and "
    "merges.txt), or one .gguf file,"
)
"""What belongs into the folder of a model in the Hugging Face format."""


def weights_folder(name: str) -> Path:
    """EVENLOOP_DATA/weights/NAME, or ~/.cache/evenloop/weights/NAME."""
    base = os.environ.get("EVENLOOP_DATA")
    root = Path(base).expanduser() if base else Path.home() / ".cache" / "evenloop"
    return root / "weights" / name


def find_weights(
    name: str,
    given: Path | str | None,
    *files: str,
    needs: str = "the files",
    field: str = "weights",
) -> Path:
    """The folder with the weights of model `name`, which holds one of `files`.

    Args:
        name: what a config calls the model.
        given: the user's own folder, or None for `weights_folder(name)`.
        files: any of these names or patterns is enough; none asks for the folder only.
        needs: everything that belongs there, for the error.
        field: what names the user's own folder in a config, for the error.

    Raises:
        FileNotFoundError: it is not there; says where to put it.
    """
    folder = Path(given).expanduser() if given is not None else weights_folder(name)
    if any(True for file in files for _ in folder.glob(file)) or (not files and folder.is_dir()):
        return folder
    wanted = f"{' or '.join(files)} was" if files else "its folder was"
    raise FileNotFoundError(
        f"{name}: {wanted} not found at {folder}. Nothing is downloaded: put {needs} "
        f"there, or name their folder with {field}="
    )


def find_gguf(folder: Path, wanted: str) -> Path | None:
    """The GGUF file of a folder, None where there is none.

    Args:
        folder: where it is sought.
        wanted: the setting that asks for it, for the errors.

    Raises:
        ModuleNotFoundError: the packages that read such a file are not installed.
        ValueError: there are several.
    """
    found = sorted(folder.glob(GGUF))
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{wanted}: {folder} holds several models ({names}); leave one there")
    for package in ("transformers", "gguf", "accelerate"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"{wanted} reads {found[0].name} with {package}, which is not installed; install "
                "the extra: pip install 'evenloop[text]'"
            )
    return found[0]
