"""The three things that may differ inside training, as protocols with do-nothing defaults.

What is in a batch (`Sampler`), what a batch costs (`Objective`), what may be non-zero (`Surgery`).
An implementation inherits the defaults it does not need and is final. All three work in a
stranger's own PyTorch loop: none of them knows `fit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.rng import Rng

__all__ = ["Batch", "Objective", "Sampler", "Seen", "Surgery"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one step sees: `x` (B, ...), `y` (B,) int64 and the group `cell` (B,) int64 of each row.

    `index` (B,) holds the positions of the rows in the data, or is None for rows that were made
    for this step (drawn from a generator).
    """

    x: Tensor
    y: Tensor
    cell: Tensor
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A finished step, shown to `after`: its number, batch, outputs (detached) and the model."""

    step: int
    batch: Batch
    outputs: Tensor
    model: nn.Module

    def losses(self) -> Tensor:
        """(B,) cross-entropy of each row under this step's outputs, without gradient."""
        return nn.functional.cross_entropy(self.outputs, self.batch.y, reduction="none")


class Sampler(Protocol):
    """What is in a batch."""

    def bind(self, model: nn.Module, data: GroupedData, groups: GroupIndex) -> None:
        """Get ready for one training run; an adaptive sampler meets its model here."""
        return None

    def steps(self, rows: int, batch: int) -> int:
        """Number of batches in one epoch over `rows` rows."""
        ...

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Tensor | Batch]:
        """Batches of one epoch: (B,) int64 positions in `data`, or rows made on the spot."""
        ...

    def after(self, seen: Seen) -> None:
        """Learn from a finished step; an adaptive sampler changes its ratios here."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Everything that crosses an epoch, as tensors and numbers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        return None


class Objective(Protocol):
    """What a batch costs."""

    def bind(self, model: nn.Module, data: GroupedData, groups: GroupIndex) -> None:
        """Get ready for one training run: size buffers by group, find the model's head."""
        return None

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        """The scalar to differentiate, for outputs (B, C), labels (B,) and cells (B,)."""
        ...

    def after(self, seen: Seen) -> None:
        """Act after the optimiser step."""
        return None

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Parameters of its own that the optimiser trains along (an adversary's head)."""
        return iter(())

    def state_dict(self) -> dict[str, Any]:
        """Everything that crosses an epoch (multipliers, buffers), as tensors and numbers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Continue from `state_dict()`."""
        return None


class Surgery(Protocol):
    """What may be non-zero."""

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Scheduled changes at the start of `epoch` (0, 1, ...)."""
        return None

    def apply(self, model: nn.Module) -> None:
        """Restore the structure after an optimiser step; doing it twice changes nothing."""
        ...

    def finish(self, model: nn.Module) -> None:
        """Take away what `begin` attached to the model (hooks), leaving its structure."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Everything that crosses an epoch (masks), as tensors and numbers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        return None
