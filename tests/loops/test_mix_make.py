"""`evenloop data make` and a run that takes the pictures it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from evenloop.build import assemble
from evenloop.cli import app
from evenloop.config import ConfigError, load
from evenloop.data import Attribute, GroupedData, Origin, Schema
from evenloop.models import Pixels
from evenloop.rng import Rng
from evenloop.worlds.generated import write_generated

SCHEMA = Schema(("no", "yes"), (Attribute("sex", ("f", "m")),))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run on 80 drawn pictures of 8 pixels that makes its own."""
    draw = torch.Generator().manual_seed(0)
    y, sex = torch.randint(0, 2, (2, 80), generator=draw)
    x = torch.randint(0, 60, (80, 3, 8, 8), generator=draw) + 120 * y[:, None, None, None]
    real = GroupedData.of(x.to(torch.uint8), y, {"sex": sex}, SCHEMA)
    manifest = write_generated(tmp_path / "real", real)
    values = {
        "world": {"name": "manifest", "path": str(manifest), "groups": ["sex"]},
        "by": ["sex"],
        "test_size": 20,
        "loop": [{"mix": {"generator": "vae", "made_rows": 3, "generator_epochs": 1}}],
        "net": {"name": "logistic"},
        "recipe": {"batch": 8, "epochs": 1},
        "rounds": 1,
        "seeds": 2,
    }
    path = tmp_path / "faces.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_each_seed_gets_its_own_folder_and_a_run_takes_it(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    done = CliRunner().invoke(app, ["data", "make", str(config), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert [path.name for path in sorted(out.iterdir())] == ["0", "1"]
    texts = [(out / seed / "manifest.csv").read_text() for seed in ("0", "1")]
    assert len(texts[0].splitlines()) == 13
    assert texts[0] != texts[1]
    again = CliRunner().invoke(app, ["data", "make", str(config), "-o", str(out)])
    assert again.exit_code == 2
    generated = {"name": "manifest", "path": f"{out}/{{seed}}/manifest.csv", "groups": ["sex"]}
    base = load(str(config), ["generator=none"])
    job = assemble(base.model_copy(update={"generated": generated}), 1)
    made = job.world.data.origin == int(Origin.GENERATED)
    assert (int(made.sum()), int((~made).sum())) == (12, 60)
    assert len(job.audit.data) == 20
    assert not (job.audit.data.origin == int(Origin.GENERATED)).any()


def test_pictures_without_stated_moments_train_a_linear_net(config: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["run", str(config), "seeds=1", "against=real", "--out", str(tmp_path / "runs")]
    )
    assert done.exit_code == 0, done.output
    job = assemble(load(str(config)), 0)
    shown = job.world.net(Rng.of(0))
    assert isinstance(shown, Pixels)
    train = job.world.data.x.double() / 255
    torch.testing.assert_close(
        1 / shown.scale.flatten().double(), train.std((0, 2, 3)), rtol=1e-3, atol=0
    )


def test_a_generated_copy_of_an_audited_picture_is_refused(config: Path, tmp_path: Path) -> None:
    audited = assemble(load(str(config), ["generator=none"]), 0).audit.data
    manifest = write_generated(tmp_path / "copies", audited.take([3]))
    generated = {"name": "manifest", "path": str(manifest), "groups": ["sex"]}
    base = load(str(config), ["generator=none"]).model_copy(update={"generated": generated})
    with pytest.raises(ConfigError, match="1 generated rows are copies of real rows"):
        assemble(base, 0)


def test_only_a_mix_with_a_generator_of_images_makes_any(config: Path) -> None:
    from evenloop.commands.make import make_generated

    with pytest.raises(ConfigError, match="generator=vae"):
        next(make_generated(load(str(config), ["generator=none"]), Path("nowhere")))
