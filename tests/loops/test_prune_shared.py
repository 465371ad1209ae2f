"""One dense net for several arms: a run's folder, or a file for each seed, in place of training."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from evenloop.build import assemble
from evenloop.cli import app
from evenloop.config import ConfigError, load
from evenloop.loops.prune import Prune
from evenloop.study.folder import read_study

TINY = """
world: {name: mnist5k}
test_size: 200
by: [truth]
loop:
  - prune:
      rows: 200
      method: none
      tolerance: 0.02
      sparsity: 0.5
      prune_until: 1
      buffer_size: 5
      tune: {lr: 0.05, epochs: 2}
net: {name: mlp, hidden: [16]}
recipe: {base: mlp, batch: 50, epochs: 2}
rounds: 2
seeds: [3, 4]
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("runs") / "tiny.yaml"
    file.write_text(TINY.replace("[16]", "[16, 16]"))
    return file


def done(file: Path, *settings: str) -> Path:
    found = CliRunner().invoke(
        app, ["run", str(file), *settings, "-q", "-j", "1", "-o", str(file.parent)]
    )
    assert found.exit_code == 0, found.output
    line = next(text for text in found.output.splitlines() if text.startswith("run folder: "))
    return Path(line.removeprefix("run folder: "))


def test_arms_that_share_a_dense_run_start_from_its_nets(tiny: Path) -> None:
    dense = done(tiny, "rounds=1", "sparsity=0.6")
    shared = done(tiny, f"dense={dense}")
    trained = done(tiny)  # with both seeds: stacked nets differ in the last bits
    for folder in (dense, trained):
        for seed, record in read_study(folder)[1].items():
            other = read_study(shared)[1][seed]
            for row, same in zip(record.rows, other.rows, strict=False):
                assert row.to_json() == same.to_json()
    first, second = (assemble(load(str(tiny), [f"dense={dense}"]), seed).loop for seed in (3, 4))
    assert isinstance(first, Prune)
    assert first.dense.startswith(str(dense / "seed-3"))
    assert isinstance(second, Prune)
    assert second.dense.startswith(str(dense / "seed-4"))


def test_a_seed_takes_its_own_file(tiny: Path) -> None:
    loop = assemble(load(str(tiny), ["dense=nets/{seed}.pt"]), 4).loop
    assert isinstance(loop, Prune)
    assert loop.dense == str(Path("nets/4.pt"))


def test_a_folder_without_this_seed_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed-3 holds no models"):
        assemble(load(str(tiny), [f"dense={tmp_path}"]), 3)
    found = CliRunner().invoke(app, ["run", str(tiny), f"dense={tmp_path}", "-o", str(tmp_path)])
    assert found.exit_code == 2
    assert "holds no models" in found.output
