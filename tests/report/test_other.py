"""What a loop noted and no section shows: in the report, in the long table, in a comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evenloop.counts import Counts
from evenloop.inputs import ConfigError
from evenloop.record import Row
from evenloop.report import other
from evenloop.report.arms import Arms
from evenloop.report.page import read, write_report
from evenloop.report.sections import build_all
from evenloop.study.compare import Arm, arms_of, compare
from feedback_kit import study_folder

GROUPS, CLASSES = ("f", "m"), ("no", "yes")
TITLE = "Other measurements"


def counted(right_f: int, right_m: int) -> Counts:
    """Ten items of each group, half of each class, of which so many are right."""
    tables = [[[5, 0], [10 - right, right - 5]] for right in (right_f, right_m)]
    return Counts(np.array(tables), GROUPS, CLASSES)


def rows(deployed: tuple[int, int], **values: float | str) -> list[Row]:
    """Two rounds that audit nine and eight of ten right, and deploy as given in the last."""
    sizes = {"train": 20, "world": 20, "relabelled": 0, "generated": 0}
    audit = counted(9, 8)
    first = Row(0, sizes, {"audit": audit, "train": audit})
    last = {"audit": audit, "train": audit, "deployed": counted(*deployed)}
    return [first, Row(1, sizes, last, values=values)]


def study(folder: Path, seeds: list[list[Row]]) -> Path:
    return study_folder(
        folder, seeds, track=None, by=("sex",), loop=[{"prune": {"sparsities": [0.5]}}]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return study(tmp_path / "a", [rows((5, 7), shift=0.25, why="a text")])


def test_counts_and_values_nobody_claims_are_shown(folder: Path) -> None:
    section = next(s for s in build_all(read(folder)) if s.title == TITLE)
    assert "Accuracy in deployed at round 1: 0.600 [0.387, 0.781]." in section.text
    drawn = " ".join(section.figures)
    assert "Accuracy in deployed" in drawn
    assert "Distance between groups in deployed" in drawn
    rates, numbers, texts = section.tables
    assert ("0", "accuracy", "m", "0.700", "[0.397, 0.892]", "10") in rates.rows
    assert [row[:4] for row in rates.rows if row[1] == "selection rate"] == [
        ("0", "selection rate", "f", "0.000"),
        ("0", "selection rate", "m", "0.200"),
        ("0", "selection rate", "widest between groups", "0.200"),
    ]
    assert numbers.rows == [("shift", *["0.250 [not estimable between seeds]"] * 2)]
    assert texts.rows == [("0", "why", "a text")]
    assert TITLE in write_report(folder).path.read_text(encoding="utf-8")


def test_rows_counted_by_their_true_labels_are_in_the_table_alone(tmp_path: Path) -> None:
    found = other.build(read(study(tmp_path / "true", [rows((10, 10))])), [])
    assert found is not None
    assert (found.figures, found.summary) == ([], [])
    assert [table.caption for table in found.tables] == [
        "Rates of yes in deployed at the last round"
    ]


def test_numbers_of_one_name_are_lines_of_one_figure(tmp_path: Path) -> None:
    both = [replace(row, values={"sure.f": 1, "sure.m": 2, "once": 3} if row.round else
            {"sure.f": 2, "sure.m": 3}) for row in rows((10, 10))]  # fmt: skip
    found = other.build(read(study(tmp_path / "family", [both])), [])
    assert found is not None
    assert len(found.figures) == 1
    assert all(name in found.figures[0] for name in ("sure.f", "sure.m"))
    assert [row[0] for row in found.tables[1].rows] == ["sure.f", "sure.m", "once"]


def test_what_a_section_shows_is_not_told_again(folder: Path) -> None:
    found = other.build(read(folder), ["deployed", "sh*"])
    assert found is not None
    assert (found.figures, len(found.tables)) == ([], 1)
    assert other.build(read(folder), ["deployed", "shift", "why"]) is None


def test_a_run_that_noted_nothing_has_no_such_section(tmp_path: Path) -> None:
    place = study(tmp_path / "quiet", [[rows((5, 7))[0]]])
    assert TITLE not in [section.title for section in build_all(read(place))]


def test_a_group_that_is_absent_is_there_and_not_estimable(tmp_path: Path) -> None:
    gone = Counts(np.array([[[5, 0], [0, 5]], [[0, 0], [0, 0]]]), GROUPS, CLASSES)
    last = rows((5, 7))[1]
    place = study(
        tmp_path / "gone", [[replace(last, round=0, counts={"train": counted(9, 8), "seen": gone})]]
    )
    found = other.build(read(place), [])
    assert found is not None
    assert ("0", "accuracy", "m", "not estimable", "", "0") in found.tables[0].rows


def test_the_long_table_has_every_group_measure_of_such_counts(folder: Path) -> None:
    table = read(folder).table
    last = table[(table["round"] == 1) & (table["group"] == "all")]
    audit, deployed = (set(last[last["split"] == s]["metric"]) for s in ("audit", "deployed"))
    assert deployed == audit
    gap = last[(last["split"] == "deployed") & (last["metric"] == "accuracy difference")]
    assert gap["value"].item() == pytest.approx(0.2)
    assert gap["low"].item() <= 0.2 <= gap["high"].item()


def test_parities_are_of_people_s_groups_only(tmp_path: Path) -> None:
    first, last = rows((5, 7))
    cells = Counts(counted(5, 7).table, ("no f", "no m"), CLASSES)
    last = replace(last, counts={**last.counts, "cells": cells})
    table = read(study(tmp_path / "cells", [[first, last]])).table
    found = set(table[table["split"] == "cells"]["metric"])
    assert "accuracy difference" in found
    assert "equalized odds difference" not in found


class TestAMetricOfASplit:
    """`accuracy@deployed`, in a comparison and in the report of a sweep."""

    @pytest.fixture
    def arms(self, tmp_path: Path) -> list[Arm]:
        folders = []
        for name, right in (("a", 5), ("b", 7)):
            seeds = [rows((right, 7)), rows((right + 1, 7))]
            folders.append(study(tmp_path / name, seeds))
        return arms_of(folders)

    def test_it_is_compared_beside_those_of_the_audit(self, arms: list[Arm]) -> None:
        table = compare(arms, ["accuracy@deployed", "accuracy"], rounds=(None,))
        means = dict(zip(zip(table["metric"], table["arm"], strict=True), table["mean"],
                         strict=True))  # fmt: skip
        assert means["accuracy@deployed", "a"] == pytest.approx(0.625)
        assert means["accuracy@deployed", "b"] == pytest.approx(0.725)
        assert means["accuracy", "a"] == means["accuracy", "b"] == pytest.approx(0.85)

    def test_the_report_of_a_sweep_reads_it_too(self, arms: list[Arm], tmp_path: Path) -> None:
        studies = {name: read(tmp_path / name) for name in ("a", "b")}
        found = Arms("s", studies, ["accuracy@deployed"])
        assert found.change("b", "accuracy@deployed").value == pytest.approx(0.1)
        assert found.mean("a", "accuracy@deployed").value == pytest.approx(0.625)

    @pytest.mark.parametrize(
        ("wanted", "split", "said"),
        [
            (["accuracy@deplyed"], "audit", "no split 'deplyed'.*'deployed'"),
            (["acuracy@deployed"], "audit", "no metric 'acuracy@deployed'.*'accuracy'"),
            (["acuracy"], "deployed", "no metric 'acuracy' on split 'deployed'.*'accuracy'"),
            ([], "deplyed", "no split 'deplyed'.*'deployed'"),
        ],
    )
    def test_what_is_not_there_is_named(
        self, arms: list[Arm], wanted: list[str], split: str, said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said):
            compare(arms, wanted, split=split)

    def test_a_split_of_the_loop_s_own_is_compared_whole(self, arms: list[Arm]) -> None:
        table = compare(arms, split="deployed", rounds=(None,))
        assert {"accuracy", "equalized odds difference"} <= set(table["metric"])
