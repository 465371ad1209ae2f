"""A run killed at ten random moments writes the bytes of the run that was left alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFIG = """
world: {name: digits8}
track: "8"
test_size: 300
loop: [{relabel: {n0: 200, human: 20, machine: 80}}]
net: {name: small-cnn, width: 4}
recipe: {base: small-cnn, epochs: 12, checkpoint_seconds: 0}
rounds: 6
seeds: SEEDS
"""
PROGRAM = """
import sys
from pathlib import Path
from evenloop.config import load
from evenloop.study.seeds import run_seeds
if __name__ == "__main__":
    print("ready", flush=True)
    run_seeds(load(sys.argv[1]), Path(sys.argv[2]))
"""


def start(tmp_path: Path, seeds: int, folder: str) -> subprocess.Popen[bytes]:
    """The program, as soon as it has loaded everything."""
    config, program = tmp_path / "run.yaml", tmp_path / "program.py"
    config.write_text(CONFIG.replace("SEEDS", str(seeds)))
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(config), str(tmp_path / folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as lines:
        assert lines.readline() == b"ready\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "kills"), [(1, 10), (2, 3)])
def test_kills_change_no_byte(tmp_path: Path, seeds: int, kills: int) -> None:
    process = start(tmp_path, seeds, "whole")
    started = time.monotonic()
    assert process.wait() == 0
    length = time.monotonic() - started
    luck = random.Random(seeds)
    for _ in range(kills):
        process = start(tmp_path, seeds, "killed")
        time.sleep(luck.uniform(0, 0.6 * length))
        process.kill()
        process.wait()
        # Workers notice within half a second that their parent is gone.
        time.sleep(1.0 if seeds > 1 else 0.0)
    assert start(tmp_path, seeds, "killed").wait() == 0
    for seed in range(seeds):
        whole, killed = (
            (tmp_path / name / f"seed-{seed}" / "rows.jsonl").read_bytes()
            for name in ("whole", "killed")
        )
        assert whole == killed
