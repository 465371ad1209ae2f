"""Lagrange multipliers: ascent, a proportional term, projection, and their weight on each item.

Dual first, as in Hashemizadeh et al. (ICLR 2024): the multipliers move on this step's violations
before the weights use them, so a step needs one forward and one backward pass. Differentiable
stand-in for the weights, true constraint for the multipliers: Cotter et al., "Two-player games for
efficient non-convex constrained optimization" (ALT 2019). Proportional-integral ascent: Sohrabi et
al., "On PI controllers for updating Lagrange multipliers in constrained optimization" (ICML 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["AverageGradient", "DualAscent", "Multipliers", "lagrangian"]

AverageGradient = Literal["full", "detached", "bounded"]


@dataclass(frozen=True, slots=True)
class DualAscent:
    """How multipliers move: value <- value + lr * (ki * v + kp * change of the smoothed v).

    `lr` is the rate of ascent on a violation v (a fraction or nats). `kp` adds a proportional term
    on the change of v smoothed with factor `ema` in [0, 1); the first step is plain ascent, and the
    smoothed value starts from (1 - ema) v, as in Cooper's `nuPI` on sparse gradients. `momentum`
    in [0, 1) ascends on a running mean of v instead (dampened by the same amount). `restart` sets
    the multiplier of a strictly satisfied constraint back to 0. `cap` bounds the multipliers: an
    infeasible tolerance lets them grow without end.

    Raises:
        ValueError: a rate is negative or not finite, a factor is outside [0, 1), a cap is not
            positive, or `momentum` is combined with `kp`.

    >>> DualAscent(0.1).ki
    1.0
    """

    lr: float
    kp: float = 0.0
    ki: float = 1.0
    ema: float = 0.0
    momentum: float = 0.0
    restart: bool = False
    cap: float | None = None

    def __post_init__(self) -> None:
        for field in ("lr", "kp", "ki"):
            value = getattr(self, field)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{field} of DualAscent must be finite and >= 0, got {value}")
        for field in ("ema", "momentum"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(
                    f"{field} of DualAscent must be in [0, 1), got {getattr(self, field)}"
                )
        if self.cap is not None and not self.cap > 0:
            raise ValueError(f"cap of DualAscent must be positive or None, got {self.cap}")
        if self.kp and self.momentum:
            raise ValueError(f"give kp or momentum, not both: kp={self.kp}, {self.momentum=}")


class Multipliers(nn.Module):
    """One multiplier per constraint, starting at 0; `value` (G,) float32.

    Constraints without a valid violation this step keep their multiplier and its memory.
    `inequality` projects on values >= 0. `rising` (G,) counts the valid steps in a row on which
    the constraint was violated: a long run under growing multipliers means the tolerance cannot be
    met.

    >>> dual = Multipliers(2, DualAscent(0.5))
    >>> dual.ascend(torch.tensor([0.07, 9.0]), torch.tensor([True, False]))
    tensor([0.0350, 0.0000])
    """

    value: Tensor
    rising: Tensor
    smooth: Tensor
    begun: Tensor

    def __init__(self, size: int, rule: DualAscent, *, inequality: bool = True) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"multipliers need at least one constraint, got {size}")
        self.rule, self.inequality = rule, inequality
        self.register_buffer("value", torch.zeros(size))
        self.register_buffer("rising", torch.zeros(size, dtype=torch.long))
        self.register_buffer("smooth", torch.zeros(size))
        self.register_buffer("begun", torch.zeros(size, dtype=torch.bool))

    @torch.no_grad()
    def ascend(self, violation: Tensor, valid: Tensor) -> Tensor:
        """One step on `violation` (G,) where `valid` (G,) bool; returns `value` (G,)."""
        rule = self.rule
        moved = self.value + rule.lr * self._direction(violation, valid)
        if rule.restart and self.inequality:
            moved = moved.masked_fill(violation < 0, 0)
        if self.inequality or rule.cap is not None:
            low = 0 if self.inequality else -(rule.cap or 0)
            moved = moved.clamp(min=low, max=rule.cap)
        self.value.copy_(torch.where(valid, moved, self.value))
        run = (self.rising + 1).masked_fill_(violation <= 0, 0)
        self.rising.copy_(torch.where(valid, run, self.rising))
        return self.value

    def _direction(self, violation: Tensor, valid: Tensor) -> Tensor:
        rule = self.rule
        keep = rule.momentum or rule.ema
        if not rule.momentum and not rule.kp:
            return violation if rule.ki == 1 else rule.ki * violation
        before, begun = self.smooth, self.begun
        smooth = keep * before + (1 - keep) * violation
        if rule.momentum:
            smooth = torch.where(begun, smooth, violation)
            direction = rule.ki * smooth
        else:
            change = torch.where(begun, smooth - before, 0)
            direction = rule.ki * violation + rule.kp * change
        self.smooth = torch.where(valid, smooth, before)
        self.begun = begun | valid
        return direction


def lagrangian(
    losses: Tensor,
    cell: Tensor,
    count: Tensor,
    multipliers: Tensor,
    *,
    offset: Tensor | None = None,
    average: AverageGradient = "full",
    floor: float = 0.0,
) -> Tensor:
    """L + sum over observed groups of multiplier times (L_g - L - offset_g), from item losses.

    L is the mean of `losses` (B,), L_g that of group g. One weighted sum, so the backward pass is
    that of a mean. `average` says what the gradient through L in the constraints does:

    * `full`: as written. Once the multipliers sum past 1, the mean loss has a negative weight and
      the Lagrangian no lower bound.
    * `detached`: none.
    * `bounded`: (w L + sum multiplier L_g) / max(w + S, 1), w = max(1 - S, floor), for multipliers
      >= 0 that sum to S over the observed groups: equal to `full` while S <= 1 - floor.

    Args:
        losses: (B,), with gradient.
        cell: (B,) or (B, A) group of each item.
        count: (G,) items of each group in the batch.
        multipliers: (G,); those of absent groups have no force.
        offset: (G,), shifts the value only.
        average: see above.
        floor: smallest weight of L under `bounded`, in [0, 1].

    Returns:
        Scalar.

    >>> loss = torch.tensor([1.0, 3.0], requires_grad=True)
    >>> cell, count = torch.tensor([0, 1]), torch.tensor([1.0, 1.0])
    >>> value = lagrangian(loss, cell, count, torch.tensor([0.0, 0.5]))
    >>> value.backward()
    >>> value.item(), loss.grad.tolist()
    (2.5, [0.25, 0.75])
    """
    force = multipliers.where(count > 0, 0)
    total = force.sum()
    share = (force / count.clamp(min=1))[cell]
    share = share if cell.ndim == 1 else share.sum(1)
    scale = None
    if average == "detached":
        weight = share + 1 / len(losses)
    elif average == "bounded":
        rest = (1 - total).clamp(min=floor)
        scale = (rest + total).clamp(min=1)
        weight = (share + rest / len(losses)) / scale
    else:
        weight = share + (1 - total) / len(losses)
    value = torch.dot(weight.to(losses.dtype), losses)
    if average == "detached":
        value = value - total * losses.detach().mean()
    if offset is None:
        return value
    shift = torch.dot(force, offset)
    return value - (shift if scale is None else shift / scale)
