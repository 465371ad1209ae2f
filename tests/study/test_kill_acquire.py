"""An acquisition killed at random moments writes the bytes of the run that was left alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFIG = """
world: {name: letters, train: 200, test: 40, size: 16}
audit: test
test_size: 40
by: [color]
loop:
  - acquire:
      {initial: 40, query: 20, draws: 4, adv_weight: 0.1, delay: {red: 1}, probe: 40,
       stop_rows: 30, stop_plateau: 5}
net: {name: dropout-cnn, width: 4, hidden: 16}
recipe: {optimizer: adam, lr: 0.001, batch: 8, epochs: 12, checkpoint_seconds: 0}
rounds: 5
seeds: 1
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


def start(tmp_path: Path, folder: str) -> subprocess.Popen[bytes]:
    """The program, as soon as it has loaded everything."""
    config, program = tmp_path / "run.yaml", tmp_path / "program.py"
    config.write_text(CONFIG)
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(config), str(tmp_path / folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as lines:
        assert lines.readline() == b"ready\n"
    return process


@pytest.mark.slow
def test_kills_change_no_byte(tmp_path: Path) -> None:
    process = start(tmp_path, "whole")
    started = time.monotonic()
    assert process.wait() == 0
    length = time.monotonic() - started
    luck = random.Random(0)
    for _ in range(5):
        process = start(tmp_path, "killed")
        time.sleep(luck.uniform(0.1, 0.6) * length)
        process.kill()
        process.wait()
    assert start(tmp_path, "killed").wait() == 0
    whole, killed = (tmp_path / n / "seed-0" / "rows.jsonl" for n in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
