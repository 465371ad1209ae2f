"""The report of a sweep over ways of pruning."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evenloop.report.pruned_arms import compressed_arms
from report.pruned import TINY, page_of

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
    (out / "base.yaml").write_text(TINY)
    return page_of("sweep", SWEEP % (out / "base.yaml"), "ways", out)


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
    (tmp_path / "base.yaml").write_text(TINY.replace("[0.5, 0.8]", "[0.8]"))
    arms = "{tight: {tolerance: 0.01}, wide: {tolerance: 0.3}}"
    ways = f"base: {tmp_path / 'base.yaml'}\nmetrics: [accuracy]\narms: {arms}\n"
    found = page_of("sweep", ways, "ways", tmp_path)
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
