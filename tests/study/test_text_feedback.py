"""What the text study shows on its seeds holds on one it does not report: beam search feeds back.

A labeller that writes its mode is soon trained on its own sentences; one that draws from its
distribution is not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evenloop.build import assemble
from evenloop.loop import run
from evenloop.study.compare import table_of
from evenloop.study.sweep import load_sweep

Find = Callable[[str], Path]
SEED = 100


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_beam_search_trains_on_its_own_sentences_and_nucleus_sampling_does_not(
    real_data: Find,
) -> None:
    root = real_data("fairtext") / "RedditBias"
    sweep = load_sweep("fig6", (f"world.root={root}", f"seeds=[{SEED}]"))
    memorised, moved = {}, {}
    for name in ("beam search", "nucleus sampling"):
        config = sweep.arms[name]
        job = assemble(config, SEED)
        record = run(job.loop, job.world, job.audit, rounds=job.rounds, seed=SEED)
        table = table_of(config, {SEED: record})
        audit = table[(table["split"] == "audit") & (table["group"] == "all")]
        course = audit.pivot(index="round", columns="metric", values="value")
        memorised[name] = course["memorised 5-grams"]
        moved[name] = abs(course["bias"].iloc[-1] - course["bias"].iloc[0])
    beam, nucleus = memorised["beam search"], memorised["nucleus sampling"]
    assert beam.iloc[0] < 0.5
    assert beam.iloc[-1] > 0.8
    assert nucleus.max() < 0.1
    assert moved["beam search"] > moved["nucleus sampling"] + 0.05
