"""A teacher beside the labels: the pruned net also imitates the dense one.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015). The imitation is a
per-item loss, so the group constraints hold for it as they do for cross-entropy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, softmax

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.equalized_loss import EqualizedLoss
from evenloop.objectives.reference import item_losses
from evenloop.objectives.traced import Traced
from evenloop.seams import Objective, Seen

__all__ = ["Distilled", "Taught"]


class Taught(nn.Module):
    """A student that carries its teacher: in training x -> (B, 2C) logits of both, else (B, C).

    The teacher is no submodule: it is neither trained, saved nor pruned, and stays in evaluation
    mode. Move it to the student's device beforehand.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student = student
        self._teacher = (teacher.eval(),)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of student and, in training, teacher."""
        logits: Tensor = self.student(x)
        if not self.training:
            return logits
        with torch.no_grad():
            taught: Tensor = self._teacher[0](x)
        return torch.cat([logits, taught.to(logits.dtype)], 1)


class Distilled(Objective):
    """(1 - weight) cross-entropy + weight T^2 KL(teacher || student), under a constraint or none.

    For outputs (B, 2C) of `Taught`.

    Args:
        inner: the constrained objective; None for the mean.
        weight: of the imitation, in [0, 1].
        temperature: T > 0 that both softmaxes are taken at.

    Raises:
        ValueError: a value out of range.

    >>> outputs = torch.tensor([[2.0, 0.0, 2.0, 0.0]])
    >>> Distilled(None, weight=1.0).loss(outputs, torch.tensor([0]), torch.tensor([0]))
    tensor(0.)
    """

    def __init__(
        self,
        inner: AccuracyGap | EqualizedLoss | Traced | None,
        weight: float = 0.5,
        temperature: float = 2.0,
    ) -> None:
        if not 0 <= weight <= 1:
            raise ValueError(f"weight of distillation must be in [0, 1], got {weight}")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be finite and > 0, got {temperature}")
        self.inner, self.weight, self.temperature = inner, weight, temperature

    def bind(self, model: nn.Module, data: GroupedData, groups: GroupIndex) -> None:
        """Bind the objective inside."""
        if self.inner is not None:
            self.inner.bind(model, data, groups)

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        """Scalar for outputs (B, 2C), labels (B,), cells (B,)."""
        student, teacher = outputs.chunk(2, 1)
        t = self.temperature
        imitation = kl_div(
            log_softmax(student / t, 1), softmax(teacher.detach() / t, 1), reduction="none"
        ).sum(1)
        losses = (1 - self.weight) * item_losses(student, y) + self.weight * t**2 * imitation
        if self.inner is None:
            return losses.mean()
        constrained = self.inner.inner if isinstance(self.inner, Traced) else self.inner
        return constrained.loss(student, y, cell, losses)

    def after(self, seen: Seen) -> None:
        """Tell the objective inside."""
        if self.inner is not None:
            self.inner.after(seen)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Parameters of the objective inside."""
        return iter(()) if self.inner is None else self.inner.parameters(recurse)

    def state_dict(self) -> dict[str, Any]:
        """The state inside."""
        return {} if self.inner is None else self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        if self.inner is not None:
            self.inner.load_state_dict(state)
