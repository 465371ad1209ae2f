"""Settings told in words that are the same in every process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from evenloop.digest import described
from evenloop.loop import chain
from evenloop.loops.relabel import Relabel


@dataclass(frozen=True)
class Rule:
    """Settings of a user's own."""

    power: float
    by: Any = ()


def test_every_field_of_every_link_is_told() -> None:
    told = described("loop", chain(Relabel(n0=7), Relabel(n0=8)))
    assert told["loop"] == "Chain"
    assert told["loop.loops"] == "2 of them"
    assert (told["loop.loops.0.n0"], told["loop.loops.1.n0"]) == ("7", "8")
    assert told["loop.loops.1.label_rule"] == "'argmax'"


@pytest.mark.parametrize("value", [1e300, 0.1, float("inf"), 2**60 + 1, -3])
def test_numbers_are_told_exactly(value: float) -> None:
    told = described("p", value)["p"]
    assert type(value)(told) == value


def test_what_is_equal_is_told_alike() -> None:
    assert described("p", 1) == described("p", 1.0)
    assert described("p", Path("a/b")) == described("p", "a/b")
    assert described("p", True) != described("p", 1)
    assert described("p", Rule(2.0)) == described("p", Rule(2))
    assert described("p", [1, None]) == described("p", (1, None))
    assert described("p", {"a": 1, "b": 2}) == described("p", {"b": 2, "a": 1})
    assert described("p", {"a": 1}) != described("p", {"a": 1, "b": 2})


def test_what_has_no_fields_is_told_by_its_type_without_an_address() -> None:
    assert described("p", Rule.__init__)["p"] == "Rule.__init__"
    assert described("p", Rule)["p"] == "Rule"
    assert described("p", torch.zeros(2))["p"] == "Tensor"
    assert described("p", partial(print, 1))["p"] == "partial"
