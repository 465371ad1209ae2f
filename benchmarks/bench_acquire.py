"""Active acquisition: pool scoring with a cached prefix, its memory, and a step's bookkeeping.

Every row is a ratio or a size measured in one run on one machine, single-threaded.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.groups import GroupIndex
from evenloop.heuristics.balanced import balanced_selection
from evenloop.heuristics.posterior import MCDropout, score_pool
from evenloop.heuristics.uncertainty import bald
from evenloop.loop import State, World
from evenloop.loops.acquire import Acquire
from evenloop.models import build
from evenloop.recipe import Recipe
from evenloop.rng import Rng

DRAWS = 20


def cpu_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median CPU time of `work`."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def rule(draws: Tensor) -> Tensor:
    """BALD of logits."""
    return bald(draws, kind="logits")


def cached_prefix(items: int = 24) -> dict[str, Any]:
    """VGG-16 as published on 64-pixel images: prefix once against the whole net T times."""
    net = build("vgg16", channels=3, size=64, classes=2, seed=0).eval()
    x = torch.rand(items, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rng = Rng.of(0)

    def score(cut: bool) -> Tensor:
        # few rows per pass for the whole net: its maps, not its masks, fill the memory
        posterior = MCDropout(net, DRAWS, cut=cut, rows=1024 if cut else 8 * DRAWS)
        return score_pool(posterior, x, rule, rng=rng)

    scores: list[Tensor] = []
    ours = cpu_seconds(lambda: scores.append(score(True)))
    baseline = cpu_seconds(lambda: scores.append(score(False)), 1)
    assert (scores[0] - scores[-1]).abs().max() < 1e-5
    return row("VGG-16 pool scoring, T=20, prefix once", ours, baseline, ">= 10", "CPU s")


def memory() -> dict[str, Any]:
    """Peak memory above the model and the pool: 100,000 items x 100 classes x 20 draws."""
    out = subprocess.run(
        [sys.executable, __file__, "--memory"], capture_output=True, text=True, check=True
    )
    above = float(out.stdout)
    dense = 100_000 * 100 * DRAWS * 4 / 2**20
    found = row(
        "scoring 100k x 100 x 20, peak above the model, of 200 MB", above, 200, "<= 1", "MB"
    )
    return found | {"note": f"A dense tensor of those draws would take {dense:.0f} MB."}


def measure_memory() -> None:
    """Print the MB that scoring adds to this process's peak."""
    net = build("dropout-mlp", features=32, classes=100, hidden=(128,), seed=0)
    x = torch.rand(100_000, 32, generator=torch.Generator().manual_seed(0))
    score_pool(MCDropout(net, DRAWS), x[:2000], rule, rng=Rng.of(0))
    held = process_megabytes("VmRSS")
    score_pool(MCDropout(net, DRAWS), x, rule, rng=Rng.of(0))
    # an upper bound: the peak since the start, less what is held as scoring starts
    print(process_megabytes("VmHWM") - held)


def process_megabytes(field: str) -> float:
    """A line of this process's status file; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def selection() -> dict[str, Any]:
    """The balanced rule on a pool of 100,000 against a plain sort of its scores."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(100_000, generator=generator)
    cell = torch.randint(0, 4, (100_000,), generator=generator)
    groups = GroupIndex(cell, ("a", "b", "c", "d"))
    ours = cpu_seconds(lambda: balanced_selection(scores, 100, groups), 9)
    baseline = cpu_seconds(lambda: scores.sort(descending=True), 9)
    return row("balanced choice of 100 in 100,000 against one sort", ours, baseline, "", "CPU s")


def bookkeeping() -> list[dict[str, Any]]:
    """A round without training or scoring, by size of the pool, against the smallest pool."""

    def seconds(n: int, balance: Literal["none", "group"]) -> float:
        generator = torch.Generator().manual_seed(0)
        schema = Schema(("a", "b"), (Attribute("g", ("p", "q")),))
        label, group = (torch.randint(0, 2, (n,), generator=generator) for _ in range(2))
        data = GroupedData.of(torch.zeros(n, 48), label, {"g": group}, schema)
        world = World(data, ("g",), lambda rng: torch.nn.Identity(), Recipe())
        loop = Acquire(initial=500, query=100, heuristic="random", balance=balance, trains=False)
        state = loop.init(world, None, Rng.of(0))
        return cpu_seconds(lambda: loop.step(world, state, 1, Rng.of(1)), 25)

    found = []
    kinds: tuple[Literal["none", "group"], ...] = ("none", "group")
    for balance in kinds:
        small = seconds(10_000, balance)
        for n, shown in ((100_000, "100k"), (1_000_000, "1M")):
            what = "a round's bookkeeping" + (", balanced" if balance == "group" else "")
            large = seconds(n, balance)
            found.append(row(f"{what}, pool {shown} against 10k", large, small, "<= 1.5", "CPU s"))
    return found


def read_off() -> dict[str, Any]:
    """What is read off 100,000 scores (choice, means and bins by cell, AUROC) against scoring."""
    data = GroupedData.of(
        torch.rand(100_000, 32, generator=torch.Generator().manual_seed(0)),
        torch.arange(100_000) % 2,
        {"g": torch.arange(100_000) % 3 % 2},
        Schema(("a", "b"), (Attribute("g", ("p", "q")),)),
    )
    net = build("dropout-mlp", features=32, classes=2, hidden=(128,), seed=0)
    world = World(data, ("g",), lambda rng: net, Recipe())
    loop = Acquire(initial=500, query=100, heuristic="bald", draws=DRAWS, trains=False)
    state = loop.init(world, None, Rng.of(0))
    state = State(state.data, {"classifier": net}, state.extra)
    loop.step(world, state, 1, Rng.of(1))
    whole = cpu_seconds(lambda: loop.step(world, state, 1, Rng.of(1)))
    index = torch.arange(500, 100_000)
    scoring = cpu_seconds(
        lambda: score_pool(MCDropout(net, DRAWS), data.x, rule, rng=Rng.of(0), index=index)
    )
    return row(
        "a round over 100k scores against the scoring alone", whole, scoring, "<= 1.1", "CPU s"
    )


def row(name: str, ours: float, baseline: float, target: str, unit: str) -> dict[str, Any]:
    """One line of the table; a speed-up (`>=`) has the other over ours, a cost ours over it."""
    over = baseline / ours if target.startswith(">") else ours / baseline
    return {
        "name": name,
        "ours": ours,
        "baseline": baseline,
        "ratio": over,
        "target": target,
        "unit": unit,
    }


def rows() -> list[dict[str, Any]]:
    """All measurements: name, ours, baseline, ratio, target, unit."""
    torch.set_num_threads(1)
    return [cached_prefix(), memory(), selection(), *bookkeeping(), read_off()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--memory" in sys.argv:
        measure_memory()
    else:
        print(f"{'what':58}{'ours':>10}{'baseline':>10}{'ratio':>8}  target")
        for r in rows():
            print(
                f"{r['name']:58}{r['ours']:10.4g}{r['baseline']:10.4g}{r['ratio']:8.1f}  "
                f"{r['target']} ({r['unit']})"
            )
