"""Multipliers, the Lagrangian's weights, and Cooper's toy problems solved to their optimum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from evenloop.objectives.duals import DualAscent, Multipliers, lagrangian

ALL = torch.tensor([True, True, True])


def test_a_hand_case() -> None:
    dual = Multipliers(1, DualAscent(0.5))
    dual.value.fill_(0.02)
    assert float(dual.ascend(torch.tensor([0.07]), ALL[:1])) == pytest.approx(0.055)


def test_multipliers_never_fall_below_zero_and_unknown_groups_wait() -> None:
    dual = Multipliers(3, DualAscent(1.0))
    dual.ascend(torch.tensor([0.5, 0.5, -1.0]), torch.tensor([True, False, True]))
    assert dual.value.tolist() == [0.5, 0, 0]
    dual.ascend(torch.tensor([-2.0, 9.0, 0.25]), torch.tensor([True, False, True]))
    assert dual.value.tolist() == [0, 0, 0.25]


def test_equalities_are_not_projected() -> None:
    dual = Multipliers(1, DualAscent(1.0), inequality=False)
    assert dual.ascend(torch.tensor([-2.0]), ALL[:1]).tolist() == [-2]


def test_restart_frees_only_the_strictly_satisfied_that_were_measured() -> None:
    dual = Multipliers(3, DualAscent(0.1, restart=True))
    dual.value.fill_(1.0)
    dual.ascend(torch.tensor([-0.1, 0.0, -0.1]), torch.tensor([True, True, False]))
    assert dual.value.tolist() == [0, 1, 1]


def test_a_cap_holds() -> None:
    dual = Multipliers(1, DualAscent(1.0, cap=0.5))
    assert dual.ascend(torch.tensor([3.0]), ALL[:1]).tolist() == [0.5]
    signed = Multipliers(1, DualAscent(1.0, cap=0.5), inequality=False)
    assert signed.ascend(torch.tensor([-3.0]), ALL[:1]).tolist() == [-0.5]


def test_momentum_is_a_dampened_mean_of_measured_steps() -> None:
    dual = Multipliers(2, DualAscent(1.0, momentum=0.5))
    dual.ascend(torch.tensor([1.0, 1.0]), torch.tensor([True, True]))
    dual.ascend(torch.tensor([3.0, 3.0]), torch.tensor([True, False]))
    assert dual.value.tolist() == [1 + 2, 1]
    plain = nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([plain], 1.0, momentum=0.5, dampening=0.5, maximize=True)
    for violation in (1.0, 3.0):
        plain.grad = torch.tensor([violation])
        sgd.step()
    assert float(plain.detach()) == float(dual.value[0])


def test_without_a_proportional_term_it_is_plain_ascent() -> None:
    gen = torch.Generator().manual_seed(0)
    plain, smooth = (Multipliers(3, DualAscent(0.1, kp=0.0, ema=e)) for e in (0.0, 0.5))
    for _ in range(10):
        violation = torch.randn(3, generator=gen)
        assert torch.equal(plain.ascend(violation, ALL), smooth.ascend(violation, ALL))


def test_rising_counts_violated_updates_in_a_row() -> None:
    dual = Multipliers(3, DualAscent(0.1))
    dual.ascend(torch.tensor([1.0, 1.0, 1.0]), ALL)
    dual.ascend(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([True, True, False]))
    assert dual.rising.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -0.1},
        {"lr": float("inf")},
        {"lr": 0.1, "kp": -1.0},
        {"lr": 0.1, "ema": 1.0},
        {"lr": 0.1, "momentum": -0.1},
        {"lr": 0.1, "cap": 0.0},
        {"lr": 0.1, "kp": 1.0, "momentum": 0.5},
    ],
)
def test_rates_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"DualAscent|not both"):
        DualAscent(**wrong)


def test_rates_at_the_edge_pass() -> None:
    assert DualAscent(0.0, kp=0.0, ki=0.0, ema=0.0, momentum=0.0, cap=1e-9).cap == 1e-9


def test_no_constraint_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one constraint"):
        Multipliers(0, DualAscent(0.1))


CELL = torch.tensor([0, 0, 0, 1, 1, 2])
COUNT = torch.tensor([3.0, 2.0, 1.0])
FORCE = torch.tensor([0.2, 0.9, 0.5])


def weights(average: str, force: torch.Tensor = FORCE, floor: float = 0.0) -> list[float]:
    losses = torch.arange(6.0, requires_grad=True)
    lagrangian(losses, CELL, COUNT, force, average=average, floor=floor).backward()  # type: ignore[arg-type]
    assert losses.grad is not None
    return losses.grad.tolist()


def test_item_weights_of_a_hand_case() -> None:
    assert weights("full") == pytest.approx([-1 / 30] * 3 + [0.35] * 2 + [0.4])
    assert weights("detached") == pytest.approx([1 / 6 + 1 / 15] * 3 + [1 / 6 + 0.45] * 2 + [2 / 3])
    assert weights("bounded") == pytest.approx([0.2 / 3 / 1.6] * 3 + [0.45 / 1.6] * 2 + [0.5 / 1.6])


def test_a_floor_keeps_weight_on_the_mean_loss() -> None:
    kept = weights("bounded", floor=0.4)
    assert sum(kept) == pytest.approx(1)
    assert kept == pytest.approx(
        [(0.4 / 6 + 0.2 / 3) / 2] * 3 + [(0.4 / 6 + 0.45) / 2] * 2 + [(0.4 / 6 + 0.5) / 2]
    )


@pytest.mark.parametrize("total", [0.0, 0.4, 1.0])
def test_bounded_equals_full_while_the_multipliers_sum_to_at_most_one(total: float) -> None:
    force = FORCE / FORCE.sum() * total
    losses, offset = torch.arange(6.0), torch.tensor([0.1, -0.2, 0.3])
    values = [
        float(lagrangian(losses, CELL, COUNT, force, offset=offset, average=average))
        for average in ("full", "bounded", "detached")
    ]
    assert values[1] == pytest.approx(values[0], abs=1e-6)
    assert values[2] == pytest.approx(values[0], abs=1e-6)
    assert weights("bounded", force) == pytest.approx(weights("full", force), abs=1e-6)


def test_the_value_is_loss_plus_multipliers_times_proxies() -> None:
    losses, offset = torch.tensor([1.0, 2, 3, 4, 5, 9]), torch.tensor([0.1, -0.2, 0.3])
    proxy = torch.tensor([2.0, 4.5, 9.0]) - 4 - offset
    want = 4 + float(FORCE @ proxy)
    got = lagrangian(losses, CELL, COUNT, FORCE, offset=offset)
    assert float(got) == pytest.approx(want)


def test_absent_groups_have_no_force() -> None:
    losses, cell, count = torch.ones(1), torch.tensor([0]), torch.tensor([1.0, 0.0])
    value = lagrangian(losses, cell, count, torch.tensor([0.0, 5.0]), offset=torch.ones(2))
    assert float(value) == 1


# Cooper's own toy problems (its test-suite's constrained optima), solved by our dual step.


def solve(loss: Any, gaps: Any, start: list[float], steps: int = 1500, **rule: Any) -> Any:
    x = nn.Parameter(torch.tensor(start))
    dual = Multipliers(2, DualAscent(**rule))
    sgd = torch.optim.SGD([x], 2e-2)
    for _ in range(steps):
        sgd.zero_grad()
        force = dual.ascend(gaps(x).detach(), ALL[:2])
        (loss(x) + force @ gaps(x)).backward()
        sgd.step()
    return x.detach().tolist(), dual.value.tolist()


@pytest.mark.parametrize("kp", [0.0, 1.0])
def test_a_linear_constraint_in_the_plane(kp: float) -> None:
    # minimise x^2 + 2 y^2 subject to x + y >= 1 and x^2 + y <= 1: optimum (2/3, 1/3), (4/3, 0).
    x, force = solve(
        lambda x: x[0] ** 2 + 2 * x[1] ** 2,
        lambda x: torch.stack([1 - x.sum(), x[0] ** 2 + x[1] - 1]),
        [0.0, -1.0],
        lr=0.1,
        kp=kp,
    )
    assert x == pytest.approx([2 / 3, 1 / 3], abs=2e-3)
    assert force == pytest.approx([4 / 3, 0], abs=1e-2)


def test_the_largest_entropy_with_a_given_mean() -> None:
    # Probabilities of a die with mean 4.5 and the largest entropy: exponential tilting.
    faces = torch.arange(1.0, 7.0)
    logits = nn.Parameter(torch.zeros(6))
    dual = Multipliers(1, DualAscent(0.05, kp=5.0), inequality=False)
    sgd = torch.optim.SGD([logits], 0.5)
    for _ in range(2000):
        sgd.zero_grad()
        p = torch.softmax(logits, 0)
        gap = (p @ faces - 4.5).view(1)
        force = dual.ascend(gap.detach(), ALL[:1])
        ((p * p.log()).sum() + force @ gap).backward()
        sgd.step()
    found = torch.softmax(logits.detach(), 0)
    assert float(found @ faces) == pytest.approx(4.5, abs=1e-3)
    steps = found.log().diff()  # equal log steps are the mark of exponential tilting
    assert float(steps.std()) < 1e-2
    assert float(-(found * found.log()).sum()) == pytest.approx(1.6136, abs=1e-3)
