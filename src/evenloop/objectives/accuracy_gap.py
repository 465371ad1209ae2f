"""No group may lose more accuracy than the model as a whole plus a tolerance (CEAG).

Hashemizadeh, Ramirez, Sukumaran, Farnadi, Lacoste-Julien and Gallego-Posada, "Balancing Act:
Constraining Disparate Impact in Sparse Models" (ICLR 2024, arXiv 2310.20673). With the dense
model's accuracies A(d), A_g(d) as reference, the excess accuracy gap of group g is

    psi_g = (A_g(d) - A_g) - (A(d) - A)  and must be  <= tolerance.

The weights follow the same expression in losses, the multipliers the accuracies of the newest
items of each group. The constraint is one-sided, on training data, and needs the groups at
training time; it does not judge how even the reference itself is.

Where this differs from the authors' program by default: the overall accuracy is weighted by the
groups' shares (`average="macro"` for theirs), the buffers hold up to 400 values a group instead of
40, and the mean loss keeps a weight >= 0 (`average_gradient="full"` for theirs).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.objectives.duals import AverageGradient, DualAscent, Multipliers, lagrangian
from evenloop.objectives.reference import (
    Reference,
    Score,
    check_codes,
    group_count,
    group_mean,
    hits,
    item_losses,
    rows_of,
    spread,
)
from evenloop.objectives.ring import GroupAverage, GroupRing
from evenloop.seams import Objective

__all__ = [
    "AccuracyGap",
    "Average",
    "MemoryKind",
    "capacities",
    "check_members",
    "check_size",
    "memory_of",
]

Average = Literal["population", "macro"]
MemoryKind = Literal["ring", "average"]
DEFAULT_BUFFER = 400  # resolves 1.5 points at an accuracy of 0.9; 40 values resolve 4.7


class AccuracyGap(nn.Module, Objective):
    """Mean cross-entropy under psi_g <= `tolerance` for every group.

    `loss` is the only call of a step: it measures, moves the multipliers and returns the scalar
    to differentiate. In `eval()` mode it changes nothing. All state is in `state_dict()`.

    Args:
        reference: the dense model's statistics; its `count` (G,) fixes groups and shares. A group
            without items there has nothing to be compared with: never an estimate, nor a force.
        tolerance: largest excess accuracy gap allowed, a fraction >= 0.
        buffer_size: values remembered per group; "auto" takes the smaller of 400 and the group's
            size; None estimates from the batch alone.
        memory: "ring" keeps the newest values (the paper's replay buffer); "average" forgets
            gradually and keeps three numbers a group instead of `buffer_size`.
        average: overall accuracy as the groups' mean weighted by `share`, or unweighted.
        average_gradient: see `evenloop.objectives.duals.lagrangian`.
        floor: smallest weight of the mean loss under `bounded`, in [0, 1].
        dual: how the multipliers move.
        start: training steps of plain loss before constraints begin (while pruning, say).
        members: (J, A) groups of each joint cell (`marginal_members`), if cells are joint and the
            constraints are per attribute.
        score: per-item score to bound instead of accuracy; the reference must hold its means.
        label_smoothing: of the cross-entropy, in [0, 1); accuracy is not smoothed.
        two_sided: bound |psi_g|, so that no group may gain much more than the others either (its
            loss is then pushed up). At half a tolerance this bounds the pairwise disparity by it.

    Attributes:
        violation: (G,) psi_g - tolerance of the last training step, 0 without an estimate.
        has_estimate: (G,) bool.

    Raises:
        ValueError: a value is out of range, or a buffer is larger than a group that has items.

    >>> one = torch.ones(2)
    >>> dense = Reference(torch.tensor(0.9), torch.tensor(0.3), 0.9 * one, 0.3 * one, 50 * one)
    >>> gap = AccuracyGap(dense, 0.01, buffer_size=None, dual=DualAscent(0.1))
    >>> logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    >>> gap.loss(logits, torch.tensor([0, 1]), torch.tensor([0, 1])).backward()
    >>> [round(float(v), 3) for v in gap.multipliers]
    [0.0, 0.049]
    """

    violation: Tensor
    has_estimate: Tensor
    share: Tensor
    acc: Tensor
    group_acc: Tensor
    offset: Tensor
    held: Tensor
    members: Tensor | None

    def __init__(
        self,
        reference: Reference,
        tolerance: float,
        buffer_size: int | Literal["auto"] | None = "auto",
        average: Average = "population",
        average_gradient: AverageGradient = "bounded",
        dual: DualAscent = DualAscent(lr=1e-3),  # noqa: B008 - a frozen value
        *,
        floor: float = 0.0,
        start: int = 0,
        members: Tensor | None = None,
        score: Score = hits,
        label_smoothing: float = 0.0,
        memory: MemoryKind = "ring",
        two_sided: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= tolerance < float("inf"):
            raise ValueError(
                f"tolerance must be a fraction >= 0 (0.01 is one percentage point), got {tolerance}"
            )
        check_choices(average, average_gradient, floor, start, label_smoothing)
        size = len(reference.count)
        self.tolerance, self.average, self.average_gradient = tolerance, average, average_gradient
        self.floor, self.start, self.steps = floor, start, 0
        self.score, self.label_smoothing = score, label_smoothing
        self.names = reference.group_names
        if two_sided and average_gradient == "bounded":
            raise ValueError(
                'average_gradient="bounded" needs multipliers >= 0, those of two sides have no '
                'sign together; use "full" or "detached" with two_sided'
            )
        self.ring = memory_of(reference, buffer_size, memory)
        self.two_sided = two_sided
        self.dual = Multipliers(2 * size if two_sided else size, dual)
        held = reference.count > 0
        constant = {
            "share": reference.share,
            "acc": reference.acc.float(),
            "group_acc": reference.group_acc.float().where(held, 0),  # read where held alone
            "offset": (reference.group_loss - reference.loss).float().where(held, 0),
            "held": held,
            "members": check_members(members, size),
        }
        for name, value in constant.items():
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("violation", torch.zeros(size))
        self.register_buffer("has_estimate", torch.zeros(size, dtype=torch.bool))

    @property
    def multipliers(self) -> Tensor:
        """(G,) float32, >= 0; two-sided the upper bound's minus the lower bound's, of any sign."""
        if not self.two_sided:
            return self.dual.value
        upper, lower = self.dual.value.chunk(2)
        return upper - lower

    @property
    def excess_gap(self) -> Tensor:
        """(G,) estimate of psi_g at the last training step; nan without an estimate."""
        return (self.violation + self.tolerance).where(self.has_estimate, float("nan"))

    @property
    def resolution(self) -> Tensor:
        """(G,) standard deviation of each group's accuracy estimate; compare with the tolerance.

        nan without buffers or before a buffer is full.
        """
        if self.ring is None:
            return torch.full_like(self.violation, float("nan"))
        return self.ring.error().where(self.ring.full, float("nan"))

    def infeasible(self, window: int) -> tuple[str, ...]:
        """Names of the groups violated on each of their last `window` or more updates."""
        rising = self.dual.rising.view(-1, len(self.names)).amax(0)
        stuck = (rising >= window).tolist()
        return tuple(name for name, is_stuck in zip(self.names, stuck, strict=True) if is_stuck)

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
        count = group_count(cell, len(self.names))
        if self.training:
            self._ascend(*self.measure(outputs, y, cell, count))
        return lagrangian(
            losses,
            cell,
            count,
            self.multipliers,
            offset=self.offset,
            average=self.average_gradient,
            floor=self.floor,
        )

    def _ascend(self, violation: Tensor, known: Tensor) -> None:
        if self.two_sided:  # psi_g <= tolerance and -psi_g <= tolerance
            violation = torch.cat([violation, -violation - 2 * self.tolerance])
            known = torch.cat([known, known])
        self.dual.ascend(violation, known)

    @torch.no_grad()
    def measure(
        self, outputs: Tensor, y: Tensor, cell: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Remember the batch's scores; returns `violation` and `has_estimate`, both (G,)."""
        scores = self.score(outputs.detach(), y).float()
        if self.ring is None:
            known, estimate = count > 0, self._batch_means(scores, cell, count)
        else:
            self.ring.push(scores, cell)
            known, estimate = self.ring.full, self.ring.mean()
        known = known & self.held
        lost = self.group_acc - estimate
        violation = lost - self._overall(lost, estimate, known, scores) - self.tolerance
        self.violation.copy_(violation.where(known, 0))
        self.has_estimate.copy_(known)
        return self.violation, self.has_estimate

    def _batch_means(self, scores: Tensor, cell: Tensor, count: Tensor) -> Tensor:
        values, flat = spread(scores, cell)
        total = torch.zeros_like(count).index_add_(0, flat, values)
        return total / count.clamp(min=1)

    def _overall(self, lost: Tensor, estimate: Tensor, known: Tensor, scores: Tensor) -> Tensor:
        """How much the model lost as a whole, (): over the groups that have an estimate."""
        if self.average == "population":
            weight = self.share.where(known, 0)
            return torch.dot(weight, lost) / weight.sum().clamp(min=1e-12)
        if self.ring is None:
            return self.acc - scores.mean()
        return self.acc - estimate.where(known, 0).sum() / known.sum().clamp(min=1)

    def proxies(self, losses: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiable (G,) stand-ins (L_g - L_g(d)) - (L - L(d)), 0 for absent; count (G,)."""
        mean, count = group_mean(losses, cell, len(self.names))
        return (mean - losses.mean() - self.offset).where((count > 0) & self.held, 0), count

    def get_extra_state(self) -> Tensor:
        """Training steps seen, () int64."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue counting training steps."""
        self.steps = int(state)


def memory_of(
    reference: Reference, buffer_size: int | Literal["auto"] | None, kind: str
) -> GroupRing | GroupAverage | None:
    """What remembers the groups' newest values; None for no memory.

    Raises:
        ValueError: an unknown kind, or sizes that `capacities` refuses.
    """
    if kind not in get_args(MemoryKind):
        raise ValueError(f"memory must be one of {', '.join(get_args(MemoryKind))}, got {kind!r}")
    if buffer_size is None:
        return None
    size = capacities(reference, buffer_size)
    return GroupRing(size) if kind == "ring" else GroupAverage(size)


def capacities(reference: Reference, buffer_size: int | str) -> Tensor:
    """(G,) int64 buffer sizes; "auto" is the smaller of 400 and the group's count.

    Raises:
        ValueError: the size is below 1, or above the count of a group that has items.
    """
    count = reference.count.long()
    if buffer_size == "auto":
        return count.clamp(min=1, max=DEFAULT_BUFFER)
    if isinstance(buffer_size, (bool, str)) or buffer_size < 1:
        raise ValueError(
            f'buffer_size must be an integer >= 1, "auto" or None, got {buffer_size!r}'
        )
    small = ((count > 0) & (count < buffer_size)).nonzero().flatten().tolist()
    if small:
        name, n = reference.group_names[small[0]], int(count[small[0]])
        raise ValueError(
            f"buffer_size {buffer_size} is larger than group {name!r} ({n} items), whose buffer "
            f'would count items twice; use at most {n}, or "auto"'
        )
    return torch.full_like(count, buffer_size)


def check_choices(
    average: str, average_gradient: str, floor: float, start: int, label_smoothing: float
) -> None:
    """Raise ValueError, naming the field and the choices, unless all are in range."""
    for field, value, known in (
        ("average", average, get_args(Average)),
        ("average_gradient", average_gradient, get_args(AverageGradient)),
    ):
        if value not in known:
            raise ValueError(f"{field} must be one of {', '.join(known)}, got {value!r}")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be in [0, 1], got {floor}")
    if start < 0:
        raise ValueError(f"start must be a number of steps >= 0, got {start}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")


def check_members(members: Tensor | None, size: int) -> Tensor | None:
    """The table itself; ValueError unless it is (J, A) with groups in [0, size)."""
    if members is None:
        return None
    if members.ndim != 2 or int(members.min()) < 0 or int(members.max()) >= size:
        raise ValueError(
            f"members must be (J, A) groups in [0, {size}), got shape {tuple(members.shape)} with "
            f"values {int(members.min())}..{int(members.max())}"
        )
    return members.long()


def check_size(cells: int, groups: int, members: Tensor | None) -> None:
    """Raise ValueError unless the data's cells are those the constraints were made for."""
    want = groups if members is None else len(members)
    if cells != want:
        raise ValueError(
            f"the data have {cells} groups, the reference was measured on {want}; measure the "
            "reference by the same attributes"
        )
