"""The report of a sweep over ways of pruning."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from evenloop.cli import app
from evenloop.report.pruned_arms import compressed_arms

BASE = """
world: {name: mnist5k}
test_size: 200
by: [truth]
loop:
  - prune:
      rows: 300
      tolerance: 0.02
      sparsity: [0.5, 0.8]
      prune_until: 1
      buffer_size: 5
      tune: {lr: 0.05, epochs: 3}
net: {name: mlp, hidden: [16, 16]}
recipe: {base: mlp, batch: 50, epochs: 3}
rounds: 3
seeds: 2
"""
SWEEP = """
base: %s
metrics: [accuracy, largest excess accuracy gap]
arms:
  naive: {method: none}
  bounded: {}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    out: Path = tmp_path_factory.mktemp("runs")
    (out / "base.yaml").write_text(BASE)
    (out / "ways.yaml").write_text(SWEEP % (out / "base.yaml"))
    done = CliRunner().invoke(
        app, ["sweep", str(out / "ways.yaml"), "-q", "-j", "1", "-o", str(out)]
    )
    assert done.exit_code == 0, done.output
    return next(out.glob("sweep-*.html")).read_text()


def test_methods_stand_side_by_side_at_every_sparsity(page: str) -> None:
    for words in (
        "Who pays, by method and sparsity",
        "Accuracy against disparity, training rows",
        "Accuracy against disparity, audit split",
        "Largest excess gap, training rows",
        "of 4 nets (sparsities and seeds)",
        "Training rows: percent, mean and standard deviation over 2 seeds; tolerance 2",
        "by chance alone",
        "naive: within the tolerance on the training rows in",
    ):
        assert words in page, words
    assert page.count("<td>0.5</td><td>naive</td>") == 2
    assert page.count("<td>0.8</td><td>bounded</td>") == 2


def test_arms_of_several_tolerances_each_show_their_own(page: str, tmp_path: Path) -> None:
    assert "<th>allowed</th>" not in page
    (tmp_path / "base.yaml").write_text(BASE.replace("[0.5, 0.8]", "[0.8]"))
    arms = "{tight: {tolerance: 0.01}, wide: {tolerance: 0.3}}"
    ways = f"base: {tmp_path / 'base.yaml'}\nmetrics: [accuracy]\narms: {arms}\n"
    (tmp_path / "ways.yaml").write_text(ways)
    done = CliRunner().invoke(
        app, ["sweep", str(tmp_path / "ways.yaml"), "-q", "-j", "1", "-o", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    found = next(tmp_path.glob("sweep-*.html")).read_text()
    assert found.count("<td>0.8</td><td>tight</td><td>1</td>") == 4  # two rounds, two splits
    assert found.count("<td>0.8</td><td>wide</td><td>30</td>") == 4
    assert "over 2 seeds; tolerance" not in found


def test_one_arm_or_arms_that_do_not_prune_have_no_such_section() -> None:
    relabel: Any = SimpleNamespace(config=SimpleNamespace(loop=[{"relabel": {}}]), records={})
    pruned: Any = SimpleNamespace(
        config=SimpleNamespace(loop=[{"prune": {"tolerance": 0.1}}]),
        records={0: SimpleNamespace(rows=[SimpleNamespace(counts={"fit": None})])},
    )
    assert compressed_arms({"a": relabel, "b": pruned}) is None
    assert compressed_arms({"a": pruned}) is None
