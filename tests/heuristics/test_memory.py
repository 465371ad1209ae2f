"""What scoring a large pool holds beside the model and the pool itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# The peak since the start less what is held as scoring starts: an upper bound of what it adds.
PROGRAM = """
from pathlib import Path
import torch
from evenloop.heuristics.posterior import MCDropout, score_pool
from evenloop.heuristics.uncertainty import bald
from evenloop.models import build
from evenloop.rng import Rng

def megabytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

torch.set_num_threads(1)
net = build("dropout-mlp", features=8, classes=100, hidden=(16,), seed=0)
x = torch.rand(100_000, 8, generator=torch.Generator().manual_seed(0))
rule = lambda draws: bald(draws, kind="logits")
score_pool(MCDropout(net, 20), x[:2000], rule, rng=Rng.of(0))
held = megabytes("VmRSS")
scores = score_pool(MCDropout(net, 20), x, rule, rng=Rng.of(0))
print(len(scores), megabytes("VmHWM") - held)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the peak of a process from /proc"
)
def test_100_000_items_of_100_classes_and_20_draws_take_less_than_200_megabytes() -> None:
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    scored, above = out.stdout.split()
    assert int(scored) == 100_000
    assert float(above) < 50  # the draws alone would be 763 MB
