"""What the random field over frames costs at imSitu's sizes, against the original program.

    python benchmarks/bench_roles.py

504 verbs with 2 to 6 roles, 1,960 lists of 3 to 251 nouns, batches of 64. The published
modules run when EVENLOOP_DATA_FEEDBACK names a checkout of the original; its `.cuda()` calls are
made to do nothing and its picture net is replaced by given features, the rest is as published.
Without it those rows are left out.

- loss: log Z, the score of the annotated frame, and the gradient with respect to every potential.
- decoding: from potentials to one frame in words for each picture.
- both with the linear layers that make the potentials, which are the same arithmetic for both.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evenloop.models.crf import CRF
from evenloop.roles import Layout, Potentials, Slots
from evenloop.roles.annotations import decode, encode
from evenloop.roles.potentials import best_frame, log_any

VERBS, BATCH, FEATURES, REPEATS = 504, 64, 1024, 3
PARTS = ("baseline_crf", "imsitu")


def situations(seed: int = 0) -> list[dict[str, Any]]:
    """One situation for each verb, whose frames together give every role its nouns."""
    rng = np.random.default_rng(seed)
    listed = []
    for v in range(VERBS):
        sizes = np.clip(np.exp(rng.normal(np.log(40), 0.6, rng.integers(2, 7))), 3, 339)
        frames = [
            {f"role{r}": f"n{min(i, int(n) - 1)}" for r, n in enumerate(sizes)}
            for i in range(int(sizes.max()))
        ]
        listed.append({"verb": f"verb{v:03d}", "frames": frames})
    return listed


def layout_of(listed: list[dict[str, Any]]) -> Layout:
    """Their vocabulary, in the order of the frames."""
    nouns = tuple(
        tuple(tuple(dict.fromkeys(f[role] for f in s["frames"])) for role in s["frames"][0])
        for s in listed
    )
    return Layout(
        tuple(s["verb"] for s in listed), tuple(tuple(s["frames"][0]) for s in listed), nouns
    )


def cpu(do: Callable[[], object]) -> float:
    """CPU milliseconds of one call, a picture."""
    start = time.process_time()
    do()
    return 1000 * (time.process_time() - start) / BATCH


@contextlib.contextmanager
def original(folder: str) -> Iterator[tuple[Any, Any]]:
    """The published modules, on the CPU and without torchvision's nets."""

    class Nothing:
        def __getattr__(self, name: str) -> Nothing:
            return self

        def __call__(self, *args: object, **options: object) -> Nothing:
            return self

    stubs = {name: types.ModuleType(name) for name in ("torchvision", "tqdm")}
    stubs["torchvision"].models = stubs["torchvision"].transforms = Nothing()
    stubs["tqdm"].tqdm = lambda each: each
    kept = {name: sys.modules.get(name) for name in stubs}
    moves, device = Tensor.cuda, torch.cuda.current_device
    Tensor.cuda = lambda self, *args, **options: self
    torch.cuda.current_device = lambda: 0
    sys.modules.update(stubs)
    sys.path.insert(0, os.path.join(folder, "visual_role_labeling"))
    try:
        yield tuple(importlib.import_module(part) for part in PARTS)
    finally:
        sys.path.pop(0)
        Tensor.cuda, torch.cuda.current_device = moves, device
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        for part in PARTS:
            sys.modules.pop(part, None)


class Given(nn.Module):
    """Stands for the picture net: its input is the features."""

    def rep_size(self) -> int:
        """Width of the features."""
        return FEATURES

    def forward(self, x: Tensor) -> Tensor:
        """The features as they are."""
        return x


class Theirs:
    """The published field, its loss and what it does to write down a batch's frames."""

    def __init__(self, modules: tuple[Any, Any], listed: list[dict[str, Any]]) -> None:
        field, coding = modules
        field.resnet_modified_extra_small = Given
        whole = {f"{s['verb']}_0.jpg": s for s in listed}
        self.coder = coding.imSituVerbRoleLocalNounEncoder(whole)
        self.net = field.baseline_crf(self.coder, cnn_type="resnet_18")
        rows = [{"verb": s["verb"], "frames": s["frames"][:1]} for s in listed[:BATCH]]
        self.y = torch.stack([self.coder.to_tensor([row]) for row in rows])

    def potentials(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Verb and noun potentials, the latter in its five groups, as leaves."""
        groups = [layer(x).detach() for layer in self.net.linear_vrn]
        return self.net.linear_v(x).detach().requires_grad_(), [g.requires_grad_() for g in groups]

    def sums(self, verb: Tensor, groups: list[Tensor]) -> tuple[Any, ...]:
        """Its forward pass from potentials: the linear layers hand over what they are given."""
        given, layers = iter(groups), self.net.linear_vrn
        self.net.linear_v = (lambda kept: lambda x: verb)(self.net.linear_v)
        self.net.linear_vrn = [lambda x: next(given) for _ in layers]
        out: tuple[Any, ...] = self.net(torch.zeros(BATCH, FEATURES))
        return out

    def loss(self, parts: tuple[Any, ...]) -> None:
        """Loss and gradient from a forward pass's outputs."""
        self.net.mil_loss(parts[1], parts[2], parts[3], self.y, 1).sum().backward()

    def words(self, scores: Tensor, found: Tensor) -> None:
        """Every verb's frame of every picture in words, of which the best is kept."""
        human = self.coder.to_situation(found)
        verbs = found.shape[1]
        for i in range(len(found)):
            items = human[i * verbs : (i + 1) * verbs]
            for v, item in enumerate(items):
                item["score"] = scores.data[i][v].item()
            sorted(items, key=lambda item: -item["score"])[:1]


def plain(net: nn.Module) -> None:
    """Let `sums` put functions where modules were."""
    for name in ("linear_v", "linear_vrn"):
        net.__dict__[name] = net._modules.pop(name)


def row(name: str, ours: list[float], other: list[float], target: str, note: str) -> dict[str, Any]:
    """One line of the table, medians of the repeats and the median of their ratios."""
    return {
        "name": name,
        "ours": statistics.median(ours),
        "baseline": statistics.median(other),
        "ratio": statistics.median(b / a for a, b in zip(ours, other, strict=True)),
        "target": target,
        "unit": "CPU ms a picture",
        "note": note,
    }


def against(folder: str) -> list[dict[str, Any]]:
    """The rows against the original, each repeated in turn."""
    listed = situations()
    layout = layout_of(listed)
    slots = Slots.of(layout)
    net = CRF(layout, nn.Identity(), FEATURES)
    y = encode([s | {"frames": s["frames"][:1]} for s in listed[:BATCH]], layout, references=1)
    gen = torch.Generator().manual_seed(0)
    took: dict[str, tuple[list[float], list[float]]] = {
        name: ([], []) for name in ("loss", "decoding", "loss, layers", "decoding, layers")
    }
    with original(folder) as modules:
        theirs = Theirs(modules, listed)
        for turn in range(REPEATS + 1):
            x = torch.randn(BATCH, FEATURES, generator=gen)
            for name, (ours, other) in took.items():
                a, b = (part(name, x, net, slots, y, theirs) for part in (_ours, _theirs))
                if turn:
                    ours.append(a)
                    other.append(b)
    note = {
        "loss": f"{layout.entries:,} potentials of nouns a picture, in {len(slots.empty):,} slots; "
        "the original pads to five fixed widths.",
    }
    return [
        row(
            f"frames: {name.replace(', layers', ' with its linear layers')}",
            *took[name],
            "in words" if "layers" in name else ">= 20",
            note.get(name, ""),
        )
        for name in took
    ]


def _ours(name: str, x: Tensor, net: CRF, slots: Slots, y: Tensor, theirs: Theirs) -> float:
    def loss(given: Potentials) -> None:
        (-log_any(given, y, slots).mean()).backward()

    def write(given: Potentials) -> None:
        decode(best_frame(given, slots), net.layout)

    if name == "loss":
        with torch.no_grad():
            made = net(x)
        given = Potentials(*(part.requires_grad_() for part in made))
        return cpu(lambda: loss(given))
    if name == "loss, layers":
        net.zero_grad(set_to_none=True)
        return cpu(lambda: loss(net(x)))
    with torch.no_grad():
        if name == "decoding":
            made = net(x)
            return cpu(lambda: write(made))
        return cpu(lambda: write(net(x)))


def _theirs(name: str, x: Tensor, net: CRF, slots: Slots, y: Tensor, theirs: Theirs) -> float:
    field = theirs.net
    if name == "loss, layers":
        field.zero_grad(set_to_none=True)
        return cpu(lambda: theirs.loss(field(x)))
    if name == "decoding, layers":
        with torch.no_grad():
            return cpu(lambda: theirs.words(*field.forward_max(x)))
    verb, groups = theirs.potentials(x)
    modules = field._modules["linear_v"], field._modules["linear_vrn"]
    plain(field)
    try:
        if name == "loss":
            return cpu(lambda: theirs.loss(theirs.sums(verb, groups)))
        with torch.no_grad():
            return cpu(lambda: theirs.words(*theirs.sums(verb, groups)[4:]))
    finally:
        for key, module in zip(("linear_v", "linear_vrn"), modules, strict=True):
            field.__dict__.pop(key, None)
            field._modules[key] = module


def growth() -> list[dict[str, Any]]:
    """Our loss and decoding alone, a picture, at four times the batch."""
    layout = layout_of(situations())
    slots, net = Slots.of(layout), CRF(layout, nn.Identity(), 64)
    gen = torch.Generator().manual_seed(0)
    took = []
    for batch in (BATCH, 4 * BATCH):
        with torch.no_grad():
            given = net(torch.randn(batch, 64, generator=gen))
            best_frame(given, slots)
            took.append(cpu(lambda g=given: best_frame(g, slots)) * BATCH / batch)
    return [
        {
            "name": f"frames: decoding a picture in batches of {4 * BATCH} / of {BATCH}",
            "ours": took[1],
            "baseline": took[0],
            "ratio": took[1] / took[0],
            "target": "flat",
            "unit": "CPU ms a picture",
        }
    ]


def rows() -> list[dict[str, Any]]:
    """Every measurement that can be made here."""
    torch.set_num_threads(1)
    folder = os.environ.get("EVENLOOP_DATA_FEEDBACK")
    return (against(folder) if folder else []) + growth()


if __name__ == "__main__":
    for line in rows():
        print(line)
