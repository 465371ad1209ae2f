"""The same constraints under Cooper's optimisers and under our own step: one trajectory."""

from __future__ import annotations

from typing import Any

import cooper
import pytest
import torch
from torch import nn

from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.cooper_problem import CooperProblem
from evenloop.objectives.duals import DualAscent
from evenloop.objectives.equalized_loss import EqualizedLoss
from evenloop.objectives.reference import Reference
from evenloop.objectives.ring import GroupRing

DUAL = 0.3


def objective(kind: str, **options: Any) -> AccuracyGap | EqualizedLoss:
    group = torch.tensor([0.9, 0.8, 0.95])
    dense = Reference(
        torch.tensor(0.88), torch.tensor(0.4), group, 1 - group, torch.tensor([50, 20, 30])
    )
    shared = {"average_gradient": "full", "dual": DualAscent(DUAL)} | options
    if kind == "gap":
        return AccuracyGap(dense, 0.01, **shared)
    return EqualizedLoss(dense, absolute=kind == "absolute", **shared)


def batches(steps: int) -> Any:
    gen = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x = torch.randn(12, 4, generator=gen)
        yield x, torch.randint(3, (12,), generator=gen), torch.randint(3, (12,), generator=gen)


@pytest.mark.parametrize("kind", ["gap", "signed", "absolute"])
@pytest.mark.parametrize("buffer_size", [None, 8])
def test_both_walk_the_same_path(kind: str, buffer_size: int | None) -> None:
    ours, theirs = (objective(kind, buffer_size=buffer_size) for _ in range(2))
    problem = CooperProblem(theirs)
    a, b = (nn.Parameter(torch.zeros(4, 3)) for _ in range(2))
    sgd_a, sgd_b = (torch.optim.SGD([p], 0.2, momentum=0.9) for p in (a, b))
    dual = torch.optim.SGD(problem.dual_parameters(), DUAL, maximize=True)
    optimizer = cooper.optim.AlternatingDualPrimalOptimizer(
        problem, primal_optimizers=sgd_b, dual_optimizers=dual
    )
    for x, y, cell in batches(40):
        sgd_a.zero_grad()
        ours.loss(x @ a, y, cell).backward()
        sgd_a.step()
        optimizer.roll(compute_cmp_state_kwargs={"outputs": x @ b, "y": y, "cell": cell})
        assert torch.allclose(ours.multipliers, problem.multipliers_now, atol=2e-6)
    assert torch.allclose(a, b, atol=2e-5)
    assert ours.multipliers.abs().sum() > 0


def optimiser(kind: str, problem: CooperProblem, weight: nn.Parameter) -> Any:
    dual = problem.dual_parameters()
    if kind == "ExtrapolationConstrainedOptimizer":
        return cooper.optim.ExtrapolationConstrainedOptimizer(
            problem,
            primal_optimizers=cooper.optim.ExtraSGD([weight], lr=0.1),
            dual_optimizers=cooper.optim.ExtraSGD(dual, lr=DUAL, maximize=True),
        )
    return getattr(cooper.optim, kind)(
        problem,
        primal_optimizers=torch.optim.SGD([weight], 0.1),
        dual_optimizers=torch.optim.SGD(dual, DUAL, maximize=True),
    )


@pytest.mark.parametrize("kind", ["AlternatingDualPrimalOptimizer", "SimultaneousOptimizer"])
def test_an_optimiser_of_one_evaluation_pushes_every_batch_once(kind: str) -> None:
    problem = CooperProblem(objective("gap", buffer_size=20))
    weight = nn.Parameter(torch.zeros(4, 3))
    rolls = optimiser(kind, problem, weight)
    for x, y, cell in batches(2):
        rolls.roll(compute_cmp_state_kwargs={"outputs": x @ weight, "y": y, "cell": cell})
    assert filled(problem) == 24


TWICE = ["AlternatingPrimalDualOptimizer", "ExtrapolationConstrainedOptimizer"]


@pytest.mark.parametrize("kind", TWICE)
def test_an_optimiser_of_two_evaluations_needs_a_function(kind: str) -> None:
    problem = CooperProblem(objective("gap", buffer_size=20))
    weight = nn.Parameter(torch.zeros(4, 3))
    x, y, cell = next(iter(batches(1)))
    with pytest.raises(RuntimeError, match="give a function"):
        optimiser(kind, problem, weight).roll(
            compute_cmp_state_kwargs={"outputs": x @ weight, "y": y, "cell": cell}
        )
    assert filled(problem) == 12


def filled(problem: CooperProblem) -> int:
    ring = problem.objective.ring
    assert isinstance(ring, GroupRing)
    return int(ring.fill.sum())


@pytest.mark.parametrize("kind", TWICE)
def test_a_batch_evaluated_twice_is_remembered_once(kind: str) -> None:
    problem = CooperProblem(objective("gap", buffer_size=20))
    weight = nn.Parameter(torch.zeros(4, 3))
    rolls = optimiser(kind, problem, weight)
    for x, y, cell in batches(2):
        given: dict[str, Any] = {"outputs": lambda x=x: x @ weight, "y": y, "cell": cell}
        rolls.roll(compute_cmp_state_kwargs=given)
    assert filled(problem) == 24


def primal(gap: AccuracyGap, force: torch.Tensor, logits: torch.Tensor, batch: Any) -> Any:
    """The Lagrangian of the weights at multipliers `force`, written out."""
    _, y, cell = batch
    losses = nn.functional.cross_entropy(logits, y, reduction="none")
    proxy, _ = gap.proxies(losses, cell)
    return losses.mean() + (force * proxy).sum()


def measured(gap: AccuracyGap, logits: torch.Tensor, batch: Any) -> torch.Tensor:
    _, y, cell = batch
    return gap.measure(logits, y, cell, torch.bincount(cell, minlength=3).float())[0].clone()


@pytest.mark.parametrize("kind", TWICE)
@pytest.mark.parametrize("buffer_size", [None, 12])
def test_two_evaluations_walk_the_path_written_out(kind: str, buffer_size: int | None) -> None:
    problem = CooperProblem(objective("gap", buffer_size=buffer_size))
    weight = nn.Parameter(torch.zeros(4, 3))
    rolls = optimiser(kind, problem, weight)
    gap = objective("gap", buffer_size=buffer_size)
    assert isinstance(gap, AccuracyGap)
    own, force = torch.zeros(4, 3), torch.zeros(3)
    for batch in batches(20):
        x, y, cell = batch
        given: dict[str, Any] = {"outputs": lambda x=x: x @ weight, "y": y, "cell": cell}
        rolls.roll(compute_cmp_state_kwargs=given)
        before = {n: v.clone() for n, v in gap.ring.state_dict().items()} if gap.ring else {}
        there = own.clone().requires_grad_()
        (slope,) = torch.autograd.grad(primal(gap, force, x @ there, batch), there)
        if kind == "AlternatingPrimalDualOptimizer":
            own = own - 0.1 * slope
            force = (force + DUAL * measured(gap, x @ own, batch)).clamp(min=0)
        else:
            half = (force + DUAL * measured(gap, x @ own, batch)).clamp(min=0)
            there = (own - 0.1 * slope).requires_grad_()
            (slope,) = torch.autograd.grad(primal(gap, half, x @ there, batch), there)
            if gap.ring:
                gap.ring.load_state_dict(before)
            own = own - 0.1 * slope
            force = (force + DUAL * measured(gap, x @ there, batch)).clamp(min=0)
        assert torch.allclose(weight, own, atol=1e-5)
        assert torch.allclose(problem.multipliers_now, force, atol=1e-5)
    assert force.sum() > 0


@pytest.mark.parametrize("kind", ["gap", "signed"])
def test_in_eval_mode_a_problem_remembers_nothing(kind: str) -> None:
    problem = CooperProblem(objective(kind, buffer_size=2))
    (x, y, cell), (other, *_) = batches(2)
    problem.compute_cmp_state(x[:, :3], y, cell)
    before = {n: v.clone() for n, v in problem.objective.state_dict().items()}
    problem.objective.eval()
    for _ in range(2):
        state = problem.compute_cmp_state(other[:, :3], 2 - y, cell)
        constraint = state.observed_constraints[problem.groups]
        assert isinstance(constraint.strict_violation, torch.Tensor)
        assert torch.equal(constraint.strict_violation, problem.objective.violation)
    for name, value in problem.objective.state_dict().items():
        assert torch.equal(value, before[name]), name
    problem.objective.train()
    problem.compute_cmp_state(other[:, :3], 2 - y, cell)
    assert any(not torch.equal(v, before[n]) for n, v in problem.objective.state_dict().items())


def test_nu_pi_takes_the_problem() -> None:
    problem = CooperProblem(objective("gap", buffer_size=8))
    weight = nn.Parameter(torch.zeros(4, 3))
    dual = cooper.optim.nuPI(problem.dual_parameters(), lr=0.1, Kp=1.0, maximize=True)
    optimizer = cooper.optim.SimultaneousOptimizer(
        problem, primal_optimizers=torch.optim.Adam([weight], 0.01), dual_optimizers=dual
    )
    for x, y, cell in batches(20):
        optimizer.roll(compute_cmp_state_kwargs={"outputs": x @ weight, "y": y, "cell": cell})
    assert (problem.multipliers_now >= 0).all()
    assert problem.multipliers_now.sum() > 0


def test_only_the_plain_lagrangian_is_a_problem() -> None:
    assert CooperProblem(objective("gap")).multipliers_now.shape == (3,)
    with pytest.raises(ValueError, match="got 'bounded'"):
        CooperProblem(objective("gap", average_gradient="bounded"))
    with pytest.raises(ValueError, match="one-sided constraints; use two_sided=False"):
        CooperProblem(objective("gap", two_sided=True))
