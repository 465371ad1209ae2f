"""Seams that a configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenloop.build import assemble
from evenloop.config import ConfigError, load
from evenloop.objectives.group_dro import GroupDRO
from evenloop.objectives.reweight import Reweight
from evenloop.parts import OBJECTIVES, SAMPLERS, objective, sampler
from evenloop.samplers.quota import Quota


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_builds_from_its_name(name: str) -> None:
    build = sampler({"name": name})
    assert build is not None
    assert build().steps(10, 4) == 3


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_builds_anew_from_its_name(name: str) -> None:
    build = objective({"name": name})
    assert build is not None
    assert build() is not build()


def test_none_is_the_loops_own() -> None:
    assert sampler(None) is None
    assert objective(None) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "quotas"}, "sampler='quotas' is not known; did you mean 'quota'"),
        (
            {"name": "quota", "budgets": 3},
            "sampler quota has no field 'budgets'; did you mean 'budget'",
        ),
        ({"name": "quota", "fill": "all"}, "fill must be one of|sampler quota.fill = 'all'"),
        ({"name": "quota", "ideal": [0.5, 0.6]}, "sampler quota: .*sum"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sampler(values)


def test_a_configuration_names_them_and_settings_reach_them() -> None:
    config = load("digits", ["sampler=quota", "sampler.budget=300%", "objective=group-dro"])
    assert config.sampler == {"name": "quota", "budget": "300%"}
    world = assemble(config, 0).world
    assert world.sampler is not None
    assert world.objective is not None
    made = world.sampler()
    assert isinstance(made, Quota)
    assert made.budget == "300%"
    assert isinstance(world.objective(), GroupDRO)


def test_a_study_without_them_keeps_its_name() -> None:
    plain = load("digits")
    assert "sampler" not in plain.identity()
    assert load("digits", ["objective=reweight"]).digest() != plain.digest()


def test_a_file_may_give_a_name_or_a_mapping(tmp_path: Path) -> None:
    parts = ("world: digits8", "loop: [relabel]", "net: logistic", "recipe: logistic")
    text = "\n".join([*parts, "test_size: 50", "rounds: 1", ""])
    (tmp_path / "a.yaml").write_text(text + "objective: reweight\n")
    (tmp_path / "b.yaml").write_text(text + "objective: {name: group-dro, rate: 0.1}\n")
    for name, kind in (("a", Reweight), ("b", GroupDRO)):
        build = assemble(load(str(tmp_path / f"{name}.yaml")), 0).world.objective
        assert build is not None
        assert isinstance(build(), kind)
