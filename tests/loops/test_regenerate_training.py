"""Generator feedback: what every model of a generation is trained on, seen by the trainer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evenloop.fit
from evenloop.fit import predict
from evenloop.loop import State, World
from evenloop.loops._regenerate import KEY
from evenloop.loops.regenerate import Regenerate
from evenloop.models.generators import build_generator
from evenloop.rng import Rng
from evenloop.samplers.quota_plan import plan_reparation
from evenloop.seams import Batch
from regenerate_kit import SMALL, Odd, image_world, noise_world


@dataclass
class Seen:
    """Two epochs of the batches that one model was trained on, and in how many steps."""

    batch: int
    steps: int
    epochs: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)

    def x(self, epoch: int) -> Tensor:
        return torch.cat([x for x, _ in self.epochs[epoch]])

    def y(self, epoch: int) -> Tensor:
        return torch.cat([y for _, y in self.epochs[epoch]])


def watched(world: World, name: str, seen: list[Seen]) -> World:
    """The world, with a trainer that notes what the model of the stream `name` is shown."""

    def trainer(model: nn.Module, data: Any, groups: Any, **known: Any) -> Any:
        recipe, sampler, rng = known["recipe"], known["sampler"], known["rng"]
        if rng == Rng.of(0).at("round", 1, name):
            new = Seen(recipe.batch, sampler.steps(len(data), recipe.batch))
            for epoch in range(2):
                batches = sampler.epoch(data, groups, batch=recipe.batch, rng=rng.at(epoch))
                new.epochs.append([pictures(data, b) for b in batches])
            seen.append(new)
        return evenloop.fit.fit(model, data, groups, **known)

    return replace(world, trainer=trainer)


def pictures(data: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1] and labels of a batch, made on the spot or taken from a pool."""
    if isinstance(batch, Batch):
        assert batch.x is not None
        assert batch.y is not None
        return batch.x, batch.y
    return data.x[batch].float() / 255, data.y[batch]


def second(loop: Regenerate, name: str = "classifier", **models: nn.Module) -> tuple[Seen, State]:
    """What a model of the second generation is shown, and the state that it started from."""
    world, _ = image_world()
    root, seen = Rng.of(0), list[Seen]()
    state, _ = loop.step(world, loop.init(world, None, root), 0, root.at("round", 0))
    state = replace(state, models={**state.models, **models})
    loop.step(watched(world, name, seen), state, 1, root.at("round", 1))
    assert len(seen) == 1
    return seen[0], state


def annotator(state: State, name: str) -> nn.Module:
    world, _ = image_world()
    model = world.net(Rng.of(0))
    model.load_state_dict(state.extra[KEY][name])
    return model.eval()


@pytest.mark.parametrize("draws", ["fresh", "pool"])
@pytest.mark.parametrize("reparation", ["none", "classifier"])
@pytest.mark.parametrize("setting", ["seqgen-seqclass", "seqgen-nonseqclass", "seqclass"])
def test_the_labels_are_those_of_the_settings_teacher(
    setting: Any, reparation: Any, draws: Any
) -> None:
    loop = Regenerate(setting=setting, reparation=reparation, draws=draws, **SMALL)
    seen, state = second(loop, classifier=Odd())
    x, y = seen.x(0), seen.y(0)
    last = float((Odd()(x).argmax(1) == y).double().mean())
    first = predict(annotator(state, "label_annotator"), x).argmax(1)
    natural = float((first == y).double().mean())
    if setting == "seqgen-nonseqclass":
        assert natural > 0.98
        assert last < 0.8
    else:
        assert last == 1
        assert natural < 0.8


@pytest.mark.parametrize("reparation", ["none", "classifier"])
def test_a_pool_is_seen_again_and_fresh_rows_are_not(reparation: Any) -> None:
    for draws in ("fresh", "pool"):
        seen, _ = second(Regenerate(draws=draws, reparation=reparation, **SMALL))
        one, two = (seen.x(epoch).unique(dim=0) for epoch in range(2))
        both = len(torch.cat([one, two]).unique(dim=0))
        if draws == "fresh":
            assert both == len(seen.x(0)) + len(seen.x(1))
        elif reparation == "none":
            assert len(one) == len(two) == both == 180
        else:
            assert both <= 180 < len(one) + len(two)


@pytest.mark.parametrize(
    ("compat", "reparation", "draws", "batch", "steps"),
    [
        (False, "none", "fresh", 16, 12),
        (False, "classifier", "fresh", 16, 12),
        (True, "none", "fresh", 32, 6),
        (True, "none", "pool", 32, 6),
        (True, "classifier", "fresh", 16, 6),
        (True, "both", "fresh", 16, 6),
    ],
)
def test_compat_batching_gives_every_epoch_the_generators_steps(
    compat: bool, reparation: Any, draws: Any, batch: int, steps: int
) -> None:
    loop = Regenerate(compat_batching=compat, reparation=reparation, draws=draws, **SMALL)
    seen, _ = second(loop)
    assert (seen.batch, seen.steps, len(seen.epochs[0])) == (batch, steps, steps)


def made_shares(loop: Regenerate, state: State) -> Tensor:
    """(4,) strata of what the last generator makes, as its child asks for them."""
    world, _ = image_world()
    parent = build_generator(
        loop.generator, world.data.x.shape[1:], seed=0, options=loop.generator_options
    )
    parent.load_state_dict(state.extra[KEY]["generator"])
    source = Rng.of(0).at("round", 1, "shares").gen()
    x = parent.eval().sample(loop.population, source)  # type: ignore[operator]
    label = Odd()(x).argmax(1)
    group = predict(annotator(state, "group_annotator"), x).argmax(1)
    return torch.bincount(label * 2 + group, minlength=4) / len(x)


def test_a_conditional_generator_draws_the_strata_it_was_trained_on() -> None:
    options = {"generator_options": {"widths": (4, 8), "latent": 3, "cells": 4}}
    world, _ = image_world()
    cell = world.data.truth * 2 + world.data.attribute("color")
    natural = torch.bincount(cell, minlength=4) / 180
    assert float((natural - 0.25).abs().max()) > 0.08
    for reparation, synthetic in (("none", 1.0), ("none", 0.3), ("generator", 1.0)):
        loop = Regenerate(reparation=reparation, synthetic=synthetic, **(SMALL | options))
        root = Rng.of(0)
        first, _ = loop.step(world, loop.init(world, None, root), 0, root.at("round", 0))
        torch.testing.assert_close(first.extra[KEY]["generator"]["share"], natural)
        first = replace(first, models={"classifier": Odd()})
        made = made_shares(loop, first)
        assert float((made - natural).abs().max()) > 0.05
        want = synthetic * made + (1 - synthetic) * natural
        if reparation == "generator":
            want = plan_reparation(made.double(), batch=32, budget=loop.budget).final.float()
        assert float((want - 0.25).abs().max()) > 0.05
        state, _ = loop.step(world, first, 1, root.at("round", 1))
        torch.testing.assert_close(state.extra[KEY]["generator"]["share"], want)


@pytest.mark.parametrize("setting", ["seqclass", "seqgen-nonseqclass"])
def test_label_noise_of_a_chain_follows_its_closed_form(setting: Any) -> None:
    """Spec oracle 9: labels flipped independently agree (1 + prod(1 - 2 e)) / 2 of the time."""
    numbers, drawn, root, rates = 4000, 40_000, Rng.of(0), (0.1, 0.05, 0.2)
    seeds = {root.at("round", g, "classifier", "net").seed: e for g, e in enumerate(rates)}
    world = noise_world(numbers, seeds)
    loop = Regenerate(setting=setting, generator="count", population=drawn, draws="pool")
    state = loop.init(world, None, root)
    for g in range(len(rates) + 1):
        state, notes = loop.step(world, state, g, root.at("round", g))
        table = notes.counts["population"].table
        agree = np.einsum("gcc->", table) / table.sum()
        want = (1 + np.prod([1 - 2 * e for e in rates[:g]])) / 2 if setting == "seqclass" else 1.0
        error = np.sqrt(want * (1 - want) * (1 / numbers + 1 / drawn))
        assert agree == pytest.approx(want, abs=4 * error + 1e-9)
