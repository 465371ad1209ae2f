"""Which micro-batches teach in which update, where a batch is taken in parts.

The exact order gives every `accumulation` micro-batches to one update and the rest of an epoch to
its last. The published text runs of Taori and Hashimoto, "Data Feedback Loops" (ICML 2023), step
whenever the micro-batch's number is a multiple of `accumulation`, and at the last: the first
update of an epoch then holds a single micro-batch, and one more update than was planned can occur,
at a rate of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Order", "Update", "planned_updates", "update_events"]

Order = Literal["exact", "published"]


@dataclass(frozen=True, slots=True)
class Update:
    """One optimiser step.

    Attributes:
        epoch: counted from 0.
        micro_batches: positions in the epoch whose gradients it holds, rising.
        weight: what the mean of their gradients is multiplied by; below 1 teaches less.
        lr: the learning rate of the step.
    """

    epoch: int
    micro_batches: tuple[int, ...]
    weight: float
    lr: float


def planned_updates(micro_batches: int, accumulation: int, *, epochs: int = 1) -> int:
    """Number of updates that a linear schedule is laid out for.

    >>> planned_updates(10, 4, epochs=2)
    6
    """
    return -(-micro_batches // accumulation) * epochs


def update_events(
    micro_batches: int,
    accumulation: int,
    *,
    epochs: int = 1,
    lr: float = 1.0,
    order: Order = "exact",
) -> tuple[Update, ...]:
    """Every update of a training run whose rate falls along a line from `lr` to 0.

    Args:
        micro_batches: number in an epoch, at least 1.
        accumulation: micro-batches that make one update, at least 1.
        epochs: at least 1.
        lr: rate of the first update.
        order: "exact", or "published" for the order of the published text runs.

    Raises:
        ValueError: a count is below 1, or the order is unknown.

    >>> [u.micro_batches for u in update_events(5, 2)]
    [(0, 1), (2, 3), (4,)]
    >>> [(u.micro_batches, u.weight, u.lr) for u in update_events(4, 2, order="published")]
    [((0,), 0.5, 1.0), ((1, 2), 1.0, 0.5), ((3,), 0.5, 0.0)]
    """
    counts = {"micro_batches": micro_batches, "accumulation": accumulation, "epochs": epochs}
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number from 1 on, got {value!r}")
    if order not in ("exact", "published"):
        raise ValueError(f"order has no {order!r}; choose exact or published")
    planned = planned_updates(micro_batches, accumulation, epochs=epochs)
    made: list[Update] = []
    for epoch in range(epochs):
        for taken in _taken(micro_batches, accumulation, order):
            weight = 1.0 if order == "exact" else len(taken) / accumulation
            made.append(Update(epoch, taken, weight, lr * max(0.0, 1 - len(made) / planned)))
    return tuple(made)


def _taken(micro_batches: int, accumulation: int, order: Order) -> list[tuple[int, ...]]:
    """The micro-batches of each update of one epoch."""
    ahead = 1 if order == "exact" else 0
    last = [i for i in range(micro_batches - 1) if (i + ahead) % accumulation == 0]
    last.append(micro_batches - 1)
    return [tuple(range(a + 1, b + 1)) for a, b in zip([-1, *last], last, strict=False)]
