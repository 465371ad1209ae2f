"""Small real-and-generated problems for the tests of the learned ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from evenloop.samplers.ratios import (
    CellIndex,
    RatioBatchSampler,
    RatioController,
    RatioObjective,
    Ratios,
    Validation,
)

F64 = torch.float64


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(
    n: int = 120, classes: int = 2, groups: int = 2, sources: int = 2, seed: int = 0
) -> tuple[Tensor, CellIndex]:
    """`n` rows of each source, every cell present: inputs (N, 3) float64 and their cells."""
    g = gen(seed)
    every = torch.arange(classes * groups).repeat(n // (classes * groups) + 1)[:n]
    cell = every.repeat(sources)
    source = torch.arange(sources).repeat_interleave(n)
    x = torch.randn(n * sources, 3, generator=g, dtype=F64) + cell[:, None] * 0.3
    y, z = cell // groups, cell % groups
    return x, CellIndex(y, z, source, classes=classes, groups=groups, sources=sources)


def linear(outputs: int, seed: int = 1, features: int = 3) -> nn.Linear:
    model = nn.utils.skip_init(nn.Linear, features, outputs, dtype=F64)
    g = gen(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=F64) * 0.5)
    return model


def net(outputs: int = 2, seed: int = 1, dtype: torch.dtype = F64) -> nn.Sequential:
    """Two layers with batch norm and dropout."""
    model = nn.Sequential(
        nn.utils.skip_init(nn.Linear, 3, 8, dtype=dtype),
        nn.BatchNorm1d(8, dtype=dtype),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.utils.skip_init(nn.Linear, 8, outputs, dtype=dtype),
    )
    g = gen(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=F64) * 0.5)
    return model


def controller(
    model: nn.Module | None = None, seed: int = 0, ratios: Ratios | None = None, **options: Any
) -> RatioController:
    """A controller on a two-by-two problem; options go to it, those of the objective included."""
    x, cells = problem(seed=seed)
    weight = options.pop("accuracy_weight", 2.0)
    return RatioController(
        model or linear(2),
        ratios or Ratios(cells),
        options.pop("objective", RatioObjective(accuracy_weight=weight)),
        options.pop("val", Validation(x, cells)),
        generator=gen(seed),
        **options,
    )


def trained_together(sampler: RatioBatchSampler) -> dict[str, Tensor]:
    """Four steps of this process's part of a data-parallel loop that moves the shares."""
    x, cells = problem()
    model = nn.parallel.DistributedDataParallel(linear(2))
    control = controller(model, distributed=True, inner_data="train_batch", per_cell=4, lr=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    drawn = []
    for _ in range(4):
        rows = torch.from_numpy(sampler.draw(12))
        loss = nn.functional.cross_entropy(model(x[rows]), cells.label[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        control.step(rows)
        drawn.append(rows)
    ratios, weight = control.ratios, model.module.weight.detach()
    return {"rows": torch.stack(drawn), "lam": ratios.lam, "mix": ratios.mix, "weight": weight}


def distributed(rank: int, folder: str) -> None:
    """One of two processes: three updates on shared rows, and one batch each."""
    path = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{path / 'store'}", rank=rank, world_size=2)
    out: dict[str, Any] = {}
    for hessian in ("identity", "cg"):
        control = controller(distributed=True, draw="all", hessian=hessian)
        for _ in range(3):
            report = control.step()
        assert report is not None
        out[hessian] = {"lam": report.lam, "mix": report.mix, "gap": report.gap}
    _, cells = problem()
    sampler = RatioBatchSampler(cells, Ratios(cells), 12, generator=gen(5), rank=rank, world_size=2)
    out["rows"] = torch.tensor([sampler.draw(12).tolist() for _ in range(3)])
    out["trained"] = trained_together(sampler)
    torch.save(out, path / f"rank{rank}.pt")
    dist.destroy_process_group()
