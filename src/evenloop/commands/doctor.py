"""What this machine and installation can do."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["findings"]

CORE = ("torch", "numpy", "pandas", "pyarrow", "scikit-learn", "cooper-optim", "skops")
EXTRAS = {
    "text": "datasets",
    "structured": "torch-pruning",
    "diffusion": "diffusers",
    "active": "scikit-activeml",
    "emoji": "resvg_py",
}


def findings() -> Iterator[tuple[str, str]]:
    """(what, finding) lines: versions, devices, extras, where data is sought."""
    yield "evenloop", version("evenloop")
    yield "python", platform.python_version()
    for name in CORE:
        yield name, _version(name) or "MISSING: install evenloop again"
    import torch

    yield "cpu", f"{os.cpu_count()} cores; one thread per process unless threads= is set"
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "not available"
    yield "cuda", f"{cuda}; choose with device=cuda"
    for extra, package in EXTRAS.items():
        found = _version(package)
        yield f"extra {extra}", found or f"not installed: pip install 'evenloop[{extra}]'"
    root = os.environ.get("EVENLOOP_DATA", str(Path("~/.cache/evenloop").expanduser()))
    there = sorted(p.name for p in Path(root).glob("*")) if Path(root).exists() else []
    yield (
        "data",
        f"{root} holds: {', '.join(there) or 'nothing yet'} (set EVENLOOP_DATA to move it)",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
