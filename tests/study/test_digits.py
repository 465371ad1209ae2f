"""The small real-data studies of label feedback: which labellers drift, in which direction.

After Taori & Hashimoto, "Data Feedback Loops" (ICML 2023): an argmax labeller that underfits
amplifies the class it already overstates, one that follows its training labels does not. Signs and
order only, with limits over seeds; the figures stand in docs/relabel.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from evenloop.intervals import Runs, paired_runs
from evenloop.report.page import write_report
from evenloop.study.compare import Arm, arms_of
from evenloop.study.seeds import folder_of, run_seeds
from evenloop.study.sweep import load_sweep

pytestmark = pytest.mark.slow


def arms(name: str, wanted: tuple[str, ...], out: Path) -> dict[str, Arm]:
    sweep = load_sweep(name)
    folders = {}
    for arm in wanted:
        config = sweep.arms[arm]
        folders[arm] = folder_of(config, out)
        run_seeds(config, folders[arm], processes=1)
    return {arm.name: arm for arm in arms_of([*folders.values()], [*folders])}


def drift(arm: Arm) -> Runs:
    """The bias at the last round minus that at round 0, paired by seed."""
    return paired_runs(arm.values("bias", "audit", None), arm.values("bias", "audit", 0))


def test_an_underfit_argmax_drifts_and_a_faithful_labeller_does_not(tmp_path: Path) -> None:
    """Twenty seeds; about 35 CPU seconds."""
    found = arms("digits-rules", ("logistic, argmax", "logistic, sampled", "1-NN"), tmp_path)
    climbs = drift(found["logistic, argmax"])
    assert climbs.n == 20
    assert climbs.low > 0, "the argmax of an underfit model amplifies the class it overstates"
    last = {name: arm.values("bias", "audit", None) for name, arm in found.items()}
    for faithful in ("logistic, sampled", "1-NN"):
        assert drift(found[faithful]).low <= 0, f"{faithful} follows its labels"
        assert paired_runs(last["logistic, argmax"], last[faithful]).low > 0.1
    assert paired_runs(last["1-NN"], last["logistic, sampled"]).low > 0


def test_on_a_subsample_the_tool_reports_the_crossing(tmp_path: Path) -> None:
    """The bias passes the bound of round 0, and the verdict over seeds says so."""
    arm = arms("digits-subsample", ("logistic, argmax",), tmp_path)["logistic, argmax"]
    assert drift(arm).low > 0.2
    page = write_report(folder_of(arm.config, tmp_path))
    assert any("crosses the bound drawn from round 0" in line for line in page.summary)
