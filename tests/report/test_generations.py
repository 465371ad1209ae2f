"""The page of a chain of generators, from the command's preset to the section, on real digits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from evenloop.build import assemble, check
from evenloop.config import ConfigError, RunConfig, load
from evenloop.counts import Counts
from evenloop.loop import run
from evenloop.loops.relabel import Relabel
from evenloop.record import Record, Row
from evenloop.report.generation_arms import ending, generation_sections, left
from evenloop.report.sections import build_all
from evenloop.report.sections.bought import build as bought
from evenloop.report.sections.generations import build
from evenloop.report.sections.made import build as made
from evenloop.report.sections.rates import build as rates
from evenloop.report.sections.samples import build as rows_that_entered
from evenloop.report.sections.seeds import build as by_seed
from evenloop.report.study import Study
from evenloop.study.compare import table_of
from stand_ins import small_world

TINY = (
    "base=digits8", "size=null", "test_size=300", "natural=200", "generator_epochs=1",
    "recipe.epochs=1", "quality=60", "population=100", "rounds=2", "seeds=[0]",
)  # fmt: skip


def tiny(*more: str) -> RunConfig:
    return load("colored-mnist-arcla:small", [*TINY, *more])


def test_the_section_shows_groups_labels_curation_and_end_states() -> None:
    config = tiny()
    job = assemble(config, 0)
    records = {0: run(job.loop, job.world, job.audit, rounds=2)}
    section = build(Study(Path("."), config, records, table_of(config, records), None))
    assert section is not None
    assert len(section.figures) == 11
    for title in ("Every cell at the last", "First draws of the classifier", "Loss of the gen"):
        assert sum(title in figure for figure in section.figures) == 1
    assert "Absorbing states at the last generation" in section.summary[1]
    assert "share of red in the generated population moves" in section.summary[0]
    assert [row[1] for row in section.tables[0].rows] == ["label annotator", "group annotator"]


def test_many_groups_are_a_table_of_shares_against_natural_rows() -> None:
    config = load("colored-mnist-mc:small", [*TINY, "by=[digit]"])
    job = assemble(config, 0)
    record = run(job.loop, job.world, job.audit, rounds=2)
    section = build(Study(Path("."), config, {0: record}, table_of(config, {0: record}), None))
    assert section is not None
    groups, cells = section.figures[0], section.figures[2]
    natural = record.rows[0].counts["train"].table.sum((1, 2)) / 200
    drawn = np.array([[row.values[f"share of {g}"] for row in record.rows] for g in range(10)])
    group, generation = divmod(int((drawn - natural[:, None]).argmax()), 2)
    assert f"{group}, {generation} from {natural[group]:.3g} to" in groups
    assert ">group<" in groups
    assert groups.count("%<") == 20
    assert cells.count("%<") == 20
    assert ">generation<" in groups


def test_first_draws_of_many_strata_are_a_table_of_shares() -> None:
    config = load("colored-mnist-arcla:small", [*TINY, "by=[digit]", "rounds=1"])
    job = assemble(config, 0)
    record = run(job.loop, job.world, job.audit, rounds=1)
    section = build(Study(Path("."), config, {0: record}, table_of(config, {0: record}), None))
    assert section is not None
    (draws,) = [figure for figure in section.figures if "First draws of the class" in figure]
    assert "by stratum, at the last generation" in draws
    assert draws.count("%<") == 20


SIZES = {"train": 20, "relabelled": 0, "generated": 0}


def counted(*tables: list[list[list[int]]]) -> Record:
    """A record with these audit counts (2, 2, 2) of green and red, generation by generation."""
    names, classes = ("green", "red"), ("0", "1")
    natural = Counts(np.array([[[3, 0], [0, 7]]] * 2), names, classes)
    rows = []
    for at, table in enumerate(tables):
        audit = Counts(np.array(table), names, classes)
        rows.append(Row(at, SIZES, {"audit": audit, "population": audit, "train": natural}))
    return Record(rows=rows)


def study_of(*records: Record) -> Study:
    config, kept = tiny(), dict(enumerate(records))
    return Study(Path("."), config, kept, table_of(config, kept), None)


def test_rates_of_groups_are_taken_in_each_seed_then_averaged() -> None:
    one = counted([[[8, 2], [1, 9]], [[6, 4], [5, 5]]])
    two = counted([[[5, 5], [0, 10]], [[10, 0], [10, 0]]])
    section = rates(study_of(one, two))
    assert section is not None
    assert "natural rows, red from 0.7 to 0.7" in section.figures[0]
    selected, true, false, ratios = section.figures
    assert "green from 0.65 to 0.65; red from 0.225 to 0.225" in selected
    assert "green from 0.95 to 0.95; red from 0.25 to 0.25" in true
    assert "green from 0.35 to 0.35; red from 0.2 to 0.2" in false
    assert "demographic parity ratio from 0.409 to" in ratios
    assert "equalized odds ratio from 0.25 to" in ratios
    assert ">generation<" in true
    rows = {row[0]: tuple(row[1:]) for row in section.tables[0].rows}
    assert rows["accuracy"] == ("0.800", "0.525", "0.275", "0.657")
    assert rows["selection rate"] == ("0.650", "0.225", "0.425", "0.409")
    assert rows["true positive rate"] == ("0.950", "0.250", "0.700", "0.278")
    assert rows["false positive rate"] == ("0.350", "0.200", "0.350", "0.250")
    assert rows["equalized odds"] == ("", "", "0.700", "0.250")
    assert rows["audit rows"] == ("20", "20", "", "")


def test_a_rate_that_nobody_has_is_not_estimable() -> None:
    empty = counted([[[4, 0], [0, 0]], [[3, 0], [0, 0]]])
    section = rates(study_of(empty))
    assert section is not None
    rows = {row[0]: tuple(row[1:]) for row in section.tables[0].rows}
    assert rows["true positive rate"] == ("not estimable",) * 4
    assert rows["selection rate"] == ("0.000", "0.000", "0.000", "not estimable")
    assert rows["accuracy"] == ("1.000", "1.000", "0.000", "1.000")


ALWAYS, NEVER = [[0, 9], [0, 9]], [[9, 0], [9, 0]]
RIGHT = [[9, 0], [0, 9]]
BY_GROUP = [ALWAYS, NEVER]


def test_seeds_that_leave_an_absorbing_state_are_counted() -> None:
    study = study_of(
        counted(BY_GROUP, BY_GROUP, [RIGHT, RIGHT]),  # out of one
        counted([RIGHT, RIGHT], BY_GROUP, [NEVER, NEVER]),  # from one to another
        counted([RIGHT, RIGHT], BY_GROUP, BY_GROUP),  # stays
        counted([RIGHT, RIGHT], [RIGHT, RIGHT], [RIGHT, RIGHT]),  # was never in one
    )
    assert left(study) == (3, 2)
    assert ending(study) == {"none": 2, "group rule": 1, "constant 0": 1}


def test_held_out_counts_are_shown_with_limits() -> None:
    record = counted([RIGHT, RIGHT], BY_GROUP)
    for row in record.rows:
        row.counts["validation"] = row.counts["audit"]
    (section,) = [s for s in build_all(study_of(record)) if s.title == "Other measurements"]
    assert "Accuracy in validation at generation 1: 0.500 [0.345, 0.655]." in section.text
    (table,) = [t for t in section.tables if "in validation" in t.caption]
    assert table.caption == "Rates of 1 in validation at the last generation"
    assert ("0", "true positive rate", "green", "1.000", "[0.701, 1.000]", "9") in table.rows


def test_departures_stand_beside_the_end_states() -> None:
    studies = {"moves": ran("a"), "stays": ran("b")}
    for record in studies["moves"].records.values():
        for row, table in zip(record.rows, (BY_GROUP, [RIGHT, RIGHT]), strict=True):
            row.counts["audit"].table[:] = np.array(table)
    for record in studies["stays"].records.values():
        for row in record.rows:
            row.counts["audit"].table[:] = np.array(BY_GROUP)
    ends = generation_sections(studies, ["accuracy"])[-1]
    assert [row[0:2] + row[3:] for row in ends.tables[0].rows] == [
        ("moves", "0 of 2", "2 of 2"),
        ("stays", "2 of 2", "0 of 2"),
    ]
    assert "may move between them" in ends.text[0]
    section = build(studies["moves"])
    assert section is not None
    assert "0 of 2 seeds. Of 2 that were ever in one, 2 left it" in section.summary[1]


def ran(name: str, *more: str) -> Study:
    config = tiny(*more)
    job = assemble(config, 0)
    records = {}
    for seed in (0, 1):
        records[seed] = run(job.loop, job.world, job.audit, rounds=2, seed=seed)
    return Study(Path(name), config, records, table_of(config, records), None)


def test_arms_are_compared_generation_by_generation() -> None:
    ideal = "ideal=[0, 0, 0, 1]"
    studies = {"plain": ran("a"), "other": ran("b", ideal)}
    course, ends = generation_sections(studies, ["accuracy", "group drift"])
    assert len(course.figures) == 4
    assert [re.findall(r"(?:mean|median) of 2 seeds", f)[0] for f in course.figures] == [
        "mean of 2 seeds",
        "median of 2 seeds",
    ] * 2
    assert "fewer than 5 seeds" in course.note
    assert [row[:2] for row in course.tables[0].rows] == [
        (metric, arm) for metric in ("accuracy", "group drift") for arm in studies
    ]
    assert "other differs from plain by" in course.summary[0]
    assert "2 pairs of seeds" in course.summary[1]
    states, groups = ends.tables
    assert [row[0] for row in states.rows] == ["plain", "other"]
    shares = [float(row[2]) for row in groups.rows]
    assert sum(shares[:2]) == pytest.approx(1, abs=2e-3)
    # An ideal that leaves strata out has no finite relative entropy; the page shows the distance.
    section = build(studies["other"])
    assert section is not None
    assert any("total variation" in figure for figure in section.figures)


def test_the_judge_stands_beside_the_annotator_that_curates() -> None:
    judged = "judge=natural"
    studies = {"plain": ran("a", judged), "other": ran("b", judged, "ideal=[0, 0, 0, 1]")}
    course, _ = generation_sections(studies, ["accuracy"])
    assert sum("Drift of the groups, by the judge" in figure for figure in course.figures) == 2
    assert "again by a judge" in course.text[0]
    assert course.summary[-1].startswith("group drift (judge), last generation: other differs")
    section = build(studies["plain"])
    assert section is not None
    assert any(
        "by the group annotator from" in f and "by the judge from" in f for f in section.figures
    )
    assert any("both annotators name one group" in f for f in section.figures)
    assert "The judge is a second group annotator" in section.text[1]
    assert [row[1] for row in section.tables[0].rows[:3]] == [
        "label annotator", "group annotator", "group judge",
    ]  # fmt: skip
    seeds = by_seed(studies["plain"])
    assert seeds is not None
    titles = [row[0] for row in seeds.tables[0].rows]
    assert titles[-2:] == ["Drift of the groups' shares", "Drift of the groups, by the judge"]


def test_seeds_are_shown_one_by_one_where_there_are_several() -> None:
    study = ran("a")
    section = by_seed(study)
    assert section is not None
    titles = [row[0] for row in section.tables[0].rows]
    assert "Equalized odds difference" in titles
    assert titles[-4:] == [
        "Selection rate", "Generated rows of label 1", "Generated rows of group red",
        "Drift of the groups' shares",
    ]  # fmt: skip
    assert all(f"{t}: median of 2 seeds" in f for t, f in zip(titles, section.figures, strict=True))
    last = [study.records[seed].rows[-1].counts["audit"] for seed in (0, 1)]
    shares = [counts.table.sum((0, 1))[1] / counts.total for counts in last]
    row = section.tables[0].rows[titles.index("Selection rate")]
    assert row[1:] == (
        f"{np.mean(shares):.3f}", "fewer than 5 seeds", f"{min(shares):.3f}",
        f"{max(shares):.3f}", "2",
    )  # fmt: skip
    alone = Study(study.folder, study.config, {0: study.records[0]}, study.table, None)
    assert by_seed(alone) is None


def test_pictures_of_every_cell_are_shown_by_generation(tmp_path: Path) -> None:
    config = tiny()
    job, record = assemble(config, 0), Record.open(tmp_path / "seed-0", {"config": {}, "seed": 0})
    run(job.loop, job.world, job.audit, rounds=2, record=record)
    study = Study(tmp_path, config, {0: record}, table_of(config, {0: record}), None)
    section = made(study)
    assert section is not None
    assert [group["title"] for group in section.images] == ["generation 0", "generation 1"]
    tiles = section.images[1]["items"]
    assert [t["caption"].split(":")[0] for t in tiles] == ["0 green", "0 red", "1 green", "1 red"]
    drawn = record.rows[1].counts["population"].table.sum(1).T.ravel()  # label, then group
    assert [t["mark"] for t in tiles] == [n == 0 for n in drawn]
    hid = replace_pictures(study)
    section = made(hid)
    assert section is not None
    assert section.images == ()
    assert "pictures=false" in section.text[0]
    assert rows_that_entered(study) is None
    assert bought(study) is None


def replace_pictures(study: Study) -> Study:
    config = study.config.model_copy(update={"pictures": False})
    return Study(study.folder, config, study.records, study.table, None)


def test_arms_of_other_loops_have_no_such_sections() -> None:
    world, audit = small_world(100)
    records = {0: run(Relabel(n0=20, human=2, machine=4), world, audit, rounds=1)}
    study = Study(Path("."), tiny(), records, table_of(tiny(), records), None)
    assert generation_sections({"one": study}, ["accuracy"]) == []


def test_other_loops_have_no_such_section() -> None:
    config = tiny()
    world, audit = small_world(100)
    records = {0: run(Relabel(n0=20, human=2, machine=4), world, audit, rounds=1)}
    other = Study(Path("."), config, records, table_of(config, records), None)
    assert build(other) is None
    assert by_seed(other) is None
    assert rates(other) is None


def test_the_audit_rows_are_the_test_split_and_the_seed_colours_the_world() -> None:
    config = tiny()
    first, again, other = (assemble(config, seed) for seed in (0, 0, 1))
    split = first.audit.data.attribute("split")
    assert set(split.tolist()) == {2}
    assert 2 not in first.world.data.attribute("split").tolist()
    assert first.world.data.truth.equal(again.world.data.truth)
    assert not first.world.data.truth.equal(other.world.data.truth)


def test_a_test_split_must_be_there_and_large_enough() -> None:
    with pytest.raises(ConfigError, match=r"test_size=5000 must be in 1\.\.360"):
        assemble(tiny("test_size=5000"), 0)
    with pytest.raises(ConfigError, match="data with a test split"):
        assemble(load("demo", ["audit=test"]), 0)


def test_wrong_input_is_found_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="curates nothing"):
        check(tiny("budget=0"))
    with pytest.raises(ConfigError, match="one share for each of 4 strata"):
        check(tiny("ideal=[0.5, 0.5]"))
    check(tiny("ideal=[0.1, 0.2, 0.3, 0.4]"))
