"""What learned ratios cost: one update and one batch against training steps, in one process.

    python benchmarks/bench_mix.py

`rows()` gives the table; times are medians of process time on one thread. The double-backward
update is the same update taken by automatic differentiation through the graph of all held-out rows,
with one gradient per quantity, as the formulas of the paper suggest on first reading.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evenloop.models import build
from evenloop.samplers.outer import row_losses
from evenloop.samplers.ratios import (
    CellIndex,
    RatioBatchSampler,
    RatioController,
    RatioObjective,
    Ratios,
    Validation,
)

F64 = torch.float64


def median(do: Callable[[], object], repeats: int, warmup: int = 2) -> float:
    """Median seconds of process time of one call."""
    for _ in range(warmup):
        do()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        do()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def problem(n: int, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, CellIndex]:
    """`n` real and `n` generated rows in four cells."""
    g = torch.Generator().manual_seed(0)
    cell = torch.arange(2 * n) % 4
    source = torch.arange(2).repeat_interleave(n)
    return torch.randn(2 * n, *shape, generator=g, dtype=dtype), CellIndex(
        cell // 2, cell % 2, source
    )


def control(model: nn.Module, x: Tensor, cells: CellIndex, **options: Any) -> RatioController:
    """A controller of fresh ratios on held-out rows."""
    generator = torch.Generator().manual_seed(0)
    return RatioController(
        model, Ratios(cells), RatioObjective(), Validation(x, cells), generator=generator, **options
    )


def double_backward(model: nn.Module, a: Tensor, b: Tensor, x: Tensor, cells: CellIndex) -> None:
    """Gradients on both logits through the graph; nothing in closed form."""
    parameters = list(model.parameters())
    means = torch.zeros(cells.counts.numel(), dtype=x.dtype)
    means = means.index_add(0, cells.place, row_losses(model(x), cells.label))
    means = means.view(cells.counts.shape) / cells.counts
    pi = cells.share.sum(1, keepdim=True)
    lam, mu = a.softmax(1), b.sigmoid()
    inner = (pi * lam * (mu * means[0] + (1 - mu) * means[1])).sum()
    gap = (means[0].max(1).values - means[0].min(1).values).max()
    outer = gap + 20 * (cells.share * means[0]).sum()
    for logits in (a, b):
        v = torch.autograd.grad(outer, parameters, retain_graph=True)
        slope = torch.autograd.grad(inner, parameters, retain_graph=True, create_graph=True)
        dot = sum((s * w).sum() for s, w in zip(slope, v, strict=True))
        torch.autograd.grad(dot, logits, retain_graph=True)


def row(name: str, ours: float, baseline: float, target: float, unit: str) -> dict[str, Any]:
    """One line: seconds of ours and of what it is compared with, and their ratio."""
    return {
        "name": name,
        "ours": ours,
        "baseline": baseline,
        "ratio": ours / baseline,
        "target": target,
        "unit": unit,
    }


def linear_rows() -> list[dict[str, Any]]:
    """On a linear model, 128 + 128 held-out rows."""
    x, cells = problem(128, (3,), F64)
    model = nn.utils.skip_init(nn.Linear, 3, 2, dtype=F64)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    update = control(model, x, cells, draw="all")
    a, b = (torch.zeros(2, 2, dtype=F64, requires_grad=True) for _ in range(2))
    ours = median(update.step, 200)
    naive = median(lambda: double_backward(model, a, b, x, cells), 200)
    early = median(update.step, 100)
    for _ in range(1000):
        update.step()
    late = median(update.step, 100)
    return [
        row("update, linear model, against double backward", ours, naive, 1.0, "s"),
        row("update after 1,000 updates against before", late, early, 1.1, "s"),
    ]


def resnet_rows() -> list[dict[str, Any]]:
    """Against a ResNet-18 training step on 64 rows of 32x32 pixels."""
    x, cells = problem(64, (3, 32, 32), torch.float32)
    model = build("resnet18", channels=3, size=32, classes=2, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    rows = torch.arange(32, 96)

    def step() -> None:
        loss = cross_entropy(model(x[rows]), cells.label[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    alone = median(step, 5, 1)
    out = []
    for per_cell, target in ((8, 0.25), (16, 0.35)):
        update = control(model, x, cells, inner_data="train_batch", per_cell=per_cell)

        def both(update: RatioController = update) -> float:
            step()
            start = time.process_time()
            update.step(rows)
            return time.process_time() - start

        cost = statistics.median([both() for _ in range(6)][1:])
        update.close()
        name = f"update on the training batch, {4 * per_cell} held-out rows, against a step"
        out.append(row(name, cost, alone, target, "s"))
    features = torch.randn(128, 512, generator=torch.Generator().manual_seed(2))
    head = nn.utils.skip_init(nn.Linear, 512, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    update = control(head, features, cells)
    cost = median(update.step, 100)
    out.append(row("update of the head on cached features, against a step", cost, alone, 0.05, "s"))
    return out


def batch_rows() -> list[dict[str, Any]]:
    """Drawing a batch from 200,000 rows in 48 cells, against a small CNN's step on it."""
    g = torch.Generator().manual_seed(0)
    n = 200_000
    y, z = torch.randint(0, 4, (n,), generator=g), torch.randint(0, 12, (n,), generator=g)
    cells = CellIndex(y, z, torch.randint(0, 2, (n,), generator=g))
    ratios = Ratios(cells)
    sampler = RatioBatchSampler(cells, ratios, 64, generator=g)
    model = build("small-cnn", channels=3, size=32, classes=4, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, labels = torch.randn(64, 3, 32, 32, generator=g), y[:64]

    def step() -> None:
        loss = cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def draw() -> None:
        ratios.touch()  # as after an update: the targets are computed anew
        sampler.draw(64)

    for _ in range(500):
        draw()  # first pass: every pool is shuffled once
    name = "one batch from 200,000 rows in 48 cells, against a small CNN's step"
    return [row(name, median(draw, 500), median(step, 30), 0.01, "s")]


def rows() -> list[dict[str, Any]]:
    """Every row of the table."""
    torch.set_num_threads(1)
    return [*linear_rows(), *resnet_rows(), *batch_rows()]


if __name__ == "__main__":
    print("| what | ours | baseline | ratio | target |\n|---|---|---|---|---|")
    for r in rows():
        print(
            f"| {r['name']} | {r['ours']:.3g} {r['unit']} | {r['baseline']:.3g} {r['unit']} | "
            f"{r['ratio']:.3f} | {r['target']} |"
        )
