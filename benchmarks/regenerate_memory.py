"""Megabytes that a process grows by when it holds all of ColoredMNIST and trains on it.

Run by `bench_regenerate` as a process of its own: `python -m benchmarks.regenerate_memory FOLDER`.
"""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

__all__ = ["grown"]

PARTS = {"train": 60_000, "t10k": 10_000}


def grown() -> float:
    """Megabytes, of a process that reads 70,000 digits from official files; Linux only."""
    with tempfile.TemporaryDirectory() as folder:
        gen = np.random.Generator(np.random.Philox(0))
        for part, n in PARTS.items():
            digits = gen.integers(0, 256, (n, 28, 28), np.uint8)
            write_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz", digits)
            write_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz", gen.integers(0, 10, n))
        command = [sys.executable, "-m", "benchmarks.regenerate_memory", folder]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def write_idx(path: Path, array: np.ndarray) -> None:
    """A file of bytes in MNIST's own layout."""
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes(), 1))


def megabytes() -> float:
    """What this process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def measure(root: Path) -> None:
    """Print the growth from before the files are read until rows of every split were trained on."""
    import torch

    from evenloop.fit import fit
    from evenloop.groups import GroupIndex
    from evenloop.models import Pixels, build
    from evenloop.recipe import Recipe
    from evenloop.rng import Rng
    from evenloop.worlds.coloured import ColoredMNIST

    torch.set_num_threads(1)
    inner = build("simple-cnn", channels=3, size=28, classes=2, seed=0)
    net, rng = Pixels(inner, (0.0,) * 3, (1.0,) * 3), Rng.of(0)
    recipe = Recipe(lr=0.1, batch=256, epochs=1)
    small = ColoredMNIST(base="digits8", size=28).load()
    fit(net, small, GroupIndex.of(small), recipe=recipe, rng=rng)  # what training itself takes
    before = megabytes()
    data = ColoredMNIST(base="mnist", root=root).load()
    split = data.attribute("split")
    train, audit = (data.take((split == part).nonzero().flatten()) for part in (0, 2))
    fit(net, train, GroupIndex.of(train), recipe=recipe, rng=rng)
    assert len(audit) == PARTS["t10k"]
    print(megabytes() - before)


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
