"""The report of a sweep: paired differences, who gained, levelling down, curves, one file."""

from __future__ import annotations

import re
from math import nan
from pathlib import Path

import numpy as np
import pytest

from evenloop.config import ConfigError, RunConfig
from evenloop.counts import Counts
from evenloop.intervals import across_runs
from evenloop.record import Record, Row
from evenloop.report.arms import Arms, sections_of, write_arms
from evenloop.report.intervals import Interval, Point, forest_figure, points_figure
from evenloop.report.study import Study
from evenloop.study.compare import table_of

GROUPS, CLASSES = ("<f>", "m"), ("no", "yes")
SIZES = {"train": 80, "world": 80, "relabelled": 0, "generated": 0}
RIGHT = {"real": (30, 30), "shifted": (36, 24), "worse": (20, 20), "better f": (38, 30)}


def counts(right: tuple[int, int], seed: int) -> Counts:
    """40 items in every cell, `right` of them right by group; seed 1 has one more right."""
    cells = [[[r + seed, 40 - r - seed], [40 - r, r]] for r in right]
    return Counts(np.array(cells), GROUPS, CLASSES)


def study(name: str, seeds: tuple[int, ...] = (0, 1)) -> Study:
    config = RunConfig(
        world={"name": "table"}, loop=[{"mix": {}}], net={}, recipe={}, test_size=80, rounds=1,
        by=("sex",),
    )  # fmt: skip
    records = {}
    for seed in seeds:
        # the two seeds of an arm differ a little, so that there are limits between them
        seen = {"audit": counts(tuple(r + seed * (name == "better f") for r in RIGHT[name]), seed)}
        seen |= {"train": counts((40, 40), 0)}
        records[seed] = Record()
        values = {"share of generated rows drawn": 0.25} if name != "real" else {}
        records[seed].rows.append(
            Row(0, {"train": 80, "world": 80, "relabelled": 0, "generated": 0}, seen, {}, values)
        )
    return Study(Path(name), config, records, table_of(config, records), None)


def arms(*names: str, curves: dict[str, list[str]] | None = None) -> Arms:
    metrics = ("accuracy", "equalized odds difference")
    return Arms("a sweep", {name: study(name) for name in names}, metrics, curves or {})


def test_differences_are_from_the_first_arm_in_pairs_of_seeds() -> None:
    found = arms("real", "better f")
    change = found.change("better f", "accuracy", "<f>")
    assert change.value == pytest.approx((2 * 8 / 80 + 2 * 9 / 80) / 2)
    assert change.low < change.value < change.high
    same = arms("real", "shifted").change("shifted", "accuracy", "<f>")
    assert same.value == pytest.approx(12 / 80)
    assert np.isnan(same.low)  # both seeds changed by exactly as much: no spread to speak of


def test_groups_that_gained_and_lost_are_named() -> None:
    helped = next(s for s in sections_of(arms("real", "better f")) if s.title == "Who was helped")
    assert len(helped.figures) == 2
    assert {row[1] for row in helped.tables[0].rows} == set(GROUPS)
    assert helped.alarms == []
    assert "<f>" in helped.text[0] + "".join(row[1] for row in helped.tables[0].rows)


def test_levelling_down_names_arm_and_seeds() -> None:
    helped = next(s for s in sections_of(arms("real", "worse", "better f")) if s.alarms)
    assert [a.split(":")[0] for a in helped.alarms] == ["worse"]
    assert "(seed 0, 1; the few cells" in helped.alarms[0]


def test_arms_with_other_groups_are_compared_in_what_they_share() -> None:
    found = arms("real", "worse")
    one = found.studies["worse"].records[0].rows[0].counts
    one["audit"] = Counts(one["audit"].table[:1], ("x",), CLASSES)
    helped = next(s for s in sections_of(found) if s.title == "Who was helped")
    assert "(seed 1;" in helped.alarms[0]  # of seed 0 nothing can be said


def test_arms_of_a_curve_are_joined_and_marked_by_what_differs() -> None:
    found = arms("real", "shifted", "worse", curves={"by rows": ["shifted", "worse"]})
    plane = next(s for s in sections_of(found) if s.title == "What a smaller gap costs")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", plane.figures[0])
    assert {"shifted", "worse", "real", "by rows"} <= set(texts)
    assert len(plane.figures) == 1
    more = arms("real", "better f", "shifted", "worse", curves=found.curves)
    plane = next(s for s in sections_of(more) if s.title == "What a smaller gap costs")
    assert ["better f" in figure for figure in plane.figures] == [True, False]


def test_generated_rows_are_shown_where_arms_say_so() -> None:
    drawn = next(s for s in sections_of(arms("real", "worse")) if "generated" in s.title)
    assert drawn.tables[0].rows == [("worse", "0.250 [not estimable between seeds]")]
    assert not any("generated" in s.title for s in sections_of(arms("real")))


def test_one_arm_alone_is_compared_with_nothing() -> None:
    titles = [s.title for s in sections_of(arms("real"))]
    assert titles == ["Every arm", "What a smaller gap costs", "Arms"]


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no manifest"):
        write_arms(tmp_path / "x.html", "x", {"a": tmp_path}, ())


def test_rows_clear_of_zero_are_filled_and_texts_are_as_given() -> None:
    rows = [
        Interval("$up$", 0.2, 0.1, 0.3),
        Interval("_open", 0.1, -0.1, 0.3),
        Interval("one", 0.4),
    ]
    svg = forest_figure("t", rows, xlabel="x")
    assert {"$up$", "_open", "one"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert 'aria-label="t: $up$ 0.2 [0.1, 0.3]; _open 0.1 [-0.1, 0.3]; one 0.4"' in svg
    assert len(re.findall(r"fill: none; stroke: var\(--s0\)[^>]*/>\s*</g>", svg)) == 2
    assert not re.search(r"(?:stroke|fill): #", svg)


def test_points_alone_are_in_the_legend_and_those_of_curves_beside_their_marks() -> None:
    nan = float("nan")
    here = Interval("", 0.1, 0.0, 0.2), Interval("", 0.8, 0.7, 0.9)
    gone = Interval("", nan), Interval("", nan)
    points = [Point("$1", *here, "curve"), Point("2", *gone, "curve"), Point("alone", *here)]
    svg = points_figure("t", points, xlabel="x", ylabel="y")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"$1", "curve", "alone"} <= set(texts)
    assert "2" not in texts  # a point without a value has no cross and no name
    assert texts.count("alone") == 1
    assert 'aria-label="t: $1 at 0.1 [0, 0.2], 0.8 [0.7, 0.9]; 2 at nan, nan; alone at' in svg


def test_limits_over_runs_are_cut_and_there_are_none_where_all_agree() -> None:
    wide = across_runs([0.0, 1.0])
    assert Interval.over("a", wide).low < 0
    assert Interval.over("a", wide, (0, 1)).words() == "0.500 [0.000, 1.000]"
    for same in ([0.25, 0.25], [0.25]):
        said = Interval.over("a", across_runs(same), (0, 1)).words(sign=True)
        assert said == "+0.250 [not estimable between seeds]"
    assert Interval.over("a", across_runs([nan])).words() == "not estimable"
