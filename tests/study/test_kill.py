"""A run killed at random moments and resumed writes the bytes of the run that was left alone."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from evenloop.config import load
from evenloop.study.folder import folder_of
from evenloop.study.seeds import run_seeds
from program_kit import ready, started

CONFIG = """
world: {name: digits8}
track: "8"
test_size: 200
loop: [{relabel: {n0: 100, human: 10, machine: 40}}]
net: {name: small-cnn, width: 2}
recipe: {base: small-cnn, epochs: 10, checkpoint_seconds: 0}
rounds: 4
seeds: SEEDS
"""
# The command line itself, with a word when everything is loaded.
PROGRAM = """
from evenloop import build, cli
from evenloop.study import seeds
if __name__ == "__main__":
    print("ready", flush=True)
    cli.main()
"""
# What a kill or a full disk leaves behind the last committed round.
TORN = [b"", b"{", b'{"round":1,"si', b'{"round":0}\n{"round":1', b"\x00\x00\n", b"\n"]


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "kills"), [(1, 10), (2, 3)])
def test_kills_change_no_byte(tmp_path: Path, seeds: int, kills: int) -> None:
    source = tmp_path / "run.yaml"
    source.write_text(CONFIG.replace("SEEDS", str(seeds)))
    begun = time.monotonic()
    run_seeds(load(str(source)), tmp_path / "whole", processes=1)
    length = time.monotonic() - begun
    folder, luck = folder_of(load(str(source)), tmp_path), random.Random(seeds)
    run, again = ["run", str(source), "-o", str(tmp_path), "-q"], ["resume", str(folder), "-q"]
    for _ in range(kills):
        process = ready(started(PROGRAM, *(again if (folder / "manifest.json").exists() else run)))
        time.sleep(luck.uniform(0.1, 0.6) * length)
        process.kill()
        process.communicate()
        for rows in folder.glob("seed-*/rows.jsonl"):
            with rows.open("ab") as file:
                file.write(luck.choice(TORN))
    last = started(PROGRAM, *(again if (folder / "manifest.json").exists() else run))
    last.communicate()
    assert last.returncode == 0
    for seed in range(seeds):
        whole, killed = (
            (place / f"seed-{seed}" / "rows.jsonl").read_bytes()
            for place in (tmp_path / "whole", folder)
        )
        assert len(whole.splitlines()) == 4
        assert whole == killed
