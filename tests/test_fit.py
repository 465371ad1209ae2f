"""The one training loop: what it does, in which order, and from where it continues."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.fit import fit, predict, private_noise
from evenloop.groups import GroupIndex
from evenloop.models import build, seeded
from evenloop.objectives.erm import Erm
from evenloop.optimizer import build_optimizer
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform
from evenloop.seams import Batch, Objective, Sampler, Seen, Surgery
from stand_ins import blobs

RECIPE = Recipe(lr=0.1, momentum=0.9, batch=16, epochs=3, checkpoint_seconds=0)


def net(seed: int = 0, name: str = "mlp", **options: Any) -> nn.Module:
    return seeded(lambda: build(name, classes=2, features=4, **options), seed)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def train(data: GroupedData | None = None, model: nn.Module | None = None, **options: Any) -> Any:
    data = data if data is not None else blobs(100)
    chosen = {"recipe": RECIPE, "rng": Rng.of(1).at("fit")} | options
    return fit(model or net(), data, GroupIndex.of(data, ("sex",)), **chosen)


def test_it_is_the_loop_anybody_would_write() -> None:
    data, rng, bare = blobs(100), Rng.of(1).at("fit"), net()
    optimizer = build_optimizer(bare.parameters(), RECIPE)
    losses = []
    for epoch in range(3):
        order = torch.randperm(100, generator=rng.at("epoch", epoch).at("sampler").gen())
        for rows in order.split(16):
            loss = nn.functional.cross_entropy(bare(data.x[rows]), data.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    done = train(data)
    assert all(torch.equal(a, b) for a, b in zip(weights(bare), weights(done.model), strict=True))
    assert done.steps == len(losses) == 21
    weight = torch.tensor([16.0] * 6 + [4.0]).double()
    means = (torch.tensor(losses).view(3, 7).double() * weight).sum(1) / 100
    assert done.losses == pytest.approx(means.tolist(), abs=1e-6)


def test_the_same_stream_the_same_weights_whatever_the_global_generator() -> None:
    first = weights(train(model=net(name="dropout-mlp")).model)
    with torch.random.fork_rng():
        torch.random.manual_seed(5)
        second = weights(train(model=net(name="dropout-mlp")).model)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_noise_is_private_and_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    with private_noise(Rng.of(0), "cpu"):
        first = torch.rand(3)
    with private_noise(Rng.of(0), "cpu"):
        again = torch.rand(3)
    assert torch.equal(first, again)
    assert torch.equal(before, torch.random.get_rng_state())


class Drawer(dict[str, Any]):
    """Keeps progress in memory, and can be told to interrupt."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.stop_after, self.saves = stop_after, 0

    def load(self, name: str) -> dict[str, Any] | None:
        return self.get(name)

    def save(self, name: str, progress: dict[str, Any]) -> None:
        import copy

        self[name] = copy.deepcopy(progress)
        self.saves += 1
        if self.saves == self.stop_after:
            raise KeyboardInterrupt

    def epoch(self, name: str, epoch: int, epochs: int, rows: int) -> None:
        return None


class Countdown(Sampler):
    """Batches that shrink each epoch, with a memory, to see that it is kept."""

    def __init__(self) -> None:
        self.seen = 0

    def steps(self, rows: int, batch: int) -> int:
        return 4

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Tensor | Batch]:
        gen = rng.gen()
        for _ in range(4):
            size = max(1, 20 - self.seen)
            yield torch.randint(len(data), (size,), generator=gen)

    def after(self, seen: Seen) -> None:
        self.seen += 1

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Any) -> None:
        self.seen = state["seen"]


class Weighted(Objective):
    """A multiplier that grows with every step, as a dual does."""

    def __init__(self) -> None:
        self.multiplier = torch.ones(2)

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        each = nn.functional.cross_entropy(outputs, y, reduction="none")
        self.multiplier = self.multiplier + 0.01 * torch.bincount(cell, minlength=2)
        return (self.multiplier[cell] * each).mean()

    def state_dict(self) -> dict[str, Any]:
        return {"multiplier": self.multiplier}

    def load_state_dict(self, state: Any) -> None:
        self.multiplier = state["multiplier"]


class HalfZero(Surgery):
    """Masks half of the first layer, chosen at epoch 1."""

    def __init__(self) -> None:
        self.mask: Tensor | None = None

    def begin(self, model: nn.Module, epoch: int) -> None:
        if epoch == 1:
            weight = next(model.parameters())
            self.mask = (weight.abs() > weight.abs().median()).float()

    def apply(self, model: nn.Module) -> None:
        if self.mask is not None:
            with torch.no_grad():
                next(model.parameters()).mul_(self.mask)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.mask is None else {"mask": self.mask}

    def load_state_dict(self, state: Any) -> None:
        self.mask = state.get("mask")


@pytest.mark.parametrize("stop", [1, 2])
def test_continued_inside_a_fit_it_is_bit_for_bit_the_same(stop: int) -> None:
    def seams() -> dict[str, Any]:
        return {"sampler": Countdown(), "objective": Weighted(), "surgery": HalfZero()}

    def model() -> nn.Module:
        return net(name="dropout-mlp")

    whole = train(model=model(), **seams())
    drawer = Drawer(stop_after=stop)
    with pytest.raises(KeyboardInterrupt):
        train(model=model(), keep=drawer, **seams())
    continued = train(model=model(), keep=drawer, **seams())
    pairs = zip(weights(whole.model), weights(continued.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert whole.losses == continued.losses


def test_a_finished_fit_is_not_done_again_before_its_round_is_committed() -> None:
    drawer = Drawer()
    first = train(keep=drawer)
    again = train(model=net(7), keep=drawer)
    assert [*drawer] == ["fit"]
    pairs = zip(weights(first.model), weights(again.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_masked_weights_stay_zero() -> None:
    surgery = HalfZero()
    model = train(surgery=surgery).model
    assert surgery.mask is not None
    assert not next(model.parameters()).detach()[surgery.mask == 0].any()


def test_rows_made_on_the_spot_are_trained_on() -> None:
    class Fresh(Countdown):
        def epoch(
            self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
        ) -> Iterator[Tensor | Batch]:
            for _ in range(4):
                yield Batch(torch.ones(3, 4), torch.ones(3).long(), torch.zeros(3).long())

    model = train(sampler=Fresh(), recipe=replace(RECIPE, epochs=30)).model
    assert int(predict(model, torch.ones(1, 4)).argmax(1)) == 1


def test_a_sampler_that_promises_other_numbers_is_found_out() -> None:
    class Liar(Countdown):
        def steps(self, rows: int, batch: int) -> int:
            return 5

    with pytest.raises(RuntimeError, match="gave 4 batches and announced 5"):
        train(sampler=Liar())


class TestGuards:
    """Every guard stops the bad value and lets the good one pass."""

    def test_no_rows(self) -> None:
        with pytest.raises(ValueError, match="no rows to fit on"):
            train(blobs(4).take([]))

    def test_a_batch_larger_than_the_data(self) -> None:
        with pytest.raises(ValueError, match="batch=16 is larger than the 10 training rows"):
            train(blobs(10), recipe=replace(RECIPE, drop_last=True))
        assert train(blobs(10)).steps == 3

    def test_a_loss_that_is_not_finite_names_fit_epoch_and_step(self) -> None:
        class Broken(Objective):
            steps = 0

            def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
                self.steps += 1
                return outputs.sum() * (float("nan") if self.steps == 9 else 1.0)

        with pytest.raises(FloatingPointError, match="nan in fit, epoch 1, step 1"):
            train(objective=Broken())

    def test_one_row(self) -> None:
        assert train(blobs(1)).steps == 3


class TestPredict:
    """Inference without a trace."""

    def test_any_batch_gives_the_same(self) -> None:
        model, x = net(), blobs(50).x
        assert torch.allclose(predict(model, x, batch=7), predict(model, x, batch=50), atol=1e-6)

    def test_the_mode_is_put_back_and_dropout_is_off(self) -> None:
        model = net(name="dropout-mlp").train()
        first = predict(model, blobs(5).x)
        assert model.training
        assert torch.equal(first, predict(model, blobs(5).x))

    def test_no_rows_give_no_rows_of_the_right_width(self) -> None:
        assert predict(net(), torch.zeros(0, 4)).shape == (0, 2)

    def test_batch_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
            predict(net(), torch.zeros(1, 4), batch=0)


def test_double_precision_throughout() -> None:
    model = train(recipe=replace(RECIPE, precision="fp64")).model
    assert all(p.dtype == torch.float64 for p in model.parameters())


def test_uniform_covers_every_row_once() -> None:
    data = blobs(50)
    groups = GroupIndex.of(data)
    drawn = torch.cat([*Uniform().epoch(data, groups, batch=16, rng=Rng.of(0))])
    assert drawn.sort().values.tolist() == list(range(50))
    kept = [*Uniform(drop_last=True).epoch(data, groups, batch=16, rng=Rng.of(0))]
    assert [len(b) for b in kept] == [16, 16, 16]


def test_label_smoothing_guard() -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        Erm(1.0)
    assert Erm(0.1).label_smoothing == 0.1


@pytest.mark.parametrize("order", ["exact", "published"])
def test_no_epochs_leave_a_model_as_it_was_loaded(order: Any) -> None:
    data = blobs(40)
    recipe = Recipe(
        batch=16, micro_batch=8, epochs=0, schedule="linear", accumulation=order, lr=1e-3
    )
    model = build("mlp", classes=2, features=2, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = fit(model, data, GroupIndex.of(data), recipe=recipe, rng=Rng.of(0))
    assert (fitted.losses, fitted.steps) == ((), 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
