"""Every group's loss equal to the mean loss: the equalized-loss baseline, with replay buffers.

The constraint L_g - L = 0 of Tran, Fioretto, Kim and Naidu, "Pruning has a disparate impact on
model accuracy" (NeurIPS 2022), with multipliers fed from buffers as in Hashemizadeh et al. (ICLR
2024), who call it EL+RB. It needs the groups at training time. With absolute values (theirs) a
multiplier never decreases, and the constraint raises the loss of groups that do well (levelling
down); signed, it still asks the same of them, but can let go.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.objectives.accuracy_gap import (
    Average,
    MemoryKind,
    check_choices,
    check_members,
    check_size,
    memory_of,
)
from evenloop.objectives.duals import AverageGradient, DualAscent, Multipliers, lagrangian
from evenloop.objectives.reference import (
    Reference,
    check_codes,
    group_mean,
    item_losses,
    rows_of,
)
from evenloop.seams import Objective

__all__ = ["EqualizedLoss"]


class EqualizedLoss(nn.Module, Objective):
    """Mean cross-entropy under L_g = L for every group; multipliers may be negative when signed.

    Args:
        reference: for the groups' counts and names alone; its accuracies and losses are not used.
        buffer_size: losses remembered per group; "auto" takes the smaller of 400 and the group's
            size; None estimates from the batch alone.
        memory: "ring" keeps the newest losses, "average" forgets gradually.
        average: overall loss as the groups' mean weighted by `share`, or unweighted.
        average_gradient: "full" or "detached" (see `evenloop.objectives.duals.lagrangian`).
        dual: how the multipliers move.
        absolute: constrain |L_g - L| instead of L_g - L.
        start: training steps of plain loss before constraints begin.
        members: (J, A) groups of each joint cell, if the constraints are per attribute.
        label_smoothing: of the cross-entropy, in [0, 1).

    Attributes:
        violation: (G,) estimate of L_g - L (absolute, if so asked), 0 without an estimate.
        has_estimate: (G,) bool.

    Raises:
        ValueError: a value is out of range, or a buffer is larger than a group that has items.

    >>> one = torch.ones(2)
    >>> groups = Reference(torch.tensor(0.9), torch.tensor(0.3), one, one, 50 * one)
    >>> equal = EqualizedLoss(groups, buffer_size=None, dual=DualAscent(0.1))
    >>> logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    >>> equal.loss(logits, torch.tensor([0, 1]), torch.tensor([0, 1])).backward()
    >>> [round(float(v), 3) for v in equal.multipliers]
    [-0.05, 0.05]
    """

    violation: Tensor
    has_estimate: Tensor
    share: Tensor
    members: Tensor | None

    def __init__(
        self,
        reference: Reference,
        buffer_size: int | Literal["auto"] | None = "auto",
        average: Average = "population",
        average_gradient: AverageGradient = "full",
        dual: DualAscent = DualAscent(lr=1e-3),  # noqa: B008 - a frozen value
        *,
        absolute: bool = False,
        start: int = 0,
        members: Tensor | None = None,
        label_smoothing: float = 0.0,
        memory: MemoryKind = "ring",
    ) -> None:
        super().__init__()
        check_choices(average, average_gradient, 0.0, start, label_smoothing)
        if average_gradient == "bounded":
            raise ValueError(
                'average_gradient="bounded" needs multipliers >= 0, those of equalities have no '
                'sign; use "full" or "detached"'
            )
        size = len(reference.count)
        self.average, self.average_gradient, self.absolute = average, average_gradient, absolute
        self.start, self.steps, self.label_smoothing = start, 0, label_smoothing
        self.names = reference.group_names
        self.ring = memory_of(reference, buffer_size, memory)
        self.dual = Multipliers(size, dual, inequality=False)
        self.register_buffer("share", reference.share, persistent=False)
        self.register_buffer("members", check_members(members, size), persistent=False)
        self.register_buffer("violation", torch.zeros(size))
        self.register_buffer("has_estimate", torch.zeros(size, dtype=torch.bool))

    @property
    def multipliers(self) -> Tensor:
        """(G,) float32, of any sign."""
        return self.dual.value

    def bind(self, model: nn.Module, data: GroupedData, groups: GroupIndex) -> None:
        """Move to the data's device; check that the groups are those of the reference.

        Raises:
            ValueError: the number of groups differs.
        """
        check_size(groups.size, len(self.names), self.members)
        check_codes(groups.cell, groups.size)
        self.to(groups.cell.device)

    def loss(
        self, outputs: Tensor, y: Tensor, cell: Tensor, per_sample_loss: Tensor | None = None
    ) -> Tensor:
        """The scalar to differentiate, from logits (B, C), labels (B,), cells (B,) or (B, A).

        `per_sample_loss` (B,), with gradient, replaces the cross-entropy.
        """
        losses = per_sample_loss
        if losses is None:
            losses = item_losses(outputs, y, self.label_smoothing)
        if self.training:
            self.steps += 1
        if self.start and self.steps <= self.start:
            return losses.mean()
        cell = cell if self.members is None else rows_of(self.members, cell)
        values = losses.detach().float()
        mean, count = group_mean(values, cell, len(self.names))
        if self.training:
            self.dual.ascend(*self._measure(values, cell, mean, count))
        force = self.dual.value
        if self.absolute:
            # |L_g - L| has the gradient of L_g - L times its sign.
            force = force * (mean - values.mean()).sign()
        return lagrangian(losses, cell, count, force, average=self.average_gradient)

    def measure(
        self, outputs: Tensor, y: Tensor, cell: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Remember the batch's losses; returns `violation` and `has_estimate`, both (G,)."""
        losses = item_losses(outputs.detach(), y, self.label_smoothing).float()
        mean, count = group_mean(losses, cell, len(self.names))
        return self._measure(losses, cell, mean, count)

    @torch.no_grad()
    def _measure(
        self, losses: Tensor, cell: Tensor, mean: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        known = count > 0
        overall = losses.mean()
        if self.ring is not None:
            self.ring.push(losses, cell)
            known, mean = self.ring.full, self.ring.mean()
            overall = mean.sum() / known.sum().clamp(min=1)
        if self.average == "population":
            weight = self.share.where(known, 0)
            overall = torch.dot(weight, mean) / weight.sum().clamp(min=1e-12)
        defect = mean - overall
        defect = defect.abs() if self.absolute else defect
        self.violation.copy_(defect.where(known, 0))
        self.has_estimate.copy_(known)
        return self.violation, self.has_estimate

    def proxies(self, losses: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiable (G,) constraints L_g - L, absolute if so asked, 0 for absent; count."""
        mean, count = group_mean(losses, cell, len(self.names))
        gap = mean - losses.mean()
        return (gap.abs() if self.absolute else gap).where(count > 0, 0), count

    def get_extra_state(self) -> Tensor:
        """Training steps seen, () int64."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue counting training steps."""
        self.steps = int(state)
