"""The accuracy-gap constraint: estimates, order of the step, state, borders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evenloop.data import GroupedData, Schema
from evenloop.groups import GroupIndex
from evenloop.objectives.accuracy_gap import AccuracyGap, capacities
from evenloop.objectives.duals import DualAscent
from evenloop.objectives.reference import Reference, marginal_members
from evenloop.seams import Objective

RIGHT, WRONG = [4.0, 0.0], [0.0, 4.0]


def reference(
    acc: list[float], count: list[int], names: tuple[str, ...] = (), overall: float | None = None
) -> Reference:
    share = torch.tensor(count) / sum(count)
    group = torch.tensor(acc)
    whole = torch.dot(share, group) if overall is None else torch.tensor(overall)
    zero = torch.zeros(len(acc))
    return Reference(whole, torch.tensor(0.0), group, zero, torch.tensor(count), names)


def batch(hits: list[int], cell: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    logits = torch.tensor([RIGHT if hit else WRONG for hit in hits], requires_grad=True)
    return logits, torch.zeros(len(hits), dtype=torch.long), torch.tensor(cell)


def test_a_batch_without_group_1() -> None:
    gap = AccuracyGap(reference([1.0, 1.0, 1.0], [9, 9, 9]), 0.01, None, dual=DualAscent(1.0))
    gap.loss(*batch([1, 0], [0, 2])).backward()
    assert gap.has_estimate.tolist() == [True, False, True]
    assert gap.multipliers.tolist() == pytest.approx([0, 0, 0.49])
    assert gap.excess_gap[1].isnan()


def test_a_batch_of_one_row() -> None:
    gap = AccuracyGap(reference([1.0, 1.0], [9, 9]), 0.01, 1, dual=DualAscent(1.0))
    value = gap.loss(*batch([0], [1]))
    value.backward()
    assert gap.has_estimate.tolist() == [False, True]
    assert gap.excess_gap[1] == 0  # the only group that is known is the average
    assert value.isfinite()


def test_the_hand_case_of_one_group() -> None:
    dense = reference([0.95, 0.85], [500, 500], overall=0.9)
    gap = AccuracyGap(dense, 0.01, 100, "macro", dual=DualAscent(0.5))
    gap.dual.value.fill_(0.02)
    hits = [1] * 85 + [0] * 15 + [1] * 91 + [0] * 9  # a_g = .85, a = (.85 + .91) / 2 = .88
    gap.loss(*batch(hits, [0] * 100 + [1] * 100))
    assert float(gap.violation[0]) == pytest.approx(0.07, abs=1e-6)
    assert float(gap.multipliers[0]) == pytest.approx(0.055, abs=1e-6)


@pytest.mark.parametrize("hits", [[1, 1, 1, 0], [1, 0, 1, 0]])
def test_an_identical_model_violates_nothing(hits: list[int]) -> None:
    outputs, y, cell = batch(hits, [0, 0, 1, 1])
    dense = Reference.of(outputs.detach(), y, cell, ("a", "b"))
    gap = AccuracyGap(dense, 0.02, buffer_size=2)
    gap.loss(outputs, y, cell)
    assert gap.excess_gap.tolist() == pytest.approx([0, 0], abs=1e-7)
    assert gap.violation.tolist() == pytest.approx([-0.02, -0.02])


def test_population_weights_leave_no_bias_where_the_macro_mean_does() -> None:
    # The shares of a face set, the rare group the worst served, and a sparse model as good as the
    # dense one: the macro mean makes every group look seven points better than it is.
    acc, share = [0.90, 0.88, 0.92, 0.80, 0.40], [42, 19, 15, 17, 7]
    for average, bias in (("population", 0.0), ("macro", -0.07)):
        gap = AccuracyGap(reference(acc, [100 * n for n in share]), 0.0, 50, average)  # type: ignore[arg-type]
        hits = [int(i < 50 * a) for a in acc for i in range(50)]
        cell = [g for g in range(5) for _ in range(50)]
        gap.loss(*batch(hits, cell))
        assert float(gap.excess_gap.mean()) == pytest.approx(bias, abs=0.02)


def test_excess_gaps_weighted_by_share_sum_to_zero() -> None:
    gap = AccuracyGap(reference([0.9, 0.7, 0.5], [30, 20, 10]), 0.01, 4)
    gen = torch.Generator().manual_seed(0)
    hits = torch.randint(2, (60,), generator=gen).tolist()
    gap.loss(*batch(hits, [0, 1, 2] * 20))
    assert float(gap.share @ gap.excess_gap) == pytest.approx(0, abs=1e-6)


def test_the_multiplier_of_this_step_is_already_in_its_gradient() -> None:
    gap = AccuracyGap(reference([1.0, 1.0], [9, 9]), 0.2, None, dual=DualAscent(1.0))
    outputs, y, cell = batch([1, 0], [0, 1])
    losses = torch.tensor([1.0, 1.0], requires_grad=True)
    gap.loss(outputs, y, cell, losses).backward()
    assert gap.multipliers.tolist() == pytest.approx([0, 0.3])
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([0.35, 0.65])


def test_a_group_waits_until_its_buffer_is_full_and_then_moves_every_step() -> None:
    gap = AccuracyGap(reference([1.0, 1.0], [9, 9]), 0.0, 2, dual=DualAscent(0.1))
    gap.loss(*batch([0, 1, 1], [1, 0, 0]))
    assert gap.multipliers.tolist() == [0, 0]
    gap.loss(*batch([0], [1]))
    first = gap.multipliers.tolist()
    gap.loss(*batch([1], [0]))
    assert first == pytest.approx([0, 0.05])
    assert gap.multipliers.tolist() == pytest.approx([0, 0.1])


def test_start_and_eval_leave_everything_untouched() -> None:
    late = AccuracyGap(reference([1.0, 1.0], [9, 9]), 0.0, 1, dual=DualAscent(1.0), start=2)
    outputs, y, cell = batch([1, 0], [0, 1])
    plain = cross_entropy(outputs, y)
    for _ in range(2):
        assert torch.equal(late.loss(outputs, y, cell), plain)
    assert not late.has_estimate.any()
    late.eval()
    late.loss(outputs, y, cell)
    assert not late.has_estimate.any()
    late.train()
    late.loss(outputs, y, cell)
    assert late.has_estimate.all()


def test_a_tolerance_of_one_trains_like_no_constraint() -> None:
    outputs, y, cell = batch([1, 0, 0], [0, 1, 1])
    gap = AccuracyGap(reference([1.0, 1.0], [9, 9]), 1.0, None, dual=DualAscent(1.0))
    gap.loss(outputs, y, cell).backward()
    constrained = outputs.grad
    outputs.grad = None
    cross_entropy(outputs, y).backward()
    assert constrained is not None
    assert outputs.grad is not None
    assert gap.multipliers.tolist() == [0, 0]
    assert torch.allclose(constrained, outputs.grad, atol=1e-8)


def test_renaming_the_groups_renames_the_results() -> None:
    order, back = [2, 0, 1], [1, 2, 0]
    outputs, y, cell = batch([1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2])
    acc, count = [0.9, 0.6, 0.8], [30, 20, 10]
    a = AccuracyGap(reference(acc, count), 0.01, 2, dual=DualAscent(1.0))
    b = AccuracyGap(
        reference([acc[i] for i in back], [count[i] for i in back]),
        0.01, 2, dual=DualAscent(1.0),
    )  # fmt: skip
    a.loss(outputs, y, cell)
    b.loss(outputs, y, torch.tensor(order)[cell])
    assert b.multipliers[torch.tensor(order)].tolist() == pytest.approx(a.multipliers.tolist())


def test_attributes_can_be_constrained_one_by_one() -> None:
    members = marginal_members((2, 2))
    gap = AccuracyGap(reference([1.0] * 4, [9] * 4), 0.0, None, members=members)
    joint = torch.tensor([0, 3])
    gap.loss(batch([1, 0], [0, 3])[0], torch.zeros(2).long(), joint)
    direct = AccuracyGap(reference([1.0] * 4, [9] * 4), 0.0, None)
    direct.loss(batch([1, 0], [0, 3])[0], torch.zeros(2).long(), members[joint])
    assert gap.excess_gap.tolist() == direct.excess_gap.tolist() == [-0.5, 0.5, -0.5, 0.5]


def run_steps(gap: AccuracyGap, weight: nn.Parameter, sgd: Any, steps: range) -> None:
    for step in steps:
        gen = torch.Generator().manual_seed(step)
        x, y = torch.randn(16, 4, generator=gen), torch.randint(3, (16,), generator=gen)
        sgd.zero_grad()
        gap.loss(x @ weight, y, y).backward()
        sgd.step()


def test_saved_half_way_and_continued_it_is_the_same_run() -> None:
    def fresh() -> tuple[AccuracyGap, nn.Parameter, Any]:
        gap = AccuracyGap(
            reference([0.9, 0.8, 0.9], [99, 99, 99]), 0.0, 7, dual=DualAscent(0.1, kp=2.0, ema=0.5),
            start=3,
        )  # fmt: skip
        weight = nn.Parameter(torch.zeros(4, 3))
        return gap, weight, torch.optim.SGD([weight], 0.1, momentum=0.9)

    whole, first, second = fresh(), fresh(), fresh()
    run_steps(*whole, range(20))
    run_steps(*first, range(11))
    second[0].load_state_dict(first[0].state_dict())
    second[1].data.copy_(first[1].data)
    second[2].load_state_dict(first[2].state_dict())
    run_steps(*second, range(11, 20))
    assert torch.equal(whole[1], second[1])
    for a, b in zip(whole[0].state_dict().values(), second[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_another_score_than_accuracy() -> None:
    def confidence(outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.softmax(1).amax(1)

    outputs, y, cell = batch([1, 1], [0, 1])
    dense = Reference.of(outputs.detach(), y, cell, ("a", "b"), score=confidence)
    gap = AccuracyGap(dense, 0.0, 1, score=confidence)
    gap.loss(outputs.detach() * torch.tensor([[1.0], [0.0]]), y, cell)
    assert gap.excess_gap.tolist() == pytest.approx([-0.241, 0.241], abs=1e-3)


def test_a_group_that_is_never_met_is_named_and_never_satisfied() -> None:
    dense = reference([0.9, 0.0, 0.9], [5, 0, 5], ("a", "b", "c"))
    gap = AccuracyGap(dense, 0.01)
    for _ in range(5):
        gap.loss(*batch([1, 1], [0, 2]))
    assert dense.absent == ("b",)
    assert gap.has_estimate.tolist() == [True, False, True]
    assert gap.excess_gap.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("buffer_size", [1, "auto", None])
@pytest.mark.parametrize("average", ["population", "macro"])
def test_a_group_that_the_reference_lacks_is_never_satisfied_and_has_no_force(
    average: Any, buffer_size: Any
) -> None:
    dense = reference([0.9, 0.0, 0.9], [5, 0, 5], ("a", "b", "c"))
    gap = AccuracyGap(dense, 0.01, buffer_size, average, dual=DualAscent(1.0))
    for _ in range(5):
        value = gap.loss(*batch([1, 0, 0, 1], [0, 1, 1, 2]))
    assert value.isfinite()
    assert gap.has_estimate[1].item() is False
    assert gap.excess_gap[1].isnan()
    assert (gap.violation[1], gap.multipliers[1]) == (0, 0)
    alone = AccuracyGap(dense, 0.01, buffer_size, average, dual=DualAscent(1.0))
    for _ in range(5):
        alone.loss(*batch([1, 1], [0, 2]))
    if not (average == "macro" and buffer_size is None):  # there the mean is over the batch's items
        assert torch.equal(gap.violation, alone.violation)


def test_the_proxy_of_a_group_that_the_reference_lacks_is_0() -> None:
    gap = AccuracyGap(reference([0.9, 0.0], [5, 0]), 0.01)
    proxy, count = gap.proxies(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]))
    assert proxy.tolist() == [-1.0, 0.0]
    assert count.tolist() == [1, 1]


@pytest.mark.parametrize("code", [5, -1])
def test_codes_of_no_group_are_told(code: int) -> None:
    dense = reference([0.9, 0.9], [5, 5])
    for members in (None, marginal_members((2,))):
        gap = AccuracyGap(dense, 0.01, members=members)
        with pytest.raises(ValueError, match="and 2 groups are known"):
            gap.loss(*batch([1, 1], [0, code]))
        cells = GroupIndex(torch.tensor([0, code]), ("a", "b"))
        data = GroupedData.of(torch.zeros(2, 1), [0, 1], {}, Schema(("x", "y")))
        with pytest.raises(ValueError, match="group codes span"):
            gap.bind(nn.Identity(), data, cells)
        assert gap.loss(*batch([1, 1], [0, 1])).isfinite()


def test_what_cannot_be_met_is_named() -> None:
    gap = AccuracyGap(reference([1.0, 1.0], [9, 9], ("a", "b")), 0.0, 1, dual=DualAscent(0.1))
    for _ in range(4):
        gap.loss(*batch([1, 0], [0, 1]))
    assert gap.infeasible(4) == ("b",)
    assert gap.infeasible(5) == ()


def test_resolution_is_the_deviation_of_an_estimate() -> None:
    gap = AccuracyGap(reference([1.0, 1.0], [9, 9]), 0.0, 4)
    gap.loss(*batch([1, 0, 1, 0], [0, 0, 0, 0]))
    assert float(gap.resolution[0]) == pytest.approx(0.25)
    assert gap.resolution[1].isnan()


def test_two_sides_hold_back_the_group_that_gains() -> None:
    dense = reference([0.5, 0.5], [8, 8])
    rule = DualAscent(1.0)
    gap = AccuracyGap(dense, 0.1, None, "macro", "full", dual=rule, two_sided=True)
    logits, y, cell = batch([1, 1, 0, 0], [0, 0, 1, 1])  # psi = -0.5, 0.5
    gap.loss(logits, y, cell).backward()
    assert gap.excess_gap.tolist() == pytest.approx([-0.5, 0.5])
    assert gap.multipliers.tolist() == pytest.approx([-0.4, 0.4])
    assert gap.dual.value.tolist() == pytest.approx([0, 0.4, 0.4, 0])
    assert gap.infeasible(1) == gap.names
    one = AccuracyGap(dense, 0.1, None, "macro", "full", dual=rule)
    one.loss(*batch([1, 1, 0, 0], [0, 0, 1, 1]))
    assert one.multipliers.tolist() == pytest.approx([0, 0.4])
    assert one.infeasible(1) == ("1",)


def test_two_sides_wait_for_groups_without_an_estimate() -> None:
    gap = AccuracyGap(
        reference([0.5, 0.5], [8, 8]), 0.1, None, average_gradient="full", two_sided=True
    )
    gap.loss(*batch([1], [0]))
    assert gap.dual.value.tolist() == [0] * 4
    assert gap.excess_gap[1].isnan()


def test_the_average_takes_the_place_of_the_ring() -> None:
    gap = AccuracyGap(reference([1.0, 1.0], [9, 9]), 0.0, 2, memory="average", dual=DualAscent(1.0))
    gap.loss(*batch([0, 1], [1, 0]))
    assert gap.has_estimate.tolist() == [False, False]
    gap.loss(*batch([0, 1], [1, 0]))
    assert gap.has_estimate.tolist() == [True, True]
    assert gap.excess_gap.tolist() == pytest.approx([-0.5, 0.5])
    assert gap.resolution.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("average", ["full", "detached", "bounded"])
def test_every_precision_and_form_gives_a_gradient(dtype: torch.dtype, average: Any) -> None:
    gap = AccuracyGap(reference([1.0, 1.0], [9, 9]), 0.0, None, average_gradient=average)
    outputs = torch.tensor([RIGHT, WRONG], dtype=dtype, requires_grad=True)
    gap.loss(outputs, torch.zeros(2).long(), torch.tensor([0, 1])).backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


def test_it_is_an_objective_without_parameters_and_binds() -> None:
    gap: Objective = AccuracyGap(reference([1.0, 1.0], [1, 1]), 0.0, 1)
    assert list(gap.parameters()) == []
    data = GroupedData.of(torch.zeros(2, 1), [0, 1], {}, Schema(("no", "yes")))
    gap.bind(nn.Linear(1, 2, device="meta"), data, GroupIndex.of(data, ["label"]))
    with pytest.raises(ValueError, match="have 1 groups, the reference was measured on 2"):
        gap.bind(nn.Linear(1, 2, device="meta"), data, GroupIndex.of(data))


GOOD: dict[str, Any] = {"tolerance": 0.01}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tolerance": -0.01}, "tolerance must be a fraction >= 0"),
        ({"tolerance": float("nan")}, "got nan"),
        ({"buffer_size": 0}, "buffer_size must be an integer >= 1"),
        ({"buffer_size": "all"}, "got 'all'"),
        ({"buffer_size": 6}, r"larger than group 'b' \(5 items\)"),
        ({"average": "median"}, "average must be one of population, macro"),
        ({"average_gradient": "none"}, "full, detached, bounded"),
        ({"floor": 1.5}, "floor must be"),
        ({"memory": "deque"}, "memory must be one of ring, average"),
        ({"two_sided": True}, "those of two sides have no sign together"),
        ({"start": -1}, "start must be"),
        ({"label_smoothing": 1.0}, "label_smoothing must be"),
        ({"members": torch.tensor([[0, 2]])}, r"groups in \[0, 2\)"),
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AccuracyGap(reference([0.9, 0.9], [9, 5], ("a", "b")), **(GOOD | wrong))


@pytest.mark.parametrize(
    "edge",
    [
        {"tolerance": 0.0},
        {"buffer_size": 5},
        {"buffer_size": 1},
        {"floor": 1.0},
        {"members": torch.tensor([[0, 1]])},
    ],
)
def test_values_at_the_edge_pass(edge: dict[str, Any]) -> None:
    assert AccuracyGap(reference([0.9, 0.9], [9, 5]), **(GOOD | edge)).multipliers.sum() == 0


def test_buffers_fit_the_groups_by_default() -> None:
    dense = reference([0.9, 0.9, 0.0], [900, 5, 0])
    assert capacities(dense, "auto").tolist() == [400, 5, 1]
