"""Relabel: each round the model labels part of its successor's training set.

Source: Rohan Taori and Tatsunori Hashimoto, "Data Feedback Loops: Model-driven Amplification of
Dataset Biases", ICML 2023 (arXiv 2209.03942), section 2 and Theorem 1.

Assumption: people label correctly and the reserve, the first set and the audit split come from one
population; the theorem further asks that the labeller's gap to its training labels stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from evenloop.counts import Counts
from evenloop.data import GroupedData
from evenloop.fit import predict
from evenloop.loop import Loop, Notes, State, World
from evenloop.rng import Rng
from evenloop.shares import Measured, share_bias

__all__ = ["Relabel", "write_labels"]

ABSTAIN = -1
Rule = Literal["argmax", "sample"] | Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, slots=True)
class Relabel(Loop):
    """m human and k model labels a round; the successor trains on everything labelled so far.

    Attributes:
        n0: human-labelled rows of the first training set.
        human: rows a round labelled by people, m.
        machine: rows a round labelled by the newest model, k.
        label_rule: "argmax", "sample" (a draw from the model's probabilities), or a function from
            probabilities (k, C) and a generator to codes (k,), -1 where the model abstains.
        temperature: logits are divided by it before the softmax; towards 0 sampling is argmax.
        threshold: the model abstains where its largest probability is below this.
        abstained: who takes those rows: "human" labels them, "drop" leaves them unlabelled.
        train_on: "all" labelled rows, "subsample" of n0 of them, or the "latest" round's only.
        track: class whose share is monitored on the newly human-labelled rows.
        top_up: further human rows asked for in a round whose monitored bias is above the bound.
        trains: False when another loop of a chain trains the labeller.
    """

    n0: int = 50
    human: int = 5
    machine: int = 20
    label_rule: Rule = "argmax"
    temperature: float = 1.0
    threshold: float = 0.0
    abstained: Literal["human", "drop"] = "human"
    train_on: Literal["all", "subsample", "latest"] = "all"
    track: int | str | None = None
    top_up: int = 0
    trains: bool = True

    def __post_init__(self) -> None:
        for name, least in (("n0", 1), ("human", 0), ("machine", 0), ("top_up", 0)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.human + self.machine == 0:
            raise ValueError("human=0 and machine=0 add nothing: every round would be the first")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is a probability in [0, 1], got {self.threshold}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.top_up and (self.track is None or not self.human):
            raise ValueError("top_up needs track= (a class) and human= above 0 to monitor its bias")

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        """S_0: n0 rows of the world, or what an earlier loop of a chain has gathered."""
        if start is not None:
            return start
        if self.n0 + self.human + self.machine > len(world.data):
            raise ValueError(
                f"n0={self.n0} and one round of {self.human} + {self.machine} rows need more than "
                f"the {len(world.data)} rows outside the audit split; lower n0, human or machine"
            )
        return State(world.data.take(torch.arange(self.n0)))

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        """S_t = S_{t-1} + H + M with M labelled by f_{t-1}; f_t is a new model trained on S_t."""
        notes = Notes()
        if round:
            state, notes = self._grow(world, state, round, rng)
        if self.trains:
            rows = self._training_rows(state.data, rng.at("subsample"))
            fitted = world.fit(world.net(rng.at("net")), rows, rng=rng.at("fit"))
            state = State(state.data, {**state.models, "classifier": fitted.model}, state.extra)
        left, needed = len(self._reserve(world, state)), self.human + self.machine
        stop = f"the reserve has {left} rows, a round needs {needed}" if left < needed else None
        return state, Notes(notes.values, notes.counts, notes.moments, notes.alarms, stop)

    def answer(self, logits: Tensor, rng: Rng) -> Tensor:
        """What the labeller says: its rule's label, the likeliest class where it abstains."""
        written = write_labels(self, logits, rng)
        return written.where(written != ABSTAIN, logits.argmax(1))

    def _grow(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        labeller, before = state.models["classifier"], len(state.data)
        reserve = self._reserve(world, state)
        asked = world.data.take(reserve[: self.human]).as_of(round)
        shown = world.data.take(reserve[self.human : self.human + self.machine])
        written = write_labels(self, predict(labeller, shown.x), rng.at("label"))
        guessed = shown.take((written != ABSTAIN).nonzero().flatten())
        unsure = shown.take((written == ABSTAIN).nonzero().flatten()).as_of(round)
        guessed = guessed.relabel(written[written != ABSTAIN], round=round)
        grown, extra = state.data.append(asked).append(guessed), dict(state.extra)
        if self.abstained == "human":
            grown = grown.append(unsure)
        else:
            extra["dropped"] = torch.cat([_dropped(state), unsure.row])
        values = {"human": len(asked), "machine": len(guessed), "abstained": len(unsure)}
        state = State(grown, state.models, extra)
        if not self.human:
            return state, Notes(values)
        seen = predict(labeller, asked.x).argmax(1)
        monitor = Counts.of(seen, asked.truth, world.groups(asked), world.data.schema.classes)
        if not self.top_up:
            return state, Notes(values, {"monitor": monitor})
        return self._top_up(world, state, round, Notes(values, {"monitor": monitor}), before)

    def _reserve(self, world: World, state: State) -> Tensor:
        """Positions of the world's rows that nobody has labelled or given up, in its order."""
        return world.data.without(torch.cat([state.data.row, _dropped(state)]))

    def _top_up(
        self, world: World, state: State, round: int, notes: Notes, before: int
    ) -> tuple[State, Notes]:
        """More human rows when f_{t-1}, seen on this round's human rows, is above its bound.

        The tolerance is the first monitored bias; the mean excess of the labels follows
        e_t = (1 - m_t / n_t) e_{t-1} + k_t / n_t per unit of it.
        """
        assert self.track is not None
        bias = share_bias(notes.counts["monitor"], world.data.schema.klass(self.track))
        delta = state.extra.get("delta", abs(bias.value))
        excess = state.extra.get("excess", 0.0)
        size = Measured(abs(bias.value), bias.se, bias.n)
        above = size.surely_above(delta * (1 + excess))
        data, asked = state.data, 0
        if above:
            more = self._reserve(world, state)[: self.top_up]
            data, asked = data.append(world.data.take(more).as_of(round)), len(more)
        machine = int(notes.values["machine"])
        people = len(data) - before - machine
        excess = (1 - people / len(data)) * excess + machine / len(data)
        values = {**notes.values, "topped_up": asked}
        alarm = (
            f"round {round}: bias {bias.value:+.3f} on {bias.n} newly human-labelled rows is above "
            f"{delta:.3f} x {1 + excess:.2f}; {asked} more human rows asked for"
        )
        state = State(data, state.models, {**state.extra, "delta": delta, "excess": excess})
        return state, Notes(values, notes.counts, alarms=(alarm,) if above else ())

    def _training_rows(self, data: GroupedData, rng: Rng) -> GroupedData:
        if self.train_on == "subsample":
            order = torch.randperm(len(data), generator=rng.gen())
            return data.take(order[: self.n0].to(data.row.device))
        if self.train_on == "latest":
            return data.take((data.born == data.born[-1]).nonzero().flatten())
        return data


def _dropped(state: State) -> Tensor:
    """(D,) identities of rows on which a model abstained and nobody was asked."""
    dropped: Tensor = state.extra.get("dropped", state.data.row[:0])
    return dropped


def write_labels(loop: Relabel, logits: Tensor, rng: Rng) -> Tensor:
    """(k,) class codes for logits (k, C) under the loop's label rule; -1 where it abstains.

    A draw uses one uniform number per row, so two arms with one seed share their luck.
    """
    probs = (logits.double() / loop.temperature).softmax(1)
    if callable(loop.label_rule):
        written = loop.label_rule(probs, rng.gen(probs.device))
    elif loop.label_rule == "sample":
        luck = torch.rand(len(probs), 1, generator=rng.gen(), dtype=torch.float64)
        written = (probs.cumsum(1) < luck.to(probs.device)).sum(1).clamp(max=probs.shape[1] - 1)
    else:
        written = probs.argmax(1)
    return written.where(probs.amax(1) >= loop.threshold, ABSTAIN)
