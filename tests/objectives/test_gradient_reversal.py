"""The reversed gradient in closed form, and the objective against the plain net."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.fit import fit
from evenloop.groups import GroupIndex
from evenloop.models import build
from evenloop.objectives.erm import Erm
from evenloop.objectives.gradient_reversal import (
    AdversarialHead,
    AdversarialObjective,
    GradientReversal,
    schedule_weight,
)
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.seams import Batch, Objective, Seen

SCHEMA = Schema(("no", "yes"), (Attribute("a", ("p", "q", "r")), Attribute("b", ("u", "v"))))


def rows(n: int = 60) -> GroupedData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    a, b = (x[:, 1] > 0).long() * 2, (x[:, 2] > 0).long()  # value "q" of a does not occur
    return GroupedData.of(x, (x[:, 0] + 0.5 * x[:, 1] > 0).long(), {"a": a, "b": b}, SCHEMA)


def net(seed: int = 0) -> nn.Module:
    return build("mlp", features=4, classes=2, hidden=(6,), seed=seed)


def train(objective: Objective, epochs: int = 3) -> nn.Module:
    data = rows()
    groups = GroupIndex.of(data, ("a", "b"))
    recipe = Recipe(lr=0.1, batch=16, epochs=epochs)
    return fit(net(), data, groups, recipe=recipe, rng=Rng.of(0), objective=objective).model


def bound(objective: AdversarialObjective, model: nn.Module) -> tuple[GroupedData, GroupIndex]:
    data = rows()
    groups = GroupIndex.of(data, ("a", "b"))
    objective.bind(model, data, groups)
    return data, groups


def test_forward_is_the_identity_and_the_gradient_is_turned_and_scaled() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = GradientReversal(0.5)(x)
    assert torch.equal(y, x)
    y.backward(torch.tensor([4.0, 8.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [-2.0, -4.0]


def test_reversed_twice_is_the_plain_gradient() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    GradientReversal()(GradientReversal()(x)).backward(torch.tensor([4.0, 8.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [4.0, 8.0]


def test_what_is_handed_back_is_clipped_on_its_own() -> None:
    x = torch.tensor([0.0, 0.0], requires_grad=True)
    GradientReversal(clip=1.0)(x).backward(torch.tensor([3.0, 4.0]))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([-0.6, -0.8]))
    x.grad = None
    GradientReversal(clip=10.0)(x).backward(torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(x.grad, torch.tensor([-3.0, -4.0]))


def test_shared_weights_get_class_minus_weight_times_group() -> None:
    """Two separate plain passes are the reference."""
    model, weight = net().double(), 0.7
    objective = AdversarialObjective(weight, attributes=("a",))
    data, groups = bound(objective, model)
    outputs = model.train()(data.x.double())
    objective.loss(outputs, data.y, groups.cell).backward()
    got = [p.grad.clone() for p in model.body.parameters()]  # type: ignore[operator, union-attr]
    (head,) = objective.heads.values()
    features = model.body(data.x.double())  # type: ignore[operator]
    shared = list(model.body.parameters())  # type: ignore[union-attr]
    by_class = torch.autograd.grad(
        cross_entropy(model.head(features), data.y), shared, retain_graph=True
    )  # type: ignore[operator]
    plain = head.net(features)  # type: ignore[operator]
    by_group = torch.autograd.grad(cross_entropy(plain, data.attribute("a")), shared)
    for g, c, a in zip(got, by_class, by_group, strict=True):
        torch.testing.assert_close(g, c - weight * a)


def test_weight_zero_is_bit_for_bit_the_plain_net() -> None:
    plain, off = train(Erm()), train(AdversarialObjective(0.0, attributes=("a",)))
    for p, q in zip(plain.parameters(), off.parameters(), strict=True):
        assert torch.equal(p, q)
    objective = AdversarialObjective(0.0)
    model = net()
    bound(objective, model)
    assert list(objective.parameters()) == []
    assert not model.head._forward_pre_hooks  # type: ignore[union-attr]


def test_in_evaluation_the_group_part_is_absent() -> None:
    model, objective = net(), AdversarialObjective(5.0)
    data, groups = bound(objective, model)
    with torch.no_grad():
        outputs = model.eval()(data.x)
        assert float(objective.loss(outputs, data.y, groups.cell)) == pytest.approx(
            float(cross_entropy(outputs, data.y))
        )


def test_it_lowers_what_the_features_say_about_the_group() -> None:
    def probe(model: nn.Module) -> float:
        data = rows(600)
        with torch.no_grad():
            h = model.body(data.x)  # type: ignore[operator]
        h = torch.cat([h, torch.ones(600, 1)], 1)
        target = (data.attribute("b") * 2 - 1).float()[:, None]
        guess = (h @ torch.linalg.lstsq(h, target).solution).sign()
        return float((guess == target).float().mean())

    with_it = train(AdversarialObjective(1.0, attributes=("b",), hidden=(8,)), epochs=60)
    assert probe(with_it) < probe(train(Erm(), epochs=60)) - 0.05


def test_one_head_for_each_attribute_and_the_label_when_asked() -> None:
    model, objective = net(), AdversarialObjective(1.0, attributes=("a", "b"), given_class=True)
    data, groups = bound(objective, model)
    widths = [h.net[-1].out_features for h in objective.heads.values()]  # type: ignore[index, union-attr]
    assert widths == [3, 2]
    assert all(h.net[0].in_features == 6 + 2 for h in objective.heads.values())  # type: ignore[index, union-attr]
    outputs = model.train()(data.x)
    assert objective.loss(outputs, data.y, groups.cell).isfinite()


def test_a_batch_without_a_group_and_one_of_one_row() -> None:
    model, objective = net(), AdversarialObjective(1.0)
    data, groups = bound(objective, model)
    for index in ((groups.cell == 0).nonzero().flatten(), torch.tensor([3])):
        outputs = model.train()(data.x[index])
        loss = objective.loss(outputs, data.y[index], groups.cell[index])
        loss.backward()
        assert loss.isfinite()


def test_the_adversary_depends_on_the_seed_alone_and_is_new_each_time() -> None:
    first, second = AdversarialObjective(1.0, seed=4), AdversarialObjective(1.0, seed=4)
    bound(first, net(0))
    bound(second, net(1))
    assert _weights(first) == _weights(second)
    with torch.no_grad():
        for p in first.parameters():
            p.add_(1)
    bound(first, net(0))
    assert _weights(first) == _weights(second)


def _weights(objective: AdversarialObjective) -> list[Any]:
    return [p.tolist() for p in objective.parameters()]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [2, 2, 2]), ("linear", [0, 1, 2]), ("sigmoid", [0, 1.973, 2])],
)
def test_schedules_run_over_the_horizon(schedule: Any, expected: list[float]) -> None:
    objective = AdversarialObjective(2.0, schedule=schedule, horizon=10)
    for step, want in zip((0, 5, 10), expected, strict=True):
        objective.step = step
        assert objective.weight == pytest.approx(want, abs=1e-3)
    objective.step = 99
    assert objective.weight == pytest.approx(2.0, abs=1e-3)


def seen(objective: AdversarialObjective, model: nn.Module, outputs: Tensor) -> None:
    y = torch.zeros(len(outputs)).long()
    model.train()(torch.zeros(len(outputs), 4))
    objective.loss(outputs, y, y)
    objective.after(Seen(objective.step, Batch(outputs, y, y), outputs, model))


def seen_often(objective: AdversarialObjective, model: nn.Module) -> None:
    for _ in range(300):
        seen(objective, model, torch.zeros(2, 2))


def test_a_stuck_class_head_is_told_once_and_a_learning_one_is_not() -> None:
    stuck, model = AdversarialObjective(1.0), net()
    bound(stuck, model)
    with pytest.warns(UserWarning, match="class head is stuck") as told:
        seen_often(stuck, model)
    assert len(told) == 1
    assert stuck.stuck
    learning = AdversarialObjective(1.0)
    bound(learning, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(300):
            seen(learning, model, torch.tensor([[2.0, 0.0]]))
    assert not learning.stuck


def test_a_strangers_loop_is_watched_too() -> None:
    objective, model = AdversarialObjective(1.0), net()
    bound(objective, model)
    for step in range(400):
        outputs = LEARNED if step < 250 else AT_CHANCE
        y = torch.zeros(len(outputs)).long()
        model.train()(torch.zeros(len(outputs), 4))
        objective.loss(outputs, y, y)
        objective.after()
    with pytest.warns(UserWarning, match="class head is stuck"):
        objective.release()


AT_CHANCE, LEARNED = torch.zeros(2, 2), torch.tensor([[2.0, 0.0]])


@pytest.mark.parametrize(("last", "stuck"), [(AT_CHANCE, True), (LEARNED, False)])
def test_the_last_steps_are_judged_though_they_fill_no_window(last: Tensor, stuck: bool) -> None:
    objective, model = AdversarialObjective(1.0), net()
    bound(objective, model)
    for step in range(80):
        seen(objective, model, last if step >= 50 else LEARNED if stuck else AT_CHANCE)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        objective.release()
        objective.release()
    assert objective.stuck is stuck
    assert len(told) == stuck


@pytest.mark.parametrize(("steps", "outputs", "stuck"), [
    (40, AT_CHANCE, True), (40, LEARNED, False), (8, AT_CHANCE, False),
])  # fmt: skip
def test_a_fit_shorter_than_a_window_is_judged_by_its_end(
    steps: int, outputs: Tensor, stuck: bool
) -> None:
    objective, model = AdversarialObjective(1.0, horizon=steps), net()
    bound(objective, model)
    for step in range(steps):
        seen(objective, model, AT_CHANCE if step < steps // 2 else outputs)
    objective.release()
    assert objective.stuck is stuck


@pytest.mark.parametrize(("every", "stuck"), [(10, True), (2, False)])
def test_chance_is_the_entropy_of_the_labels(every: int, stuck: bool) -> None:
    # a loss of 0.341: less than ln 2, but all that labels of 10 % need no input for (0.325)
    objective, model, data = AdversarialObjective(1.0), net(), rows()
    skewed = {"y": (torch.arange(len(data)) % every == 0).long()}
    data = GroupedData.from_columns(data.schema, data.columns() | skewed)
    objective.bind(model, data, GroupIndex.of(data, ("a", "b")))
    for _ in range(100):
        seen(objective, model, torch.tensor([[0.9, 0.0]]))
    assert objective.last_class_loss == pytest.approx(0.341, abs=1e-3)
    assert objective.stuck is stuck


def test_state_goes_on_where_it_stopped() -> None:
    a, model = AdversarialObjective(1.0, schedule="linear", horizon=20), net()
    bound(a, model)
    for _ in range(60):
        seen(a, model, torch.zeros(2, 2))
    b = AdversarialObjective(1.0, schedule="linear", horizon=20, seed=9)
    bound(b, model)
    b.load_state_dict(a.state_dict())
    assert _weights(a) == _weights(b)
    assert (b.step, b.weight, b.stuck) == (60, 1.0, True)


def test_release_takes_the_hook_off() -> None:
    objective, model = AdversarialObjective(1.0), net()
    bound(objective, model)
    assert model.head._forward_pre_hooks  # type: ignore[union-attr]
    objective.release()
    assert not model.head._forward_pre_hooks  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AdversarialObjective(-1.0), "at least 0"),
        (lambda: AdversarialObjective(float("nan")), "at least 0, got nan"),
        (lambda: AdversarialObjective(1.0, dropout=1.5), r"dropout must be in \[0, 1\)"),
        (lambda: AdversarialObjective(1.0, alpha=float("nan")), "alpha"),
        (lambda: AdversarialObjective(1.0, alpha=-1.0), "alpha"),
        (lambda: AdversarialObjective(1.0, clip=0.0), "clip"),
        (lambda: AdversarialObjective(1.0, schedule="cosine"), "schedule"),
        (lambda: AdversarialObjective(1.0, schedule="linear"), "horizon"),
        (lambda: schedule_weight("step", 0.5), "schedule"),
        (lambda: bound(AdversarialObjective(1.0, head="nose"), net()), "no submodule 'nose'"),
        (lambda: bound(AdversarialObjective(1.0), nn.Conv2d(1, 1, 1)), "no linear layer"),
    ],
)
@pytest.mark.global_rng  # a layer of the test itself draws its weights
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_attribute_that_varies_within_a_group_is_refused_and_a_coarser_one_passes() -> None:
    data, model = rows(), net()
    with pytest.raises(ValueError, match="'b' varies within group"):
        AdversarialObjective(1.0, attributes=("b",)).bind(model, data, GroupIndex.of(data, ("a",)))
    with pytest.raises(KeyError, match="no attribute"):
        AdversarialObjective(1.0, attributes=("c",)).bind(model, data, GroupIndex.of(data, ("a",)))
    AdversarialObjective(1.0, attributes=("a",)).bind(model, data, GroupIndex.of(data, ("a", "b")))


def test_a_loss_without_a_training_pass_is_refused() -> None:
    objective, model = AdversarialObjective(1.0), net()
    data, groups = bound(objective, model)
    outputs = model.eval()(data.x)
    with pytest.raises(RuntimeError, match="training mode"):
        objective.loss(outputs, data.y, groups.cell)


def test_the_head_flattens_maps_and_has_the_layers_asked_for() -> None:
    head = AdversarialHead(12, 3, hidden=(5,), dropout=0.5)
    assert head.eval()(torch.zeros(2, 3, 2, 2)).shape == (2, 3)
    assert [type(m).__name__ for m in head.net] == ["Linear", "ReLU", "Dropout", "Linear"]
