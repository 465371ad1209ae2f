"""Seeds trained as one: the numbers of each alone, whoever else is there, and errors kept apart."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import nn

from evenloop.data import GroupedData, Schema
from evenloop.fit import Fit, fit
from evenloop.groups import GroupIndex
from evenloop.models import Pixels, build, seeded
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.study.stack import Together, fit_stacked, stackable

CLASSES = 3
KINDS = ["features", "images", "logistic"]
RECIPES = {
    "sgd": Recipe(lr=0.1, momentum=0.9, weight_decay=1e-3, batch=8, epochs=4),
    "adam": Recipe(optimizer="adam", lr=1e-2, weight_decay=1e-3, batch=8, epochs=4),
    "fp64": Recipe(lr=0.1, batch=8, epochs=4, precision="fp64", label_smoothing=0.1),
}


def rows(seed: int, kind: str, n: int = 37) -> GroupedData:
    """Rows of odd number and width, so that no kernel's vectors fit by luck."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "images":
        x = torch.randint(0, 256, (n, 1, 5, 5), generator=generator, dtype=torch.uint8)
    else:
        x = torch.randn(n, 7, generator=generator)
    y = torch.randint(0, CLASSES, (n,), generator=generator)
    return GroupedData.of(x, y, {}, Schema(("a", "b", "c")))


def net(seed: int, kind: str) -> nn.Module:
    if kind == "images":
        inner = build("mlp", channels=1, size=5, classes=CLASSES, seed=seed, hidden=[9])
        return Pixels(inner, [0.4], [0.3])
    if kind == "logistic":
        return build("logistic", features=7, classes=CLASSES, seed=seed)
    return build("mlp", features=7, classes=CLASSES, seed=seed, hidden=[9, 5])


def stacked(seeds: list[int], kind: str, recipe: Recipe) -> list[nn.Module]:
    nets = [net(seed, kind) for seed in seeds]
    data = [rows(seed, kind) for seed in seeds]
    done = fit_stacked(nets, data, recipe=recipe, rngs=[Rng.of(seed) for seed in seeds])
    assert all(isinstance(one, Fit) for one in done)
    return nets


def state_bytes(model: nn.Module) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in model.parameters())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_stacked_and_alone_are_the_same_numbers(kind: str, recipe: str) -> None:
    chosen, seeds = RECIPES[recipe], [0, 1, 2]
    nets = [net(seed, kind) for seed in seeds]
    alone = copy.deepcopy(nets)
    data = [rows(seed, kind) for seed in seeds]
    together = fit_stacked(nets, data, recipe=chosen, rngs=[Rng.of(seed) for seed in seeds])
    for seed, model, side in zip(seeds, alone, together, strict=True):
        groups = GroupIndex.of(data[seed])
        mine = fit(model, data[seed], groups, recipe=chosen, rng=Rng.of(seed))
        assert isinstance(side, Fit)
        assert side.steps == mine.steps
        assert side.losses == pytest.approx(mine.losses, abs=1e-6)
        for p, q in zip(side.model.parameters(), mine.model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_do_not_depend_on_who_else_is_there(kind: str, recipe: str) -> None:
    whole = [state_bytes(model) for model in stacked([0, 1, 2, 3, 4], kind, RECIPES[recipe])]
    for left in ([3], [1, 4], [4, 3, 2], [0, 2, 3, 4]):
        some = stacked(left, kind, RECIPES[recipe])
        assert [state_bytes(model) for model in some] == [whole[seed] for seed in left]


def test_a_diverging_seed_leaves_the_others_as_they_are() -> None:
    recipe = RECIPES["sgd"]
    nets = [net(seed, "features") for seed in (0, 1, 2)]
    data = [rows(seed, "features") for seed in (0, 1, 2)]
    with torch.no_grad():
        next(nets[1].parameters()).fill_(float("inf"))
    done = fit_stacked(nets, data, recipe=recipe, rngs=[Rng.of(s).at("fit") for s in (0, 1, 2)])
    error = done[1]
    assert isinstance(error, FloatingPointError)
    assert "nan in fit, epoch 0, step 0" in str(error)
    pair = [net(seed, "features") for seed in (0, 2)]
    fit_stacked(pair, data[::2], recipe=recipe, rngs=[Rng.of(s).at("fit") for s in (0, 2)])
    assert [state_bytes(nets[i]) for i in (0, 2)] == [state_bytes(model) for model in pair]


def test_more_rows_than_a_batch_or_a_clear_error() -> None:
    recipe = Recipe(batch=38, epochs=1, drop_last=True)
    with pytest.raises(ValueError, match="at most 37 or drop_last=false"):
        stacked([0, 1], "features", recipe)
    stacked([0, 1], "features", Recipe(batch=37, epochs=1, drop_last=True))


def test_what_may_be_stacked() -> None:
    recipe = RECIPES["sgd"]
    assert stackable(net(0, "images"), recipe)
    assert not stackable(build("small-cnn", channels=1, size=8, classes=2, seed=0), recipe)
    assert not stackable(net(0, "logistic"), Recipe(clip_norm=1.0))
    assert not stackable(net(0, "logistic"), Recipe(micro_batch=4))


class Told:
    """A `Keep` that notes what it is told."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def load(self, name: str) -> dict[str, Any] | None:
        return None

    def save(self, name: str, progress: dict[str, Any]) -> None:
        raise AssertionError("a stacked fit saves nothing")

    def drop(self, name: str) -> None: ...

    def epoch(self, name: str, epoch: int, epochs: int, rows: int) -> None:
        self.epochs.append(epoch)


def life(together: Together, seed: int, kind: str = "features", n: int = 37, **more: Any) -> bytes:
    data, model = rows(seed, kind, n), net(seed, kind)
    groups, recipe = GroupIndex.of(data), RECIPES["adam"]
    for round in range(2):
        rng = Rng.of(seed).at("round", round)
        together.trainer(model, data, groups, recipe=recipe, rng=rng, **more)
    return state_bytes(model)


def test_lives_in_lockstep_and_their_epochs_told() -> None:
    together, keeps = Together(), [Told(), Told(), Told()]
    lives = together.map([lambda s=s: life(together, s, keep=keeps[s]) for s in range(3)])  # type: ignore[misc]
    for seed in range(3):
        alone = Together()
        assert alone.map([lambda s=seed, a=alone: life(a, s)]) == [lives[seed]]  # type: ignore[misc]
    assert [keep.epochs for keep in keeps] == [[1, 2, 3] * 2] * 3


def test_other_sizes_and_architectures_are_fitted_apart() -> None:
    together = Together()
    lives = together.map(
        [
            lambda: life(together, 0),
            lambda: life(together, 1, "logistic"),
            lambda: life(together, 2, n=20),
        ]
    )
    assert lives[1] == state_bytes_alone(1, "logistic", 37)
    assert lives[2] == state_bytes_alone(2, "features", 20)


def state_bytes_alone(seed: int, kind: str, n: int) -> bytes:
    together = Together()
    (found,) = together.map([lambda: life(together, seed, kind, n)])
    assert isinstance(found, bytes)
    return found


def test_same_shapes_but_another_layer_are_not_stacked() -> None:
    """Tanh and ReLU nets have equal shapes; one forward must not serve both."""
    together, data = Together(), rows(0, "features")

    def run(layer: type[nn.Module]) -> bytes:
        def make() -> nn.Module:
            return nn.Sequential(nn.Linear(7, 9), layer(), nn.Linear(9, CLASSES))

        model = seeded(make, 0)
        groups, rng = GroupIndex.of(data), Rng.of(0)
        one.trainer(model, data, groups, recipe=RECIPES["sgd"], rng=rng)
        return state_bytes(model)

    one = together
    both = together.map([lambda: run(nn.ReLU), lambda: run(nn.Tanh)])
    one = Together()
    assert one.map([lambda: run(nn.Tanh)]) == [both[1]]
    assert both[0] != both[1]


def test_an_error_of_one_run_is_its_own() -> None:
    together = Together()

    def fails() -> bytes:
        life(together, 1)
        raise ValueError("only mine")

    first, second, third = together.map([lambda: life(together, 0), fails, lambda: b"done"])
    assert first == state_bytes_alone(0, "features", 37)
    assert isinstance(second, ValueError)
    assert str(second) == "only mine"
    assert third == b"done"


def test_a_fault_of_the_grouping_itself_reaches_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise TypeError("no grouping")

    monkeypatch.setattr("evenloop.study.stack._alike", broken)
    together = Together()
    found = together.map([lambda: life(together, 0), lambda: life(together, 1)])
    assert [str(error) for error in found] == ["no grouping"] * 2


@pytest.mark.parametrize("runs", [1, 3])
def test_an_interrupt_ends_all_before_it_comes_out(runs: int) -> None:
    together, before = Together(), threading.active_count()

    def interrupted() -> bytes:
        life(together, 0)
        raise KeyboardInterrupt

    ended: list[int] = []

    def endless(seed: int) -> bytes:
        try:
            while True:
                life(together, seed)
        finally:
            ended.append(seed)

    lives = [interrupted, lambda: endless(1), lambda: endless(2)]
    with pytest.raises(KeyboardInterrupt):
        together.map(lives[:runs])
    assert sorted(ended) == list(range(1, runs))
    assert threading.active_count() == before
