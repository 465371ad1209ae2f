"""Relabel: each round the model labels part of its successor's training set.

Source: Rohan Taori and Tatsunori Hashimoto, "Data Feedback Loops: Model-driven Amplification of
Dataset Biases", ICML 2023 (arXiv 2209.03942), section 2 and Theorem 1.

Assumption: people label correctly and the reserve, the first set and the audit split come from one
population; the theorem further asks that the labeller's gap to its training labels stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from evenloop.counts import Counts
from evenloop.data import GroupedData
from evenloop.fit import predict
from evenloop.loop import Loop, Notes, State, World
from evenloop.promises import BiasBounded, Promise
from evenloop.readings import padded
from evenloop.rng import Rng
from evenloop.seams import LabelRule, Writes
from evenloop.shares import Measured, share_bias

__all__ = ["Relabel", "write_labels"]

ABSTAIN = -1
OF_CLASSES = ("argmax", "sample")
CHOICES = {
    "label_rule": (*OF_CLASSES, "nucleus", "beam", "marginal"),
    "abstained": ("human", "drop"),
    "train_on": ("all", "subsample", "latest"),
}
Rule = (
    Literal["argmax", "sample", "nucleus", "beam", "marginal"]
    | Callable[[Tensor, torch.Generator], Tensor]
)


@dataclass(frozen=True, slots=True)
class Relabel(Loop):
    """m human and k model labels a round; the successor trains on everything labelled so far.

    Attributes:
        n0: human-labelled rows of the first training set.
        human: rows a round labelled by people, m.
        machine: rows a round labelled by the newest model, k.
        label_rule: "argmax", "sample" (a draw from the model's probabilities), or a function from
            probabilities (k, C) and a generator to codes (k,), -1 where the model abstains. Texts
            know "argmax" (greedy), "sample", "nucleus" and "beam", frames "argmax", "marginal" and
            "sample"; see `LabelRule`.
        temperature: logits are divided by it before the softmax; towards 0 sampling is argmax.
        threshold: the model abstains where its largest probability is below this.
        abstained: who takes those rows: "human" labels them, "drop" leaves them unlabelled.
        train_on: "all" labelled rows, "subsample" of n0 of them, or the "latest" round's only.
        track: class whose share is monitored on the newly human-labelled rows.
        top_up: further human rows asked for in a round whose monitored bias is above the bound.
        trains: False when another loop of a chain trains the labeller.
        top_p: probability the nucleus of a text's next token holds.
        beams, length_penalty: hypotheses of a beam search, and the power of their length by which
            their log-probability is divided.
        max_new_tokens: most tokens of a written text.
    """

    takes_structure: ClassVar[bool] = True

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
    top_p: float = 0.9
    beams: int = 10
    length_penalty: float = 1.0
    max_new_tokens: int = 20

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known and not (name == "label_rule" and callable(value)):
                raise ValueError(f"{name} has no {value!r}; choose from {', '.join(known)}")
        for name, least in (("n0", 1), ("human", 0), ("machine", 0), ("top_up", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")
        if self.human + self.machine == 0:
            raise ValueError("human=0 and machine=0 add nothing: every round would be the first")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is a probability in [0, 1], got {self.threshold}")
        self.rule()  # checks temperature, top_p, beams and max_new_tokens
        if self.top_up and (self.track is None or not self.human):
            raise ValueError("top_up needs track= (a class) and human= above 0 to monitor its bias")
        if self.top_up and self.train_on == "latest":
            raise ValueError("top_up follows labels that stay; use train_on=all or subsample")

    def rule(self) -> LabelRule:
        """How labels with structure are written; the likeliest where the rule is a function."""
        kind = "argmax" if callable(self.label_rule) else self.label_rule
        return LabelRule(
            kind,
            self.temperature,
            self.top_p,
            self.beams,
            self.length_penalty,
            self.max_new_tokens,
        )

    def promises(self) -> tuple[Promise, ...]:
        """The feedback bound, unless the model chooses which rows it dares to label."""
        return () if self.threshold else (BiasBounded(self.train_on),)

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        """S_0: n0 rows of the world, or what an earlier loop of a chain has gathered."""
        if self.track is not None:
            world.data.schema.klass(self.track)
        self._check_labels(world)
        if start is not None:
            return start
        if self.n0 + self.human + self.machine > len(world.data):
            raise ValueError(
                f"n0={self.n0} and one round of {self.human} + {self.machine} rows need more than "
                f"the {len(world.data)} rows outside the audit split; lower n0, human or machine"
            )
        return State(world.data.take(torch.arange(self.n0)), extra={"next": self.n0})

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        """S_t = S_{t-1} + H + M with M labelled by f_{t-1}; f_t is a new model trained on S_t."""
        notes = Notes()
        if round:
            state, notes = self._grow(world, state, round, rng)
        if self.trains:
            rows = self._training_rows(state.data, rng.at("subsample"))
            fitted = world.fit(world.net(rng.at("net")), rows, rng=rng.at("fit"))
            state = State(state.data, {**state.models, "classifier": fitted.model}, state.extra)
            notes = replace(notes, trained=None if rows is state.data else rows)
        left, needed = _left(world, state), self.human + self.machine
        stop = f"the reserve has {left} rows, a round needs {needed}" if left < needed else None
        return state, replace(notes, stop=stop)

    def answer(self, logits: Tensor, rng: Rng) -> Tensor:
        """What the labeller says: its rule's label, the likeliest class where it abstains."""
        written = write_labels(self, logits, rng)
        return written.where(written != ABSTAIN, logits.argmax(1))

    def write(self, model: Writes, x: Tensor, rng: Rng) -> Tensor:
        """(N, L) labels with structure under this loop's rule."""
        return model.write(x, self.rule(), rng)

    def _check_labels(self, world: World) -> None:
        """Whether the rule is one for this world's labels.

        Raises:
            ValueError: it is not, or it asks for what only class labels have.
        """
        if world.data.schema.structure is None:
            if self.label_rule not in OF_CLASSES and not callable(self.label_rule):
                raise ValueError(
                    f"label_rule={self.label_rule} writes texts or frames; this world's labels are "
                    f"classes: choose from {', '.join(OF_CLASSES)}"
                )
            return
        for name, off in (("threshold", 0.0), ("top_up", 0)):
            if getattr(self, name) != off:
                raise ValueError(
                    f"{name}={getattr(self, name)} needs class labels; this world's have "
                    f"structure: set {name}={off:g}"
                )
        if callable(self.label_rule):
            raise ValueError("label_rule may be a function only where labels are classes")

    def _grow(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        labeller = state.models["classifier"]
        drawn, extra = _next_rows(world, state, self.human + self.machine)
        asked = world.data.take(drawn[: self.human]).as_of(round)
        shown = world.data.take(drawn[self.human :])
        if world.data.schema.structure is not None:
            written = self._written(labeller, shown, rng.at("label"))
            grown = state.data.append(asked).append(shown.relabel(written, round=round))
            values = {"human": len(asked), "machine": len(shown), "abstained": 0}
            return State(grown, state.models, extra), Notes(values)
        written = write_labels(self, predict(labeller, shown.x), rng.at("label"))
        guessed = shown.take((written != ABSTAIN).nonzero().flatten())
        unsure = shown.take((written == ABSTAIN).nonzero().flatten()).as_of(round)
        guessed = guessed.relabel(written[written != ABSTAIN], round=round)
        grown = state.data.append(asked).append(guessed)
        if self.abstained == "human":
            grown = grown.append(unsure)
        else:
            extra["dropped"] = torch.cat([_dropped(state), unsure.row])
        values = {"human": len(asked), "machine": len(guessed), "abstained": len(unsure)}
        monitor = {}
        if self.human:
            said = self.answer(predict(labeller, asked.x), rng.at("monitor"))
            classes = world.data.schema.classes
            monitor["monitor"] = Counts.of(said, asked.truth, world.groups(asked), classes)
        notes, after = Notes(values, monitor), State(grown, state.models, extra)
        return self._top_up(world, state, after, round, notes) if self.top_up else (after, notes)

    def _written(self, labeller: nn.Module, shown: GroupedData, rng: Rng) -> Tensor:
        """(k, length) labels with structure that the labeller writes for these rows."""
        structure = shown.schema.structure
        if structure is None or not isinstance(labeller, Writes):
            raise TypeError(f"{type(labeller).__name__} does not write labels with structure")
        return padded(self.write(labeller, shown.x, rng), structure)

    def _top_up(
        self, world: World, before: State, after: State, round: int, notes: Notes
    ) -> tuple[State, Notes]:
        """More human rows when f_{t-1}, seen on this round's human rows, is above its bound.

        The tolerance is the first monitored bias; the mean excess of the labels follows
        e_t = (1 - m_t / n_t) e_{t-1} + k_t / n_t per unit of it. "Above" is beyond the 95 % limits
        of both measurements, in this round alone: about one round in forty by chance.
        """
        assert self.track is not None
        bias = share_bias(notes.counts["monitor"], world.data.schema.klass(self.track))
        size = Measured(abs(bias.value), bias.se, bias.n)
        delta, error = after.extra.get("delta", size.value), after.extra.get("delta_se", size.se)
        excess = after.extra.get("excess", 0.0)
        bound = Measured((1 + excess) * delta, (1 + excess) * error, size.n)
        above = "delta" in after.extra and (size - bound).surely_above(0.0)
        data, extra = after.data, dict(after.extra)
        alarm: tuple[str, ...] = ()
        if above:
            more, extra = _next_rows(world, after, self.top_up)
            data = data.append(world.data.take(more).as_of(round))
            alarm = (
                f"round {round}: bias {bias.value:+.3f} on {bias.n} newly human-labelled rows is "
                f"above the bound {bound.value:.3f}; {len(more)} more human rows asked for",
            )
        machine = int(notes.values["machine"])
        people = len(data) - len(before.data) - machine
        extra["excess"] = (1 - people / len(data)) * excess + machine / len(data)
        extra["delta"], extra["delta_se"] = delta, error
        values = {**notes.values, "topped_up": len(data) - len(after.data)}
        return State(data, after.models, extra), replace(notes, values=values, alarms=alarm)

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


def _untouched(state: State) -> bool:
    """Whether the rows in use are the first of the world's order: no other loop took any."""
    return bool(state.extra.get("next", -1) == len(state.data) + len(_dropped(state)))


def _free(world: World, state: State) -> Tensor:
    return world.data.without(torch.cat([state.data.row, _dropped(state)]))


def _left(world: World, state: State) -> int:
    """Rows of the world that nobody has labelled or given up."""
    if _untouched(state):
        return len(world.data) - int(state.extra["next"])
    return len(_free(world, state))


def _next_rows(world: World, state: State, wanted: int) -> tuple[Tensor, dict[str, Any]]:
    """Positions of the next rows in the world's order, up to `wanted`, and the state's extra after.

    Without another loop taking rows this is a cursor; else the rows in use are looked up.
    """
    if _untouched(state):
        start = int(state.extra["next"])
        stop = min(start + wanted, len(world.data))
        return torch.arange(start, stop), {**state.extra, "next": stop}
    return _free(world, state)[:wanted], dict(state.extra)


def write_labels(loop: Relabel, logits: Tensor, rng: Rng) -> Tensor:
    """(k,) class codes for logits (k, C) under the loop's label rule; -1 where it abstains.

    A draw uses one uniform number per row, so two arms with one seed share their luck.
    """
    probs = (logits.double() / loop.temperature).softmax(1)
    if callable(loop.label_rule):
        written = loop.label_rule(probs, rng.gen(probs.device))
        if written.shape != (len(probs),) or written.is_floating_point():
            raise ValueError(
                f"label_rule must give ({len(probs)},) whole codes, got {tuple(written.shape)} "
                f"{written.dtype}"
            )
    elif loop.label_rule == "sample":
        luck = torch.rand(len(probs), 1, generator=rng.gen(), dtype=torch.float64)
        written = (probs.cumsum(1) < luck.to(probs.device)).sum(1).clamp(max=probs.shape[1] - 1)
    else:
        written = probs.argmax(1)
    if len(written) and not ABSTAIN <= int(written.min()) <= int(written.max()) < probs.shape[1]:
        raise ValueError(
            f"label_rule gave {int(written.min())}..{int(written.max())}; the classes are "
            f"0..{probs.shape[1] - 1}, and {ABSTAIN} abstains"
        )
    return written.where(probs.amax(1) >= loop.threshold, ABSTAIN)
