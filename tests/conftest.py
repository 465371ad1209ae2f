"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from real_data import VARIABLE, find


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """A function from a name (`"mnist"`, `"cifar10.parquet"`) to its path; skips if absent."""
    return lambda name: find(name, os.environ.get(VARIABLE))
