"""An acquisition killed at random moments writes the bytes of the run that was left alone."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from program_kit import ready, started

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


def start(tmp_path: Path, folder: str) -> subprocess.Popen[str]:
    """The program, as soon as it has loaded everything."""
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG)
    return ready(started(PROGRAM, str(config), str(tmp_path / folder)))


@pytest.mark.slow
def test_kills_change_no_byte(tmp_path: Path) -> None:
    process = start(tmp_path, "whole")
    begun = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    length = time.monotonic() - begun
    luck = random.Random(0)
    for _ in range(5):
        process = start(tmp_path, "killed")
        time.sleep(luck.uniform(0.1, 0.6) * length)
        process.kill()
        process.communicate()
    last = start(tmp_path, "killed")
    last.communicate()
    assert last.returncode == 0
    whole, killed = (tmp_path / n / "seed-0" / "rows.jsonl" for n in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
