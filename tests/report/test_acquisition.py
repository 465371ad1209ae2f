"""The section on acquisition: there when the loop acquires, with what the record says."""

from __future__ import annotations

from pathlib import Path

import pytest

from acquire_kit import letters
from evenloop.intervals import across_runs
from evenloop.report.acquired import last_values
from evenloop.report.page import read, write_report
from evenloop.report.sections import Section, acquisition
from evenloop.report.study import Study
from evenloop.study.seeds import run_seeds


def study(folder: Path, **acquire: object) -> Study:
    run_seeds(letters(120, 40, **acquire), folder, processes=1)
    return read(folder)


@pytest.fixture(scope="module")
def bald(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study(tmp_path_factory.mktemp("bald"), probe=30)


def section(of: Study) -> Section:
    found = acquisition.build(of)
    assert found is not None
    return found


def test_cells_enrichment_uncertainty_and_probe_are_drawn(bald: Study) -> None:
    found = section(bald)
    titles = [figure.split('aria-label="')[1].split(":")[0] for figure in found.figures]
    assert titles == [
        "Labelled set by cell",
        "Enrichment by cell",
        "Enrichment at the last round",
        "Accuracy over labels",
        "Gaps over labels",
        "Log loss over labels",
        "BALD in the pool",
        "Entropy in the pool",
        "BALD by cell",
        "What the features say about the group",
    ]
    for cell in ("a blue", "a red", "d blue", "d red"):
        assert cell in found.figures[0]
        assert cell in found.figures[1]


def test_words_hold_the_mean_enrichment_over_seeds(bald: Study) -> None:
    last = [record.rows[-1].values["rare.enrichment"] for record in bald.records.values()]
    mean = sum(float(v) for v in last) / 2
    assert f"Rare cells were bought {mean:.2f} [" in section(bald).summary[0]
    assert "over 2 seeds" in section(bald).summary[0]


def test_auroc_has_its_limits_and_its_seeds(bald: Study) -> None:
    (words,) = [w for w in section(bald).text if "AUROC" in w]
    over = across_runs([*last_values(bald, "auroc.rare").values()])
    low, high = max(float(over.low), 0), min(float(over.high), 1)
    assert f"AUROC of {float(over.mean):.2f} [{low:.2f}, {high:.2f}]" in words
    assert "over 2 seeds" in words
    assert any("2 seeds together" in figure for figure in section(bald).figures)


def test_labels_until_an_accuracy_is_reached(bald: Study) -> None:
    table = section(bald).tables[0]
    assert [row[0] for row in table.rows] == ["blue", "red"]
    for row in table.rows:
        for shown in row[1:]:
            assert shown.startswith("not reached") or 20 <= float(shown.split()[0]) <= 40


def test_a_random_choice_has_no_uncertainty_to_draw(tmp_path: Path) -> None:
    found = section(study(tmp_path / "r", heuristic="random"))
    assert not any("BALD" in figure for figure in found.figures)
    assert len(found.figures) == 6


def test_the_page_is_written_with_the_section(bald: Study) -> None:
    page = write_report(bald.folder)
    assert "Whose labels were bought" in page.path.read_text()


def test_other_loops_have_no_such_section(bald: Study) -> None:
    from dataclasses import replace

    other = bald.config.model_copy(update={"loop": [{"relabel": {}}]})
    assert acquisition.build(replace(bald, config=other)) is None
