"""What is written is read back, or told before it is written."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenloop.disk import load, save
from evenloop.loop import Loop, Notes, State, World, run
from evenloop.record import Record
from evenloop.rng import Rng
from stand_ins import small_world


class Colour(IntEnum):
    """A number that is more than a number."""

    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        *(1, 2.5, True, None, "a", b"b", 1j, torch.float32, torch.Size([2])),
        *([1, (2, {"a": 3})], {1, 2}, OrderedDict(a=1), torch.nn.Linear(1, 1).state_dict()),
        {"group": [{"lr": 0.1, "betas": (0.9, 0.99)}], 3: None},
    ],
)
def test_plain_values_come_back(tmp_path: Path, value: Any) -> None:
    save(tmp_path / "v.pt", {"value": value})
    assert load(tmp_path / "v.pt")["value"] == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.float64(1.0), r"^value is a numpy\.float64, which cannot be read back"),
        ({"a": [0, np.zeros(2)]}, r"^value\['a'\]\[1\] is a numpy\.ndarray"),
        ((Colour.RED,), r"^value\[0\] is a .*Colour"),
        (Path("a"), r"^value is a pathlib"),
        (defaultdict(list), r"^value is a collections\.defaultdict"),
        (range(2), r"^value is a range"),
    ],
)
def test_what_would_not_come_back_is_told_and_nothing_is_written(
    tmp_path: Path, value: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        save(tmp_path / "v.pt", {"value": value})
    assert list(tmp_path.iterdir()) == []


class Remembers(Loop):
    """Keeps a number in a form of its choice."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        return State(world.data.take(range(20)))

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        return State(state.data, state.models, {"kept": self.kept}), Notes()


def test_a_run_that_could_not_be_resumed_ends_in_its_first_round(tmp_path: Path) -> None:
    def opened(name: str) -> Record:
        return Record.open(tmp_path / name, {"config": {}, "seed": 0})

    world, audit = small_world()
    with pytest.raises(TypeError, match=r"extra\['kept'\] is a numpy\.float32"):
        run(Remembers(np.float32(1)), world, audit, rounds=2, record=opened("numpy"))
    assert opened("numpy").rows == []
    for rounds in (1, 2):
        run(Remembers(1.0), world, audit, rounds=rounds, record=opened("plain"))
    assert len(opened("plain").rows) == 2
