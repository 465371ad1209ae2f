"""The same constraints as a problem of Cooper 1.x, for its optimisers of one forward pass a step.

Cooper (Gallego-Posada et al., "Cooper: A library for constrained optimization in deep learning",
2025) keeps multipliers as parameters and owns the step (`roll`). The trajectory under its
`AlternatingDualPrimalOptimizer` with plain SGD ascent is that of our own `loss`; its
`SimultaneousOptimizer` works as well. Those that evaluate twice a step are refused.
"""

from __future__ import annotations

import weakref

import torch
from cooper.cmp import CMPState, ConstrainedMinimizationProblem
from cooper.constraints.constraint import Constraint
from cooper.constraints.constraint_state import ConstraintState
from cooper.formulations.formulations import Lagrangian
from cooper.multipliers.multipliers import DenseMultiplier
from cooper.utils.annotations import ConstraintType
from torch import Tensor

from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.equalized_loss import EqualizedLoss
from evenloop.objectives.reference import item_losses

__all__ = ["CooperProblem"]

TWICE = (
    "a Cooper problem measures every batch once, at the outputs it is given, and this optimiser "
    "asks for a second evaluation in the same step (AlternatingPrimalDualOptimizer and "
    "ExtrapolationConstrainedOptimizer do); use AlternatingDualPrimalOptimizer or "
    "SimultaneousOptimizer, with new outputs for each roll"
)


class CooperProblem(ConstrainedMinimizationProblem):
    """An `AccuracyGap` or `EqualizedLoss` as a constrained minimisation problem.

    The objective gives proxies (`violation`) and buffer estimates (`strict_violation`); its own
    multipliers and `DualAscent` are not used. A dense multiplier is fed 0 for groups without an
    estimate, so momentum in a dual optimiser would move them: use plain ascent or `nuPI`.

    Args:
        objective: with `average_gradient="full"`; other forms are not a Lagrangian of the problem.
            One-sided: Cooper would hold the two sides as two constraints.

    Raises:
        ValueError: another `average_gradient`, or two sides.

    >>> import torch
    >>> from evenloop.objectives.reference import Reference
    >>> one = torch.ones(2)
    >>> dense = Reference(torch.tensor(0.9), torch.tensor(0.3), one, one, 50 * one)
    >>> problem = CooperProblem(AccuracyGap(dense, 0.01, average_gradient="full"))
    >>> [tuple(p.shape) for p in problem.dual_parameters()]
    [(2,)]
    """

    def __init__(self, objective: AccuracyGap | EqualizedLoss) -> None:
        super().__init__()
        if objective.average_gradient != "full":
            raise ValueError(
                "a Cooper problem needs an objective with average_gradient='full', "
                f"got {objective.average_gradient!r}"
            )
        if isinstance(objective, AccuracyGap) and objective.two_sided:
            raise ValueError("a Cooper problem takes one-sided constraints; use two_sided=False")
        self.objective = objective
        self._seen: weakref.ref[Tensor] | None = None
        one_sided = objective.dual.inequality
        self.groups = Constraint(
            ConstraintType.INEQUALITY if one_sided else ConstraintType.EQUALITY,
            Lagrangian,
            multiplier=DenseMultiplier(
                num_constraints=len(objective.names), device=objective.violation.device
            ),
        )

    @property
    def multipliers_now(self) -> Tensor:
        """(G,) multipliers as Cooper holds them, detached."""
        return torch.cat([p.detach() for p in self.dual_parameters()])

    def compute_cmp_state(self, outputs: Tensor, y: Tensor, cell: Tensor) -> CMPState:
        """Loss and constraints at logits (B, C), labels (B,), cells (B,) or (B, A).

        In training mode of the objective the batch enters the buffers. In `eval()` mode nothing
        changes, and the violations are those of the last training step.

        Raises:
            RuntimeError: a second evaluation of the same outputs while training.
        """
        objective = self.objective
        if objective.training:
            if self._seen is not None and self._seen() is outputs:
                raise RuntimeError(TWICE)
            self._seen = weakref.ref(outputs)
        cell = cell if objective.members is None else objective.members[cell]
        losses = item_losses(outputs, y, objective.label_smoothing)
        proxy, count = objective.proxies(losses, cell)
        true = objective.violation
        if objective.training:
            true, _ = objective.measure(outputs, y, cell, count)
        state = ConstraintState(violation=proxy, strict_violation=true.clone())
        return CMPState(loss=losses.mean(), observed_constraints={self.groups: state})

    def compute_violations(self, *_: object, **__: object) -> CMPState:
        """Refused: it is what updating the weights first asks for, at other outputs.

        Raises:
            RuntimeError: always; it names the optimisers that work.
        """
        raise RuntimeError(TWICE)
