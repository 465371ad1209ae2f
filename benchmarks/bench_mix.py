"""What learned ratios cost: one update and one batch against training steps, in one process.

    python -m benchmarks mix

`rows()` gives the table; times are medians of process time on one thread. The double-backward
update is the same update taken by automatic differentiation through the graph of all held-out rows,
with one gradient per quantity, as the formulas of the paper suggest on first reading.

The published program is timed where EVENLOOP_DRFAIRNESS names the folder of your own checkout of
its repository; its licence is non-commercial, and nothing of it is part of evenloop. Its updates
become slower as they go on, so a thousand are timed, as in a short run of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

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
ORIGINAL = "EVENLOOP_DRFAIRNESS"
UPDATES = 1000


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


def row(name: str, ours: float, baseline: float, target: str) -> dict[str, Any]:
    """One line: seconds of ours and of what it is compared with, and their ratio or speed-up."""
    return {
        "name": name,
        "ours": ours,
        "baseline": baseline,
        "ratio": baseline / ours if target.startswith(">") else ours / baseline,
        "target": target,
        "unit": "CPU s",
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
        row("update, linear model, against double backward", ours, naive, "<= 1"),
        row("update after 1,000 updates against before", late, early, "<= 1.1"),
    ]


class NumberedRows(Dataset[Any]):
    """Rows in the form that the published sampler reads: names, and labels and groups by name."""

    def __init__(self, names: list[int], y: dict[int, float], z: dict[int, float], transform: Any):
        self.list_IDs, self.y, self.z, self.transform = names, y, z, transform

    def __len__(self) -> int:
        return len(self.list_IDs)

    def __getitem__(self, place: int) -> tuple[Any, float, float]:
        name = self.list_IDs[place]
        return self.transform(name), self.y[name], self.z[name]


class TwoAnswers(nn.Module):
    """A linear model under the names that the published sampler asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = nn.Module()
        self.resnet.fc = nn.utils.skip_init(nn.Linear, 10, 1)
        nn.init.zeros_(self.resnet.fc.weight)
        nn.init.zeros_(self.resnet.fc.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits twice."""
        out = self.resnet.fc(x)
        return out, out


def published(folder: Path, x: Tensor, y: Tensor, z: Tensor) -> Callable[[], object]:
    """One update and one batch of the published program, on four equal parts of the rows."""
    sys.modules["customdataset"] = types.ModuleType("customdataset")
    sys.modules["customdataset"].CelebaDataset = NumberedRows  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("published", folder / "DrFairness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parts = []
    for names in torch.arange(len(x)).tensor_split(4):
        ids = names.tolist()
        label, group = ({i: float(c[i]) for i in ids} for c in (y, z))
        parts.append(NumberedRows(ids, label, group, x.__getitem__))
    sampler = module.FairAccurateSampler(
        TwoAnswers(), *parts, k=20, target_fairness="original", n_classes=1, batch_size=64,
        num_workers=0, seed=0,
    )  # fmt: skip

    def step() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            next(iter(sampler))

    return step


def mean(do: Callable[[], object]) -> float:
    """Mean seconds of process time of one call, of a run of them."""
    start = time.process_time()
    for _ in range(UPDATES):
        do()
    return (time.process_time() - start) / UPDATES


def original_rows() -> list[dict[str, Any]]:
    """Update and batch of a linear model against the published program's, where there is a copy."""
    folder = os.environ.get(ORIGINAL)
    if not folder:
        return []
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 10, generator=g)
    y, z = torch.randint(0, 2, (2, 4000), generator=g)
    theirs = published(Path(folder), x, y, z)
    quarter = torch.arange(4000) // 1000  # training and held-out rows, real and then generated
    train, held = (quarter % 2 == part for part in (0, 1))
    cells = CellIndex(y[train], z[train], quarter[train] // 2)
    val = Validation(x[held], CellIndex(y[held], z[held], quarter[held] // 2))
    model = TwoAnswers().resnet.fc
    ratios = Ratios(cells)
    update = RatioController(model, ratios, RatioObjective(), val, generator=g, per_cell=32)
    sampler = RatioBatchSampler(cells, ratios, 64, generator=g)

    def ours() -> None:
        update.step()
        sampler.draw(64)

    mine, baseline = mean(ours), mean(theirs)
    name = f"update and batch, linear model, mean of {UPDATES}, against the published program"
    return [row(name, mine, baseline, ">= 30")]


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
    for reuse, target in ((2, "<= 0.25"), (1, "<= 0.35")):
        update = control(model, x, cells, inner_data="train_batch", reuse=reuse)

        def both(update: RatioController = update) -> float:
            step()
            start = time.process_time()
            update.step(rows)
            return time.process_time() - start

        cost = statistics.median([both() for _ in range(6)][1:])
        update.close()
        name = f"update on the training batch, 64 held-out rows, reuse={reuse}, against a step"
        out.append(row(name, cost, alone, target))
    features = torch.randn(128, 512, generator=torch.Generator().manual_seed(2))
    head = nn.utils.skip_init(nn.Linear, 512, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    update = control(head, features, cells)
    cost = median(update.step, 100)
    out.append(row("update of the head on cached features, against a step", cost, alone, "<= 0.05"))
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
    return [row(name, median(draw, 500), median(step, 30), "<= 0.01")]


def rows() -> list[dict[str, Any]]:
    """Every row of the table."""
    torch.set_num_threads(1)
    return [*linear_rows(), *original_rows(), *resnet_rows(), *batch_rows()]
