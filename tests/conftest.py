"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from real_data import VARIABLE, find


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """A function from a name (`"mnist"`, `"cifar10.parquet"`) to its path; skips if absent."""
    return lambda name: find(name, os.environ.get(VARIABLE))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a run: small nets are slower with more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
