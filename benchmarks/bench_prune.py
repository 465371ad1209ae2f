"""Pruning under constraints: cost of a step, of the constraint part, of global pruning, of savings.

Medians of CPU time on one thread, both sides alternating in one run. `EVENLOOP_UTKFACE` (a table or
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


def alternate(ours: Step, theirs: Step, calls: int) -> tuple[float, float]:
    """Median CPU milliseconds of each, called in turn after a first call of both."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in range(calls + 1):
        for step, kept in zip((ours, theirs), times, strict=True):
            start = time.process_time()
            step()
            if call:
                kept.append(1000 * (time.process_time() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def row(name: str, ours: float, baseline: float, target: str) -> dict[str, Any]:
    """A row of the table; the ratio is ours over the baseline, or the speed-up for a target >=."""
    ratio = ours / baseline if target.startswith("<=") else baseline / ours
    return {
        "name": name,
        "ours": round(ours, 4),
        "baseline": round(baseline, 4),
        "ratio": round(ratio, 3),
        "target": target,
        "unit": "ms CPU",
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


def faces(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of UTKFace crops by race, or of noise of the same shape."""
    root = os.environ.get("EVENLOOP_UTKFACE")
    if root is None:
        return batch(size, 5, 5)
    from evenloop.worlds.faces import UTKFace

    data = UTKFace(root=root, resize=size).load().take(range(BATCH))
    return data.x.float() / 255, data.y, data.attribute("race")


class Tuning:
    """A sparse net, its optimiser and its masks."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
    found = row(f"constraint part of a step, {groups} groups", ours - plain, 0.8, "<= 1.0")
    return found | {"baseline": "0.8 ms allowed"}


def global_pruning() -> Any:
    """11 million weights in ten layers, 90 % zero over all of them."""
    gen = torch.Generator().manual_seed(0)
    layers = [nn.utils.skip_init(nn.Linear, 1000, 1100, bias=False) for _ in range(10)]
    for layer in layers:
        layer.weight.data.normal_(generator=gen)
    net = nn.Sequential(*layers)

    calls = 3
    fresh = [copy.deepcopy(net) for _ in range(2 * calls + 2)]

    def ours() -> None:
        schedule = Cubic(0.9, 0, 0, initial=0.9)
        GradualMagnitudePruning(fresh.pop(), schedule, (), "global").update(0)

    def theirs() -> None:
        copied = fresh.pop()
        torch_prune.global_unstructured(
            [(layer, "weight") for layer in copied],
            pruning_method=torch_prune.L1Unstructured,
            amount=0.9,
        )

    return row(
        "global pruning of 11 M weights, times faster", *alternate(ours, theirs, calls), ">= 5"
    )


def smaller_net() -> Any:
    """ResNet-56 with half its channels removed, against the dense one, forward at batch 128."""
    from evenloop.surgery.structured import ChannelPruning, shrink

    model = build("resnet56-conv", channels=3, size=32, classes=100, seed=0).eval()
    example = torch.zeros(1, 3, 32, 32)
    ChannelPruning(example, Cubic(0.5, 0, 0, initial=0.5)).begin(model, 0)
    small, x = shrink(model, example), batch(32, 100, 5)[0]
    with torch.inference_mode():
        times = alternate(lambda: small(x), lambda: model(x), 3)
    return row("half the channels of ResNet-56, forward, times faster", *times, ">= 1")


def original_step(checkout: Path) -> Any:
    """Our sparse ResNet-56 step against the masked layers of the authors' program."""
    sys.path.insert(0, str(checkout))
    try:
        layers = importlib.import_module("src.sparse")
        nets = importlib.import_module("src.models.resnet.cifarresnet")
    finally:
        sys.path.remove(str(checkout))
    theirs = nets.cifar100_resnet56(
        num_classes=100, conv_layer=layers.MaskedConv2d, norm_layer=layers.MaskedBatchNorm2d
    )
    optimizer = torch.optim.SGD(theirs.parameters(), 0.01, momentum=0.9)
    for module in theirs.modules():
        if isinstance(module, layers.MaskedConv2d):
            size = module.weight.detach().abs()
            module.update_weight_mask_(size > size.quantile(0.9))
            module.do_masked_forward = True
    x, y, _ = batch(32, 100, 5)
    tuning = Tuning(build("resnet56-conv", channels=3, size=32, classes=100, seed=0))
    fast = x.contiguous(memory_format=torch.channels_last)

    def original() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(theirs(x), y).backward()
        optimizer.step()

    times = alternate(lambda: tuning.step(fast, lambda z: cross_entropy(z, y)), original, 3)
    return row("sparse ResNet-56 step, times faster than the original", *times, ">= 1.4")


def rows() -> list[dict[str, Any]]:
    """All rows; about two minutes on one CPU thread."""
    torch.set_num_threads(1)
    small = build("small-cnn", channels=3, size=32, classes=5, seed=0)
    mobile = build("mobilenet-v2", channels=3, size=64, classes=5, seed=0)
    found = [
        constrained_step("small CNN, 32 pixels", small, batch(32, 5, 5), 40),
        constrained_step("MobileNetV2, 64 pixels", mobile, faces(64), 5),
        *(constraint_part(groups) for groups in (5, 100, 1000)),
        global_pruning(),
    ]
    if importlib.util.find_spec("torch_pruning") is not None:
        found.append(smaller_net())
    if checkout := os.environ.get("EVENLOOP_BALANCING_ACT"):
        found.append(original_step(Path(checkout)))
    return found


if __name__ == "__main__":
    for found in rows():
        print(
            f"{found['name']:58} {found['ours']:>10} {found['baseline']!s:>14} "
            f"{found['ratio']:>8} {found['target']:>8} {found['unit']}"
        )
