"""The published presets on tiny files in the official layouts of FairFace and CIFAR-100."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenloop.build import assemble, check
from evenloop.config import load, preset_names
from evenloop.loop import run
from evenloop.loops.prune import Prune
from evenloop.worlds.faces import FAIR_AGES, FAIR_GENDERS, FAIR_RACES
from worlds.layouts import pixels, write_cifar100, write_image, write_utkface

PRESETS = [name for name in preset_names() if name.startswith("prune-")]
SHORT = (
    "epochs=1", "tune.epochs=2", "prune_until=1", "batch=8", "tune.batch=8", "rows=null", "seeds=1",
)  # fmt: skip


def write_fairface(root: Path, train: int, val: int) -> Path:
    """Rows that run through races, genders and ages."""
    for split, n in (("train", train), ("val", val)):
        lines = ["file,age,gender,race,service_test"]
        for i in range(n):
            write_image(root / split / f"{i + 1}.jpg", pixels(1, 8, 8, 3, seed=i)[0])
            said = f"{FAIR_AGES[i % 9]},{FAIR_GENDERS[i // 7 % 2]},{FAIR_RACES[i % 7]}"
            lines.append(f"{split}/{i + 1}.jpg,{said},True")
        (root / f"fairface_label_{split}.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("preset", [name for name in PRESETS if "fairface" in name])
def test_fairface_presets_read_the_official_split(tmp_path: Path, preset: str) -> None:
    write_fairface(tmp_path, train=28, val=14)
    small = ("resize=36", "test_size=14", "buffer_size=1", "sparsity=0.9", f"root={tmp_path}")
    config = load(preset, [*SHORT, *small])
    job = assemble(config, 0)
    assert (len(job.world.data), job.audit.data.truth.numel()) == (28, 14)
    assert isinstance(job.loop, Prune)
    groups = {"race": 7, "gender": 2, "race-gender": 14}
    kind = preset.removeprefix("prune-fairface-").rpartition("-")[0]
    assert job.world.groups(job.world.data).size == groups[kind]
    assert check(config) == ()


@pytest.mark.parametrize("seed", [0, 1])
def test_utkface_presets_hold_out_the_published_fifth(tmp_path: Path, seed: int) -> None:
    write_utkface(tmp_path, [f"{age}_{age % 2}_{age % 5}_2017.jpg" for age in range(10, 21)])
    small = ("resize=36", "test_size=2", "buffer_size=1", "sparsity=0.9", f"root={tmp_path}")
    for preset in (name for name in PRESETS if "utkface" in name):
        job = assemble(load(preset, [*SHORT, *small]), seed)
        assert len(job.world.data) == 9
        # Ages 10 and 20: rows 0 and 10 of eleven, whatever the seed.
        assert sorted(job.audit.data.attribute("race").tolist()) == [0, 0]
        assert load(f"{preset}:small", ["root=x"]).audit == "random"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["prune-fairface-race-gender-ceag", "prune-cifar100-ceag"])
def test_the_published_nets_run_a_round(tmp_path: Path, preset: str) -> None:
    if "fairface" in preset:
        write_fairface(tmp_path, train=28, val=14)
        small = ["resize=36", "test_size=14", "sparsity=0.9"]
    else:
        write_cifar100(tmp_path, "binary", rows=100)
        small = ["test_size=100"]
    config = load(preset, [*SHORT, *small, "buffer_size=1", f"root={tmp_path}"])
    job = assemble(config, 0)
    record = run(job.loop, job.world, job.audit, rounds=2, claims=job.claims)
    row = record.rows[1]
    assert row.values["sparsity"] == 0.9
    assert row.counts["fit"].total == len(job.world.data)
    assert len(row.counts["fit"].groups) == (14 if "fairface" in preset else 100)
    assert "multipliers" in row.values
