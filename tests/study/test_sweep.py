"""A sweep's file: its arms, what they share, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenloop.config import ConfigError
from evenloop.study.sweep import load_sweep

FILE = """
base: digits
seeds: 0..2
metrics: [bias]
set: {train_on: subsample}
arms:
  argmax: {}
  sampled: {label_rule: sample, net: {name: sklearn-tree}}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "study.yaml"
    path.write_text(text)
    return str(path)


def test_arms_share_seeds_and_settings_and_differ_where_they_say(tmp_path: Path) -> None:
    plan = load_sweep(write(tmp_path, FILE), ("rounds=3",))
    assert (plan.name, plan.metrics, [*plan.arms]) == ("study", ("bias",), ["argmax", "sampled"])
    for config in plan.arms.values():
        assert (config.seeds, config.rounds) == ((0, 1, 2), 3)
        assert config.loop[0]["relabel"]["train_on"] == "subsample"
    assert "label_rule" not in plan.arms["argmax"].loop[0]["relabel"]
    assert plan.arms["sampled"].loop[0]["relabel"]["label_rule"] == "sample"
    assert plan.arms["sampled"].net == {"name": "sklearn-tree"}


def test_curves_name_arms_in_order(tmp_path: Path) -> None:
    plan = load_sweep(write(tmp_path, FILE + "curves: {rules: [sampled, argmax]}"))
    assert plan.curves == {"rules": ("sampled", "argmax")}
    other = load_sweep(write(tmp_path, FILE), ("human=3",))
    assert plan.digest() != other.digest()
    assert plan.digest() == load_sweep(write(tmp_path, FILE)).digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: digits", "must hold the keys base and arms"),
        ("[1, 2]", "must hold the keys base and arms"),
        ("base: [", "is not YAML"),
        (FILE + "metric: [bias]", "unknown key 'metric'"),
        ("{base: digits, arms: [1]}", "arms=[1] must name at least one arm"),
        ("{base: digits, arms: {}}", "arms={} must name at least one arm"),
        ("{base: digits, arms: {a: 3}}", "a=3 must be a mapping of settings"),
        ("{base: digits, set: 3, arms: {a: {}}}", "set=3 must be a mapping of settings"),
        ("{base: digit, arms: {a: {}}}", "arm 'a': no preset 'digit'; did you mean 'digits'?"),
        ("{base: digits, arms: {a: {humann: 3}}}", "arm 'a': unknown key 'humann'"),
        (FILE + "curves: [argmax]", "curves=['argmax'] must be a mapping"),
        (FILE + "curves: {rules: argmax}", "curve 'rules'='argmax' must be a list of arms"),
        (FILE + "curves: {rules: [argmx]}", "names no arm 'argmx'; did you mean 'argmax'"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_sweep(write(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_sweep_or_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="no sweep 'digits-rule'; did you mean 'digits-rules'"):
        load_sweep("digits-rule")
    with pytest.raises(ConfigError, match=r"no file 'nowhere\.yaml'"):
        load_sweep("nowhere.yaml")
