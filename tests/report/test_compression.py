"""The report's section on compression."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from evenloop.cli import app
from evenloop.report.sections.compression import build


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a tiny run on packaged digits."""
    out: Path = tmp_path_factory.mktemp("runs")
    config = out / "tiny.yaml"
    config.write_text(
        """
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
    )
    runner = CliRunner()
    done = runner.invoke(app, ["run", str(config), "-q", "-j", "1", "-o", str(out)])
    assert done.exit_code == 0, done.output
    return next(out.rglob("report.html")).read_text()


def test_the_page_says_who_pays(page: str) -> None:
    for words in (
        "Compression",
        "Largest excess accuracy gap",
        "Accuracy against disparity, by sparsity",
        "Largest excess gap of every seed in percent against a tolerance of 2;",
        "On the training rows the largest excess gap of the last round is",
        "On the audit split the largest excess gap of the last round is",
        "tolerance 0.02",
        "With no difference between groups",
        "Multipliers of the last round",
        "Sparsity of every layer, percent",
        "Who can be harmed",
    ):
        assert words in page, words


def test_a_study_that_does_not_prune_has_no_such_section() -> None:
    study: Any = SimpleNamespace(config=SimpleNamespace(loop=[{"relabel": {}}]), records={})
    assert build(study) is None
