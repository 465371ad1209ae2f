"""Multipliers over time: an objective that remembers how the one inside it moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.equalized_loss import EqualizedLoss
from evenloop.seams import Objective, Seen

__all__ = ["Traced"]


class Traced(Objective):
    """A constrained objective whose multipliers and violations are kept every `every` steps.

    Copies stay on the device; nothing is read in a step.

    >>> from evenloop.objectives.reference import Reference
    >>> one = torch.ones(2)
    >>> dense = Reference(torch.tensor(0.9), torch.tensor(0.3), one, one, 50 * one)
    >>> traced = Traced(AccuracyGap(dense, 0.01), every=10)
    >>> traced.multipliers().shape
    torch.Size([0, 2])
    """

    def __init__(self, inner: AccuracyGap | EqualizedLoss, every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}")
        self.inner, self.every = inner, every
        self._steps: list[Tensor] = []

    def bind(self, model: nn.Module, data: GroupedData, groups: GroupIndex) -> None:
        """Bind the objective inside."""
        self.inner.bind(model, data, groups)

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        """The loss of the objective inside."""
        return self.inner.loss(outputs, y, cell)

    def after(self, seen: Seen) -> None:
        """Keep a copy if the step's number says so."""
        self.inner.after(seen)
        if (seen.step + 1) % self.every == 0:
            now = torch.stack([self.inner.multipliers, self.inner.violation])
            self._steps.append(now.detach().clone())

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Parameters of the objective inside."""
        return self.inner.parameters(recurse)

    def multipliers(self) -> Tensor:
        """(T, G) multipliers at every kept step."""
        return self._table()[:, 0]

    def violations(self) -> Tensor:
        """(T, G) violations at every kept step, 0 without an estimate."""
        return self._table()[:, 1]

    def _table(self) -> Tensor:
        if not self._steps:
            return torch.zeros(0, 2, len(self.inner.names))
        return torch.stack(self._steps)

    def state_dict(self) -> dict[str, Any]:
        """The state inside, and the copies kept."""
        return {"inner": self.inner.state_dict(), "kept": self._table()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.inner.load_state_dict(state["inner"])
        self._steps = list(state["kept"])
