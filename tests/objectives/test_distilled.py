"""Distillation under a constraint, and multipliers over time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from evenloop.models import seeded
from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.distilled import Distilled, Taught
from evenloop.objectives.duals import DualAscent
from evenloop.objectives.reference import Reference, item_losses
from evenloop.objectives.traced import Traced
from evenloop.seams import Batch, Seen

GEN = torch.Generator().manual_seed(0)
X, Y, CELL = torch.randn(6, 4, generator=GEN), torch.tensor([0, 1, 2] * 2), torch.tensor([0, 1] * 3)


def gap() -> AccuracyGap:
    one = torch.ones(2)
    dense = Reference(torch.tensor(1.0), torch.tensor(0.0), one, 0 * one, 9 * one)
    return AccuracyGap(dense, 0.0, None, dual=DualAscent(0.5))


def nets() -> list[nn.Module]:
    return [seeded(lambda: nn.Linear(4, 3), seed) for seed in (0, 1)]


def test_the_loss_is_the_formula() -> None:
    student, teacher = nets()
    outputs = Taught(student, teacher)(X)
    z, t = student(X), teacher(X)
    p, q = (t / 3).softmax(1), (z / 3).softmax(1)
    kl = (p * (p.log() - q.log())).sum(1)
    want = (0.7 * item_losses(z, Y) + 0.3 * 9 * kl).mean()
    got = Distilled(None, weight=0.3, temperature=3.0).loss(outputs, Y, CELL)
    assert torch.allclose(got, want)


def test_the_teacher_is_neither_trained_nor_saved_and_silent_in_eval() -> None:
    student, teacher = nets()
    taught = Taught(student, nn.Sequential(nn.Dropout(0.9), teacher))
    Distilled(None).loss(taught(X), Y, CELL).backward()
    assert teacher.weight.grad is None
    assert set(taught.state_dict()) == {"student.weight", "student.bias"}
    assert torch.equal(taught.train()(X)[:, 3:], teacher(X))
    assert torch.equal(taught.eval()(X), student(X))


def test_the_constraint_acts_on_the_imitation() -> None:
    student, teacher = nets()
    inner = gap()
    plain = Distilled(None).loss(Taught(student, teacher)(X), Y, CELL)
    bound = Distilled(Traced(inner, 1)).loss(Taught(student, teacher)(X), Y, CELL)
    assert inner.multipliers.sum() > 0
    assert not torch.equal(plain, bound)


def test_multipliers_are_kept_every_so_many_steps_and_cross_a_checkpoint() -> None:
    traced, plain = Traced(gap(), 2), gap()
    student = nets()[0]
    for step in range(5):
        outputs = student(X)
        value = traced.loss(outputs, Y, CELL)
        assert torch.equal(value, plain.loss(outputs, Y, CELL))
        traced.after(Seen(step, Batch(X, Y, CELL), outputs, student))
    assert traced.multipliers().shape == traced.violations().shape == (2, 2)
    again = Traced(gap(), 2)
    again.load_state_dict(traced.state_dict())
    assert torch.equal(again.multipliers(), traced.multipliers())
    assert torch.equal(again.inner.multipliers, plain.multipliers)


@pytest.mark.parametrize("wrong", [{"weight": -0.1}, {"weight": 1.1}, {"temperature": 0.0}])
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Distilled(None, **wrong)


def test_a_trace_of_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 step"):
        Traced(gap(), 0)
