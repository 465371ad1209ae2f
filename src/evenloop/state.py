"""What crosses a round, what a round says, and the two functions that a loop is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from evenloop.counts import Counts, Moments
from evenloop.data import GroupedData
from evenloop.promises import Promise
from evenloop.rng import Rng
from evenloop.seams import LabelRule, Writes
from evenloop.world import Net, World

__all__ = ["AUDITED", "Loop", "Notes", "State", "begun", "check_loop", "stepped"]

AUDITED = "classifier"
LOOP = ("init", "step", "nets", "foreseen", "answer", "write")


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that crosses a round.

    Attributes:
        data: what the next model is trained on.
        models: by name; "classifier" is the one that is audited, "reference" (if there is one) the
            model it is compared with, item by item.
        extra: tensors, numbers, strings and dicts of them.

    Raises:
        TypeError: a field is of another kind.
        ValueError: a model is called almost, but not quite, "classifier".
    """

    data: GroupedData
    models: Mapping[str, nn.Module] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        models: Mapping[str, object] = self.models
        data: object = self.data
        if not isinstance(data, GroupedData):
            raise TypeError(f"State.data must be a GroupedData, got {type(data).__name__}")
        for name, model in models.items():
            if not isinstance(model, nn.Module):
                kind = type(model).__name__
                raise TypeError(f"State.models[{name!r}] must be a torch.nn.Module, got {kind}")
            if AUDITED not in models and get_close_matches(name, [AUDITED], cutoff=0.8):
                raise ValueError(
                    f"State.models has {name!r} and no {AUDITED!r}, the model that is audited; "
                    f"call it {AUDITED!r}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Notes:
    """What a step reports beside its state.

    Attributes:
        values: numbers and short texts by name.
        counts, moments: tables a loop made on its own side (a monitor, a population), by name.
        alarms: sentences a person should read.
        stop: why no further round is possible, or None.
        samples: rows to show where they are not in the state's data: x, y, truth, origin, born and
            row, as in `GroupedData`; with structured labels also what they say in words.
        trained: the rows the classifier was trained on, where they are not the state's data.

    Raises:
        TypeError: a field is of another kind.
    """

    values: Mapping[str, float | int | str] = field(default_factory=dict)
    counts: Mapping[str, Counts] = field(default_factory=dict)
    moments: Mapping[str, Moments] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    stop: str | None = None
    samples: Mapping[str, Any] | None = None
    trained: GroupedData | None = None

    def __post_init__(self) -> None:
        alarms: object = self.alarms
        if isinstance(alarms, str):
            raise TypeError(f"Notes.alarms must hold sentences; write alarms=({alarms!r},)")
        for name, kind in (("counts", Counts), ("moments", Moments)):
            for key, table in getattr(self, name).items():
                if not isinstance(table, kind):
                    raise TypeError(
                        f"Notes.{name}[{key!r}] must be {kind.__name__}, got {type(table).__name__}"
                    )


class Loop(Protocol):
    """One published system. A final dataclass whose fields are its hyper-parameters.

    `takes_structure` says whether it can use labels of several codes (texts, frames).
    """

    takes_structure: ClassVar[bool] = False

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        """The state before round 0; `start` is what an earlier loop of a chain left."""
        ...

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        """One round: the state after it and what happened."""
        ...

    def nets(self, world: World) -> Mapping[str, Net]:
        """Builders of this loop's further models by their names in `State.models`."""
        return {}

    def foreseen(self, world: World) -> tuple[str, ...]:
        """Sentences a person should read before training, such as what the data lacks."""
        return ()

    def promises(self) -> tuple[Promise, ...]:
        """What may be expected of a run, to be checked after every round."""
        return ()

    def answer(self, logits: Tensor, rng: Rng) -> Tensor:
        """(N,) classes that a deployed model with these logits (N, C) says: the likeliest."""
        return logits.argmax(1)

    def write(self, model: Writes, x: Tensor, rng: Rng) -> Tensor:
        """(N, L) labels with structure that a deployed model writes: the likeliest."""
        return model.write(x, LabelRule(), rng)


def check_loop(loop: object) -> None:
    """Whether `loop` can be run.

    Raises:
        TypeError: it is a class, or has not what a loop has.
    """
    if isinstance(loop, type):
        raise TypeError(f"loop must be a value, got the class; write {loop.__name__}(...)")
    empty = (Loop.init, Loop.step)  # what the protocol has is no way to begin or to go on
    found = {name: getattr(loop, name, None) for name in LOOP}
    lacking = [
        name
        for name, act in found.items()
        if not callable(act) or getattr(act, "__func__", act) in empty
    ]
    if lacking:
        raise TypeError(
            f"loop must be a Loop such as Relabel(...), got {type(loop).__name__}, which has no "
            f"{', '.join(lacking)}; let it inherit evenloop.Loop"
        )


def begun(loop: Loop, world: World, start: State | None, rng: Rng) -> State:
    """The loop's state before round 0; `TypeError` if it gives anything else."""
    made: object = loop.init(world, start, rng)
    if not isinstance(made, State):
        raise TypeError(f"{type(loop).__name__}.init gave {_kind(made)}; it must give a State")
    return made


def stepped(loop: Loop, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
    """One round of the loop; `TypeError` if it gives anything but a state and notes."""
    made: object = loop.step(world, state, round, rng)
    if isinstance(made, tuple) and [type(part) for part in made] == [State, Notes]:
        return made
    raise TypeError(
        f"{type(loop).__name__}.step gave {_kind(made)}; it must give (State, Notes), and Notes() "
        "where there is nothing to say"
    )


def _kind(made: object) -> str:
    if isinstance(made, tuple):
        return f"({', '.join(type(part).__name__ for part in made)})"
    return "None" if made is None else f"a {type(made).__name__}"
