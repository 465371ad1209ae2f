"""The report of a mixing study: shares, rows drawn, who gained, and the levelling-down alarm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evenloop import measures
from evenloop.config import RunConfig
from evenloop.counts import Counts
from evenloop.intervals import across_runs
from evenloop.loop import run
from evenloop.loops.mix import Mix
from evenloop.record import Record
from evenloop.report.sections import mixture
from evenloop.report.study import Study
from evenloop.study.compare import table_of
from stand_ins import small_world


@pytest.fixture(scope="module")
def study() -> Study:
    world, audit = small_world(300)
    loop = Mix(generator="smoothed", made_rows=30, per_cell=4, against="real")
    records = {seed: run(loop, world, audit, rounds=2, seed=seed) for seed in (0, 1)}
    config = RunConfig(
        world={"name": "table"}, loop=[{"mix": {}}], net={}, recipe={}, test_size=75, rounds=2,
        by=("sex",),
    )  # fmt: skip
    return Study(Path("."), config, records, table_of(config, records), None)


def test_section_shows_paths_counts_and_changes(study):
    section = mixture.build(study)
    assert section is not None
    assert len(section.figures) == 2
    drawn, agreement, changes = section.tables
    assert [row[0] for row in drawn.rows] == ["no | f", "no | m", "yes | f", "yes | m"]
    total = sum(float(row[1]) + float(row[2]) for row in drawn.rows)
    assert total == pytest.approx(22 * 16, abs=4)  # two epochs of 11 batches, rounded cell by cell
    assert [row[3] for row in agreement.rows] == ["60"] * 4
    assert agreement.caption.startswith("Share of rows that the model of real rows only gives")
    assert len(changes.rows) == 4
    before, after = ([r.rows[-1].counts[name] for r in study.records.values()]
                     for name in ("audit.reference", "audit"))  # fmt: skip
    cells = (
        [measures.cell_accuracy(b).value for b in before],
        [measures.cell_accuracy(a).value for a in after],
    )
    steps = [float(a[0] - b[0]) for b, a in zip(*cells, strict=True)]
    assert changes.rows[0][1].startswith(f"{np.mean(steps):+.3f} [")
    runs = across_runs(steps)
    if runs.sd > 0:
        assert changes.rows[0][1].endswith(f"{max(float(runs.low), -1):+.3f}, "
                                           f"{min(float(runs.high), 1):+.3f}]")  # fmt: skip
    assert "equalized odds difference (pairwise)" in section.summary[0]
    words = "1 x eqodds gap of losses (reference=pairwise, aggregate=max) + 20 x mean loss"
    assert section.text[0] == f"Made small while training, on real held-out rows: {words}."
    assert section.summary[0].count("change") == section.summary[0].count("[") == 3


def test_gaps_from_pooled_rows_are_said_to_be_and_smaller(study):
    config = study.config.model_copy(update={"loop": [{"mix": {"reference": "pooled"}}]})
    pooled, paired = (mixture.build(s).summary[0] for s in (replace(study, config=config), study))
    assert "equalized odds difference (pooled)" in pooled

    def gap(text: str) -> float:
        return float(text.split("difference (")[1].split(") ")[1].split(",")[0])

    assert gap(pooled) < gap(paired)


def test_one_seed_has_limits_over_rows_and_says_so(study):
    records = {0: study.records[0]}
    section = mixture.build(replace(study, records=records, table=table_of(study.config, records)))
    _, agreement, changes = section.tables
    assert agreement.caption.endswith("one seed: limits over rows only")
    assert changes.caption.endswith("one seed: limits over rows only")
    assert "one seed" in section.summary[0]


def test_a_single_round_shows_the_shares_inside_its_training(study):
    records = {}
    for seed, record in study.records.items():
        records[seed] = Record()
        records[seed].rows.append(record.rows[0])
    one = replace(study, records=records, table=table_of(study.config, records))
    figures = mixture.build(one).figures
    assert len(figures) == 2
    assert all("update (22 points)" in figure for figure in figures)
    assert all(">22<" in figure for figure in figures)  # updates are counted from 1
    bare = replace(records[0].rows[0], values={"method": "real"})
    records[0].rows[0] = records[1].rows[0] = bare
    none = replace(study, records=records, table=table_of(study.config, records))
    assert mixture.build(none).figures == []


def levelled(study: Study, worse: bool) -> Study:
    before = np.array([[[30, 10], [10, 30]], [[30, 10], [10, 30]]])
    after = before[:, ::-1] if worse else before
    names = ("f", "m"), ("no", "yes")
    records = {}
    for seed, record in study.records.items():
        counts = {
            **record.rows[-1].counts,
            "audit": Counts(after.copy(), *names),
            "audit.reference": Counts(before, *names),
        }
        records[seed] = Record()
        records[seed].rows.append(replace(record.rows[-1], round=0, counts=counts, moments={}))
    return replace(study, records=records, table=table_of(study.config, records))


def test_levelling_down_is_an_alarm_for_every_seed_it_happens_to(study):
    alarms = mixture.build(levelled(study, worse=True)).alarms
    assert [a.split(":")[0] for a in alarms] == ["seed 0", "seed 1"]
    assert mixture.build(levelled(study, worse=False)).alarms == []


def test_studies_that_do_not_mix_have_no_such_section(study):
    other = study.config.model_copy(update={"loop": [{"relabel": {}}]})
    assert mixture.build(replace(study, config=other)) is None
