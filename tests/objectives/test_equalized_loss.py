"""Equalized loss: signed and absolute, buffers, borders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from evenloop.objectives.duals import DualAscent
from evenloop.objectives.equalized_loss import EqualizedLoss
from evenloop.objectives.reference import Reference


def groups(*count: int) -> Reference:
    n = torch.tensor(count)
    return Reference(torch.tensor(0.5), torch.tensor(0.5), n * 0.0, n * 0.0, n)


def step(objective: EqualizedLoss, losses: list[float], cell: list[int]) -> Tensor:
    values = torch.tensor(losses, requires_grad=True)
    y = torch.zeros(len(cell), dtype=torch.long)
    objective.loss(torch.zeros(len(cell), 2), y, torch.tensor(cell), values).backward()
    assert values.grad is not None
    return values.grad


def test_a_batch_without_group_1() -> None:
    equal = EqualizedLoss(groups(9, 9, 9), None, dual=DualAscent(0.1))
    step(equal, [1.0, 3.0], [0, 2])
    assert equal.multipliers.tolist() == pytest.approx([-0.1, 0, 0.1])
    assert equal.has_estimate.tolist() == [True, False, True]


def test_a_batch_of_one_row() -> None:
    equal = EqualizedLoss(groups(9, 9), 1, dual=DualAscent(0.1))
    assert step(equal, [2.0], [1]).tolist() == [1]
    assert equal.multipliers.tolist() == [0, 0]


def test_signed_multipliers_let_go_and_absolute_ones_never_do() -> None:
    for absolute, want in ((False, [0.0, 0.0]), (True, [0.2, 0.2])):
        equal = EqualizedLoss(groups(9, 9), None, absolute=absolute, dual=DualAscent(0.1))
        step(equal, [1.0, 3.0], [0, 1])
        step(equal, [3.0, 1.0], [0, 1])
        assert equal.multipliers.tolist() == pytest.approx(want, abs=1e-7)


def test_absolute_gradients_are_those_of_the_absolute_value() -> None:
    equal = EqualizedLoss(groups(9, 9, 9), None, absolute=True, dual=DualAscent(0.1))
    got = step(equal, [1.0, 3.0, 8.0, 2.0], [0, 1, 2, 2])
    values = torch.tensor([1.0, 3.0, 8.0, 2.0], requires_grad=True)
    means = torch.stack([values[0], values[1], values[2:].mean()])
    gaps = (means - values.mean()).abs()
    (values.mean() + equal.multipliers @ gaps).backward()
    assert values.grad is not None
    assert torch.allclose(got, values.grad)


def test_estimates_come_from_full_buffers_alone() -> None:
    equal = EqualizedLoss(groups(30, 10), 1, "population", dual=DualAscent(1.0))
    outputs = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    y, cell = torch.tensor([0, 0]), torch.tensor([0, 1])
    violation, known = equal.measure(outputs, y, cell, torch.ones(2))
    low, high = 0.3133, 1.3133
    overall = 0.75 * low + 0.25 * high
    assert violation.tolist() == pytest.approx([low - overall, high - overall], abs=1e-4)
    assert known.all()


def test_plain_loss_before_start() -> None:
    equal = EqualizedLoss(groups(9, 9), None, start=1)
    assert step(equal, [1.0, 3.0], [0, 1]).tolist() == [0.5, 0.5]
    assert not equal.has_estimate.any()
    step(equal, [1.0, 3.0], [0, 1])
    assert equal.has_estimate.all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"average_gradient": "bounded"}, "needs multipliers >= 0"),
        ({"buffer_size": 99}, "larger than group '0'"),
        ({"average": "mode"}, "population, macro"),
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    assert EqualizedLoss(groups(9, 9), 9, "macro", "detached").names == ("0", "1")
    with pytest.raises(ValueError, match=message):
        EqualizedLoss(groups(9, 9), **wrong)


@pytest.mark.parametrize("code", [5, -1])
def test_codes_of_no_group_are_told(code: int) -> None:
    for members in (None, torch.tensor([[0], [1]])):
        equal = EqualizedLoss(groups(9, 9), None, members=members)
        with pytest.raises(ValueError, match="and 2 groups are known"):
            step(equal, [1.0, 3.0], [0, code])
        assert step(equal, [1.0, 3.0], [0, 1]).isfinite().all()
