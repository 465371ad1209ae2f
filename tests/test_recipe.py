"""Recipes: the published epochs, rates and steps, and every guard."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from evenloop.models import build, seeded
from evenloop.optimizer import build_optimizer
from evenloop.recipe import EPOCH_RULES, RECIPES, Recipe, paper_epochs, rate

SPE = 10  # steps per epoch in the schedules below


def path(recipe: Recipe, epochs: int) -> list[float]:
    return [rate(step, epochs * SPE, SPE, recipe) for step in range(epochs * SPE)]


@pytest.mark.parametrize(
    ("n", "epochs"),
    [
        (1, 62),
        (20_000, 62),
        (20_001, 62),
        (21_200, 62),  # 2.5 x 24.8 is a whole number
        (21_201, 61),
        (23_456, 61),
        (35_000, 56),
        (50_000, 50),
        (50_001, 49),
        (75_000, 43),
        (100_000, 37),
        (495_000, 32),
        (999_999, 25),
        (1_000_000, 25),
        (1_000_001, 25),
    ],
)
def test_paper_epochs(n: int, epochs: int) -> None:
    assert paper_epochs(n) == epochs
    assert paper_epochs(n, "resnet18") == 2 * epochs
    assert paper_epochs(n, "baidunet9", underfit=True) == 5
    assert paper_epochs(n, "resnet18", underfit=True) == 5


def test_paper_epochs_never_rise_with_the_data() -> None:
    sizes = [*range(1, 120_000, 371), *range(120_000, 1_200_000, 9_973)]
    epochs = [paper_epochs(n) for n in sizes]
    assert epochs == sorted(epochs, reverse=True)


def test_paper_epochs_refuses() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        paper_epochs(0)
    with pytest.raises(ValueError, match=r"arch has no 'resnet'; did you mean 'resnet18'\?"):
        paper_epochs(5, "resnet")
    with pytest.raises(ValueError, match="arch has no 'resnet'"):
        paper_epochs(5, "resnet", underfit=True)


def test_piecewise_starts_above_zero_peaks_at_a_fifth_and_ends_at_its_end() -> None:
    rates = path(Recipe(lr=0.4, schedule="piecewise"), epochs=12)  # peak at floor(12 / 5) = 2
    assert rates[0] == pytest.approx(0.4 / 20)
    assert rates[19] == max(rates) == pytest.approx(0.4)
    assert rates[-1] == pytest.approx(0.001)
    assert rates[69] == pytest.approx((0.4 + 0.001) / 2)


@pytest.mark.parametrize("epochs", [1, 4])
def test_piecewise_below_five_epochs_only_falls(epochs: int) -> None:
    rates = path(Recipe(lr=0.4, schedule="piecewise"), epochs)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] < 0.4
    assert rates[-1] == pytest.approx(0.001)


def test_underfit_holds_then_falls_twice() -> None:
    rates = path(RECIPES["baidunet9-underfit"], epochs=5)
    assert rates[:30] == pytest.approx([0.1] * 30)
    assert rates[34] == pytest.approx(0.055)
    assert rates[39] == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.001)


def test_cosine_and_linear_start_at_the_peak_and_head_for_their_end() -> None:
    cosine = path(Recipe(lr=0.2, schedule="cosine"), epochs=4)
    assert cosine[0] == 0.2
    assert cosine[20] == pytest.approx(0.1)
    assert 0 < cosine[-1] < 0.001
    linear = path(Recipe(lr=0.2, schedule="linear", final_lr=0.1), epochs=4)
    assert linear[0] == 0.2
    assert linear[20] == pytest.approx(0.15)
    assert path(Recipe(lr=0.2, schedule="cosine", final_lr=0.1), 4)[20] == pytest.approx(0.15)
    assert path(Recipe(lr=0.2, schedule="piecewise", final_lr=0.05), 5)[-1] == pytest.approx(0.05)


def test_cosine_is_that_of_torch() -> None:
    recipe = RECIPES["resnet18"]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    for ours in path(recipe, epochs=5):
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        reference.step()


def test_multistep_drops_at_the_floor_of_each_milestone() -> None:
    recipe = Recipe(lr=1.0, schedule="multistep")
    epochs = [round(-math.log10(r)) for r in path(recipe, epochs=35)[::SPE]]
    assert epochs == [0] * 21 + [1] * 7 + [2] * 3 + [3] * 4  # 21, 28, 31.5
    halved = Recipe(lr=1.0, schedule="multistep", milestones=(0.5,), decay=0.5)
    assert path(halved, epochs=2) == [1.0] * 10 + [0.5] * 10


def test_constant_is_constant() -> None:
    assert path(Recipe(lr=0.3), epochs=2) == [0.3] * 20


@pytest.mark.parametrize("step", [-1, 20])
def test_a_step_outside_the_run_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=rf"step must lie in \[0, 20\), got {step}"):
        rate(step, 20, SPE, Recipe())
    assert rate(19, 20, SPE, Recipe()) == 0.1


def test_steps_count_incomplete_batches_unless_dropped() -> None:
    kept = Recipe(batch=4, epochs=3)
    assert [kept.steps_per_epoch(n) for n in (1, 4, 5, 8)] == [1, 1, 2, 2]
    assert kept.steps(5) == 6
    dropped = replace(kept, drop_last=True)
    assert [dropped.steps_per_epoch(n) for n in (4, 5, 8)] == [1, 1, 2]
    assert RECIPES["baidunet9"].steps(50_000) == 50 * 97
    assert RECIPES["resnet18"].epochs_for(50_000) == 100


def test_no_step_is_an_error_not_an_untrained_net() -> None:
    recipe = Recipe(batch=8, drop_last=True)
    with pytest.raises(ValueError, match="batch=8 is larger than the 7 training rows"):
        recipe.steps_per_epoch(7)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        Recipe().steps_per_epoch(0)
    assert recipe.steps_per_epoch(8) == 1


BAD: list[tuple[str, Any, str]] = [
    ("optimizer", "sgdd", "optimizer has no 'sgdd'; did you mean 'sgd'?"),
    ("schedule", "cosin", "schedule has no 'cosin'; did you mean 'cosine'?"),
    ("augment", "crop", "augment has no 'crop'; did you mean 'crop-flip'?"),
    ("precision", "bf-16", "precision has no 'bf-16'; did you mean 'bf16'?"),
    ("precision", "zzz", "precision has no 'zzz'; there are: bf16, fp32, fp64"),
    ("epochs", "baidunet", "epochs has no 'baidunet'; did you mean 'baidunet9'?"),
    ("epochs", -1, "epochs must be a whole number of at least 0, got -1"),
    ("epochs", 1.5, "epochs must be a whole number of at least 0, got 1.5"),
    ("epochs", True, "epochs must be a whole number of at least 0, got True"),
    ("batch", 0, "batch must be a whole number of at least 1, got 0"),
    ("batch", 1.5, "batch must be a whole number of at least 1, got 1.5"),
    ("eval_batch", -1, "eval_batch must be a whole number of at least 1, got -1"),
    ("threads", 0, "threads must be a whole number of at least 1, got 0"),
    ("lr", 0.0, "lr must be a finite number above 0, got 0.0"),
    ("lr", float("nan"), "lr must be a finite number above 0, got nan"),
    ("lr", float("inf"), "lr must be a finite number above 0, got inf"),
    ("momentum", 1.0, "momentum must be in [0, 1), got 1.0"),
    ("momentum", -0.1, "momentum must be in [0, 1), got -0.1"),
    ("label_smoothing", 1.0, "label_smoothing must be in [0, 1), got 1.0"),
    ("weight_decay", -1e-4, "weight_decay must be a finite number of at least 0, got -0.0001"),
    ("checkpoint_seconds", -1.0, "checkpoint_seconds must be a finite number of at least 0"),
    ("decay", 0.0, "decay must be a finite number above 0, got 0.0"),
    ("final_lr", -0.1, "final_lr must be at least 0, or None, got -0.1"),
    ("clip_norm", 0.0, "clip_norm must be above 0, or None, got 0.0"),
    ("milestones", (0.9, 0.6), "milestones must be rising shares of the epochs between 0 and 1"),
    ("milestones", (0.5, 1.0), "milestones must be rising shares of the epochs between 0 and 1"),
    ("nesterov", True, "nesterov=True needs momentum above 0, got 0; set momentum=0.9"),
]
GOOD: dict[str, Any] = {
    "optimizer": "adamw",
    "schedule": "multistep",
    "augment": "flip",
    "precision": "bf16",
    "epochs": "resnet18",
    "batch": 1,
    "eval_batch": 1,
    "threads": 2,
    "lr": 1e-5,
    "momentum": 0.99,
    "label_smoothing": 0.1,
    "weight_decay": 0.0,
    "checkpoint_seconds": 0.0,
    "decay": 1.0,
    "final_lr": 0.0,
    "clip_norm": 5.0,
    "milestones": (),
}


@pytest.mark.parametrize(("field", "value", "message"), BAD)
def test_a_bad_field_is_named_with_its_value_and_a_fix(
    field: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        Recipe(**{field: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(("field", "value"), GOOD.items())
def test_a_good_field_passes(field: str, value: Any) -> None:
    assert getattr(Recipe(**{field: value}), field) == value


@pytest.mark.parametrize("field", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_momentum_belongs_to_sgd(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"belong to optimizer='sgd', got optimizer='adam'"):
        Recipe(optimizer="adam", **field)
    assert Recipe(optimizer="sgd", **field).momentum == 0.9


def test_a_recipe_is_a_frozen_value() -> None:
    assert Recipe(lr=0.2) == Recipe(lr=0.2)
    assert hash(Recipe(lr=0.2)) == hash(Recipe(lr=0.2))
    with pytest.raises(FrozenInstanceError):
        Recipe().lr = 0.3  # type: ignore[misc]


def test_pydantic_describes_and_checks_it() -> None:
    adapter = TypeAdapter(Recipe)
    schema = adapter.json_schema()["properties"]
    assert schema["optimizer"]["enum"] == ["sgd", "adam", "adamw"]
    assert list(schema) == [field.name for field in fields(Recipe)]
    read = adapter.validate_python({"lr": "0.5", "milestones": [0.5], "epochs": "baidunet9"})
    assert read == Recipe(lr=0.5, milestones=(0.5,), epochs="baidunet9")
    assert adapter.validate_python(adapter.dump_python(RECIPES["resnet18"])) == RECIPES["resnet18"]
    with pytest.raises(ValidationError, match="momentum must be in"):
        adapter.validate_python({"momentum": 2})


def test_importing_recipes_does_not_import_torch() -> None:
    code = "import sys; import evenloop.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_train_on_the_mean_loss(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.weight_decay in (0.0, 5e-4)
    assert recipe.sum_decay == (name == "resnet18-compat")
    assert recipe.steps(2_000) > 0


def test_underfit_recipes_take_five_epochs_and_rules_are_named() -> None:
    assert RECIPES["baidunet9-underfit"].epochs_for(50_000) == 5
    assert RECIPES["resnet18-underfit"].epochs_for(50_000) == 5
    assert {name: rule(50_000) for name, rule in EPOCH_RULES.items()} == {
        "baidunet9": 50,
        "resnet18": 100,
        "roles": 35,
    }


@pytest.mark.parametrize(
    ("recipe", "reference"),
    [
        (
            Recipe(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
            lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, weight_decay=5e-4, foreach=False),
        ),
        (
            Recipe(lr=0.1, momentum=0.9, weight_decay=0.5, sum_decay=True, batch=100),
            lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.005, foreach=False),
        ),
        (
            Recipe(optimizer="adam", lr=0.01, weight_decay=0.1),
            lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, foreach=False),
        ),
        (
            Recipe(optimizer="adamw", lr=0.01, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, foreach=False),
        ),
    ],
    ids=["nesterov", "sum_decay", "adam", "adamw"],
)
def test_the_optimiser_is_torchs_plain_one(recipe: Recipe, reference: Any) -> None:
    start, pull = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, -1.0, 2.0])
    ours, plain = (nn.Parameter(start.clone()) for _ in range(2))
    pairs = [(ours, build_optimizer([ours], recipe)), (plain, reference([plain]))]
    for step in range(6):
        for parameter, optimizer in pairs:
            parameter.grad = pull * (step - 2)
            optimizer.step()
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=0)


def test_an_optimiser_takes_double_precision_and_needs_a_parameter() -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = build_optimizer(iter([parameter]), Recipe(lr=0.5))
    parameter.grad = torch.ones(2, dtype=torch.float64)
    optimizer.step()
    assert parameter.tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="there is no parameter to train"):
        build_optimizer([], Recipe())


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("last", [False, True])
def test_memory_layout_never_changes_the_step(kind: Any, last: bool) -> None:
    """A gradient or a loaded momentum laid out unlike its parameter still meets its element."""
    momentum = 0.9 if kind == "sgd" else 0.0
    recipe = Recipe(optimizer=kind, lr=0.1, momentum=momentum, weight_decay=0.01)
    values = torch.sin(torch.arange(2 * 3 * 2 * 2.0)).view(2, 3, 2, 2)
    layouts = [torch.contiguous_format, torch.channels_last]

    def train(parameter_layout: Any, other_layout: Any) -> torch.Tensor:
        parameter = nn.Parameter(values.clone(memory_format=parameter_layout))
        optimizer = build_optimizer([parameter], recipe)
        for step in range(4):
            parameter.grad = (values * (step - 1)).contiguous(memory_format=other_layout)
            optimizer.step()
            state = optimizer.state_dict()
            for held in state["state"].values():
                for name, value in held.items():
                    if value.dim() == 4:
                        held[name] = value.contiguous(memory_format=other_layout)
            optimizer.load_state_dict(state)
        return parameter.detach().contiguous()

    plain = train(torch.contiguous_format, torch.contiguous_format)
    torch.testing.assert_close(train(layouts[last], layouts[not last]), plain)


def test_a_parameter_with_gaps_is_trained_too() -> None:
    parameter = torch.ones(2, 4)[:, ::2].requires_grad_()
    optimizer = build_optimizer([parameter], Recipe(lr=0.5))
    parameter.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    optimizer.step()
    assert parameter.tolist() == [[0.5, 0.0], [-0.5, -1.0]]


def test_channels_last_from_two_convolutions_on_a_cpu() -> None:
    two = build("simple-cnn", channels=1, size=16, classes=2, seed=0)
    one = seeded(lambda: torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3)), 0)
    assert Recipe().use_channels_last(two)
    assert not Recipe().use_channels_last(one)
    assert not Recipe(device="cuda:0").use_channels_last(two)
    assert Recipe(channels_last=True).use_channels_last(one)
    assert not Recipe(channels_last=False).use_channels_last(two)
