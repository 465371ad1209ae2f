"""The outer objectives: each against a slow obvious loop, its derivative, and absent groups."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from torch import Tensor

from evenloop.samplers.hypergradient import outer_weights
from evenloop.samplers.outer import RatioObjective, row_losses
from mix_kit import F64, gen


def slow_gap(objective: RatioObjective, logits: Tensor, y: Tensor, z: Tensor) -> float:
    """Loops over labels and groups, for pairwise gaps of one group variable."""
    positive = torch.full_like(y, objective.positive[0])
    towards = objective.fairness in ("dp", "dp_cellwise")
    value = row_losses(logits, positive if towards else y)
    if objective.soft:
        value = 1 - torch.exp(-value)
    groups = sorted(set(z.tolist()))
    rows: list[list[float]] = []
    for label in range(3):
        level = []
        for g in groups:
            if objective.fairness == "dp_cellwise":
                level.append(float(value[(z == g) & (y == label)].sum() / (z == g).sum()))
            elif ((z == g) & (y == label)).any():
                level.append(float(value[(z == g) & (y == label)].mean()))
        rows.append(level)
    if objective.fairness in ("dp", "equal_loss"):
        rows = [[float(value[z == g].mean()) for g in groups]]
    if objective.fairness == "eqopp":
        rows = [rows[p] for p in objective.positive]
    if objective.fairness == "worst_cell":
        gaps = [v for row in rows for v in row]
    elif objective.reference == "pooled":
        gaps = []
        for label, row in enumerate(rows):
            kept = (y == label) if objective.fairness == "eqodds" else torch.ones_like(y).bool()
            gaps += [abs(v - float(value[kept].mean())) for v in row]
    else:
        gaps = [abs(a - b) for row in rows for a, b in combinations(row, 2)]
    return max(gaps) if objective.aggregate == "max" else sum(gaps) / len(gaps)


def rows(n: int = 90) -> tuple[Tensor, Tensor, Tensor]:
    g = gen(2)
    logits = torch.randn(n, 3, generator=g, dtype=F64)
    return logits, torch.arange(n) % 3, torch.randint(0, 4, (n,), generator=g)


FAMILY = ("eqodds", "eqopp", "dp", "dp_cellwise", "equal_loss", "worst_cell")


@pytest.mark.parametrize("fairness", FAMILY)
@pytest.mark.parametrize(("soft", "aggregate"), [(False, "max"), (True, "max"), (False, "mean")])
def test_gap_is_that_of_a_slow_loop(fairness, soft, aggregate):
    logits, y, z = rows()
    objective = RatioObjective(fairness, 1.5, 2.0, aggregate, soft=soft, positive=(1,))
    outer = objective.at(objective.statistics(logits, y), y * 4 + z, (3, 4))
    want = slow_gap(objective, logits, y, z)
    mean = float(row_losses(logits, y).mean())
    assert float(outer.gap) == pytest.approx(want, rel=1e-12)
    assert float(outer.value) == pytest.approx(2 * want + 1.5 * mean, rel=1e-12)


@pytest.mark.parametrize("fairness", ["eqodds", "dp", "equal_loss"])
def test_pooled_reference_is_that_of_a_slow_loop_and_smaller(fairness):
    logits, y, z = rows()
    gaps = {}
    for reference in ("pooled", "pairwise"):
        objective = RatioObjective(fairness, reference=reference)
        outer = objective.at(objective.statistics(logits, y), y * 4 + z, (3, 4))
        gaps[reference] = float(outer.gap)
        assert gaps[reference] == pytest.approx(slow_gap(objective, logits, y, z), rel=1e-12)
    assert gaps["pooled"] < gaps["pairwise"]


@pytest.mark.parametrize(("fairness", "soft"), list(product(FAMILY, (False, True))))
@pytest.mark.parametrize("aggregate", ["max", "mean", "smooth"])
def test_logit_weights_are_the_derivative(fairness, soft, aggregate):
    logits, y, z = rows(24)
    objective = RatioObjective(fairness, 0.7, aggregate=aggregate, soft=soft)
    cell = y * 4 + z

    def value(at: Tensor) -> float:
        return float(objective.at(objective.statistics(at, y), cell, (3, 4)).value)

    outer = objective.at(objective.statistics(logits, y), cell, (3, 4))
    got = objective.logit_weights(logits, y, outer.weight)
    direction = torch.randn(logits.shape, generator=gen(8), dtype=F64)
    numeric = (value(logits + 1e-6 * direction) - value(logits - 1e-6 * direction)) / 2e-6
    assert numeric == pytest.approx(float((got * direction).sum()), rel=1e-6, abs=1e-9)


def test_smooth_lies_between_mean_and_max():
    logits, y, z = rows()
    gaps = []
    for aggregate in ("mean", "smooth", "max"):
        objective = RatioObjective(aggregate=aggregate, temperature=0.2)
        statistics = objective.statistics(logits, y)
        gaps.append(float(objective.at(statistics, y * 4 + z, (3, 4)).gap))
    assert gaps[0] < gaps[1] < gaps[2]


def test_several_group_variables_take_the_mean_of_their_gaps():
    logits, y, z = rows()
    first, second = z // 2, z % 2
    crossed = RatioObjective("equal_loss", sizes=(2, 2))
    outer = crossed.at(crossed.statistics(logits, y), y * 4 + z, (3, 4))
    single = RatioObjective("equal_loss")
    want = [slow_gap(single, logits, y, part) for part in (first, second)]
    assert float(outer.gap) == pytest.approx(sum(want) / 2, rel=1e-12)


def test_stratified_rows_with_true_shares_estimate_the_population():
    """Ten copies of one cell's rows change nothing when the true shares are given."""
    logits, y, z = rows(24)
    objective = RatioObjective("dp", 1.0)
    cell = y * 4 + z
    share = torch.bincount(cell, minlength=12).double().view(3, 4) / 24
    want = objective.at(objective.statistics(logits, y), cell, (3, 4))
    extra = (cell == cell[0]).nonzero().flatten().repeat(10)
    index = torch.cat([torch.arange(24), extra])
    got = objective.at(objective.statistics(logits[index], y[index]), cell[index], (3, 4), share)
    assert float(got.gap) == pytest.approx(float(want.gap), rel=1e-12)
    assert float(got.accuracy) == pytest.approx(float(want.accuracy), rel=1e-12)


def test_a_batch_without_group_one():
    loss, cell = torch.tensor([1.0, 4.0]), torch.tensor([0, 2])
    _, outer = outer_weights(loss, cell, RatioObjective(accuracy_weight=0.0), (1, 3))
    assert float(outer.gap) == 3.0
    assert outer.table.isnan().tolist() == [[False, True, False]]


def test_a_batch_of_one_row_has_no_gap():
    for aggregate in ("max", "mean", "smooth"):
        objective = RatioObjective(accuracy_weight=2.0, aggregate=aggregate)
        alpha, outer = outer_weights(torch.tensor([1.5]), torch.tensor([1]), objective, (1, 3))
        assert float(outer.gap) == 0.0
        assert alpha.tolist() == [2.0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fairness": "original"}, "fairness must be one of"),
        ({"aggregate": "median"}, "aggregate must be one of"),
        ({"reference": "best"}, "reference must be"),
        ({"accuracy_weight": -1.0}, "accuracy_weight must be a number that is not"),
        ({"accuracy_weight": float("inf")}, "that is not negative, got inf"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"positive": ()}, "positive must name"),
    ],
)
def test_bad_objectives_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        RatioObjective(**options)


def test_misfit_between_objective_and_cells_is_refused():
    loss, cell = torch.ones(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="positive labels"):
        outer_weights(loss, cell, RatioObjective("eqopp", positive=(5,)), (1, 2))
    with pytest.raises(ValueError, match="do not multiply"):
        outer_weights(loss, cell, RatioObjective(sizes=(3,)), (1, 2))
