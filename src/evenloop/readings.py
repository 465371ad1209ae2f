"""What an audit reads from structured labels, and what a source of such labels brings along.

A text or a frame is no class. A reading says which class it counts as (toxic or not, whose gender
the frame names), which numbers belong to it, and how it is shown to a person; with it the counts,
bounds and alarms of class labels hold for texts and frames unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.nn.functional import pad

from evenloop.data import NOTHING, GroupedData, Structure
from evenloop.seams import Objective, Sampler

__all__ = [
    "ComparesGiven",
    "HasStructure",
    "Reading",
    "ReadsCost",
    "Statistic",
    "Structured",
    "padded",
]

Statistic = Callable[[Tensor, Tensor], Tensor]


class Reading(Protocol):
    """Reads labels `y` (N, L) given for inputs `x` (N, ...)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that labels count as."""
        ...

    def read(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) int64 class codes of labels."""
        ...

    def statistics(self) -> Mapping[str, Statistic]:
        """By name: labels to one number a row (N,), nan where it does not apply to the row."""
        ...

    def compare(
        self, x: Tensor, written: Tensor, truth: Tensor, trained: GroupedData
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """By name: (N,) scores of written labels and (N,) weights, how many units each is over.

        `truth` is what the world says of the same rows, `trained` what the writer was trained on.
        """
        ...

    def show(self, x: Tensor, y: Tensor) -> list[str]:
        """One line a row for people."""
        ...

    def hidden(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) bool: rows a report shows only when asked to (offensive text)."""
        ...


@runtime_checkable
class ComparesGiven(Protocol):
    """A reading that also scores labels written for a given first code (the true verb)."""

    def compare_given(
        self, x: Tensor, given: Tensor, truth: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """By name: (N,) scores of labels `given` against `truth`, and (N,) weights."""
        ...


@runtime_checkable
class ReadsCost(Protocol):
    """A reading that reads further numbers off what people's labels cost a model."""

    def compare_cost(self, nats: Tensor, units: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        """By name: (N,) numbers and (N,) weights, of costs (N,) over `units` (N,) each."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Structured:
    """What a source of structured labels brings along.

    Attributes:
        reading: what an audit reads from the labels.
        objective: builds what a batch costs.
        sampler: builds what is in a batch; None for uniform batches.
        net: keywords for the model's builder (`vocabulary=`, `layout=`).
    """

    reading: Reading
    objective: Callable[[], Objective]
    sampler: Callable[[], Sampler] | None = None
    net: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class HasStructure(Protocol):
    """A source whose labels have structure."""

    def structured(self) -> Structured:
        """What it brings along; asked for after its rows were loaded."""
        ...


def padded(y: Tensor, structure: Structure) -> Tensor:
    """Labels (N, L) as (N, length), `NOTHING` behind the end.

    >>> import torch
    >>> padded(torch.tensor([[4, 2]]), Structure(length=3, codes=5)).tolist()
    [[4, 2, -1]]

    Raises:
        ValueError: the labels are longer than the structure allows.
    """
    room = structure.length - y.shape[1]
    if room < 0:
        cut = y[:, structure.length :]
        if bool((cut != NOTHING).any()):
            raise ValueError(
                f"a label of {y.shape[1]} places was written where {structure.length} fit; lower "
                "max_new_tokens or give the data longer labels"
            )
        return y[:, : structure.length].long()
    return pad(y.long(), (0, room), value=NOTHING)
