"""Whom dropping incomplete rows leaves out, by group and class, and when that is an alarm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evenloop.build import assemble, check
from evenloop.config import RunConfig, load
from evenloop.report.page import read
from evenloop.report.sections import alarms
from evenloop.study.seeds import run_seeds
from evenloop.worlds.dropped import Dropped, Split
from evenloop.worlds.frames import dropped, table_from_frame
from evenloop.worlds.tabular import Table


def people(east_missing: int) -> pd.DataFrame:
    """300 rows, 60 of the east; the income of the first `east_missing` of those is not known."""
    n = np.arange(300)
    frame = pd.DataFrame({"income": n % 7 + 0.5, "region": np.where(n < 60, "east", "west")})
    frame["paid"] = np.where(n % 2 == 0, "yes", "no")
    frame.loc[: east_missing - 1, "income"] = np.nan
    return frame


def of(frame: pd.DataFrame) -> Dropped:
    return dropped(frame, target="paid", columns=["income"], groups=["region"])


def test_kept_and_dropped_rows_are_counted_by_group_and_class() -> None:
    found = of(people(40))
    assert (found.kept, found.dropped, found.lacking) == (260, 40, {"income": 40})
    region, paid = found.columns["region"], found.columns["paid"]
    assert region.values == ("east", "west")
    assert (region.kept.tolist(), region.dropped.tolist()) == ([20, 240], [40, 0])
    assert (paid.kept.tolist(), paid.dropped.tolist()) == ([130, 130], [20, 20])
    first, *by = found.notes()
    assert first == "missing=drop leaves out 40 of 300 rows (13.3%): income is missing in 40"
    assert by[0] == "left out by region: east 40 of 60 (66.7%), west 0 of 240 (0.0%)"
    assert by[1] == "left out by paid: no 20 of 150 (13.3%), yes 20 of 150 (13.3%)"


def test_a_group_that_clearly_loses_more_rows_is_an_alarm_and_only_it() -> None:
    (alarm,) = of(people(40)).alarms()
    assert "leaves out 40 of 60 rows of region=east (66.7%) and 0 of 240 others" in alarm
    assert "fill in income" in alarm


def test_shares_that_chance_explains_are_no_alarm() -> None:
    assert of(people(1)).alarms() == ()
    even = people(0)
    even.loc[::5, "income"] = np.nan
    assert of(even).dropped == 60
    assert of(even).alarms() == ()


def test_nobody_left_out_says_nothing() -> None:
    found = of(people(0))
    assert (found.notes(), found.alarms(), found.dropped) == ((), (), 0)


def test_rows_without_a_label_are_of_no_class() -> None:
    frame = people(0)
    frame.loc[:2, "paid"] = None
    found = of(frame)
    assert found.lacking == {"paid": 3}
    assert int(found.columns["paid"].dropped.sum()) == 0
    assert found.columns["region"].dropped.tolist() == [3, 0]


def test_many_values_are_cut_short_and_a_value_alone_has_nothing_to_differ_from() -> None:
    many = Split(tuple(map(str, range(20))), np.ones(20, np.int64), np.zeros(20, np.int64))
    assert many.text().endswith("11 0 of 1 (0.0%), and 8 more values")
    alone = Split(("f", "m"), np.array([5, 0]), np.array([5, 0]))
    assert np.isnan(alone.excess().value).all()
    assert alone.text() == "f 5 of 10 (50.0%), m 0 of 0"
    rare = Split(("f", "m"), np.array([2999, 1999]), np.array([1, 1]))
    assert rare.text() == "f 1 of 3000 (<0.1%), m 1 of 2000 (0.1%)"
    assert Dropped(5, 5, {"n": 5}, {"sex": alone}).alarms() == ()


def test_a_group_or_class_that_loses_every_row_stays_in_the_schema() -> None:
    frame = people(60)
    frame.loc[frame["paid"] == "no", "income"] = np.nan
    data = table_from_frame(frame, target="paid", groups=["region"], missing="drop")
    assert data.schema.classes == ("no", "yes")
    assert data.schema.attributes[0].values == ("east", "west")
    assert (len(data), set(data.attribute("region").tolist())) == (120, {1})


def study(folder: Path, frame: pd.DataFrame) -> RunConfig:
    frame.to_csv(folder / "people.csv", index=False)
    path = folder / "run.yaml"
    path.write_text(
        f"{{world: {{name: table, path: {folder / 'people.csv'}, target: paid, missing: drop, "
        "groups: [region]}, by: [region], test_size: 60, "
        "loop: [{relabel: {n0: 20, human: 5, machine: 5}}], net: logistic, "
        "recipe: {epochs: 1}, rounds: 1}"
    )
    return load(str(path))


def test_who_is_left_out_is_told_before_a_run_in_its_manifest_and_above_its_report(
    tmp_path: Path,
) -> None:
    config = study(tmp_path, people(40))
    said = check(config)
    assert [note.split(" ")[0] for note in said] == ["missing=drop", "left", "left", "missing=drop"]
    run_seeds(config, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "seed-0" / "manifest.json").read_text())
    assert (manifest["notes"], manifest["alarms"]) == (list(said[:3]), [said[3]])
    section = alarms.build(read(tmp_path / "run"))
    assert section is not None
    assert (section.alarms[0], section.summary[0]) == (said[3], f"{said[3]}.")


def test_a_whole_table_leaves_no_trace_of_it(tmp_path: Path) -> None:
    config = study(tmp_path, people(0))
    assert check(config) == ()
    assert assemble(config, 0).alarms == ()
    run_seeds(config, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "seed-0" / "manifest.json").read_text())
    assert manifest["notes"] == []
    assert "alarms" not in manifest


def test_a_table_says_whom_it_leaves_out(tmp_path: Path) -> None:
    people(40).to_csv(tmp_path / "people.csv", index=False)
    source = Table(tmp_path / "people.csv", "paid", ("region",), missing="drop")
    assert source.left_out().columns["region"].dropped.tolist() == [40, 0]
    with pytest.raises(ValueError, match="give missing=drop"):
        Table(tmp_path / "people.csv", "paid", ("region",)).load()
