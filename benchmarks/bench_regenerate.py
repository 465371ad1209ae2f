"""Generations with generators against the study's own program, and curation on its own.

The program is read from the user's checkout of `cleverhans-lab/FairFeedbackLoops`, named by the
environment variable EVENLOOP_FAIRFEEDBACKLOOPS; without it those rows are left out. Both sides do
the same work: same rows, batch sizes, step counts, nets and losses; figures are CPU seconds.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from evenloop.data import GroupedData
from evenloop.loop import World
from evenloop.loops.regenerate import Regenerate
from evenloop.models import Pixels, build
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.samplers.quota import stratified_batch
from evenloop.worlds.coloured import ColoredMNIST, assign_like_the_study, paint
from evenloop.worlds.painted import Painted

from .regenerate_clock import Row, cpu, in_turn, paired, row
from .regenerate_memory import grown
from .regenerate_parts import pieces
from .regenerate_rates import tables

CHECKOUT = "EVENLOOP_FAIRFEEDBACKLOOPS"
ROWS, BATCH, BUDGET = 1280, 256, 64


def grey_digits(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 28, 28) pixels and digits; random, for speed does not depend on what they show."""
    gen = np.random.Generator(np.random.Philox(0))
    return gen.integers(0, 256, (n, 28, 28), dtype=np.uint8), gen.integers(0, 10, n)


def natural(n: int) -> GroupedData:
    """Coloured rows with the study's labels and groups."""
    grey, digit = grey_digits(n)
    label, group = assign_like_the_study(digit, legacy_seed=0)
    schema = ColoredMNIST(base="digits8").load().schema
    x = paint(torch.from_numpy(grey), torch.from_numpy(group))
    columns = {"color": group, "digit": digit, "split": np.zeros(n, np.int64)}
    return GroupedData.of(x, label, columns, schema)


def net(rng: Rng) -> nn.Module:
    """The study's classifier."""
    inner = build("simple-cnn", channels=3, size=28, classes=2, seed=rng.seed)
    return Pixels(inner, (0.0,) * 3, (1.0,) * 3)


@contextlib.contextmanager
def checkout(path: str) -> Iterator[Any]:
    """The study's modules, imported where they lie; what they import but do not need is empty."""
    stubs: dict[str, types.ModuleType] = {}
    parts = ("transforms", "utils", "models", "datasets", "datasets.mnist", "datasets.utils")
    for name in ("piq", "pynvml", "prep_celeba", "svhn", "torchvision"):
        stubs[name] = types.ModuleType(name)
    for part in parts:
        parent, _, leaf = f"torchvision.{part}".rpartition(".")
        stubs[f"torchvision.{part}"] = types.ModuleType(f"torchvision.{part}")
        setattr(stubs[parent], leaf, stubs[f"torchvision.{part}"])
    stubs["torchvision.datasets"].VisionDataset = object  # type: ignore[attr-defined]
    before, real = os.getcwd(), {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    sys.path[:0] = [path, f"{path}/prep_data"]
    anomaly = torch.is_anomaly_enabled()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            import train

            torch.autograd.set_detect_anomaly(anomaly)
            yield train
    finally:
        os.chdir(before)
        del sys.path[:2]
        for name, module in real.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        torch.autograd.set_detect_anomaly(anomaly)


@contextlib.contextmanager
def their_way() -> Iterator[None]:
    """As their program runs: it turns anomaly detection on when it is imported, and prints."""
    with torch.autograd.set_detect_anomaly(True), contextlib.redirect_stdout(io.StringIO()):
        yield


class Natural(torch.utils.data.Dataset[Any]):
    """What their loader reads: a list of pictures, turned into tensors one by one."""

    def __init__(self, data: GroupedData) -> None:
        group, label = data.attribute("color").tolist(), data.truth.tolist()
        pictures = [Image.fromarray(p) for p in data.x.permute(0, 2, 3, 1).numpy()]
        self.items = list(zip(pictures, group, label, strict=True))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        picture, group, label = self.items[index]
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
        return pixels.float().div(255), group, label


def their_side(train: Any, data: GroupedData, reparation: str) -> Any:
    """Their trainer, with the settings of their ColoredMNIST runs but one epoch, no files."""
    side = object.__new__(train.train_fn)
    fields = {
        "gen_lr": 1e-3, "gen_batch_size": BATCH, "cla_lr": 0.1, "cla_batch_size": BATCH,
        "dataset": "ColoredMNIST", "generator": train.model.VariationalAutoencoder,
        "classifier": train.model.SimpleCNN, "save_dir": None, "save_freq": 0, "eval_freq": None,
        "device": torch.device("cpu"), "seed": 1, "g_optimizer": "ADAM", "weight_decay": 1e-5,
        "g_epochs": 1, "c_optimizer": "sgd", "c_epochs": 1, "latent_dims": 20,
        "synthetic_perc": 1, "use_reparation": reparation, "rep_budget": BUDGET, "gamma": 0.95,
        "roll_ckpts": 0, "result_dir": ".", "trainset": data,
    }  # fmt: skip
    for name, value in fields.items():
        setattr(side, name, value)
    side.train_loader = torch.utils.data.DataLoader(Natural(data), BATCH, shuffle=True)
    side.validate = lambda *args, **kwargs: 0.0
    return side


PLAIN: dict[str, Any] = {}
THEIR_LAYOUT: dict[str, Any] = {"channels_last": False}
HALF: dict[str, Any] = {"precision": "bf16", "channels_last": True}


def recipe(epochs: int, how: dict[str, Any]) -> Recipe:
    """The study's classifier recipe, in single precision or as `how` says."""
    return Recipe(lr=0.1, batch=BATCH, epochs=epochs, **how)


def generations(train: Any) -> Iterator[Row]:
    """One generation, the second: generator and classifier of one epoch each on `ROWS` rows."""
    data = natural(ROWS)
    for ours, theirs, target in (("none", "none", ">= 1.3"), ("both", "both", ">= 1.5")):
        loop = Regenerate(
            generator="vae28", generator_epochs=1, population=100, reparation=ours, budget=BUDGET
        )
        side = their_side(train, data, theirs)
        parent = train.model.VariationalAutoencoder()
        annotator = train.model.SimpleCNN()

        def theirs_once(side: Any = side, parent: Any = parent, annotator: Any = annotator) -> None:
            with their_way():
                made = side.train_generator(
                    1, True, sample_from=parent, label_from=annotator, group_from=annotator
                )
                side.generated_population_stats(1, made, annotator, annotator)
                side.train_classifier(
                    gen=1, sample_from=made, label_from=annotator, group_from=annotator
                )

        for how, said in ((PLAIN, ""), (HALF, ", ours in bf16")):
            ours_once = second_generation(loop, World(data, ("color",), net, recipe(1, how)))
            name = "un-repaired generation" if ours == "none" else "STAR-curated generation"
            name += said
            yield row(f"{name}, {ROWS} rows", *paired(ours_once, theirs_once), target)


def parts(train: Any) -> Iterator[Row]:
    """CPU seconds of one batch by part."""
    data = natural(ROWS)
    side = their_side(train, data, "both")
    parent, annotator = train.model.VariationalAutoencoder(), train.model.SimpleCNN()
    known = {"sample_from": parent, "label_from": annotator, "group_from": annotator}
    with their_way():
        side.train_generator(1, True, **known)
        side.train_classifier(gen=1, **known)
    work = pieces(
        side, parent.eval(), annotator.eval(), net(Rng.of(0)), data, their_way,
        batch=BATCH, budget=BUDGET,
    )  # fmt: skip
    for name, ours, theirs in work:
        yield row(f"part: {name}", *paired(ours, theirs, 5), "")


def second_generation(loop: Regenerate, world: World) -> Callable[[], object]:
    """What runs the generation after the first, which is run here."""
    rng = Rng.of(0)
    state, _ = loop.step(world, loop.init(world, None, rng), 0, rng.at("round", 0))
    return lambda: loop.step(world, state, 1, Rng.of(0).at("round", 1))


def metric_table(train: Any) -> Iterator[Row]:
    """Every rate, gap and ratio of 10,000 predictions in two groups, without and with limits."""
    truth, guess, group = torch.randint(2, (3, 10_000), generator=torch.Generator().manual_seed(0))
    lists = truth.tolist(), guess.tolist(), group.tolist()

    def theirs() -> None:
        train.fairness.eval_classifier(*lists)

    works = dict(tables(truth, guess, group))
    for name, ours, other in in_turn(works, theirs, repeats=10, calls=50):
        yield row(f"metric table, {name}", ours, other, ">= 1000")


def building(train: Any) -> Iterator[Row]:
    """60,000 training digits: their builder, digit by digit, against colours as a byte each."""
    grey, digit = grey_digits(60_000)
    builder = sys.modules["ci_mnist"].ColoredMNIST
    side = object.__new__(builder)
    side.root = "."
    sys.modules["torchvision.datasets"].mnist.MNIST = lambda *_, **__: Digits(grey, digit)

    def theirs() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            side.prepare_colored_mnist([0.3, 0.7], is_train=True)

    def ours() -> None:
        _, group = assign_like_the_study(digit, legacy_seed=0)
        Painted(torch.from_numpy(grey), torch.from_numpy(group))

    def painted_at_once() -> None:
        _, group = assign_like_the_study(digit, legacy_seed=0)
        paint(torch.from_numpy(grey), torch.from_numpy(group))

    seconds = cpu(theirs, 1)
    yield row("building the data, 60,000 digits", cpu(ours), seconds, ">= 100")
    yield row("building it with every picture painted", cpu(painted_at_once), seconds, "")


class Digits:
    """What their builder iterates over: a picture and a digit at a time, as torchvision gives."""

    def __init__(self, grey: np.ndarray, digit: np.ndarray) -> None:
        self.data, self.targets = torch.from_numpy(grey), torch.from_numpy(digit)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index >= len(self.data):
            raise IndexError(index)
        return Image.fromarray(self.data[index].numpy()), int(self.targets[index])


def curation() -> Row:
    """Stratify, pick and shuffle, as a share of a whole curated step with its training."""
    gen = torch.Generator().manual_seed(0)
    weight = torch.tensor([0.16, 0.3, 0.34, 0.2])
    cells = torch.multinomial(weight, 4 * 320, replacement=True, generator=gen)
    rows = torch.arange(4 * 320)

    def curate(times: int = 50) -> None:
        for _ in range(times):
            stratified_batch(
                lambda n: rows[:n],
                lambda x: cells[x],
                batch=BATCH,
                strata=4,
                budget=BUDGET,
                blocks=4,
                generator=gen,
            )

    data = natural(ROWS)
    world = World(data, ("color",), net, Recipe(lr=0.1, batch=BATCH, epochs=2))
    loop = Regenerate(
        setting="seqclass", generator="vae28", generator_epochs=1, population=1,
        reparation="classifier", budget=BUDGET,
    )  # fmt: skip
    rng = Rng.of(0)
    state, _ = loop.step(world, loop.init(world, None, rng), 0, rng.at("round", 0))
    whole = cpu(lambda: loop.step(world, state, 1, rng.at("round", 1))) / (2 * ROWS / BATCH)
    alone = cpu(curate) / (50 * 4)
    return {
        "name": "curation as a share of a curated classifier step",
        "ours": alone, "baseline": whole, "ratio": alone / whole, "target": "<= 0.01",
        "unit": "CPU s",
    }  # fmt: skip


def pool(train: Any) -> Iterator[Row]:
    """A classifier of 30 epochs on a pool drawn once against their fresh draws for every batch."""
    data = natural(ROWS)
    parent, annotator = train.model.VariationalAutoencoder(), train.model.SimpleCNN()
    for name, reparation in (("un-repaired", "none"), ("curated", "classifier")):
        loop = Regenerate(
            setting="seqclass", generator="vae28", generator_epochs=1, population=1,
            draws="pool", reparation=reparation, budget=BUDGET, annotator_epochs=1,
        )  # fmt: skip
        side = their_side(train, data, "cla" if reparation == "classifier" else "none")
        side.c_epochs = 30

        def theirs(side: Any = side) -> None:
            with their_way():
                side.train_classifier(
                    gen=1, sample_from=parent, label_from=annotator, group_from=annotator
                )

        hows = {"": PLAIN, ", in their memory layout": THEIR_LAYOUT, ", bf16": HALF}
        works = {
            said: second_generation(loop, World(data, ("color",), net, recipe(30, how)))
            for said, how in hows.items()
        }
        for said, mine, seconds in in_turn(works, theirs):
            what = f"pool mode, {name} classifier of 30 epochs{said}"
            yield row(f"{what}, {ROWS} rows", mine, seconds, ">= 5")


def memory() -> Row:
    """What reading all of ColoredMNIST and training on it adds to a process."""
    megabytes = grown()
    return {
        "name": "memory that full ColoredMNIST adds, of 200 MB",
        "ours": megabytes, "baseline": 200.0, "ratio": megabytes / 200, "target": "<= 1",
        "unit": "MB",
    }  # fmt: skip


def measured() -> Iterator[Row]:
    """Rows as they are measured; those against the study's program only where it is named."""
    torch.set_num_threads(1)
    if path := os.environ.get(CHECKOUT):
        with torch.random.fork_rng(), checkout(str(Path(path).resolve())) as train:
            yield from generations(train)
            yield from parts(train)
            yield from metric_table(train)
            yield from building(train)
            yield from pool(train)
    yield curation()
    yield memory()


def rows() -> list[Row]:
    """Every row."""
    return list(measured())


if __name__ == "__main__":
    for r in measured():
        print(
            f"{r['name']:<58} {r['ours']:>10.4g} {r['baseline']:>10.4g} {r['unit']:<6} "
            f"ratio {r['ratio']:>8.3g} (target {r['target']})",
            flush=True,
        )
