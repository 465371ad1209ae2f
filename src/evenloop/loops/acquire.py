"""Acquire: each round buys labels for the pool items that the model is least sure of.

Source: Frederic Branchaud-Charron, Parmida Atighehchian, Pau Rodriguez, Grace Abuhamad and
Alexandre Lacoste, "Can Active Learning Preemptively Mitigate Fairness Issues?", ICLR 2021 workshop
on Responsible AI (arXiv 2104.06879); gradient reversal after Raff and Sylvester 2018.

Assumption: the pool is a random sample of the population, and the labels bought are as right as
the annotators' noise says. Nothing here sees the sensitive attribute unless `balance`, `plan_gap`
or `adv_weight` is set; the first two need it in the pool, the last one in training rows only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evenloop.counts import Counts, Moments
from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.heuristics.balanced import balanced_selection, equal_share, group_quotas
from evenloop.heuristics.plan import label_plan, quota_to_plan
from evenloop.heuristics.posterior import Posterior, score_pool
from evenloop.heuristics.stochastic import random_order_top, stochastic_selection
from evenloop.heuristics.uncertainty import SCORES
from evenloop.loop import Loop, Notes, State, World
from evenloop.loops._acquire import (
    DRAWING,
    TOGETHER,
    auroc,
    balance_groups,
    bald_bins,
    labels_given,
    pool_posterior,
    probe_accuracy,
    quota_columns,
    score_columns,
    shrunk,
    together,
)
from evenloop.loops._acquire_checks import check_fields, check_world
from evenloop.loops._acquire_pool import Shelf, draw_cells, first_free, shelf_of
from evenloop.loops._acquire_watch import (
    Stop,
    cell_columns,
    check_validation,
    enrichment_notes,
    group_columns,
    late,
    rare_cells,
    sensitive_columns,
    shown,
    tied,
    validated,
)
from evenloop.objectives.gradient_reversal import AdversarialObjective
from evenloop.rng import Rng

__all__ = ["Acquire"]

Heuristic = Literal[
    "random", "bald", "entropy", "margin", "certainty", "variance",
    "batch-bald", "epig", "badge", "core-set", "typiclust", "probcover",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Acquire(Loop):
    """n0 labels to begin with; each round the best `query` items of the pool are labelled.

    Attributes:
        initial: labels of the first round, n0.
        initial_mode: "random", or "stratified": every group's share as in the pool.
        query: labels bought a round, q.
        heuristic: what is asked about first; "random" is the baseline; "typiclust" and "probcover"
            need the extra `active`.
        posterior: "dropout", "dropconnect", "ensemble" (of `draws` nets, where the
            heuristic reads more than one) or "laplace" (last layer).
        draws: posterior draws T.
        score_rows: rows of one forward pass while scoring, items times draws.
        balance: quotas by "group", "cell" (true class x group), "predicted-cell",
            "predicted-group", or "none".
        balance_by: the attributes of those groups; those of the world's groups by default.
        plan_gap: buy towards enough labels per group to tell a gap of this size; 0 is off.
        stochastic: "power", "softmax" or "rank" sampling instead of the top, or "none".
        temperature: of that sampling.
        pool_subsample: items of the pool scored a round, drawn at random; 0 scores all.
        reset: start of each training: "snapshot" (the same start), "rebuild" (a new one), "warm"
            (the last model) or "shrink-perturb" (half of it, half a new start).
        adv_weight: weight of the adversary on `adv_attributes` (by default those of the groups).
        adv_schedule: "constant", "linear" or "sigmoid" over the training.
        adv_hidden, adv_dropout, adv_alpha, adv_clip, adv_given_class, adv_head: see
            `AdversarialObjective`.
        budget: no further round above this many labels, `stop_rows` included; 0 is off.
        stop_below: no further round when the pool's mean score is below this; 0 is off.
        stop_rows: rows labelled before the first round and kept for the next two rules: nothing
            is trained on them, and they are no part of the audit split.
        stop_plateau: no further round when accuracy on them has not risen for this
            many rounds; 0 is off.
        stop_worst: no further round when every group's accuracy there is at least this; 0 is off.
        noise: chance of a wrong label by group name.
        cost: price of a label by group name, 1 where it is not named.
        spend: no further round above this total price; 0 is off.
        delay: rounds that a label takes by group name, 0 where it is not named.
        probe: pool items on which a linear probe for the group, within classes, is tried each
            round; 0 is off.
        trains: False when another loop of a chain trains the model.
    """

    initial: int = 500
    initial_mode: Literal["random", "stratified"] = "random"
    query: int = 100
    heuristic: Heuristic = "bald"
    posterior: Literal["dropout", "dropconnect", "ensemble", "laplace"] = "dropout"
    draws: int = 20
    score_rows: int = 1024
    balance: Literal["none", "group", "cell", "predicted-cell", "predicted-group"] = "none"
    balance_by: tuple[str, ...] = ()
    plan_gap: float = 0.0
    stochastic: Literal["none", "power", "softmax", "rank"] = "none"
    temperature: float = 1.0
    pool_subsample: int = 0
    reset: Literal["snapshot", "rebuild", "warm", "shrink-perturb"] = "snapshot"
    adv_weight: float = 0.0
    adv_attributes: tuple[str, ...] = ()
    adv_schedule: Literal["constant", "linear", "sigmoid"] = "constant"
    adv_hidden: tuple[int, ...] = ()
    adv_dropout: float = 0.0
    adv_alpha: float = 1.0
    adv_clip: float | None = None
    adv_given_class: bool = False
    adv_head: str | None = None
    budget: int = 0
    stop_below: float = 0.0
    stop_rows: int = 0
    stop_plateau: int = 0
    stop_worst: float = 0.0
    noise: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    spend: float = 0.0
    delay: Mapping[str, int] = field(default_factory=dict)
    probe: int = 0
    trains: bool = True

    def __post_init__(self) -> None:
        check_fields({f.name: getattr(self, f.name) for f in fields(self)})

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        """n0 labelled rows, or what an earlier loop of a chain has gathered."""
        check_world({f.name: getattr(self, f.name) for f in fields(self)}, world)
        groups = world.groups(world.data)
        extra: dict[str, Any] = {"start": rng.at("start").seed, "spent": 0.0}
        if start is not None:
            return State(start.data, start.models, self._aside(world, start.data, extra, rng))
        shelf = shelf_of(world.data)
        if self.initial + self.stop_rows + self.query > len(shelf.open):
            raise ValueError(
                f"initial={self.initial}, stop_rows={self.stop_rows} and query={self.query} need "
                f"more than the {len(shelf.open)} rows outside the audit split; lower one of them"
            )
        first = shelf.open[: self.initial]
        if self.initial_mode == "stratified":
            share = groups.count().double() / len(world.data)
            quota = group_quotas(self.initial, groups.count(), share=share)
            first = groups.draw(quota, rng.at("initial").gen())
        data = world.data.take(first)
        y = labels_given(data.truth, groups.take(first), data.schema, self.noise, rng.at("noise"))
        data = GroupedData.from_columns(data.schema, data.columns() | {"y": y})
        extra["spent"] = self._price(groups, first)
        return State(data, {}, self._aside(world, data, extra, rng))

    def _aside(
        self, world: World, data: GroupedData, extra: dict[str, Any], rng: Rng
    ) -> dict[str, Any]:
        """`extra` with the validation rows and their price, if there are any."""
        if not self.stop_rows:
            return extra
        shelf, groups = shelf_of(world.data), world.groups(world.data)
        rows = first_free(shelf, shelf.taken(data.row), self.stop_rows)
        check_validation(groups, rows, self.stop_worst)
        there, truth = groups.take(rows), world.data.truth[rows]
        y = labels_given(truth, there, data.schema, self.noise, rng.at("validation"))
        kept = torch.stack([world.data.row[rows].cpu(), y.cpu()], 1)
        return extra | {"validation": kept, "spent": extra["spent"] + self._price(groups, rows)}

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        """Buy q labels by the last model's uncertainty, then train on everything labelled."""
        notes = Notes()
        if round:
            state, notes = self._buy(world, state, round, rng)
        if self.trains:
            state, notes = self._train(world, state, notes, rng)
        values = {**notes.values, "spent": state.extra.get("spent", 0.0)}
        stop = self._stop(world, state, notes)
        return state, replace(notes, values=values, stop=stop)

    def _buy(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        data, shelf = world.data, shelf_of(world.data)
        columns, taken = group_columns(world.by), self._taken(shelf, state)
        groups = shelf.by(data, columns).index
        asked, moments, values, ties = self.propose(world, state, rng)
        there, truth = groups.take(asked), data.truth[asked].cpu()
        y = labels_given(truth, there, data.schema, self.noise, rng.at("noise"))
        wait = torch.tensor([self.delay.get(name, 0) for name in groups.names])
        due = round + wait[there.cell]
        waiting = torch.cat([late(state), torch.stack([data.row[asked].cpu(), y, due], 1)])
        arrived = waiting[waiting[:, 2] <= round]
        told, answers = data.take(shelf.place[arrived[:, 0]]), arrived[:, 1].to(data.y.device)
        told = GroupedData.from_columns(data.schema, told.columns() | {"y": answers})
        spent = state.extra.get("spent", 0.0) + self._price(groups, asked)
        extra = {**state.extra, "late": waiting[waiting[:, 2] > round], "spent": spent}
        state = State(state.data.append(told.as_of(round)), state.models, extra)
        counts = {
            "bought": Counts.of(y, truth, there, data.schema.classes),
            "pool": shelf.pool_counts(data, columns, taken),
        }
        values |= {"asked": len(asked), "told": len(told)}
        cells = shelf.by(data, cell_columns(world.by))
        labelled = GroupIndex.of(state.data, cell_columns(world.by))
        more, alarms = enrichment_notes(self.heuristic, cells.count, labelled, state.data.born)
        samples = shown(data, asked, y, round, cells.index)
        return state, Notes(values | more, counts, moments, ties + alarms, samples=samples)

    def propose(
        self, world: World, state: State, rng: Rng
    ) -> tuple[Tensor, dict[str, Moments], dict[str, float | int | str], tuple[str, ...]]:
        """Positions (q,) of the rows to ask about next, what was seen of the pool, and alarms.

        Reads no label that has not been bought, but to sort what is reported by cell and for
        `balance="cell"`. Without scores the cost does not grow with the pool.
        """
        shelf = shelf_of(world.data)
        taken, generator = self._taken(shelf, state), rng.at("choose").gen()
        if self.heuristic == "random" and not self.balance.startswith("predicted"):
            return self._at_random(world, state, shelf, taken, generator), {}, {}, ()
        if self.pool_subsample:
            quota, some = torch.tensor([self.pool_subsample]), rng.at("subsample").gen()
            pool = draw_cells(shelf.by(world.data, ()), taken, quota, some)
        else:
            pool = shelf.free(taken)
        scores, moments, values = self._scores(world, state, pool, rng)
        chosen = self._choose(world, state, pool, scores, rng.at("choose"))
        plain = self.balance == "none" and not self.plan_gap and self.stochastic == "none"
        alarms = tied(self.heuristic, scores, chosen, top=plain)
        return pool[chosen], moments, values, alarms

    def train(self, world: World, state: State, rng: Rng) -> State:
        """The state with models trained on its rows."""
        return self._train(world, state, Notes(), rng)[0]

    def _at_random(
        self, world: World, state: State, shelf: Shelf, taken: Tensor, generator: torch.Generator
    ) -> Tensor:
        """(q,) positions drawn uniformly, within quotas if there are any; no input is read."""
        kind = self.balance if self.balance != "none" else "group" if self.plan_gap else "none"
        for columns, labels in (quota_columns(kind, self._by(world)), ((), ())):
            cells, held = shelf.by(world.data, columns), GroupIndex.of(state.data, labels).count()
            free, names = cells.free(taken), cells.index.names
            share: Tensor | None = equal_share(names)
            if self.plan_gap and columns:
                share = quota_to_plan(label_plan(self.plan_gap, names, held, free))
            if share is not None:
                break
        quota = group_quotas(self.query, free, share=share, labelled_counts=held)
        return draw_cells(cells, taken, quota, generator)

    def _scores(
        self, world: World, state: State, scored: Tensor, rng: Rng
    ) -> tuple[Tensor, dict[str, Moments], dict[str, float | int | str]]:
        """(M,) urgency of the scored items; uncertainty by cell where draws were made."""
        if self.heuristic not in SCORES:
            return torch.zeros(len(scored), dtype=torch.float64), {}, {}
        posterior = self._posterior(state, consistent=False)
        rule = partial(score_columns, SCORES[self.heuristic])
        columns = score_pool(posterior, world.data.x, rule, rng=rng.at("draws"), index=scored)
        cells = shelf_of(world.data).by(world.data, cell_columns(world.by))
        there = cells.index.take(scored)
        named = zip(("bald", "entropy"), columns[:, 1:].T, strict=True)
        moments = {f"pool.{name}": Moments.of(column, there) for name, column in named}
        moments["pool.bald.bins"] = bald_bins(columns[:, 1], len(world.data.schema.classes), there)
        rare = rare_cells(cells.count)[there.cell]
        values: dict[str, float | int | str] = {
            "pool.score": float(columns[:, 0].mean()),
            "auroc.rare": auroc(columns[:, 0], rare),
        }
        return columns[:, 0], moments, values

    def _choose(
        self, world: World, state: State, scored: Tensor, scores: Tensor, rng: Rng
    ) -> Tensor:
        """(q,) places in `scored`, fewer if the pool holds fewer."""
        generator, k = rng.gen(), min(self.query, len(scored))
        if self.heuristic in TOGETHER:
            posterior = partial(self._posterior, state, consistent=True)
            return together(self.heuristic, world.data.x, state, scored, k, posterior, rng)
        if self.balance != "none" or self.plan_gap:
            model = state.models["classifier"]
            kind = self.balance if self.balance != "none" else "group"
            by = self._by(world)
            groups, held = balance_groups(kind, world.data, by, scored, state.data, model)
            share = None
            if self.plan_gap:
                share = quota_to_plan(label_plan(self.plan_gap, groups.names, held, groups.count()))
            if share is not None or not self.plan_gap:
                return balanced_selection(
                    scores, k, groups, share=share, labelled_counts=held, generator=generator
                )
        if self.stochastic != "none":
            return stochastic_selection(
                scores, k, self.stochastic, temperature=self.temperature, generator=generator
            )
        return random_order_top(scores, k, generator=generator)

    def _train(self, world: World, state: State, notes: Notes, rng: Rng) -> tuple[State, Notes]:
        models = {"classifier": self._start(world, state, "classifier", rng)}
        if self.posterior == "ensemble" and self.heuristic in DRAWING:
            for i in range(1, self.draws):
                models[f"member.{i}"] = self._start(world, state, f"member.{i}", rng)
        alarms, values = notes.alarms, dict(notes.values)
        for name, model in models.items():
            objective = self._adversary(world, state.data)
            stream = rng.at("fit") if name == "classifier" else rng.at("fit", name)
            models[name] = world.fit(model, state.data, rng=stream, objective=objective).model
            if objective is None:
                continue
            objective.release()
            if name == "classifier":
                values["class_loss"] = objective.last_class_loss
            if objective.stuck:
                alarms += (
                    f"the class head of {name} is stuck at chance (loss "
                    f"{objective.last_class_loss:.3f}): lower adv_weight={self.adv_weight} or "
                    "set adv_schedule to linear",
                )
        model, counts, extra = models["classifier"], dict(notes.counts), state.extra
        shelf = shelf_of(world.data)
        if self.probe:
            rows = world.data.take(first_free(shelf, self._taken(shelf, state), self.probe))
            groups = GroupIndex.of(rows, self._by(world))
            values["probe"] = probe_accuracy(model, rows, groups, rng.at("probe"))
        if "validation" in extra:
            rows = world.data.take(shelf.place[extra["validation"][:, 0]])
            counts["validation"], more, extra = validated(model, rows, world, extra)
            values |= more
        state = State(state.data, {**state.models, **models}, extra)
        return state, replace(notes, values=values, counts=counts, alarms=alarms)

    def _start(self, world: World, state: State, name: str, rng: Rng) -> nn.Module:
        """Where the training of a model begins."""
        if self.reset == "snapshot":
            return world.build(name, Rng.of(state.extra.get("start", 0)).at(name))
        fresh = world.build(name, rng.at("net", name))
        if self.reset == "rebuild" or name not in state.models:
            return fresh
        return shrunk(state.models[name], fresh, 1.0 if self.reset == "warm" else 0.5)

    def _adversary(self, world: World, data: GroupedData) -> AdversarialObjective | None:
        if not self.adv_weight:
            return None
        return AdversarialObjective(
            self.adv_weight,
            attributes=self.adv_attributes or self._by(world),
            schedule=self.adv_schedule,
            horizon=world.recipe.steps(len(data)),
            alpha=self.adv_alpha,
            hidden=self.adv_hidden,
            dropout=self.adv_dropout,
            clip=self.adv_clip,
            given_class=self.adv_given_class,
            head=self.adv_head,
        )

    def _posterior(self, state: State, *, consistent: bool) -> Posterior:
        options: dict[str, Any] = {"draws": self.draws, "rows": self.score_rows}
        return pool_posterior(
            self.posterior, state.models, state.data.x, consistent=consistent, **options
        )

    def _taken(self, shelf: Shelf, state: State) -> Tensor:
        """Positions, ascending, of the world's rows that people have been asked about."""
        kept = state.extra.get("validation", torch.zeros(0, 2, dtype=torch.long))
        return shelf.taken(torch.cat([state.data.row.cpu(), late(state)[:, 0], kept[:, 0]]))

    def _by(self, world: World) -> tuple[str, ...]:
        return self.balance_by or sensitive_columns(world.by)

    def _price(self, groups: GroupIndex, asked: Tensor) -> float:
        price = torch.tensor([self.cost.get(name, 1.0) for name in groups.names])
        return float(price[groups.cell[asked].cpu()].sum())

    def _stop(self, world: World, state: State, notes: Notes) -> str | None:
        """Why no further round is possible or wanted, or None."""
        shelf = shelf_of(world.data)
        rules = Stop(self.budget, self.spend, self.stop_below, self.stop_plateau, self.stop_worst)
        empty = not len(late(state)) and len(self._taken(shelf, state)) == len(shelf.open)
        return rules.reason(state, notes.values, empty)
