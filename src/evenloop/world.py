"""What a loop may look at: the train side of a run, with who trains and what is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, Unpack

from torch import nn

from evenloop.data import GroupedData
from evenloop.fit import Fit, Keep, fit
from evenloop.groups import LABEL, TRUTH, GroupIndex, columns_named
from evenloop.recipe import Recipe
from evenloop.rng import Rng, seeded
from evenloop.seams import Objective, Sampler, Seams, Surgery

__all__ = ["Net", "Trainer", "World"]

Net = Callable[[Rng], nn.Module]
T = TypeVar("T")
SEAMS = {"sampler": "epoch", "objective": "loss", "surgery": "apply"}
"""What each seam does, by the name it has here."""


class Trainer(Protocol):
    """Whatever has the signature of `fit`: the plain loop, or one that stacks many seeds."""

    def __call__(
        self,
        model: nn.Module,
        data: GroupedData,
        groups: GroupIndex,
        *,
        recipe: Recipe,
        rng: Rng,
        keep: Keep | None = None,
        **seams: Unpack[Seams],
    ) -> Fit:
        """Train `model` in place; see `evenloop.fit.fit`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Everything a loop may look at: the train side, never the audit split.

    Attributes:
        data: rows with the world's labels, in the run's random order.
        by: the columns whose product defines the groups.
        net: builds a fresh classifier from a stream. Layers that draw their first weights from
            torch's global generator draw them from that stream, and leave the generator as it was.
        recipe: how a model is trained.
        nets: builders of other models by the name they have in `State.models`.
        sampler, objective, surgery: builders of the seams used where a loop passes none.
        extra: anything else a loop may need (sources, annotators), by name.
        keep_order: whether `data` is taken in the order given (it is random already, or means
            something); by default a run shuffles it once, with its own seed.
        trainer, keep: who trains and where progress is kept; set by the runner.

    Raises:
        TypeError: a field is of another kind: a net or a seam itself where its builder is wanted, a
            dict as the recipe, one text as `by`.
    """

    data: GroupedData
    by: tuple[str, ...]
    net: Net
    recipe: Recipe
    nets: Mapping[str, Net] = field(default_factory=dict)
    sampler: Callable[[], Sampler] | None = None
    objective: Callable[[], Objective] | None = None
    surgery: Callable[[], Surgery] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    keep_order: bool = False
    trainer: Trainer = fit
    keep: Keep | None = None

    def __post_init__(self) -> None:
        for name, kind in (("data", GroupedData), ("recipe", Recipe)):
            given = getattr(self, name)
            if not isinstance(given, kind):
                hint = f"; write {name}=Recipe(**{given!r})" if isinstance(given, dict) else ""
                raise TypeError(
                    f"{name} must be a {kind.__name__}, got {type(given).__name__}{hint}"
                )
        for name, act in SEAMS.items():
            _check_builder(name, getattr(self, name), act)
        object.__setattr__(self, "by", columns_named(self.by))
        object.__setattr__(self, "net", _private("net", self.net))
        nets = {name: _private(f"nets[{name!r}]", net) for name, net in self.nets.items()}
        object.__setattr__(self, "nets", nets)

    def groups(self, data: GroupedData) -> GroupIndex:
        """The cells of training rows; where groups are classes, those of the labels given.

        People's labels of rows that a model labelled are not known to a learner.
        """
        return GroupIndex.of(data, tuple(LABEL if name == TRUTH else name for name in self.by))

    def fit(
        self,
        model: nn.Module,
        data: GroupedData,
        *,
        rng: Rng,
        recipe: Recipe | None = None,
        sampler: Sampler | None = None,
        objective: Objective | None = None,
        surgery: Surgery | None = None,
    ) -> Fit:
        """Train `model` on `data` with this world's recipe and seams where none is given."""
        return self.trainer(
            model,
            data,
            self.groups(data),
            recipe=recipe or self.recipe,
            rng=rng,
            sampler=_given(sampler, self.sampler),
            objective=_given(objective, self.objective),
            surgery=_given(surgery, self.surgery),
            keep=self.keep,
        )

    def build(self, name: str, rng: Rng) -> nn.Module:
        """A fresh model of the kind called `name` in `State.models`."""
        return self.nets.get(name, self.net)(rng)


@dataclass(frozen=True, slots=True)
class _Private:
    """A builder whose draws from torch's global generator come from the stream it is given."""

    net: Net

    def __call__(self, rng: Rng) -> nn.Module:
        return seeded(lambda: self.net(rng), rng.seed)


def _private(name: str, net: Net) -> Net:
    if isinstance(net, _Private):
        return net
    if isinstance(net, nn.Module) or not callable(net):
        raise TypeError(
            f"{name} must build a fresh model from a stream, got a {type(net).__name__}; write "
            f"{name}=lambda rng: {type(net).__name__}(...)"
        )
    return _Private(net)


def _check_builder(name: str, builder: object, act: str) -> None:
    """A seam is built anew for each training; `act` is what the seam itself can do."""
    made = not isinstance(builder, type) and hasattr(builder, act)
    if builder is not None and (made or not callable(builder)):
        kind = type(builder).__name__
        raise TypeError(
            f"{name} must be a builder, called anew for each training, got a {kind}; write "
            f"{name}=lambda: {kind}(...)"
        )


def _given(one: T | None, default: Callable[[], T] | None) -> T | None:
    return one if one is not None or default is None else default()
