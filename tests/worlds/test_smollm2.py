"""One round of text feedback with a real pretrained model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evenloop.build import assemble
from evenloop.config import load
from evenloop.loop import run


@pytest.mark.slow
@pytest.mark.global_rng  # transformers draws initial weights before it reads the real ones
@pytest.mark.filterwarnings("ignore")  # of libraries that read the packed file
def test_a_round_with_smollm2(
    real_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("transformers", "gguf", "accelerate"):
        pytest.importorskip(package, reason="the extra `text` is not installed")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "smollm2").symlink_to(real_data("smollm2").absolute())
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    root = real_data("fairtext") / "BOLD" / "data"
    job = assemble(load("smollm2:small", [f"world.root={root}"]), 0)
    record = run(job.loop, job.world, job.audit, rounds=2, seed=0, claims=job.claims)
    assert record.rows[1].sizes["relabelled"] == 4
    loss = record.rows[0].moments["audit.loss"].table.sum(0)
    assert 1 < loss[1] / loss[0] < 6  # nats a token; a uniform guess would cost 10.8
