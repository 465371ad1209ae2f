"""Killed with SIGKILL inside a generator's training, a run ends with the same bytes and bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

CONFIG = """
world: {name: colored-mnist, base: digits8, channels: 2}
audit: random
test_size: 200
by: [color]
loop:
  - regenerate:
      natural: 168
      validation: 40
      judge: validation
      generator: mlp-vae
      generator_options: {widths: [16], latent: 3}
      generator_batch: 32
      generator_epochs: 6
      reparation: both
      population: 100
      annotator_floor: 0
net: {name: mlp, hidden: [8]}
recipe: {optimizer: adam, lr: 0.01, batch: 32, epochs: 3, checkpoint_seconds: 0}
rounds: 3
"""
PROGRAM = """
import sys
from pathlib import Path
from evenloop.build import assemble
from evenloop.config import load
from evenloop.loop import run
from evenloop.record import Record

def tell(name, epoch, *_):
    print(name, epoch, flush=True)
    if name == sys.argv[3] and str(epoch) == sys.argv[4]:
        sys.stdin.read()  # wait here for the kill

if __name__ == "__main__":
    job = assemble(load(sys.argv[1]), 0)
    record = Record.open(Path(sys.argv[2]), {"config": {}, "seed": 0}, watch=tell)
    run(job.loop, job.world, job.audit, rounds=job.rounds, seed=0, record=record)
"""


def told(tmp_path: Path, folder: str, fit: str = "-", epoch: int = 0) -> list[str]:
    """What the program said of its epochs; it is killed when it has finished `epoch` of `fit`."""
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "run.yaml")]
    command += [str(tmp_path / folder), fit, str(epoch)]
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.strip())
            if line.strip() == f"{fit} {epoch}":
                process.kill()
    assert process.returncode == (0 if fit == "-" else -9)
    return lines


def tensors(folder: Path) -> list[torch.Tensor]:
    """Every tensor of the last state, in order."""
    (path,) = folder.glob("state/models-*.pt")
    found, open_ = [], [torch.load(path, weights_only=True)]
    while open_:
        value = open_.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            open_ += [value[key] for key in sorted(value)]
    return found


@pytest.mark.slow
def test_kills_inside_generators_training_change_no_bit(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    whole = told(tmp_path, "whole")
    begins = whole[0].rsplit(" ", 1)
    for fit, epoch in (("round/0/generator", 4), ("round/2/generator", 2), ("-", 0)):
        said = told(tmp_path, "killed", fit, epoch)
        # It goes on where it was killed, from the last epoch that was saved.
        assert said[0].rsplit(" ", 1)[0] == begins[0]
        assert int(begins[1]) <= int(said[0].rsplit(" ", 1)[1]) <= int(begins[1]) + 1
        begins = [fit, str(epoch)]
    assert len(said) < len(whole)
    rows = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("whole", "killed")]
    assert rows[0] == rows[1]
    a, b = (tensors(tmp_path / name) for name in ("whole", "killed"))
    assert len(a) == len(b) > 10
    assert all(x.equal(y) for x, y in zip(a, b, strict=True))
