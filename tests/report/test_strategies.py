"""Strategies of acquisition side by side: every figure of the study is drawn, numbers by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acquire_kit import letters
from evenloop.config import RunConfig
from evenloop.report import acquired
from evenloop.report.acquired import (
    enrichment,
    histograms,
    labels_until,
    last_values,
    rare,
    until_reached,
    verdicts,
)
from evenloop.report.arms import write_arms
from evenloop.report.intervals import Interval
from evenloop.report.page import read
from evenloop.report.panels import Curve, Steps, bars_figure, curves_figure, steps_figure
from evenloop.report.sections import Section
from evenloop.report.strategies import _enriched, strategy_sections
from evenloop.report.study import Study
from evenloop.study.seeds import run_seeds

ARMS: dict[str, dict[str, object]] = {
    "random": {"heuristic": "random"},
    "bald": {},
    "bald + grad": {"adv_weight": 0.5},
}


def config(**acquire: object) -> RunConfig:
    return letters(150, 60, seeds=(0, 1, 2), query=15, probe=20, **acquire)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("arms")
    made = {}
    for place, (arm, fields) in enumerate(ARMS.items()):
        made[arm] = base / str(place)
        run_seeds(config(**fields), made[arm], processes=1)
    return made


@pytest.fixture(scope="module")
def studies(folders: Mapping[str, Path]) -> dict[str, Study]:
    return {arm: read(folder) for arm, folder in folders.items()}


def titles(section: Section) -> list[str]:
    return [figure.split('aria-label="')[1].split(":")[0] for figure in section.figures]


def test_every_figure_is_there(studies: dict[str, Study]) -> None:
    bought, over, adversary = strategy_sections(studies)
    assert titles(bought) == ["Labels by cell", "Enrichment at the last round"]
    assert titles(over) == [
        "Accuracy over labels",
        "Accuracy difference over labels",
        "Predictive parity difference over labels",
        "Equalized odds difference over labels",
        "Log loss over labels",
    ]
    assert titles(adversary) == ["Weight of the adversary"]
    for figure in (*bought.figures, *over.figures):
        for arm in ARMS:
            assert arm in figure
    for cell in ("a blue", "a red", "d blue", "d red"):
        assert cell in bought.figures[0]
        assert cell in bought.figures[1]


def test_the_ratio_to_the_first_arm_is_taken_seed_by_seed(studies: dict[str, Study]) -> None:
    mine, base = (last_values(studies[a], "rare.enrichment") for a in ("bald", "random"))
    shared = [s for s in mine if base.get(s)]
    (words, *_) = strategy_sections(studies)[0].summary
    if not shared:
        pytest.skip("no rare cell was bought at random")
    mean = np.mean([mine[s] / base[s] for s in shared])
    assert words.startswith(f"bald bought rare cells {mean:.2f}")
    rest = "" if len(shared) == len(mine) else f" of {len(mine)}"
    assert f"times as often as random ({len(shared)}{rest}" in words


def test_a_seed_whose_reference_bought_no_rare_item_is_counted(studies: dict[str, Study]) -> None:
    def with_rare(study: Study, values: list[float]) -> Study:
        records = {}
        for (seed, record), value in zip(study.records.items(), values, strict=True):
            last = replace(record.rows[-1], values={"rare.enrichment": value})
            records[seed] = replace(record, rows=[last])
        return replace(study, records=records)

    bald = with_rare(studies["bald"], [2.0, 4.0, 3.0])
    (some,) = _enriched({"random": with_rare(studies["random"], [1.0, 0.0, 1.0]), "bald": bald})
    assert some.endswith("(2 of 3 seeds: random bought none in the rest).")
    (whole,) = _enriched({"random": with_rare(studies["random"], [1.0, 2.0, 1.0]), "bald": bald})
    assert whole.endswith("times as often as random (3 seeds).")


def test_the_median_counts_seeds_that_never_get_there(
    monkeypatch: pytest.MonkeyPatch, studies: dict[str, Study]
) -> None:
    found = iter([540, None, 300])
    monkeypatch.setattr(acquired, "LEVELS", (0.6,))
    monkeypatch.setattr(acquired, "labels_until", lambda *_: next(found))
    assert until_reached(studies["bald"], "blue") == ["540 (1 of 3 never)"]
    found = iter([540, None, None])
    assert until_reached(studies["bald"], "blue") == ["not reached (2 of 3 never)"]
    found = iter([540, 480, 300])
    assert until_reached(studies["bald"], "blue") == ["480"]


def test_the_table_of_rare_cells_names_every_seed(studies: dict[str, Study]) -> None:
    table = strategy_sections(studies)[0].tables[0]
    assert [row[0] for row in table.rows] == list(ARMS)
    for row in table.rows:
        seeds = last_values(studies[row[0]], "rare.enrichment")
        assert row[2] == ", ".join(f"{v:.2f}" for v in seeds.values())
        found = rare(studies[row[0]])
        assert found is not None
        assert found.value == pytest.approx(np.mean([*seeds.values()]))
        assert sum(verdicts(studies[row[0]]).values()) == 3


def test_labels_until_a_group_reaches_an_accuracy(studies: dict[str, Study]) -> None:
    rows = next(iter(studies["bald"].records.values())).rows
    assert labels_until(rows, "blue", 0.0) == 20
    assert labels_until(rows, "blue", 1.01) is None
    (table,) = strategy_sections(studies)[1].tables
    assert [tuple(row[:2]) for row in table.rows[:2]] == [("random", "blue"), ("random", "red")]


def test_one_weight_has_no_figure_of_weights(studies: dict[str, Study]) -> None:
    two = {arm: studies[arm] for arm in ("random", "bald")}
    assert len(strategy_sections(two)) == 2


def test_other_loops_have_no_strategies(studies: dict[str, Study]) -> None:
    other = replace(studies["bald"], config=config().model_copy(update={"loop": [{"relabel": {}}]}))
    assert strategy_sections({"a": studies["random"], "b": other}) == []


def test_one_seed_has_no_limits_between_seeds(studies: dict[str, Study]) -> None:
    study = studies["bald"]
    (seed, record), *_ = study.records.items()
    one = replace(study, records={seed: record}, table=study.table[study.table["seed"] == seed])
    found = rare(one)
    assert found is not None
    values = record.rows[-1].values
    assert (found.value, found.low) == (values["rare.enrichment"], values["rare.low"])
    assert all(np.isnan(v.low) for v in enrichment(one, ["a blue"]))
    bought, *_ = strategy_sections({"a": one, "b": one})
    assert "not estimable" in bought.note


def test_histograms_count_every_scored_item(studies: dict[str, Study]) -> None:
    panels, edges = histograms(studies["bald"])
    assert list(panels) == ["round 1, 3 seeds together", "round 2, 3 seeds together"]
    assert len(edges) == 21
    assert edges[-1] == pytest.approx(np.log(2))
    for steps in panels.values():
        assert [s.label for s in steps] == ["a blue", "a red", "d blue", "d red"]
        assert all(s.share.sum() == pytest.approx(1) for s in steps)
    row = studies["bald"].records[0].rows[1]
    binned = row.moments["pool.bald.bins"].table[:, 0].reshape(4, 20)
    assert (binned.sum(1) == row.moments["pool.bald"].table[:, 0]).all()
    sums = row.moments["pool.bald.bins"].table[:, 1].reshape(4, 20).sum(1)
    assert sums == pytest.approx(row.moments["pool.bald"].table[:, 1])
    assert histograms(studies["random"])[0] == {}


def test_the_page_of_a_sweep_shows_them(folders: Mapping[str, Path], tmp_path: Path) -> None:
    page = write_arms(tmp_path / "s.html", "letters", folders, ["accuracy"])
    html = page.path.read_text()
    assert "Whose labels each strategy bought" in html
    assert "What the adversary" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_figures_by_hand() -> None:
    x = np.array([10.0, 20.0])
    drawn = curves_figure("t", [Curve("a", x, np.array([0.5, 0.75]))], ylabel="y", mark=10.0)
    assert "a from 0.5 to 0.75" in drawn
    bars = bars_figure("t", ["c", "d"], [("s", [Interval("c", 2.0), Interval("d", 0.5)])],
                       xlabel="x", reference=1.0)  # fmt: skip
    assert "s: c 2, d 0.5" in bars
    steps = [Steps("a", np.array([0.25, 0.75])), Steps("b", np.array([np.nan, np.nan]))]
    found = steps_figure("t", [("p", steps)], np.array([0.0, 1.0, 2.0]), xlabel="x", ylabel="y")
    assert "a most often 1 to 2, b most often absent" in found
