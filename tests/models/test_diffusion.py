"""The diffusion generator: what it costs, what it draws, and that it runs in the loop."""

from __future__ import annotations

import sys

import pytest
import torch

from evenloop.audit import Audit
from evenloop.data import Attribute, GroupedData, Schema
from evenloop.fit import fit
from evenloop.groups import GroupIndex
from evenloop.loop import World, run
from evenloop.loops.regenerate import Regenerate
from evenloop.models import Pixels, build
from evenloop.models.diffusion import Denoised, Denoising, Diffusion
from evenloop.models.generators import build_generator, check_samples
from evenloop.recipe import Recipe
from evenloop.rng import Rng

OPTIONS = {"widths": (8, 8), "steps": 50, "draw_steps": 4}


def made() -> Diffusion:
    pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
    model = build_generator("diffusion", (1, 8, 8), seed=0, options=OPTIONS)
    assert isinstance(model, Diffusion)
    return model


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_cost_is_the_squared_error_of_the_noise():
    outputs = Denoised(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
    assert float(Denoising().loss(outputs, torch.zeros(1), torch.zeros(1))) == 2


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"evenloop\[diffusion\]"):
        build_generator("diffusion", (1, 8, 8), seed=0)


@pytest.mark.parametrize(
    ("shape", "options", "match"),
    [
        ((1, 9, 9), {}, "multiple of 2"),
        ((5,), {}, "reads images"),
        ((1, 8, 8), {"draw_steps": 51}, "at most steps=50"),
        ((1, 8, 8), {"widths": (8, 0)}, r"widths\[1\] must be"),
        ((1, 8, 8), {"steps": 0}, "steps must be"),
    ],
)
def test_bad_settings_are_named(shape, options, match):
    made()
    with pytest.raises(ValueError, match=match):
        build_generator("diffusion", shape, seed=0, options=OPTIONS | options)


def test_noise_is_added_by_the_schedule():
    model = made()
    assert model.kept[0] > 0.99
    assert model.kept[-1] < 0.01
    assert bool((model.kept.diff() < 0).all())
    x = torch.full((400, 1, 8, 8), 200, dtype=torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outputs = model(x)
    assert outputs.predicted.shape == outputs.noise.shape == (400, 1, 8, 8)
    assert abs(float(outputs.noise.mean())) < 0.02


def test_samples_are_images_and_repeat_with_their_generator():
    model = made().train()
    a, b, c = (model.sample(5, gen(seed)) for seed in (1, 1, 2))
    check_samples(a, (1, 8, 8))
    assert a.equal(b)
    assert not a.equal(c)
    assert model.training
    assert model.sample(0, gen()).shape == (0, 1, 8, 8)


@pytest.mark.slow
def test_training_teaches_it_what_pictures_look_like():
    x = torch.zeros(64, 1, 8, 8)
    x[:, :, :, 4:] = 1
    data = GroupedData.of(x, [0] * 64, {}, Schema(("a", "b")))
    model, recipe = made(), Recipe(optimizer="adam", lr=5e-3, batch=32, epochs=80)
    done = fit(
        model, data, GroupIndex.of(data), recipe=recipe, rng=Rng.of(0), objective=model.objective()
    )
    assert done.losses[-1] < 0.3 * done.losses[0]
    dark, bright = (float(half.mean()) for half in model.sample(50, gen()).split(4, dim=3))
    assert bright - dark > 0.25


def test_a_chain_of_diffusion_models_runs():
    made()
    truth = torch.arange(64) % 2
    x = truth[:, None, None, None].expand(-1, 1, 8, 8) * 0.8 + 0.1
    schema = Schema(("dark", "bright"), (Attribute("half", ("first", "last")),))
    data = GroupedData.of(x.clone(), truth, {"half": (torch.arange(64) >= 32).long()}, schema)

    def net(rng: Rng) -> torch.nn.Module:
        return Pixels(build("mlp", channels=1, size=8, classes=2, seed=rng.seed), (0.0,), (1.0,))

    world = World(data, ("half",), net, Recipe(batch=32, epochs=1))
    loop = Regenerate(
        generator="diffusion", generator_options=OPTIONS, generator_epochs=2, population=40,
        annotator_floor=0,
    )  # fmt: skip
    rows = run(loop, world, Audit(data, ("half",)), rounds=2).rows
    assert rows[1].counts["population"].total == 40
    assert 0 < rows[1].values["generator_loss"] < 10
