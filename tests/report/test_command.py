"""The command a report prints makes the same study."""

from __future__ import annotations

import shlex

import pytest

from evenloop.config import load, preset_names
from evenloop.report.command import command_of


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("demo", []),
        ("demo", ["rounds=3"]),
        ("acquire-cpu:small", ["kind=minority", "heuristic=entropy", "seed=12"]),
        ("acquire-cpu", ["net=mlp", "recipe.lr=0.5", "noise={red: 0.5}"]),
        ("acquire-faces", ["root=my faces.parquet", "embed=efficientnet-lite0"]),
        ("prune-utkface-race-ceag:small", ["tune.lr=0.5", "sparsity=0.5"]),
    ],
)
def test_the_command_loads_the_same_configuration(source: str, settings: list[str]) -> None:
    config = load(source, settings)
    evenloop, run, again, *more = shlex.split(command_of(config))
    assert (evenloop, run) == ("evenloop", "run")
    assert load(again, more) == config


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_its_own_command(name: str) -> None:
    assert command_of(load(name)) == f"evenloop run {name}"


def test_what_no_preset_begins_has_no_command() -> None:
    config = load("demo")
    assert command_of(config.model_copy(update={"name": "mine"})) == ""
    assert command_of(config.model_copy(update={"loop": [*config.loop, *config.loop]})) == ""
