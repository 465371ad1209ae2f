"""Where the tests find real data sets that are not part of the project."""

from __future__ import annotations

from pathlib import Path

import pytest

VARIABLE = "EVENLOOP_TEST_DATA"


def find(name: str, folder: str | None) -> Path:
    """Path of `name` under `folder`, or a skip that says what is missing and where to put it."""
    if not folder:
        pytest.skip(f"needs {name}: set {VARIABLE} to a folder that holds it")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"needs {name}: {VARIABLE}={folder} does not hold it")
    return path
