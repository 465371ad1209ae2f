"""A guard over every test and doctest: nothing may advance a global random generator.

Randomness in evenloop is an argument (`evenloop.rng.Rng`, `torch.Generator`), so a test that moves
the global generator of torch, numpy or `random` has found a hidden draw, and fails. The marker
`global_rng` lifts this for a test whose subject is such a generator. Either way the generators are
put back, so no test depends on the order of the others.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import rich.style  # noqa: F401 - draws from `random` once, when first imported (by sklearn)


@dataclass(frozen=True, slots=True)
class Source:
    """One global generator: its module, how its state is read, compared and put back."""

    module: str
    read: Callable[[], Any]
    key: Callable[[Any], object]
    restore: Callable[[Any], None]


def sources() -> Iterator[Source]:
    """The global generators of the libraries loaded so far; an unloaded one cannot be advanced."""
    yield Source("random", random.getstate, lambda state: state, random.setstate)
    if numpy := sys.modules.get("numpy"):
        legacy = numpy.random
        yield Source(
            "numpy", legacy.get_state, lambda s: (s[1].tobytes(), *s[2:]), legacy.set_state
        )
    if torch := sys.modules.get("torch"):
        yield Source(
            "torch", torch.get_rng_state, lambda s: s.numpy().tobytes(), torch.set_rng_state
        )


@contextmanager
def untouched(item: pytest.Item, when: str) -> Iterator[None]:
    """Fail `item` if the code inside advances a global generator that was loaded on entry."""
    before = [(source, source.read()) for source in sources()]
    try:
        yield
    finally:
        advanced = []
        for source, state in before:
            if source.key(source.read()) != source.key(state):
                advanced.append(source.module)
                source.restore(state)
    if advanced and item.get_closest_marker("global_rng") is None:
        pytest.fail(
            f"{item.nodeid} advanced the global generator of {', '.join(advanced)} during {when}: "
            "pass a generator, or mark the test `global_rng` and say why",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Guard the fixtures of a test."""
    with untouched(item, "set-up"):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Guard the test itself."""
    with untouched(item, "the test"):
        yield
