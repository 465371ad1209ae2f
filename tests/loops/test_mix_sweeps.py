"""The packaged sweeps of mix by the command line, on a few made-up rows in the published form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from evenloop.cli import app
from evenloop.study.compare import arms_of
from evenloop.study.folder import folder_of
from evenloop.study.sweep import load_sweep, sweep_names

SMALL = ("test_size=60", "epochs=1", "made_rows=10", "per_cell=4", "seeds=1")


def compas(folder: Path, rows: int = 200) -> Path:
    """A table with the columns that the source reads, in which priors tell something."""
    draw = np.random.default_rng(0)
    again, white = draw.integers(0, 2, (2, rows))
    counts = {
        f"{name}_count": draw.integers(0, 3, rows) for name in ("juv_fel", "juv_misd", "juv_other")
    }
    pd.DataFrame(
        {
            "age": draw.integers(18, 60, rows),
            "sex": np.where(draw.integers(0, 2, rows), "Male", "Female"),
            "race": np.where(white, "Caucasian", "Other"),
            **counts,
            "priors_count": draw.integers(0, 4, rows) + 3 * again,
            "c_charge_degree": np.where(draw.integers(0, 2, rows), "F", "M"),
            "days_b_screening_arrest": 0.0,
            "is_recid": again,
            "score_text": "Low",
            "two_year_recid": again,
        }
    ).to_csv(folder / "compas-scores-two-years.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where every arm of `mix-compas` was run, and what was printed."""
    root = compas(tmp_path_factory.mktemp("compas"))
    out = tmp_path_factory.mktemp("runs")
    words = ["sweep", "mix-compas", f"root={root}", *SMALL, "--out", str(out), "--quiet"]
    done = CliRunner().invoke(app, [*words, "--processes", "1"])
    assert done.exit_code == 0, done.output
    return root, done.stdout


def test_every_arm_is_run_compared_and_reported(swept: tuple[Path, str]) -> None:
    root, printed = swept
    plan = load_sweep("mix-compas", (f"root={root}", *SMALL))
    for arm in plan.arms:
        assert f"  {arm} " in printed
    report = Path(printed.rsplit("report: ", 1)[1].strip())
    page = report.read_text(encoding="utf-8")
    assert "What a smaller gap costs" in page
    assert "Who was helped" in page
    for curve in plan.curves:
        assert curve in page


def test_sweeps_of_mix_compare_what_their_runs_measure(swept: tuple[Path, str]) -> None:
    root, printed = swept
    out = Path(printed.rsplit("report: ", 1)[1].strip()).parent
    plan = load_sweep("mix-compas", (f"root={root}", *SMALL))
    table = arms_of([folder_of(plan.arms["real only"], out)])[0].table
    known = set(table[(table["split"] == "audit") & (table["group"] == "all")]["metric"])
    names = [name for name in sweep_names() if name.startswith("mix-")]
    assert names == ["mix-adult", "mix-compas", "mix-utkface"]
    for name in names:
        assert set(load_sweep(name).metrics) <= known
