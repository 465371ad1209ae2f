"""The report's section on compression."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evenloop.counts import Counts
from evenloop.record import Row
from evenloop.report.sections.compression import _worst, build
from report.pruned import TINY, page_of

CHAIN = """
world: {name: mnist5k}
test_size: 200
by: [truth]
loop:
  - relabel: {n0: 150, human: 20, machine: 20}
  - prune:
      tolerance: 0.02
      sparsity: [0.8]
      prune_until: 1
      buffer_size: 5
      tune: {lr: 0.05, epochs: 2}
net: {name: mlp, hidden: [16, 16]}
recipe: {base: mlp, batch: 50, epochs: 1}
rounds: 2
seeds: 1
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a tiny run on packaged digits."""
    return page_of("run", TINY, "tiny", tmp_path_factory.mktemp("runs"))


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


def test_every_group_has_limits_at_every_sparsity(page: str) -> None:
    table = page[page.index("Every group at every sparsity") :]
    table = table[: table.index("</table>")]
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in table.split("<tr>")[2:]]
    assert {(row[0], row[2]) for row in rows} == {
        (where, level) for where in ("training rows", "audit split") for level in ("0.5", "0.8")
    }
    assert len(rows) == 40
    for row in rows:
        for rate in row[5:7]:
            value, low, high = map(float, re.findall(r"[\d.]+", rate))
            assert low <= value <= high
            assert low < high
    assert sum(int(row[4]) for row in rows) == 2 * 2 * (300 + 200)  # seeds, sparsities


def test_the_section_appears_for_a_chain_and_speaks_of_its_rounds(tmp_path: Path) -> None:
    page = page_of("run", CHAIN, "chain", tmp_path)
    for words in (
        "against the dense net that the round was given",
        "On the training rows the largest excess gap of the last round is",
        "Every group at every sparsity",
        "Sparsity of every layer, percent",
    ):
        assert words in page, words


def test_a_group_without_rows_is_named_and_no_number_is_given() -> None:
    one, dense = np.eye(2, dtype=np.int64), np.zeros((2, 2), np.int64)
    counts = Counts(np.stack([5 * one, dense]), ("here", "gone"), ("a", "b"))
    row = Row(0, {}, counts=dict.fromkeys(("fit", "fit.reference", "audit"), counts))
    study: Any = SimpleNamespace(records={0: SimpleNamespace(rows=[row])})
    missing = [SimpleNamespace(measured=float("nan"))]
    known = [SimpleNamespace(measured=0.25)]
    assert _worst(study, "fit", missing) == "not estimable: gone"  # type: ignore[arg-type]
    assert _worst(study, "fit", known) == "0.250 (seeds 0.250 to 0.250)"  # type: ignore[arg-type]
    assert _worst(study, "fit", known + missing).endswith(  # type: ignore[arg-type]
        "; not estimable: gone in 1 of 2 seeds"
    )


def test_a_study_that_does_not_prune_has_no_such_section() -> None:
    study: Any = SimpleNamespace(config=SimpleNamespace(loop=[{"relabel": {}}]), records={})
    assert build(study) is None
