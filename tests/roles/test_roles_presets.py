"""The presets of the role figures: the paper's numbers, and that both variants run."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenloop.bound import feedback_bound
from evenloop.build import assemble, check
from evenloop.config import load
from evenloop.loop import run
from evenloop.study.sweep import load_sweep
from worlds.emoji_sets import write as write_emoji
from worlds.test_roles import write as write_imsitu

FIGURES = [f"fig{n}-{side}" for n in (4, 8, 15, 16, 17) for side in ("left", "right")]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_the_papers_sizes(name: str) -> None:
    config = load(name)
    (values,) = [entry["relabel"] for entry in config.loop]
    human, machine = (1000, 4000) if name.endswith("left") else (2500, 2500)
    assert values == {"n0": 20_000, "human": human, "machine": machine}
    assert (config.rounds, config.test_size, config.audit) == (17, 25_200, "test")
    assert config.recipe == {"base": "crf"}
    assert config.net["backbone"] == "resnet18"
    assert config.world["gender_sets"] == config.world["bins"] == "original"
    ends = feedback_bound(n0=20_000, human=human, model=machine, delta=1.0, rounds=16)[-1]
    assert ends == pytest.approx(2.056 if name.endswith("left") else 1.542, abs=5e-4)


@pytest.mark.parametrize("name", FIGURES)
def test_its_small_variant_is_on_emoji(name: str) -> None:
    config = load(f"{name}:small")
    assert config.world["name"] == "emoji-roles"
    assert len(config.seeds) >= 5
    assert config.about.small_cost


def test_a_small_figure_runs_from_its_file(tmp_path: Path) -> None:
    write_emoji(tmp_path / "sets")
    settings = [
        f"root={tmp_path / 'sets'}", "styles=[fluent3d]", "kinds=[role, sport]", "train=60",
        "test=20", "test_size=20", "n0=20", "human=4", "machine=8", "epochs=1", "rounds=2",
        "seeds=1", f"cache={tmp_path}", "held_out=0.34",
    ]  # fmt: skip
    config = load("fig15-left:small", settings)
    assert check(config) == ()
    job = assemble(config, 0)
    rows = run(job.loop, job.world, job.audit, rounds=2, seed=0, claims=job.claims).rows
    assert rows[-1].sizes["relabelled"] == 8
    assert {"audit.women.bias", "audit.women.bin0.bias", "train.women"} <= set(rows[-1].moments)


def test_a_figure_runs_on_files_in_the_official_layout(tmp_path: Path) -> None:
    settings = [
        f"root={write_imsitu(tmp_path, per_verb=9)}", "size=40", "test_per_verb=2", "test_size=4",
        "n0=6", "human=1", "machine=2", "epochs=1", "rounds=2", "seeds=1", "weights=null",
        "backbone=small-cnn",
    ]  # fmt: skip
    config = load("fig4-left", settings)
    job = assemble(config, 0)
    rows = run(job.loop, job.world, job.audit, rounds=2, seed=0, claims=job.claims).rows
    assert rows[-1].sizes == {"train": 9, "world": 7, "relabelled": 2, "generated": 0}
    assert rows[-1].counts["audit"].groups[3] == "bin3"
    assert {"audit.women.cooking.bias", "audit.women.single.bias"} <= set(rows[-1].moments)


def test_weights_that_are_not_there_stop_it_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path / "nothing"))
    root = write_imsitu(tmp_path / "data")
    config = load("fig4-left", [f"root={root}", "size=40", "test_per_verb=1", "test_size=2",
                                "n0=2", "human=1", "machine=1"])  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"imagenet-resnet18.*Nothing is downloaded"):
        check(config)


def test_a_rule_for_texts_stops_it_before_training(tmp_path: Path) -> None:
    write_emoji(tmp_path / "sets")
    config = load(
        "fig4-left:small",
        [f"root={tmp_path / 'sets'}", "styles=[fluent3d]", "kinds=[role, sport]", "label_rule=beam",
         "held_out=0.34", f"cache={tmp_path}"],
    )  # fmt: skip
    with pytest.raises(ValueError, match="label_rule='beam' writes texts"):
        check(config)


def test_the_sweep_compares_the_rules() -> None:
    sweep = load_sweep("roles-rules")
    rules = {name: arm.loop[0]["relabel"].get("label_rule", "argmax")
             for name, arm in sweep.arms.items()}  # fmt: skip
    assert set(rules.values()) == {"argmax", "sample", "marginal"}
    assert "bias of women" in sweep.metrics
