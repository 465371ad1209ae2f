"""Group DRO: weights, absence, the size adjustment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from evenloop.data import GroupedData, Schema
from evenloop.groups import GroupIndex
from evenloop.objectives.group_dro import GroupDRO

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
Y = torch.tensor([0, 0])


def test_a_batch_without_group_1_keeps_its_odds() -> None:
    dro = GroupDRO(1.0, count=torch.tensor([5, 5, 5]))
    dro.weight.copy_(torch.tensor([0.2, 0.5, 0.3]))
    value = dro.loss(LOGITS, Y, torch.tensor([0, 2]))
    loss = [0.126928, 0, 2.126928]
    grown = [q * torch.tensor(v).exp() for q, v in zip([0.2, 0.5, 0.3], loss, strict=True)]
    want = [float(v / sum(grown)) for v in grown]
    assert dro.weight.tolist() == pytest.approx(want, abs=1e-5)
    assert float(value) == pytest.approx(want[0] * loss[0] + want[2] * loss[2], abs=1e-5)


def test_a_batch_of_one_row() -> None:
    dro = GroupDRO(0.01, count=torch.tensor([5, 5]))
    assert float(dro.loss(LOGITS[:1], Y[:1], torch.tensor([1]))) > 0


def test_small_groups_count_for_more_under_the_adjustment() -> None:
    dro = GroupDRO(1.0, adjustment=2.0, count=torch.tensor([4, 100]))
    outputs, y = torch.zeros(2, 2), torch.tensor([0, 0])
    dro.loss(outputs, y, torch.tensor([0, 1]))
    assert float((dro.weight[0] / dro.weight[1]).log()) == pytest.approx(1.0 - 0.2, abs=1e-5)


def test_a_huge_loss_does_not_overflow() -> None:
    dro = GroupDRO(10.0, count=torch.tensor([5, 5]))
    dro.loss(torch.tensor([[0.0, 900.0], [0.0, 0.0]]), Y, torch.tensor([0, 1]))
    assert dro.weight.tolist() == [1, 0]


def test_the_gradient_is_that_of_the_weighted_losses() -> None:
    dro = GroupDRO(1.0, count=torch.tensor([5, 5]))
    outputs = LOGITS.clone().requires_grad_()
    dro.loss(outputs, Y, torch.tensor([0, 1])).backward()
    plain = LOGITS.clone().requires_grad_()
    losses = nn.functional.cross_entropy(plain, Y, reduction="none")
    (dro.weight @ losses).backward()
    assert outputs.grad is not None
    assert plain.grad is not None
    assert torch.allclose(outputs.grad, plain.grad)


def test_bind_counts_the_groups_and_eval_changes_nothing() -> None:
    data = GroupedData.of(torch.zeros(3, 1), [0, 1, 1], {}, Schema(("a", "b", "c")))
    dro = GroupDRO(1.0)
    with pytest.raises(ValueError, match="knows no groups yet"):
        dro.loss(LOGITS, Y, Y)
    dro.bind(nn.Identity(), data, GroupIndex.of(data, ["label"]))
    assert dro.count.tolist() == [1, 2, 0]
    dro.eval()
    dro.loss(LOGITS, Y, torch.tensor([0, 1]))
    assert dro.weight.tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"rate": float("nan")}, {"adjustment": -1.0}])
def test_rates_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="of GroupDRO must be"):
        GroupDRO(**wrong)


@pytest.mark.parametrize("code", [5, -1])
def test_codes_of_no_group_are_told(code: int) -> None:
    dro = GroupDRO(count=torch.tensor([5, 5]))
    with pytest.raises(ValueError, match="and 2 groups are known"):
        dro.loss(LOGITS, Y, torch.tensor([0, code]))
    data = GroupedData.of(torch.zeros(2, 1), [0, 1], {}, Schema(("x", "y")))
    with pytest.raises(ValueError, match="group codes span"):
        dro.bind(nn.Identity(), data, GroupIndex(torch.tensor([0, code]), ("a", "b")))
    assert dro.loss(LOGITS, Y, torch.tensor([0, 1])).isfinite()
