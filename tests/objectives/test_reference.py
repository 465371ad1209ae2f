"""Group ids, group means, the dense reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evenloop.objectives.reference import (
    Reference,
    check_codes,
    group_count,
    group_ids,
    group_mean,
    item_losses,
    marginal_members,
    reference_stats,
    rows_of,
)


def test_a_batch_without_group_1() -> None:
    mean, count = group_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 3)
    assert mean.tolist() == [1, 0, 3]
    assert count.tolist() == [1, 0, 2]


def test_a_batch_of_one_row() -> None:
    mean, count = group_mean(torch.tensor([5.0]), torch.tensor([2]), 3)
    assert mean.tolist() == [0, 0, 5]
    assert count.tolist() == [0, 0, 1]


def test_a_row_counts_once_for_every_attribute() -> None:
    cell = torch.tensor([[0, 2], [1, 2]])
    mean, count = group_mean(torch.tensor([1.0, 3.0]), cell, 4)
    assert mean.tolist() == [1, 3, 2, 0]
    assert count.tolist() == group_count(cell, 4).tolist() == [1, 1, 2, 0]


def test_ids_are_row_major_and_offsets_add_up_for_three_attributes() -> None:
    codes = torch.tensor([[1, 2, 1], [0, 0, 0]])
    assert group_ids(codes, (2, 3, 2)).tolist() == [11, 0]
    assert group_ids(codes, (2, 3, 2), intersectional=False).tolist() == [[1, 4, 6], [0, 2, 5]]


def test_members_agree_with_ids() -> None:
    codes = torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(2))
    joint = group_ids(codes, (2, 3, 2))
    marginal = group_ids(codes, (2, 3, 2), intersectional=False)
    assert torch.equal(marginal_members((2, 3, 2))[joint], marginal)


def test_a_code_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"codes span \[0\]\.\.\[3\], the sizes are \(3,\)"):
        group_ids(torch.tensor([[0], [3]]), (3,))


def test_a_column_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, 1\)"):
        group_ids(torch.tensor([[0, 1]]), (3,))


def test_half_precision_losses_are_computed_in_float32_and_doubles_stay() -> None:
    logits, y = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 3
    half = item_losses(logits.bfloat16(), y)
    assert half.dtype == torch.float32
    assert item_losses(logits.double(), y).dtype == torch.float64
    assert torch.equal(half, item_losses(logits.bfloat16().float(), y))


def test_statistics_do_not_depend_on_the_batches() -> None:
    gen = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 4, generator=gen), torch.randint(4, (30,), generator=gen)
    cell = torch.randint(3, (30,), generator=gen)
    whole = Reference.of(x, y, cell, ("a", "b", "c", "d"))
    cuts = (7, 1, 22)
    loader = zip(x.split(cuts), y.split(cuts), cell.split(cuts), strict=True)
    parts = reference_stats(nn.Identity(), loader, ("a", "b", "c", "d"))
    for field in ("acc", "loss", "group_acc", "group_loss", "count"):
        assert torch.allclose(getattr(whole, field), getattr(parts, field), equal_nan=True)
    assert whole.absent == ("d",)
    assert float(whole.share.sum()) == pytest.approx(1)


def test_the_model_is_measured_in_eval_mode_and_put_back() -> None:
    model = nn.Dropout(0.5)
    batch = (torch.eye(2) * 4, torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert reference_stats(model, [batch], ("a",)).acc == 1
    assert model.training


def test_an_empty_loader_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        reference_stats(nn.Identity(), [], ("a",))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("count", torch.tensor([1, -1]), "count must not be negative"),
        ("group_acc", torch.ones(3), r"must all be \(G,\)"),
        ("group_loss", torch.tensor([0.1, float("nan")]), "group_loss of the reference"),
        ("names", ("a",), "1 names for 2 groups"),
    ],
)
def test_a_reference_checks_itself(field: str, value: object, message: str) -> None:
    good = {
        "acc": torch.tensor(0.5),
        "loss": torch.tensor(0.5),
        "group_acc": torch.ones(2),
        "group_loss": torch.ones(2),
        "count": torch.tensor([1, 1]),
    }
    assert Reference(**good).group_names == ("0", "1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        Reference(**(good | {field: value}))  # type: ignore[arg-type]


def test_a_group_without_items_has_no_accuracy_and_no_loss_whatever_is_given() -> None:
    zero, half = torch.tensor([0.5, 0.0]), torch.tensor(0.5)
    for given in (zero, torch.tensor([0.5, float("nan")])):
        dense = Reference(half, half, given, given, torch.tensor([4, 0]), ("a", "b"))
        assert (
            dense.group_acc.isnan().tolist() == dense.group_loss.isnan().tolist() == [False, True]
        )
    present = Reference(half, half, zero, zero, torch.tensor([4, 1]))
    assert present.group_acc.tolist() == [0.5, 0.0]


@pytest.mark.parametrize("codes", [[0, 2], [-1, 0], [0.0, 1.0], [[0, 5]]])
def test_codes_of_no_group_are_told_with_what_is_known(codes: list[float]) -> None:
    cell = torch.tensor(codes)
    message = "group codes (span|must be int64)"
    with pytest.raises(ValueError, match=message):
        check_codes(cell, 2)
    with pytest.raises(ValueError, match=message):
        group_count(cell, 2)
    with pytest.raises(ValueError, match=message):
        rows_of(torch.zeros(2), cell.reshape(-1))


def test_codes_of_groups_pass_empty_ones_too() -> None:
    for cell in (torch.tensor([0, 1]), torch.tensor([[1, 0]]), torch.zeros(0, dtype=torch.long)):
        check_codes(cell, 2)
        assert int(group_count(cell, 2).sum()) == cell.numel()
    assert rows_of(torch.tensor([3.0, 4.0]), torch.tensor([1, 1])).tolist() == [4, 4]


def test_another_fault_of_a_table_keeps_its_own_words() -> None:
    with pytest.raises((IndexError, RuntimeError), match="vector"):
        rows_of(torch.zeros(2), torch.tensor([[0, 1], [1, 0]]))


def test_too_few_names_are_told() -> None:
    batch = (torch.eye(2), torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"group codes span 0..1, and 1 groups are known, 0..0"):
        reference_stats(nn.Identity(), [batch], ("a",))
    assert reference_stats(nn.Identity(), [batch], ("a", "b")).count.tolist() == [1, 1]
