"""Arms paired by seed: differences by hand, seeds that agree, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evenloop.commands.tables import comparison_lines
from evenloop.config import ConfigError
from evenloop.study.compare import Arm, arms_of, compare
from feedback_kit import row, study_folder


def arm(folder: Path, biases: list[list[float]], **fields: object) -> Arm:
    seeds = [[row(t, 0.25 + b, 0.25) for t, b in enumerate(run)] for run in biases]
    return arms_of([study_folder(folder, seeds, **fields)])[0]


def cell(table, name: str, round: str, column: str) -> float:  # type: ignore[no-untyped-def]
    kept = table[(table["arm"] == name) & (table["round"] == round)]
    return float(kept[column].item())


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    a = arm(tmp_path / "a", [[0.0, 0.1], [0.1, 0.2], [0.2, 0.3]])
    b = arm(tmp_path / "b", [[0.1, 0.15], [0.2, 0.24], [0.3, 0.36]])
    table = compare([a, b], ["bias"])
    assert cell(table, "a", "last", "mean") == pytest.approx(0.2)
    assert np.isnan(cell(table, "a", "last", "difference"))
    assert cell(table, "b", "last", "difference") == pytest.approx(0.05)
    # sd .01 over 3 pairs, Student's quantile 4.302653
    half = 4.302653 * 0.01 / 3**0.5
    assert cell(table, "b", "last", "difference_low") == pytest.approx(0.05 - half, abs=1e-6)
    assert cell(table, "b", "last", "pairs") == 3


def test_seeds_that_agree_exactly_prove_nothing_between_seeds(tmp_path: Path) -> None:
    a = arm(tmp_path / "a", [[0.0, 0.1]] * 3)
    b = arm(tmp_path / "b", [[0.1, 0.15]] * 3)
    table = compare([a, b], ["bias"])
    for column in ("low", "high", "difference_low", "difference_high"):
        assert np.isnan(cell(table, "b", "last", column))
    assert cell(table, "b", "0", "difference") == pytest.approx(0.1)
    said = "\n".join(comparison_lines(table, 0.95))
    assert "+0.100 [not estimable between seeds], 3 pairs" in said
    assert "nan" not in said
    same = "\n".join(comparison_lines(compare([a, replace(a, name="c")], ["bias"]), 0.95))
    assert "the same in all 3 pairs" in same
    assert "difference" not in same


def test_one_seed_has_a_mean_and_no_limits(tmp_path: Path) -> None:
    table = compare([arm(tmp_path / "a", [[0.0, 0.1]])], ["bias"])
    assert cell(table, "a", "last", "mean") == pytest.approx(0.1)
    assert np.isnan(cell(table, "a", "last", "low"))


def test_a_study_of_one_round_is_told_once(tmp_path: Path) -> None:
    a, b = (arm(tmp_path / name, [[0.1], [0.2]]) for name in "ab")
    longer = arm(tmp_path / "c", [[0.1], [0.2, 0.3]])
    assert compare([a, b], ["bias"])["round"].tolist() == ["last", "last"]
    assert compare([a, b], ["bias"], rounds=(0,))["round"].tolist() == ["0", "0"]
    assert compare([a, longer], ["bias"])["round"].tolist() == ["0", "0", "last", "last"]


def test_what_is_not_estimable_at_the_last_round_is_missing_there(tmp_path: Path) -> None:
    a, b = (arm(tmp_path / name, [[0.0, 0.1], [0.1, 0.2], [0.2, 0.3]]) for name in "ab")
    lost = (b.table["metric"] == "bias") & (b.table["round"] == 1) & (b.table["seed"] == 2)
    assert lost.any()
    b = replace(b, table=b.table.assign(value=b.table["value"].mask(lost)))
    table = compare([a, b], ["bias"])
    assert (cell(table, "b", "last", "n"), cell(table, "b", "last", "pairs")) == (2, 2)
    assert cell(table, "b", "last", "mean") == pytest.approx(0.15)
    assert cell(table, "b", "0", "n") == 3


def test_the_bound_follows_what_is_trained_on(tmp_path: Path) -> None:
    loop = [{"relabel": {"n0": 100, "human": 10, "machine": 40, "train_on": "latest"}}]
    table = compare([arm(tmp_path / "a", [[0.1, 0.1]], loop=loop)], ["bound of round 0"])
    assert cell(table, "a", "last", "mean") == pytest.approx(0.18)


def test_a_loops_own_note_is_compared_too(tmp_path: Path) -> None:
    runs = [[replace(row(0, 0.25, 0.25), values={"drift": d})] for d in (0.1, 0.3)]
    found = arms_of([study_folder(tmp_path / "a", runs)])
    assert cell(compare(found, ["drift"]), "a", "last", "mean") == pytest.approx(0.2)
    assert "drift" not in set(compare(found)["metric"])


def test_an_unknown_metric_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"biass.*bias"):
        compare([arm(tmp_path / "a", [[0.0]])], ["biass"])


def test_a_study_without_rounds_is_refused(tmp_path: Path) -> None:
    folder = study_folder(tmp_path / "a", [[row(0, 0.3, 0.3)]])
    (folder / "seed-0" / "rows.jsonl").unlink()
    with pytest.raises(ConfigError, match="no finished round"):
        arms_of([folder])


def test_a_metric_of_later_rounds_only_is_compared_where_it_is(tmp_path: Path) -> None:
    arms = [arm(tmp_path / name, [[0.1, 0.2], [0.1, 0.3]]) for name in "ab"]
    late = [replace(a, table=a.table[a.table["round"] > 0]) for a in arms]
    table = compare(late, ["bias"])
    assert table["round"].tolist() == ["last", "last"]
    only = compare([late[0], arms[1]], ["bias"], rounds=(0,))
    assert only["arm"].tolist() == [arms[1].name]
    assert "difference" not in only or only["difference"].isna().all()
