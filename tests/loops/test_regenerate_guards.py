"""Generator feedback: what stops a run before it starts, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenloop.data import GroupedData, Origin
from evenloop.loop import State, run
from evenloop.loops.regenerate import Regenerate
from evenloop.models.vae import small_vae
from evenloop.record import Record
from evenloop.rng import Rng
from regenerate_kit import SMALL, image_world, squares


def started(**fields: Any) -> Callable[[], State]:
    world, _ = image_world()
    return lambda: Regenerate(**fields).init(world, None, Rng.of(0))


class Drawn(nn.Module):
    """A generator whose pictures are of one shape and value, whatever it is asked for."""

    def __init__(self, *shape: int, to: float = 1.0) -> None:
        super().__init__()
        self.shape, self.to_value = shape, to

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.full((n, *self.shape), self.to_value)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"loss": "bce"}, "loss must be one of"),
        ({"synthetic": 1.2}, r"synthetic must be a share in \[0, 1\]"),
        ({"annotator_floor": 80}, r"annotator_floor must be a share in \[0, 1\], got 80"),
        ({"annotator_epochs": 0}, "annotator_epochs must be at least 1, got 0"),
        ({"annotator_batch": 0}, "annotator_batch must be at least 1, got 0"),
        ({"beta": -1.0}, "beta must be at least 0, or None, got -1"),
        ({"setting": "seqclas"}, "setting has no 'seqclas'; did you mean 'seqclass'"),
        ({"reparation": "cla"}, "reparation has no 'cla'"),
        ({"draws": "pol"}, "draws has no 'pol'; did you mean 'pool'"),
        ({"generator_draws": "fersh"}, "generator_draws has no 'fersh'; did you mean 'fresh'"),
        ({"tolerance": 1.5}, r"tolerance must be a difference of shares in \[0, 1\]"),
        ({"population": 0}, "population must be at least 1"),
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"reparation": "classifier", "budget": 0}, "curates nothing"),
        ({"reparation": "classifier", "budget": "0%"}, "curates nothing"),
        ({"ideal": (0.5, 0.4)}, "sum to 1"),
        ({"setting": "seqclass", "reparation": "generator"}, "one for all"),
        (
            {"compat_batching": True, "draws": "pool", "reparation": "classifier"},
            "draws='pool' with reparation='classifier'; use draws='fresh'",
        ),
        (
            {"compat_batching": True, "draws": "pool", "reparation": "both"},
            "compat_batching fixes the steps of an epoch",
        ),
        ({"generator_lr": 0.0}, "lr must be"),
        ({"natural": 500}, "the world has 180 rows"),
        ({"validation": 180}, "leaves none of 180 natural rows"),
        ({"ideal": (0.5, 0.5)}, "one share for each of 4 strata"),
        ({"generator": "vae28"}, "size must be 28"),
        ({"generator": "vea28"}, "did you mean 'vae28'"),
        ({"generator_options": {"cells": 3}}, "cells=3, but there are 4 strata"),
        (
            {"generator": lambda **shape: Drawn(1, 8, 8)},
            r"generator made rows of shape \(1, 8, 8\)",
        ),
        ({"generator": lambda **shape: Drawn(2, 8, 8, to=1.5)}, r"pixels in \[1.5, 1.5\]"),
    ],
)
def test_bad_fields_are_named_before_anything_is_trained(fields: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        started(**fields)()
    started(
        reparation="classifier", budget=1, ideal=(0.1, 0.2, 0.3, 0.4), validation=10, tolerance=0.1
    )()
    started(setting="seqclass", draws="pool", generator_draws="pool", beta=0.0)()
    started(compat_batching=True, draws="pool", reparation="generator")()
    started(compat_batching=True, draws="fresh", reparation="both")()
    started(annotator_epochs=1, annotator_batch=1, annotator_floor=1.0, synthetic=0.0)()
    started(generator_options={"cells": 4})()
    started(generator=lambda **shape: Drawn(2, 8, 8))()


def test_rows_that_an_earlier_loop_generated_are_not_natural_ones() -> None:
    world, _ = image_world()
    rows = squares(20, seed=5)
    color = {"color": rows.attribute("color")}
    made = GroupedData.of(rows.x, rows.y, color, rows.schema, origin=Origin.GENERATED)
    mixed = State(world.data.take(range(30)).append(made))
    with pytest.raises(ValueError, match="validation=30 leaves none of 30 natural rows"):
        Regenerate(validation=30, **SMALL).init(world, mixed, Rng.of(0))
    with pytest.raises(ValueError, match="leaves none of 0 natural rows"):
        Regenerate(**SMALL).init(world, State(made), Rng.of(0))
    Regenerate(validation=29, **SMALL).init(world, mixed, Rng.of(0))


def test_groups_are_needed() -> None:
    world, _ = image_world()
    with pytest.raises(ValueError, match="at least one group column"):
        Regenerate().init(replace(world, by=("truth",)), None, Rng.of(0))


def test_a_lost_stratum_is_foreseen_and_an_alarm() -> None:
    world, audit = image_world()
    rows = ~((world.data.truth == 1) & (world.data.attribute("color") == 1))
    world = replace(world, data=world.data.take(rows.nonzero().flatten()))
    loop = Regenerate(reparation="classifier", **SMALL)
    (said,) = loop.foreseen(world)
    assert "stratum bright red" in said
    assert "No budget can fill" in said
    assert loop.foreseen(image_world()[0]) == ()
    row = run(loop, world, audit, rounds=1).rows[0]
    assert any("bright red" in alarm for alarm in row.alarms)


@pytest.mark.parametrize(
    ("reparation", "warned"),
    [("classifier", set()), ("generator", {"generator"}), ("both", {"generator"})],
)
def test_every_curated_batch_is_planned(reparation: Any, warned: set[str]) -> None:
    world, _ = image_world()
    loop = Regenerate(reparation=reparation, **(SMALL | {"generator_batch": 2000, "budget": 9}))
    sentences = loop.lost_strata(world, world.data)
    assert {sentence.split("'s batches: ")[0] for sentence in sentences} == warned
    small = replace(loop, generator_batch=16)
    world = replace(world, recipe=replace(world.recipe, batch=2000))
    said = {s.split("'s batches: ")[0] for s in small.lost_strata(world, world.data)}
    assert said == ({"classifier"} if reparation in ("classifier", "both") else set())


def test_poor_annotators_are_announced() -> None:
    world, audit = image_world()
    world = replace(world, recipe=replace(world.recipe, lr=1e-6))
    alarms = run(Regenerate(annotator_floor=0.99, **SMALL), world, audit, rounds=1).rows[0].alarms
    assert any("label annotator is right on" in alarm for alarm in alarms)
    good = run(Regenerate(annotator_floor=0.0, **SMALL), *image_world(), rounds=1).rows[0]
    assert good.alarms == ()


def test_a_loss_that_is_not_finite_names_generation_and_step() -> None:
    world, audit = image_world()
    loop = Regenerate(**(SMALL | {"generator_lr": 1e30, "generator_optimizer": "sgd"}))
    with pytest.raises(FloatingPointError, match=r"round/0/generator, epoch \d, step \d"):
        run(loop, world, audit, rounds=2)


def test_generations_before_a_loss_that_is_not_finite_are_kept(tmp_path: Path) -> None:
    built = 0

    def spoilt(**shape: Any) -> nn.Module:
        """The VAE; its fourth (untrained, first, its copy as a parent, second) is not finite."""
        nonlocal built
        built += 1
        vae = small_vae(channels=shape["channels"], size=shape["size"], widths=(4, 8), latent=3)
        if built == 4:
            nn.init.constant_(vae.mu.weight, float("nan"))
        return vae

    loop = Regenerate(**(SMALL | {"generator": spoilt, "generator_options": {}}))

    def continued() -> Record:
        record = Record.open(tmp_path / "run", {"config": {}, "seed": 0})
        return run(loop, *image_world(), rounds=2, record=record)

    with pytest.raises(FloatingPointError, match="round/1/generator, epoch 0, step 0"):
        continued()
    kept = Record.open(tmp_path / "run", {"config": {}, "seed": 0})
    assert [row.round for row in kept.rows] == [0]
    assert len(list((tmp_path / "run" / "state").iterdir())) > 0
    assert [row.round for row in continued().rows] == [0, 1]


def test_samples_outside_the_pixel_range_name_the_generation() -> None:
    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def fit(self, x: Tensor, *, generator: torch.Generator) -> None:
            assert x.shape[1:] == (2, 8, 8)

        def sample(self, n: int, generator: torch.Generator) -> Tensor:
            return torch.full((n, 2, 8, 8), 2.0)

    loop = Regenerate(**(SMALL | {"generator": lambda **shape: Loud(), "generator_options": {}}))
    with pytest.raises(ValueError, match=r"generator of round 0 made pixels in \[2, 2\]"):
        run(loop, *image_world(), rounds=1)


class Mean(nn.Module):
    """Draws around the mean picture, kept as a plain attribute, a buffer, or one of other shape."""

    mean: Tensor

    def __init__(self, kept: str, extra: int = 0) -> None:
        super().__init__()
        self.kept, self.extra = kept, extra
        if kept == "buffer":
            self.register_buffer("mean", torch.zeros(2, 8, 8))
        elif kept == "shapeless":
            self.register_buffer("mean", torch.zeros(0))
        elif kept == "plain":
            self.mean = torch.zeros(2, 8, 8)

    def fit(self, x: Tensor, *, generator: torch.Generator) -> None:
        self.mean = x.mean(0) + 0.1 * torch.rand((), generator=generator, device=generator.device)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        luck = torch.rand(n + self.extra, 2, 8, 8, generator=generator, device=generator.device)
        return (self.mean + 0.01 * luck).clamp(0, 1)


def generated(**kind: Any) -> Record:
    fields = SMALL | {"generator": lambda **shape: Mean(**kind), "generator_options": {}}
    return run(Regenerate(annotator_floor=0, **fields), *image_world(), rounds=2)


@pytest.mark.parametrize(
    ("kept", "match"),
    [
        ("plain", "forgets what fit learned: .* draws other rows from the same random numbers"),
        ("unset", r"forgets what fit learned: .* fails \('Mean' object has no attribute 'mean'"),
        ("shapeless", r"forgets what fit learned: .* fails \(Error\(s\) in loading state_dict"),
    ],
)
def test_a_generator_that_forgets_what_it_learned_is_stopped(kept: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        generated(kept=kept)
    assert len(generated(kept="buffer").rows) == 2


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_generator_that_gives_another_number_of_rows_is_stopped(extra: int) -> None:
    with pytest.raises(ValueError, match=f"asked for 200 rows and gave {200 + extra}"):
        generated(kept="buffer", extra=extra)


def test_a_stratum_that_was_never_drawn_is_an_alarm_that_says_how_rare_it_may_be() -> None:
    class Bright(Drawn):
        """Pictures that no annotator can tell apart, so that strata are never drawn."""

        def fit(self, x: Tensor, *, generator: torch.Generator) -> None:
            assert x.shape[1:] == self.shape

    fields = SMALL | {"generator": lambda **shape: Bright(2, 8, 8), "generator_options": {}}
    loop = Regenerate(reparation="classifier", annotator_floor=0, **fields)
    alarms = run(loop, *image_world(), rounds=1).rows[0].alarms
    # 180 rows in batches of 16 with 4 more each: twelve first draws for each of 3 epochs.
    found = [alarm for alarm in alarms if "first drawn for the classifier's batches" in alarm]
    assert len(found) == 3
    assert all("no budget" not in alarm for alarm in found)
    drawn = int(found[0].split()[3])
    assert 600 <= drawn <= 720
    assert f"at most {1 - 0.05 ** (1 / drawn):.3g} (a 95% limit" in found[0]
    assert (1 - float(f"{1 - 0.05 ** (1 / drawn):.3g}")) ** drawn == pytest.approx(0.05, rel=0.02)
