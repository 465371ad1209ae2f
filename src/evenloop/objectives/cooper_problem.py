"""The same constraints as a problem of Cooper 1.x, for any of its optimisers.

Cooper (Gallego-Posada et al., "Cooper: A library for constrained optimization in deep learning",
2025) keeps multipliers as parameters and owns the step (`roll`). The trajectory under its
`AlternatingDualPrimalOptimizer` with plain SGD ascent is that of our own `loss`. Optimisers that
evaluate a step twice, at other weights, need outputs that can be computed again: a function.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

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
from evenloop.objectives.reference import item_losses, rows_of

__all__ = ["CooperProblem"]

TWICE = (
    "this optimiser evaluates the batch a second time, at other weights, and was given the outputs "
    "of the first (AlternatingPrimalDualOptimizer and ExtrapolationConstrainedOptimizer do so): "
    'give a function, {"outputs": lambda: net(x), ...}, or new outputs for each roll of '
    "AlternatingDualPrimalOptimizer or SimultaneousOptimizer"
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
        self._batch: tuple[object, ...] = ()
        self._before: dict[str, Tensor] = {}
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

    def compute_cmp_state(
        self, outputs: Tensor | Callable[[], Tensor], y: Tensor, cell: Tensor
    ) -> CMPState:
        """Loss and constraints at logits (B, C), labels (B,), cells (B,) or (B, A).

        `outputs` may be a function that computes the logits at the weights as they are, as needed
        by optimisers that evaluate a step twice. In training mode of the objective the batch enters
        the buffers; evaluated again (the same three objects), it replaces what it had put there.
        In `eval()` mode nothing changes: the violations are those of the last training step.

        Raises:
            RuntimeError: a second evaluation of the same logits while training.
        """
        objective = self.objective
        if isinstance(outputs, Tensor):
            logits = outputs
            if objective.training:
                self._refuse_twice(logits)
        else:
            logits = outputs()
            if objective.training:
                self._replace((outputs, y, cell))
        cell = cell if objective.members is None else rows_of(objective.members, cell)
        losses = item_losses(logits, y, objective.label_smoothing)
        proxy, count = objective.proxies(losses, cell)
        true = objective.violation
        if objective.training:
            true, _ = objective.measure(logits, y, cell, count)
        state = ConstraintState(violation=proxy, strict_violation=true.clone())
        return CMPState(loss=losses.mean(), observed_constraints={self.groups: state})

    def _refuse_twice(self, logits: Tensor) -> None:
        if self._seen is not None and self._seen() is logits:
            raise RuntimeError(TWICE)
        self._seen = weakref.ref(logits)

    def _replace(self, batch: tuple[object, ...]) -> None:
        """Keep the buffers as they are before a new batch; put them back if it comes again."""
        ring = self.objective.ring
        if ring is None:
            return
        same = len(self._batch) == len(batch)
        if same and all(a is b for a, b in zip(self._batch, batch, strict=True)):
            ring.load_state_dict(self._before)
        else:
            self._before = {name: value.clone() for name, value in ring.state_dict().items()}
            self._batch = batch
