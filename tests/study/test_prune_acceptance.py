"""Faces at 85 %: the constraint keeps a tolerance on training rows that naive tuning misses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evenloop.build import assemble
from evenloop.claims import ExcessGapClaim
from evenloop.config import load
from evenloop.loop import run

TOLERANCE = 0.02


@pytest.mark.slow
def test_the_constraint_brings_the_largest_gap_within_the_tolerance(
    real_data: Callable[[str], Path],
) -> None:
    path = real_data("utkface.parquet")
    gaps = {}
    for method in ("none", "accuracy_gap"):
        settings = [f"root={path}", "sparsity=0.85", f"method={method}"]
        config = load("prune-utkface-race-ceag:small", settings)
        job = assemble(config, 0)
        rows = run(job.loop, job.world, job.audit, rounds=2, seed=0).rows
        gaps[method] = ExcessGapClaim(TOLERANCE, "fit").measured(rows, 1).value
    assert gaps["none"] > TOLERANCE
    assert gaps["accuracy_gap"] <= TOLERANCE
