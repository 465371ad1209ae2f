"""The small real-data studies of label feedback: which labellers drift, in which direction.

After Taori & Hashimoto, "Data Feedback Loops" (ICML 2023): an argmax labeller that underfits
amplifies the class it already overstates, one that follows its training labels does not. Signs and
order only, with limits over seeds; the figures stand in docs/relabel.md.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evenloop.intervals import across_runs, paired_runs
from evenloop.study.compare import Arm, arms_of
from evenloop.study.seeds import folder_of, run_seeds
from evenloop.study.sweep import load_sweep

pytestmark = pytest.mark.slow
SEEDS = "seeds=0..9"


def arms(name: str, wanted: tuple[str, ...], out: Path) -> dict[str, Arm]:
    sweep = load_sweep(name, (SEEDS,))
    folders = {}
    for arm in wanted:
        config = sweep.arms[arm]
        folders[arm] = folder_of(config, out)
        run_seeds(config, folders[arm], processes=1)
    return {arm.name: arm for arm in arms_of([*folders.values()], [*folders])}


def drift(arm: Arm) -> tuple[float, float]:
    """Limits of the bias at the last round minus that at round 0, paired by seed."""
    found = paired_runs(arm.values("bias", "audit", None), arm.values("bias", "audit", 0))
    return float(found.low), float(found.high)


def test_an_underfit_argmax_drifts_and_a_faithful_labeller_does_not(tmp_path: Path) -> None:
    found = arms("digits-rules", ("logistic, argmax", "logistic, sampled", "1-NN"), tmp_path)
    low, _ = drift(found["logistic, argmax"])
    assert low > 0, "the argmax of an underfit model should amplify the class it overstates"
    for faithful in ("logistic, sampled", "1-NN"):
        low, _ = drift(found[faithful])
        assert low < 0.02, f"{faithful} follows its labels; its bias should not climb"
    last = {name: across_runs([*a.values("bias", "audit", None).values()]).mean
            for name, a in found.items()}  # fmt: skip
    assert last["logistic, sampled"] < last["1-NN"] + 0.1 < last["logistic, argmax"] + 0.1


def test_on_a_subsample_the_bias_passes_the_bound_of_round_0(tmp_path: Path) -> None:
    arm = arms("digits-subsample", ("logistic, argmax",), tmp_path)["logistic, argmax"]
    table: pd.DataFrame = arm.table
    assert {"bias", "bound of round 0"} <= set(table["metric"])
    bias, bound = (arm.values(m, "audit", None) for m in ("bias", "bound of round 0"))
    above = paired_runs(bias, bound)
    assert float(above.low) > 0, "subsampling keeps the loop from growing out of its bias"
