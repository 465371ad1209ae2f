"""COMPAS and Adult, as in the stand-in study: learned ratios narrow the gap at little cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import pytest

from evenloop import measures
from evenloop.build import assemble
from evenloop.config import load
from evenloop.loop import run

Find = Callable[[str], Path]
SEEDS = range(6)


def outcome(preset: str, root: Path, settings: Sequence[str]) -> tuple[float, float]:
    """Accuracy and equalized odds difference on the audit split, means over the seeds."""
    config = load(preset, [f"root={root}", "against=none", *settings])
    right, gaps = [], []
    for seed in SEEDS:
        job = assemble(config, seed)
        record = run(job.loop, job.world, job.audit, rounds=config.rounds, seed=seed)
        counts = record.rows[-1].counts["audit"]
        right.append(float(measures.accuracy(counts.pooled()).value[0]))
        gaps.append(measures.equalized_odds(counts).difference().value)
    return mean(right), mean(gaps)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "folder"), [("mix-compas", "compas"), ("mix-adult", "adult")])
def test_learned_ratios_narrow_the_gap(real_data: Find, preset: str, folder: str) -> None:
    root = real_data("adult") / folder
    real = outcome(preset, root, ["method=real"])
    learned = outcome(preset, root, ["accuracy_weight=20"])
    fair = outcome(preset, root, ["accuracy_weight=1"])
    assert real[1] - learned[1] >= 0.03
    assert real[0] - learned[0] <= 0.03
    assert fair[1] <= 0.13
