"""The three things that may differ inside training, as protocols with do-nothing defaults.

What is in a batch (`Sampler`), what a batch costs (`Objective`), what may be non-zero (`Surgery`).
An implementation inherits the defaults it does not need and is final. All three work in a
stranger's own PyTorch loop: none of them knows `fit`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict, runtime_checkable

from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.rng import Rng

__all__ = [
    "Batch",
    "Completes",
    "LabelRule",
    "Objective",
    "ReadsLabels",
    "Sampler",
    "Seams",
    "Seen",
    "Separable",
    "Surgery",
    "Writes",
    "check_separable",
    "reads_labels",
]

Kind = Literal["argmax", "sample", "nucleus", "beam", "marginal"]


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

    @abstractmethod
    def steps(self, rows: int, batch: int) -> int:
        """Number of batches in one epoch over `rows` rows."""
        ...

    @abstractmethod
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

    @abstractmethod
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


@runtime_checkable
class Separable(Protocol):
    """An objective that is a mean over units, so that a batch may be taken in parts."""

    def units(self, y: Tensor) -> Tensor:
        """Scalar: how many units (rows, tokens) the loss of labels `y` is the mean over."""
        ...


def check_separable(objective: Objective, micro_batch: int) -> None:
    """Whether batches may be taken in parts of `micro_batch` rows under `objective`.

    Raises:
        ValueError: it looks at the whole batch.
    """
    if not isinstance(objective, Separable):
        raise ValueError(
            f"micro_batch={micro_batch} needs an objective that is a mean over rows; "
            f"{type(objective).__name__} looks at the whole batch: set micro_batch=None"
        )


@dataclass(frozen=True, slots=True)
class LabelRule:
    """How a model that writes structured labels does so.

    Attributes:
        kind: "argmax" (a text's likeliest next token each time, a frame's best), "sample",
            "nucleus" (a draw from the likeliest tokens that hold `top_p`), "beam", or "marginal"
            (a frame of the verb that is likeliest over all its nouns).
        temperature: logits are divided by it before a draw; above 0.
        top_p: probability that the nucleus holds, in (0, 1].
        beams: hypotheses kept by "beam", at least 1.
        length_penalty: a hypothesis' log-probability is divided by its length to this power.
        max_new_tokens: most tokens of a text, at least 1.
    """

    kind: Kind = "argmax"
    temperature: float = 1.0
    top_p: float = 0.9
    beams: int = 10
    length_penalty: float = 1.0
    max_new_tokens: int = 20

    def __post_init__(self) -> None:
        if self.kind not in Kind.__args__:  # type: ignore[attr-defined]
            known = ", ".join(Kind.__args__)  # type: ignore[attr-defined]
            raise ValueError(f"label_rule has no {self.kind!r}; choose from {known}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be above 0 and finite, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a probability in (0, 1], got {self.top_p}")
        if not abs(self.length_penalty) < float("inf"):
            raise ValueError(f"length_penalty must be finite, got {self.length_penalty}")
        for name in ("beams", "max_new_tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, got {value!r}")


@runtime_checkable
class ReadsLabels(Protocol):
    """A model trained by showing it the labels it is to produce: called with (x, y)."""

    reads_labels: bool


def reads_labels(model: nn.Module) -> bool:
    """Whether `model` is trained by being shown its labels: called with (x, y)."""
    return isinstance(model, ReadsLabels) and model.reads_labels


@runtime_checkable
class Writes(Protocol):
    """A model whose labels have structure: it writes them instead of giving logits."""

    def write(self, x: Tensor, rule: LabelRule, rng: Rng) -> Tensor:
        """(N, L) int64 codes for inputs (N, ...), `NOTHING` behind the end of each.

        The label of a row depends on the row, the rule and its place in `x`, not on what else is
        written with it.
        """
        ...

    def cost(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) negative log-likelihood in nats of labels `y` (N, L) and (N,) units it is over."""
        ...


@runtime_checkable
class Completes(Protocol):
    """A model that can also be told the first code of a label and write the rest."""

    def complete(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, L) int64 codes for inputs (N, ...) whose first codes are those of `y` (N, L')."""
        ...


class Surgery(Protocol):
    """What may be non-zero."""

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Scheduled changes at the start of `epoch` (0, 1, ...)."""
        return None

    @abstractmethod
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


class Seams(TypedDict, total=False):
    """The seams of one training by what `fit` calls them; None or absent is its default."""

    sampler: Sampler | None
    objective: Objective | None
    surgery: Surgery | None
