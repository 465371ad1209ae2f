"""A loop is two functions of values; `run` turns the crank and counts, `chain` composes.

Arrows never turn back: the loop gets the world (the train side), the runner keeps the audit split,
so a loop cannot select on what it is judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenloop.audit import Audit
from evenloop.claims import Claim
from evenloop.counts import Counts, Moments
from evenloop.data import GroupedData, Origin
from evenloop.digest import described
from evenloop.fit import placed
from evenloop.promises import Promise
from evenloop.readings import Reading
from evenloop.record import Record, Row
from evenloop.rng import Rng
from evenloop.seams import Writes
from evenloop.state import AUDITED, Loop, Notes, State, begun, check_loop, stepped
from evenloop.trial import check_net, check_same_kind, check_seams, shared_rows
from evenloop.world import Net, Trainer, World

__all__ = ["Loop", "Notes", "State", "Trainer", "World", "chain", "check_labels", "run"]

SHOWN = 24


@dataclass(frozen=True, slots=True)
class Chain(Loop):
    """Loops run one after the other within each round; again a loop."""

    loops: tuple[Loop, ...]

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        """The first loop starts from nothing, each later one from what the one before left."""
        state, extra = start, {}
        for place, loop in enumerate(self.loops):
            state = begun(loop, world, state, rng.at("link", place))
            extra[str(place)] = dict(state.extra)
            state = State(state.data, state.models)
        assert state is not None
        return State(state.data, state.models, extra)

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        """Every loop's step in order, each with an `extra` of its own.

        Notes are joined under "<place>.<loop>.".
        """
        joined, extra = Notes(), dict(state.extra)
        for place, loop in enumerate(self.loops):
            mine = State(state.data, state.models, extra[str(place)])
            state, notes = stepped(loop, world, mine, round, rng.at("link", place))
            extra[str(place)] = dict(state.extra)
            joined = _join(joined, notes, f"{place}.{type(loop).__name__.lower()}.")
        return State(state.data, state.models, extra), joined

    def nets(self, world: World) -> Mapping[str, Net]:
        """The builders of every link.

        Raises:
            ValueError: a link has a classifier of its own making, which the others would be given.
        """
        nets = {name: net for loop in self.loops for name, net in loop.nets(world).items()}
        if "classifier" in nets:
            raise ValueError(
                "the classifier of a chain is the world's net, and a loop in it makes another "
                "(int8=dynamic does); run that loop by itself, or use int8=true"
            )
        return nets

    def foreseen(self, world: World) -> tuple[str, ...]:
        """What every link has to say."""
        return tuple(note for loop in self.loops for note in loop.foreseen(world))

    def promises(self) -> tuple[Promise, ...]:
        """What every link promises."""
        return tuple(promise for loop in self.loops for promise in loop.promises())

    def answer(self, logits: Tensor, rng: Rng) -> Tensor:
        """As the last loop that has its own way of answering, else the likeliest class."""
        own = [loop for loop in self.loops if type(loop).answer is not Loop.answer]
        return own[-1].answer(logits, rng) if own else logits.argmax(1)

    def write(self, model: Writes, x: Tensor, rng: Rng) -> Tensor:
        """As the last loop that has its own way of writing, else as any loop does."""
        own = [loop for loop in self.loops if type(loop).write is not Loop.write]
        return own[-1].write(model, x, rng) if own else Loop.write(self, model, x, rng)


def check_labels(loop: Loop, data: GroupedData) -> None:
    """Whether `loop` can use this data's labels.

    Raises:
        ValueError: they have structure and the loop, or a link of the chain, needs classes.
    """
    if data.schema.structure is None:
        return
    for link in loop.loops if isinstance(loop, Chain) else (loop,):
        if not link.takes_structure:
            raise ValueError(
                f"loop={type(link).__name__.lower()} needs labels that are classes; this world's "
                "have structure, which relabel alone can use"
            )


def chain(*loops: Loop) -> Chain:
    """Loops as one loop: `chain(acquire, mix, prune, relabel)` is a mixed life.

    Raises:
        ValueError: no loop is given.
        TypeError: a loop's class is given, or something that is no loop.
    """
    if not loops:
        raise ValueError("chain needs at least one loop")
    for loop in loops:
        check_loop(loop)
    return Chain(loops)


def _join(a: Notes, b: Notes, prefix: str) -> Notes:
    def under(items: Mapping[str, Any]) -> dict[str, Any]:
        return {prefix + name: item for name, item in items.items()}

    return Notes(
        {**a.values, **under(b.values)},
        {**a.counts, **under(b.counts)},
        {**a.moments, **under(b.moments)},
        a.alarms + b.alarms,
        a.stop or b.stop,
        b.samples or a.samples,
        a.trained if b.trained is None else b.trained,
    )


def run(
    loop: Loop,
    world: World,
    audit: Audit,
    *,
    rounds: int,
    seed: int = 0,
    record: Record | None = None,
    claims: Sequence[Claim] = (),
    tell: Callable[[int], None] | None = None,
) -> Record:
    """Run `loop` for at most `rounds` rounds and return the record of what was counted.

    A record that holds finished rounds is continued: after the last of them, and inside a long
    fit from its last saved epoch; the rows are the bytes the uninterrupted run would have written.

    Args:
        loop: what happens in a round.
        world: the train side.
        audit: held-out rows and statistics; the loop never sees them.
        rounds: rounds to run in all, counted from 0; at least 1.
        seed: names every random stream of the run.
        record: where rows and state are kept; in memory by default.
        claims: theorems and tolerances checked after every round; a broken one is an alarm.
        tell: called with the number of finished rounds, at the start and after each.

    Before the first round the net is tried on two rows, and the audit compared with the world.

    Raises:
        ValueError: `rounds` is not positive, the loop cannot use labels with structure, the audit
            is encoded otherwise than the world, a group is no column, the net does not fit the
            data, or the record is of another seed or loop.
        TypeError: an argument, or what a loop or builder gave, is of another kind.
    """
    if type(rounds) is not int or rounds < 1:
        raise ValueError(f"rounds must be a whole number from 1 on, got {rounds!r}")
    check_loop(loop)
    check_labels(loop, world.data)
    check_same_kind(world, audit)
    record = record if record is not None else Record()
    root = Rng.of(seed)
    whose = {"seed": str(seed), **described("loop", loop), **described("by", world.by)}
    record.begin(world.data, whose)
    nets = {**loop.nets(world), **world.nets}
    world = replace(_in_order(world, root), keep=record.keep, nets=nets)
    if record.rows and record.rows[-1].stop:
        return record
    state = _resume(record, world, root)
    if state is None:
        check_seams(world)
        check_net(world)
        state = begun(loop, world, None, root.at("init"))
    if tell:
        tell(len(record.rows))
    for round in range(len(record.rows), rounds):
        before = state.data
        state, notes = stepped(loop, world, state, round, root.at("round", round))
        row = _row(round, audit, _Answers(loop, root, round), state, notes, record.rows, before)
        broken = tuple(a for c in claims if (a := c.alarm([*record.rows, row])) is not None)
        seen = _unsound(world, audit, state, round)
        row = replace(row, alarms=(*row.alarms, *broken, *seen))
        samples = notes.samples or _samples(
            state.data, before, root.at("show", round), audit.reading
        )
        record.append(row, state.data, state.models, state.extra, samples)
        if tell:
            tell(len(record.rows))
        if notes.stop is not None:
            break
    return record


def _unsound(world: World, audit: Audit, state: State, round: int) -> tuple[str, ...]:
    """What a person should know of what this round's audit is worth."""
    said = []
    if state.models and AUDITED not in state.models:
        names = ", ".join(map(repr, state.models))
        said.append(f"round {round}: no model is audited: {names} and no {AUDITED!r}")
    shared = 0 if round else shared_rows(world.data, audit.data)
    if shared:
        said.append(
            f"{shared} of the {len(audit.data)} audit rows are rows of the world: the audit may "
            "see what was trained on; keep them apart (evenloop.worlds.holdout)"
        )
    return tuple(said)


def _in_order(world: World, root: Rng) -> World:
    """The world in the run's order; arms with one seed share it."""
    if world.keep_order:
        return world
    order = torch.randperm(len(world.data), generator=root.at("order").gen())
    return replace(world, data=world.data.take(order))


def _resume(record: Record, world: World, root: Rng) -> State | None:
    kept = record.load_state(world.data)
    if kept is None:
        return None
    models = {}
    for name, weights in kept.models.items():
        model = placed(world.build(name, root.at("resume")), world.recipe)
        model.load_state_dict(weights)
        models[name] = model.eval()
    return State(kept.data, models, kept.extra)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a deployed model says in one round, with the round's luck."""

    loop: Loop
    root: Rng
    round: int

    def classes(self, logits: Tensor) -> Tensor:
        return self.loop.answer(logits, self.root.at("answer", self.round))

    def labels(self, model: Any, x: Tensor) -> Tensor:
        # One stream for all rounds: the same luck in each, so that what differs is the model.
        return self.loop.write(model, x, self.root.at("answer"))


def _row(
    round: int,
    audit: Audit,
    answers: _Answers,
    state: State,
    notes: Notes,
    earlier: Sequence[Row],
    before: GroupedData,
) -> Row:
    counts: dict[str, Counts] = {}
    moments: dict[str, Moments] = {}
    if "classifier" in state.models:
        models, rows = state.models, notes.trained or state.data
        if audit.reading is None:
            counts, moments = audit.tables(
                models["classifier"], answers.classes, models.get("reference")
            )
        else:
            counts, moments = audit.written(models["classifier"], answers.labels, rows)
    grew = bool(earlier) and state.data.extends(before)
    labels, statistics = audit.labels(state.data, len(before) if grew else 0)
    counts["train"] = earlier[-1].counts["train"] + labels if grew else labels
    if notes.trained is not None:
        counts["trained"], _ = audit.labels(notes.trained)
    for name, made in statistics.items():
        moments[name] = earlier[-1].moments[name] + made if grew else made
    return Row(
        round,
        _sizes(state.data, earlier[-1].sizes if grew else {}, len(before) if grew else 0),
        counts | dict(notes.counts),
        moments | dict(notes.moments),
        {name: _plain(name, value) for name, value in notes.values.items()},
        notes.alarms,
        notes.stop,
    )


def _plain(name: str, value: Any) -> float | int | str:
    """A note as JSON can hold it; scalars of NumPy and torch are taken out of their arrays."""
    if isinstance(value, (np.generic, Tensor)) and np.ndim(value) == 0:
        value = value.item()
    if not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"note {name!r} must be a number or a text, got {type(value).__name__}")
    return value


def _sizes(data: GroupedData, known: Mapping[str, int], start: int) -> dict[str, int]:
    """Rows in all and by origin; only the rows from `start` on are counted anew."""
    made = torch.bincount(data.origin[start:].long(), minlength=len(Origin)).tolist()
    sizes = {o.name.lower(): known.get(o.name.lower(), 0) + made[o] for o in Origin}
    return {"train": len(data), **sizes}


def _samples(
    data: GroupedData, before: GroupedData, rng: Rng, reading: Reading | None
) -> dict[str, Any] | None:
    """A few of the round's new rows to look at, where rows are images or labels are texts."""
    if data.x.dim() != 4 and reading is None:
        return None
    start = len(before) if data.extends(before) and len(data) > len(before) else 0
    few = torch.randperm(len(data) - start, generator=rng.gen())[:SHOWN].sort().values + start
    shown = data.take(few)
    names = ("x", "y", "truth", "origin", "born", "row")
    kept: dict[str, Any] = {name: shown.columns()[name].cpu() for name in names}
    if reading is not None:
        kept["shown"] = reading.show(shown.x, shown.y)
        kept["shown_truth"] = reading.show(shown.x, shown.truth)
        hidden = reading.hidden(shown.x, shown.y) | reading.hidden(shown.x, shown.truth)
        kept["hidden"] = hidden.cpu()
    return kept
