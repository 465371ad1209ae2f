"""The published commands end to end on pictures drawn here: table, folders, presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from evenloop.build import assemble
from evenloop.config import ConfigError, load
from evenloop.loop import run
from evenloop.worlds.celeba import VALUES

NAMES = ["Black_Hair", "Blond_Hair", "Eyeglasses", "Male", "Smiling", "Young"]


def draw(path: Path, shade: int, spot: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (20, 24), (shade, shade, shade))
    image.putpixel((spot % 20, spot // 20 % 24), (255, spot % 256, 0))
    image.save(path)


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    lines = []
    for i in range(160):
        bits = [1 if (i >> b) & 1 else -1 for b in range(6)]
        lines.append(f"{i:06}.png " + " ".join(map(str, bits)))
        draw(tmp_path / "img_align_celeba" / f"{i:06}.png", 60 + 100 * (bits[5] > 0), i)
    head = [str(len(lines)), " ".join(NAMES)]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join([*head, *lines]) + "\n")
    for i in range(64):
        tokens = [
            VALUES[name][(i >> b) % len(VALUES[name])]
            for b, name in enumerate(("age", "gender", "smiling", "glasses", "haircolors"))
        ]
        draw(tmp_path / "made" / "_".join(tokens) / f"{i}.png", 70 + 100 * (i & 1), i + 7)
    return tmp_path


@pytest.mark.parametrize("task", ["age-gender", "hair-age-gender"])
def test_a_published_command_runs_small(celeba: Path, task: str) -> None:
    settings = [
        f"world.root={celeba}", f"generated.root={celeba / 'made'}", "world.limit=160",
        "world.to=16", "world.crop=12", "world.through=16", "test_size=40", "batch=24",
        "per_cell=2", "net={name: logistic}", "epochs=1",
    ]  # fmt: skip
    config = load(f"mix-celeba-{task}:small", settings)
    config = config.model_copy(
        update={"generated": config.generated | {"to": 16, "crop": 12, "through": 16}}
    )
    job = assemble(config, 0)
    with torch.random.fork_rng():
        record = run(job.loop, job.world, job.audit, rounds=1)
    row = record.rows[0]
    assert row.sizes["generated"] == 64
    assert row.sizes["world"] == 120
    assert row.counts["audit"].total == 40
    assert row.values["share of generated rows drawn"] > 0.2


def test_unknown_folders_end_before_training(celeba: Path) -> None:
    draw(celeba / "made" / "old_male_frown_glasses_blackhair" / "0.png", 10, 3)
    settings = [f"world.root={celeba}", f"generated.root={celeba / 'made'}", "test_size=40"]
    with pytest.raises((ConfigError, ValueError), match="unknown token 'frown' for 'smiling'"):
        assemble(load("mix-celeba-age-gender:small", settings), 0)
