"""Seams that a configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenloop.build import assemble, check
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


def test_none_and_the_plain_names_are_the_recipes_own() -> None:
    assert sampler(None) is sampler({"name": "uniform"}) is None
    assert objective(None) is objective({"name": "erm"}) is None


@pytest.mark.parametrize(
    "settings",
    [
        ["objective=reweight", "recipe.label_smoothing=0.1"],
        ["sampler=quota", "recipe.drop_last=true"],
    ],
)
def test_a_seam_and_a_recipe_that_contradict_each_other_are_named(settings: list[str]) -> None:
    with pytest.raises(ConfigError, match="contradict each other"):
        assemble(load("demo", settings), 0)
    plain = [s.replace("reweight", "erm").replace("quota", "uniform") for s in settings]
    assert assemble(load("demo", plain), 0).world.sampler is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["sampler=quota", "sampler.ideal=[0.5, 0.5]"], "ideal"),
        (["objective=group-dro", "recipe.micro_batch=4"], "micro_batch=4 needs an objective"),
        (["audit_draws=5"], "audit_draws=5 needs a net with dropout"),
    ],
)
def test_what_training_would_end_with_is_found_before(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(load("demo", settings))
    check(load("demo", ["sampler=quota", "objective=reweight", "recipe.micro_batch=4"]))


def test_the_feedback_bound_is_not_claimed_where_people_label_chosen_rows() -> None:
    chosen = "loop=[relabel, {acquire: {initial: 50, query: 5}}]"
    drawn = "loop=[relabel, {acquire: {initial: 50, query: 5, heuristic: random}}]"
    assert not assemble(load("demo", [chosen]), 0).claims
    assert len(assemble(load("demo", [drawn]), 0).claims) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "quotas"}, "sampler='quotas' is not known; did you mean 'quota'"),
        ({"name": "uniform", "drop_last": True}, "sampler='uniform' is not known|has no field"),
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
