"""Seams by name, for configurations: what is in a batch and what it costs.

They hold wherever a loop does not decide these itself. Only seams that plain values can build are
here: one that needs a reference model or pools is built by the loop that knows them, or passed to
`World` from Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from evenloop.inputs import ConfigError, construct
from evenloop.objectives.group_dro import GroupDRO
from evenloop.objectives.reweight import Reweight
from evenloop.samplers.quota import Fill, Quota
from evenloop.seams import Objective, Sampler
from evenloop.words import nearest

__all__ = ["OBJECTIVES", "PLAIN", "SAMPLERS", "objective", "sampler"]

S_co = TypeVar("S_co", bound=Sampler | Objective, covariant=True)


class Part(Protocol[S_co]):
    """A frozen value that builds a seam, anew for each fit."""

    def __call__(self) -> S_co:
        """The seam."""
        ...


@dataclass(frozen=True, slots=True)
class QuotaPart:
    """Batches curated toward an ideal mix of the groups (STAR); see `Quota`."""

    budget: int | str = "25%"
    ideal: tuple[float, ...] | None = None
    fill: Fill = "unfiltered"
    tries: int = 8

    def __post_init__(self) -> None:
        self()

    def __call__(self) -> Sampler:
        """The sampler."""
        return Quota(self.budget, self.ideal, self.fill, self.tries)


@dataclass(frozen=True, slots=True)
class GroupDROPart:
    """Groups weighted by their losses; see `GroupDRO`."""

    rate: float = 0.01
    adjustment: float = 0.0

    def __post_init__(self) -> None:
        self()

    def __call__(self) -> Objective:
        """The objective."""
        return GroupDRO(self.rate, adjustment=self.adjustment)


@dataclass(frozen=True, slots=True)
class ReweightPart:
    """Every group counts the same; see `Reweight`."""

    def __call__(self) -> Objective:
        """The objective."""
        return Reweight()


SAMPLERS: Mapping[str, type[Part[Sampler]]] = {"quota": QuotaPart}
OBJECTIVES: Mapping[str, type[Part[Objective]]] = {
    "group-dro": GroupDROPart,
    "reweight": ReweightPart,
}
PLAIN = {"sampler": "uniform", "objective": "erm"}
"""What training does where no seam is named; the recipe's fields say how."""


def sampler(values: Mapping[str, Any] | None) -> Callable[[], Sampler] | None:
    """What builds the sampler of {"name": ..., its fields}; None for None or "uniform".

    >>> build = sampler({"name": "quota", "budget": "400%"})
    >>> build().budget
    '400%'

    Raises:
        ConfigError: an unknown name or field (the nearest is named), or a value out of range.
    """
    return _part("sampler", SAMPLERS, values)


def objective(values: Mapping[str, Any] | None) -> Callable[[], Objective] | None:
    """What builds the objective of {"name": ..., its fields}; None for None or "erm".

    Raises:
        ConfigError: an unknown name or field (the nearest is named), or a value out of range.
    """
    return _part("objective", OBJECTIVES, values)


def _part(
    seam: str, known: Mapping[str, type[Part[S_co]]], values: Mapping[str, Any] | None
) -> Callable[[], S_co] | None:
    if values is None:
        return None
    options = dict(values)
    name = options.pop("name", None)
    if name == PLAIN[seam] and not options:
        return None
    if name not in known:
        names = [*known, PLAIN[seam]]
        raise ConfigError(f"{seam}={name!r} is not known; {nearest(str(name), names)}")
    return construct(known[name], options, f"{seam} {name}")
