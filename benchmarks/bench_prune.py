"""Pruning under constraints: cost of a step, of the constraint part, of global pruning, of savings.

Medians of CPU time on one thread with the quartiles beside them, both sides alternating in one run
and, where two nets are compared, in the same memory layout. `EVENLOOP_UTKFACE` (a table or
folder of UTKFace) puts real crops instead of noise in the MobileNetV2 row; `EVENLOOP_BALANCING_ACT`
(a checkout of the authors' program) adds a row against its masked ResNet-56.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune as torch_prune

from evenloop.models import build
from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.duals import DualAscent
from evenloop.objectives.reference import Reference
from evenloop.surgery.magnitude import GradualMagnitudePruning
from evenloop.surgery.schedule import Cubic

BATCH = 128
Step = Callable[[], Any]
Quartiles = tuple[float, ...]


def alternate(
    ours: Step, theirs: Step, calls: int, before: Step = lambda: None
) -> tuple[Quartiles, Quartiles]:
    """Quartiles of CPU milliseconds of each, called in turn after a first call of both.

    `before` is called before every call and not timed.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for call in range(calls + 1):
        for step, kept in zip((ours, theirs), times, strict=True):
            before()
            start = time.process_time()
            step()
            if call:
                kept.append(1000 * (time.process_time() - start))
    first, second = (tuple(statistics.quantiles(t, n=4, method="inclusive")) for t in times)
    return first, second


def row(name: str, ours: Quartiles, baseline: Quartiles, target: str) -> dict[str, Any]:
    """A row of the table; the ratio is ours over the baseline, or the speed-up for a target >=."""
    ratio = ours[1] / baseline[1] if target.startswith("<=") else baseline[1] / ours[1]
    return {
        "name": name,
        "ours": round(ours[1], 4),
        "baseline": round(baseline[1], 4),
        "ratio": round(ratio, 3),
        "target": target,
        "unit": "ms CPU",
        "ours_quartiles": [round(q, 4) for q in ours],
        "baseline_quartiles": [round(q, 4) for q in baseline],
    }


def reference(groups: int) -> Reference:
    """A dense reference with 500 items in every group."""
    one = torch.ones(groups)
    return Reference(torch.tensor(0.9), torch.tensor(0.3), 0.9 * one, 0.3 * one, (500 * one).long())


def batch(size: int, classes: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise images, labels and groups."""
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 3, size, size, generator=gen)
    y = torch.randint(classes, (BATCH,), generator=gen)
    return x, y, torch.randint(groups, (BATCH,), generator=gen)


def faces(size: int) -> tuple[str, tuple[Tensor, Tensor, Tensor]]:
    """A batch of UTKFace crops by race, or of noise of the same shape, and which of both it is."""
    root = os.environ.get("EVENLOOP_UTKFACE")
    if root is None:
        return "noise", batch(size, 5, 5)
    from evenloop.worlds.faces import UTKFace

    data = UTKFace(root=root, resize=size).load().take(range(BATCH))
    return "UTKFace crops", (data.x.float() / 255, data.y, data.attribute("race"))


class Tuning:
    """A sparse net, its optimiser and its masks."""

    def __init__(self, model: nn.Module, layout: torch.memory_format = torch.channels_last) -> None:
        self.model = model.to(memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        self.surgery = GradualMagnitudePruning(model, Cubic(0.9, 0, 0, initial=0.9))
        self.surgery.update(0)

    def step(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
        """One step of fine-tuning on `loss` of the logits."""
        self.optimizer.zero_grad(set_to_none=True)
        loss(self.model(x)).backward()
        self.optimizer.step()
        self.surgery.apply(self.model)


def constrained_step(name: str, model: nn.Module, data: tuple[Tensor, ...], calls: int) -> Any:
    """A step under the accuracy-gap constraint against the same step on the mean loss."""
    x, y, cell = data
    x = x.contiguous(memory_format=torch.channels_last)
    gap = AccuracyGap(reference(5), 0.01, dual=DualAscent(0.01))
    # One net for both: only the loss differs, so memory and caches are the same.
    tuning = Tuning(model)
    ours, plain = alternate(
        lambda: tuning.step(x, lambda z: gap.loss(z, y, cell)),
        lambda: tuning.step(x, lambda z: cross_entropy(z, y)),
        calls,
    )
    return row(f"constrained / plain step, {name}", ours, plain, "<= 1.05")


def constraint_part(groups: int) -> Any:
    """Everything the constraint adds to a step, in milliseconds; the target is 0.8."""
    _, y, cell = batch(1, 10, groups)
    logits = torch.randn(BATCH, 10, generator=torch.Generator().manual_seed(1), requires_grad=True)
    gap = AccuracyGap(reference(groups), 0.01, dual=DualAscent(0.01))
    ours, plain = alternate(
        lambda: gap.loss(logits, y, cell).backward(),
        lambda: cross_entropy(logits, y).backward(),
        300,
    )
    part, allowed = ours[1] - plain[1], 0.8
    return {
        "name": f"constraint part of a step, {groups} groups, against what is allowed",
        "ours": round(part, 4),
        "baseline": allowed,
        "ratio": round(part / allowed, 3),
        "target": "<= 1.0",
        "unit": "ms CPU",
        "with_quartiles": [round(q, 4) for q in ours],
        "without_quartiles": [round(q, 4) for q in plain],
    }


def global_pruning() -> Any:
    """11 million weights in ten layers, 90 % zero over all of them."""
    gen = torch.Generator().manual_seed(0)
    layers = [nn.utils.skip_init(nn.Linear, 1000, 1100, bias=False) for _ in range(10)]
    for layer in layers:
        layer.weight.data.normal_(generator=gen)
    net = nn.Sequential(*layers)

    fresh = [net]

    def copied() -> None:
        fresh[0] = copy.deepcopy(net)

    def ours() -> None:
        schedule = Cubic(0.9, 0, 0, initial=0.9)
        GradualMagnitudePruning(fresh[0], schedule, (), "global").update(0)

    def theirs() -> None:
        torch_prune.global_unstructured(
            [(layer, "weight") for layer in fresh[0].children()],
            pruning_method=torch_prune.L1Unstructured,
            amount=0.9,
        )

    times = alternate(ours, theirs, 15, copied)
    return row("global pruning of 11 M weights, times faster", *times, ">= 5")


def smaller_net() -> Any:
    """ResNet-56 with half its channels removed, against the dense one, forward at batch 128."""
    from evenloop.surgery.structured import ChannelPruning, shrink

    model = build("resnet56-conv", channels=3, size=32, classes=100, seed=0).eval()
    example = torch.zeros(1, 3, 32, 32)
    ChannelPruning(example, Cubic(0.5, 0, 0, initial=0.5)).begin(model, 0)
    small, x = shrink(model, example), batch(32, 100, 5)[0]
    with torch.inference_mode():
        times = alternate(lambda: small(x), lambda: model(x), 15)
    return row("half the channels of ResNet-56, forward on noise, times faster", *times, ">= 1")


def original_step(checkout: Path) -> list[dict[str, Any]]:
    """Our sparse ResNet-56 step against the masked layers of the authors' program, by layout."""
    sys.path.insert(0, str(checkout))
    try:
        layers = importlib.import_module("src.sparse")
        nets = importlib.import_module("src.models.resnet.cifarresnet")
    finally:
        sys.path.remove(str(checkout))
    found = []
    for layout, name in ((torch.contiguous_format, "NCHW"), (torch.channels_last, "NHWC")):
        theirs = nets.cifar100_resnet56(
            num_classes=100, conv_layer=layers.MaskedConv2d, norm_layer=layers.MaskedBatchNorm2d
        )
        theirs.to(memory_format=layout)
        optimizer = torch.optim.SGD(theirs.parameters(), 0.01, momentum=0.9)
        for module in theirs.modules():
            if isinstance(module, layers.MaskedConv2d):
                size = module.weight.detach().abs()
                module.update_weight_mask_(size > size.quantile(0.9))
                module.do_masked_forward = True
        x, y, _ = batch(32, 100, 5)
        x = x.contiguous(memory_format=layout)
        model = build("resnet56-conv", channels=3, size=32, classes=100, seed=0)
        times = alternate(*_steps(Tuning(model, layout), theirs, optimizer, x, y), 15)
        title = f"sparse ResNet-56 step on noise, {name}, times faster than the original"
        found.append(row(title, *times, ">= 1.4"))
    return found


def _steps(
    tuning: Tuning, theirs: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> tuple[Step, Step]:
    """A step of ours and one of theirs on the same batch."""

    def original() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(theirs(x), y).backward()
        optimizer.step()

    return lambda: tuning.step(x, lambda z: cross_entropy(z, y)), original


def rows() -> list[dict[str, Any]]:
    """All rows; about four minutes on one CPU thread."""
    torch.set_num_threads(1)
    small = build("small-cnn", channels=3, size=32, classes=5, seed=0)
    mobile = build("mobilenet-v2", channels=3, size=64, classes=5, seed=0)
    kind, crops = faces(64)
    found = [
        constrained_step("small CNN, 32 pixels, noise", small, batch(32, 5, 5), 40),
        constrained_step(f"MobileNetV2, 64 pixels, {kind}", mobile, crops, 15),
        *(constraint_part(groups) for groups in (5, 100, 1000)),
        global_pruning(),
    ]
    if importlib.util.find_spec("torch_pruning") is not None:
        found.append(smaller_net())
    if checkout := os.environ.get("EVENLOOP_BALANCING_ACT"):
        found += original_step(Path(checkout))
    return found


if __name__ == "__main__":
    for found in rows():
        print(
            f"{found['name']:64} {found['ours']:>10} {found['baseline']:>14} "
            f"{found['ratio']:>8} {found['target']:>8} {found['unit']}"
        )
