"""A constrained pruning run killed by the system inside its tuning ends as one left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

CONFIG = """
world: {name: mnist5k}
test_size: 200
by: [truth]
loop:
  - prune:
      rows: 600
      tolerance: 0.0
      sparsity: [0.6, 0.9]
      prune_until: 3
      buffer_size: 20
      dual_lr: 0.05
      dual_kp: 1.0
      tune: {optimizer: sgd, lr: 0.05, momentum: 0.9, epochs: 40}
net: {name: mlp, hidden: [32, 32]}
recipe: {base: mlp, batch: 50, epochs: 3, checkpoint_seconds: 0}
rounds: 3
seeds: 1
"""
PATIENCE = 120.0


def start(config: Path, folder: str) -> subprocess.Popen[bytes]:
    out = str(config.parent / folder)
    command = [sys.executable, "-m", "evenloop", "run", str(config), "-q", "-j", "1", "-o", out]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def progress_of(root: Path) -> dict[str, Any] | None:
    """The newest saved progress of a tuning under constraints, if there is one."""
    for path in root.glob("*/seed-0/state/fit-*.pt"):
        try:
            found: dict[str, Any] = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError):
            continue  # replaced or removed while it was read
        if found["surgery"] and found["objective"]["inner"]["has_estimate"].any():
            return found
    return None


def kill_while_tuning(process: subprocess.Popen[bytes], root: Path, epoch: int) -> dict[str, Any]:
    """`kill -9` once a progress past `epoch` is on disk; what was saved by then."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        found = progress_of(root)
        if found is not None and found["epoch"] >= epoch:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return found
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"never seen past epoch {epoch}: {process.communicate()[1].decode()}")


def files(root: Path) -> dict[str, bytes]:
    (seed,) = root.glob("*/seed-0")
    names = ("rows.jsonl", "state/models-2.pt", "state/current.json")
    return {name: (seed / name).read_bytes() for name in names}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_kill_inside_tuning_changes_no_bit(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG)
    whole = start(config, "whole")
    assert whole.wait() == 0, whole.communicate()[1].decode()
    whole.communicate()

    first = start(config, "parts")
    saved = kill_while_tuning(first, tmp_path / "parts", epoch=8)
    first.communicate()
    inner = saved["objective"]["inner"]
    assert int(inner["ring.fill"].min()) == 20
    assert inner["dual.value"].any()
    masks = [mask for part in saved["surgery"].values() for mask in part.values()]
    assert masks
    assert all(not bool(mask.all()) for mask in masks)

    second = start(config, "parts")
    assert second.wait() == 0, second.communicate()[1].decode()
    second.communicate()
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    (state,) = (tmp_path / "parts").glob("*/seed-0/state/models-2.pt")
    extra = torch.load(state, weights_only=True)["extra"]
    assert set(extra) >= {"multipliers", "masks"}
