"""What a training step and a whole round of label feedback cost, in one process on one thread.

    python benchmarks/bench_relabel.py

(a) Our training step against the bare PyTorch step: same net, same resident rows, same optimiser.
(b) A whole round (training, testing, labelling) against the original image program, when
    EVENLOOP_DATA_FEEDBACK names a checkout of it and torchvision is installed: same images, same
    small net. Its `.cuda()` and `.half()` calls are made to do nothing; the rest is as published.
(c) What a round costs beside training, over a thousand rounds.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.audit import Audit
from evenloop.data import GroupedData, Schema
from evenloop.fit import fit, predict
from evenloop.groups import GroupIndex
from evenloop.loop import World, run
from evenloop.loops.relabel import Relabel
from evenloop.models import Pixels, build, seeded
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.study.stack import fit_stacked

CLASSES = tuple(map(str, range(10)))
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def images(n: int) -> GroupedData:
    """`n` random colour images of 32 x 32 in ten classes."""
    gen = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, 3, 32, 32), generator=gen, dtype=torch.uint8)
    return GroupedData.of(x, torch.randint(10, (n,), generator=gen), {}, Schema(CLASSES))


def net(name: str) -> nn.Module:
    """The classifier with its pixel normalisation."""
    return Pixels(seeded(lambda: build(name, channels=3, size=32, classes=10), 0), MEAN, STD)


def bare_epoch(model: nn.Module, x: Tensor, y: Tensor, optimizer: Any, batch: int) -> None:
    """The step anybody would write."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for start in range(0, len(x) - batch + 1, batch):
        rows = order[start : start + batch]
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def step_row(name: str, n: int, repeats: int, channels_last: bool) -> dict[str, Any]:
    """Ours over the bare step, epoch against epoch in turn."""
    data = images(n)
    recipe = Recipe(
        lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, batch=512, drop_last=True,
        epochs=1, channels_last=channels_last,
    )  # fmt: skip
    groups = GroupIndex.of(data)
    ours, bare = [], []
    for turn in range(repeats + 1):
        model, twin = net(name), net(name)
        if channels_last:
            twin = twin.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(
            twin.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
        )
        twin.train()
        took = cpu(lambda m=model: fit(m, data, groups, recipe=recipe, rng=Rng.of(0)))
        other = cpu(lambda t=twin, o=optimizer: bare_epoch(t, data.x, data.y, o, 512))
        if turn:
            ours.append(took)
            bare.append(other)
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    return row(f"step, {name}, batch 512", ours, bare, ratio, "<= 1.05", "CPU s an epoch")


def cpu(do: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    do()
    return time.process_time() - start


def row(
    name: str, ours: list[float], other: list[float], ratio: float, target: str, unit: str
) -> dict[str, Any]:
    """One line of the table, medians of the runs."""
    return {
        "name": name,
        "ours": statistics.median(ours),
        "baseline": statistics.median(other),
        "ratio": ratio,
        "target": target,
        "unit": unit,
    }


class Small(nn.Module):
    """The small net both programs train: one convolution, or two wider ones."""

    def __init__(self, convolutions: int) -> None:
        super().__init__()
        if convolutions == 1:
            features: list[nn.Module] = [nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU()]
            width = 256
        else:
            features = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()]
            width = 1024
        self.layers = nn.Sequential(*features, nn.Flatten(), nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10)."""
        logits: Tensor = self.layers(x)
        return logits


@contextlib.contextmanager
def original(folder: str) -> Iterator[Any]:
    """The data module of the original program, with its GPU calls doing nothing."""
    kept = Tensor.cuda, Tensor.half
    Tensor.cuda = Tensor.half = lambda self, *a, **k: self
    sys.path.insert(0, os.path.join(folder, "image_classification"))
    try:
        yield importlib.import_module("data")
    finally:
        sys.path.pop(0)
        sys.modules.pop("data", None)
        Tensor.cuda, Tensor.half = kept


def original_round(theirs: Any, sets: Any, model: nn.Module, epochs: int, batch: int) -> None:
    """Training, testing and labelling as its main loop does them."""
    train, test, reserve = sets
    to_train, to_test = theirs.get_transforms("cifar5m")

    def batches(rows: Any, transform: Any, shuffle: bool) -> Any:
        return theirs.Batches(rows, transform, batch, shuffle, 0, drop_last=shuffle)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01 / batch, momentum=0.9, nesterov=True)
    for _ in range(epochs):
        for part in batches(train, to_train, True):
            loss = nn.functional.cross_entropy(
                model(part["input"]), part["target"], reduction="sum"
            )
            loss.backward()
            optimizer.step()
            model.zero_grad()
    with torch.no_grad():
        for rows in (test, reserve):
            for part in batches(rows, to_test, False):
                model(part["input"]).max(dim=1)


def nested(theirs: Any, data: GroupedData, n0: int, added: int, rounds: int) -> Any:
    """The original's sets after `rounds` rounds: every round wraps them once more."""
    whole = torch.utils.data.TensorDataset(data.x, data.y, torch.arange(len(data)))
    test, reserve = theirs.rand_split_dataset(whole, n0 // 4)
    train, reserve = theirs.rand_split_dataset(reserve, n0)
    for _ in range(rounds):
        for part in (added // 5, added - added // 5):
            chosen, reserve = theirs.rand_split_dataset(reserve, part)
            train = theirs.concat_dataset(train, chosen)
    chosen, _ = theirs.rand_split_dataset(reserve, added)
    return train, test, chosen


def round_rows(
    folder: str, pool: int = 20_000, n0: int = 500, added: int = 50, epochs: int = 2
) -> list[dict[str, Any]]:
    """CPU seconds of rounds 0 and 90, theirs over ours; ten rounds add n0 rows, as in Figure 3."""
    data = images(pool)
    found = []
    for rounds, target in ((0, ">= 3.5"), (90, ">= 15")):
        n = n0 + rounds * added
        for convolutions in (1, 2):
            with original(folder) as theirs:
                sets = nested(theirs, data, n0, added, rounds)
                slow = [
                    cpu(
                        lambda s=sets, c=convolutions: original_round(
                            theirs, s, Small(c), epochs, 128
                        )
                    )
                    for _ in range(3)
                ]
            work = (data, n, n0 // 4, added, epochs, convolutions)
            fast = [cpu(lambda w=work: our_round(*w)) for _ in range(6)]
            slow, fast = slow[1:], fast[1:]  # the first of each warms up
            ratio = statistics.median(slow) / statistics.median(fast)
            name = f"round {rounds} of the image program, {n} rows, {convolutions}-convolution net"
            found.append(row(name, fast, slow, ratio, target, "CPU s a round"))
    found[-1]["note"] = (
        "The targets of the rounds are for what the programs do around the net. With two "
        "convolutions most of our round is the net's own arithmetic, which both programs pay: the "
        "bare forward and backward pass alone is about seven tenths of it."
    )
    return found


def our_round(
    data: GroupedData, n: int, test: int, added: int, epochs: int, convolutions: int
) -> None:
    """The same work: training, testing, labelling and appending."""
    rows = data.take(torch.arange(n))
    recipe = Recipe(
        lr=0.01, momentum=0.9, nesterov=True, batch=128, drop_last=True, epochs=epochs,
        augment="crop-flip",
    )  # fmt: skip
    model = Pixels(Small(convolutions), MEAN, STD)
    done = fit(model, rows, GroupIndex.of(rows), recipe=recipe, rng=Rng.of(0))
    predict(done.model, data.x[n : n + test])
    shown = data.take(torch.arange(n, n + added))
    rows.append(shown.relabel(predict(done.model, shown.x).argmax(1), round=1))


class Instant(nn.Module):
    """Trains in no time, so that what is left is the loop's own work."""

    def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
        """Remember the number of classes."""
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """Logits that are all alike."""
        return x[:, :1].expand(len(x), self.classes)


def growth_row(rounds: int = 1000) -> dict[str, Any]:
    """The last hundred rounds against the first hundred, beside training."""
    n = 200 + 25 * rounds + 100
    data = GroupedData.of(torch.rand(n, 8), torch.arange(n) % 2, {}, Schema(("a", "b")))
    world = World(data.take(range(100, n)), (), lambda rng: Instant(), Recipe())
    times = [time.process_time()]
    run(
        Relabel(n0=100, human=5, machine=20),
        world,
        Audit(data.take(range(100))),
        rounds=rounds,
        tell=lambda done: times.append(time.process_time()),
    )
    spent = [b - a for a, b in pairwise(times[1:])]
    first, last = spent[1:101], spent[-100:]
    ratio = statistics.median(last) / statistics.median(first)
    return row(f"bookkeeping of round {rounds} / round 1", last, first, ratio, "flat", "CPU s")


def stacked_row(seeds: int = 16, n: int = 400) -> dict[str, Any]:
    """Sixteen seeds of a small net trained as one, over one after the other."""
    gen = torch.Generator().manual_seed(0)
    x = torch.rand(n, 64, generator=gen)
    data = GroupedData.of(x, torch.randint(10, (n,), generator=gen), {}, Schema(CLASSES))
    recipe = Recipe(lr=0.1, momentum=0.9, batch=32, epochs=5)
    streams = [Rng.of(seed).at("fit") for seed in range(seeds)]

    def nets() -> list[nn.Module]:
        return [seeded(lambda: build("mlp", features=64, classes=10), s) for s in range(seeds)]

    def alone() -> None:
        for model, rng in zip(nets(), streams, strict=True):
            fit(model, data, GroupIndex.of(data), recipe=recipe, rng=rng)

    def together() -> None:
        fit_stacked(nets(), [data] * seeds, recipe=recipe, rngs=streams)

    ours = [cpu(together) for _ in range(4)][1:]
    other = [cpu(alone) for _ in range(4)][1:]
    ratio = statistics.median(other) / statistics.median(ours)
    return row(f"{seeds} seeds of an MLP, stacked", ours, other, ratio, ">= 3", "CPU s")


def help_row() -> dict[str, Any]:
    """CPU seconds of `evenloop --help` as a process of its own."""
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "evenloop", "--help"], capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    taken = statistics.median(spent)
    return row("evenloop --help, against half a second", spent, [0.5], taken / 0.5, "<= 1", "CPU s")


def rows() -> list[dict[str, Any]]:
    """The table."""
    found = [
        help_row(),
        stacked_row(),
        step_row("small-cnn", 4096, 7, channels_last=False),
        step_row("baidunet9", 512, 3, channels_last=True),
        growth_row(),
    ]
    folder = os.environ.get("EVENLOOP_DATA_FEEDBACK")
    if folder:
        found += round_rows(folder)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in rows():
        print(
            f"{line['name']:<45} ours {line['ours']:.4g}  other {line['baseline']:.4g} "
            f"{line['unit']}  ratio {line['ratio']:.3g}  target {line['target']}"
        )
