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
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from evenloop.counts import Counts, Moments
from evenloop.data import GroupedData
from evenloop.fit import predict
from evenloop.groups import GroupIndex
from evenloop.heads import features_of
from evenloop.heuristics.balanced import balanced_selection, group_quotas
from evenloop.heuristics.batch import badge, batch_bald, core_set, epig
from evenloop.heuristics.external import STRATEGIES, skactiveml_selection, strategy
from evenloop.heuristics.plan import label_plan, quota_to_plan
from evenloop.heuristics.posterior import Posterior, draw_pool, score_pool
from evenloop.heuristics.stochastic import random_order_top, stochastic_selection
from evenloop.heuristics.uncertainty import SCORES
from evenloop.loop import Loop, Notes, State, World
from evenloop.loops._acquire import (
    annotated,
    as_told,
    auroc,
    balance_groups,
    cells_of,
    enrichment_notes,
    late,
    pool_posterior,
    probe_accuracy,
    rare_cells,
    score_columns,
    sensitive_columns,
    shrunk,
)
from evenloop.objectives.gradient_reversal import AdversarialObjective
from evenloop.rng import Rng

__all__ = ["Acquire"]

Heuristic = Literal[
    "random", "bald", "entropy", "margin", "certainty", "variance",
    "batch-bald", "epig", "badge", "core-set", "typiclust", "probcover",
]  # fmt: skip
TOGETHER = ("batch-bald", "epig", "badge", "core-set", *STRATEGIES)


@dataclass(frozen=True, slots=True)
class Acquire(Loop):
    """n0 labels to begin with; each round the best `query` items of the pool are labelled.

    Attributes:
        initial: labels of the first round, n0.
        initial_mode: "random", or "stratified": every group's share as in the pool.
        query: labels bought a round, q.
        heuristic: what is asked about first; "random" is the baseline; "typiclust" and "probcover"
            need the extra `active`.
        posterior: "dropout", "dropconnect", "ensemble" (of `draws` nets) or "laplace" (last layer).
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
        adv_hidden, adv_alpha, adv_clip, adv_given_class, adv_head: see `AdversarialObjective`.
        budget: no further round above this many labels; 0 is off.
        stop_below: no further round when the pool's mean score is below this; 0 is off.
        noise: chance of a wrong label by group name.
        cost: price of a label by group name, 1 where it is not named.
        spend: no further round above this total price; 0 is off.
        delay: rounds that a label takes by group name, 0 where it is not named.
        probe: pool items on which a linear probe for the group is tried each round; 0 is off.
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
    adv_alpha: float = 1.0
    adv_clip: float | None = None
    adv_given_class: bool = False
    adv_head: str | None = None
    budget: int = 0
    stop_below: float = 0.0
    noise: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    spend: float = 0.0
    delay: Mapping[str, int] = field(default_factory=dict)
    probe: int = 0
    trains: bool = True

    def __post_init__(self) -> None:
        least = {"initial": 1, "query": 1, "draws": 1, "score_rows": 1, "pool_subsample": 0}
        least |= {"budget": 0, "probe": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.pool_subsample and self.pool_subsample < self.query:
            raise ValueError(
                f"pool_subsample={self.pool_subsample} leaves fewer items than query={self.query}"
            )
        balanced = self.balance != "none" or self.plan_gap > 0
        if self.heuristic in TOGETHER and (balanced or self.stochastic != "none"):
            raise ValueError(
                f"heuristic {self.heuristic!r} chooses items together and takes no balance, "
                "plan_gap or stochastic; use one that scores items, such as 'bald'"
            )
        if balanced and self.stochastic != "none":
            raise ValueError("balance and stochastic both choose among the scores; set one of them")
        for name in ("noise", "cost", "delay"):
            bad = {g: v for g, v in getattr(self, name).items() if v < 0}
            if bad or (name == "noise" and any(v > 1 for v in self.noise.values())):
                raise ValueError(
                    f"{name} must be in range for every group, got {getattr(self, name)}"
                )
        if not self.temperature > 0 or not 0 <= self.plan_gap <= 1 or self.adv_weight < 0:
            raise ValueError(
                "temperature must be positive, plan_gap in [0, 1] and adv_weight at least 0, got "
                f"{self.temperature}, {self.plan_gap}, {self.adv_weight}"
            )

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        """n0 labelled rows, or what an earlier loop of a chain has gathered."""
        groups = world.groups(world.data)
        for name in ("noise", "cost", "delay"):
            unknown = set(getattr(self, name)) - set(groups.names)
            if unknown:
                raise ValueError(
                    f"{name} names {sorted(unknown)}; the groups are {', '.join(groups.names)}"
                )
        for name in (*self.balance_by, *self.adv_attributes):
            world.data.schema.column(name)
        if self._needs_groups() and not self._by(world):
            raise ValueError(
                "balance, plan_gap and adv_weight need an attribute; add one to by or balance_by"
            )
        snapshot = rng.at("start").seed
        if start is not None:
            return State(start.data, start.models, {"start": snapshot, "spent": 0.0})
        if self.initial + self.query > len(world.data):
            raise ValueError(
                f"initial={self.initial} and query={self.query} need more than the "
                f"{len(world.data)} rows outside the audit split; lower one of them"
            )
        first = (world.data.row >= 0).nonzero().flatten()[: self.initial]
        if self.initial_mode == "stratified":
            share = groups.count().double() / len(world.data)
            quota = group_quotas(self.initial, groups.count(), share=share)
            first = groups.draw(quota, rng.at("initial").gen())
        data = annotated(world.data.take(first), groups.take(first), self.noise, rng.at("noise"))
        return State(data, {}, {"start": snapshot, "spent": self._price(groups, first)})

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        """Buy q labels by the last model's uncertainty, then train on everything labelled."""
        notes = Notes()
        if round:
            state, notes = self._buy(world, state, round, rng)
        if self.trains:
            state, notes = self._train(world, state, notes, rng)
        values = {**notes.values, "spent": state.extra.get("spent", 0.0)}
        stop = self._stop(world, state, notes)
        return state, Notes(values, notes.counts, notes.moments, notes.alarms, stop)

    def _buy(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        groups, pool = world.groups(world.data), self._pool(world, state)
        cells = cells_of(world, world.data)
        asked, moments, values = self.propose(world, state, cells, rng)
        answered = annotated(
            world.data.take(asked), groups.take(asked), self.noise, rng.at("noise")
        )
        wait = torch.tensor([self.delay.get(name, 0) for name in groups.names])
        due = round + wait[groups.cell[asked]]
        waiting = torch.cat([late(state), torch.stack([answered.row, answered.y, due], 1)])
        arrived = waiting[waiting[:, 2] <= round]
        spent = state.extra.get("spent", 0.0) + self._price(groups, asked)
        extra = {**state.extra, "late": waiting[waiting[:, 2] > round], "spent": spent}
        told = as_told(world.data, arrived).as_of(round)
        state = State(state.data.append(told), state.models, extra)
        bought = world.data.take(asked)
        classes = world.data.schema.classes
        there = groups.take(pool)
        counts = {
            "bought": Counts.of(answered.y, bought.truth, groups.take(asked), classes),
            "pool": Counts.of(world.data.truth[pool], world.data.truth[pool], there, classes),
        }
        values |= {"asked": len(asked), "told": len(told)}
        more, alarms = enrichment_notes(self.heuristic, cells, cells_of(world, state.data), state)
        return state, Notes(values | more, counts, moments, alarms)

    def propose(
        self, world: World, state: State, cells: GroupIndex, rng: Rng
    ) -> tuple[Tensor, dict[str, Moments], dict[str, float | int | str]]:
        """Positions (q,) of the rows to ask about next, and what was seen of the pool.

        Reads no label that has not been bought; `cells` (of all the world's rows) only sort what
        is reported.
        """
        pool = self._pool(world, state)
        if self.pool_subsample:
            order = torch.randperm(len(pool), generator=rng.at("subsample").gen())
            pool = pool[order[: self.pool_subsample]]
        scores, moments, values = self._scores(world, state, pool, cells, rng)
        return pool[self._choose(world, state, pool, scores, rng.at("choose"))], moments, values

    def train(self, world: World, state: State, rng: Rng) -> State:
        """The state with models trained on its rows."""
        return self._train(world, state, Notes(), rng)[0]

    def _scores(
        self, world: World, state: State, scored: Tensor, cells: GroupIndex, rng: Rng
    ) -> tuple[Tensor, dict[str, Moments], dict[str, float | int | str]]:
        """(M,) urgency of the scored items; uncertainty by cell where draws were made."""
        if self.heuristic not in SCORES:
            return torch.zeros(len(scored), dtype=torch.float64), {}, {}
        posterior = self._posterior(state, consistent=False)
        rule = partial(score_columns, SCORES[self.heuristic])
        columns = score_pool(posterior, world.data.x, rule, rng=rng.at("draws"), index=scored)
        there = cells.take(scored)
        named = zip(("bald", "entropy"), columns[:, 1:].T, strict=True)
        moments = {f"pool.{name}": Moments.of(column, there) for name, column in named}
        rare = rare_cells(cells)[there.cell]
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
            return self._together(world, state, scored, k, rng)
        if self.balance != "none" or self.plan_gap:
            model = state.models["classifier"]
            kind = self.balance if self.balance != "none" else "group"
            groups, held = balance_groups(kind, world, self._by(world), scored, state.data, model)
            share = None
            if self.plan_gap:
                share = quota_to_plan(label_plan(self.plan_gap, groups.names, held, groups.count()))
            if share is not None or not self.plan_gap:
                return balanced_selection(
                    scores, k, groups, share=share, labelled_counts=held, generator=generator
                )
        if self.stochastic != "none" and self.heuristic != "random":
            return stochastic_selection(
                scores, k, self.stochastic, temperature=self.temperature, generator=generator
            )
        return random_order_top(scores, k, generator=generator)

    def _together(self, world: World, state: State, scored: Tensor, k: int, rng: Rng) -> Tensor:
        """Rules that look at items together: BatchBALD, EPIG, BADGE, core-set."""
        x, model, generator = world.data.x, state.models["classifier"], rng.gen()
        if self.heuristic in ("badge", "core-set", *STRATEGIES):
            features = features_of(model, x[scored])
            if self.heuristic in STRATEGIES:
                outside = strategy(self.heuristic, seed=rng.seed % 2**32)
                held = features_of(model, state.data.x)
                return skactiveml_selection(outside, features, held, state.data.y, k)
            if self.heuristic == "core-set":
                return core_set(features, features_of(model, state.data.x), k)
            return badge(predict(model, x[scored]).softmax(1), features, k, generator=generator)
        posterior = self._posterior(state, consistent=True)
        draws = draw_pool(posterior, x, rng=rng.at("draws"), index=scored)
        if self.heuristic == "batch-bald":
            return batch_bald(draws, k, kind="logits", generator=generator)
        # what should be predicted well is the population that the pool is a sample of
        some = torch.randperm(len(scored), generator=generator)[:200]
        return random_order_top(epig(draws, draws[some], kind="logits"), k, generator=generator)

    def _train(self, world: World, state: State, notes: Notes, rng: Rng) -> tuple[State, Notes]:
        models = {"classifier": self._start(world, state, "classifier", rng)}
        if self.posterior == "ensemble":
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
            values["class_loss"] = objective.last_class_loss
            if objective.stuck:
                alarms += (
                    f"the class head of {name} is stuck at chance (loss "
                    f"{objective.last_class_loss:.3f}): lower adv_weight={self.adv_weight} or "
                    "set adv_schedule to linear",
                )
        state = State(state.data, {**state.models, **models}, state.extra)
        if self.probe:
            pool = self._pool(world, state)[: self.probe]
            groups = GroupIndex.of(world.data, self._by(world)).take(pool)
            rows = world.data.take(pool)
            values["probe"] = probe_accuracy(models["classifier"], rows, groups, rng.at("probe"))
        return state, Notes(values, notes.counts, notes.moments, alarms)

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
            clip=self.adv_clip,
            given_class=self.adv_given_class,
            head=self.adv_head,
        )

    def _posterior(self, state: State, *, consistent: bool) -> Posterior:
        return pool_posterior(
            self.posterior,
            state.models,
            state.data.x,
            draws=self.draws,
            consistent=consistent,
            rows=self.score_rows,
        )

    def _pool(self, world: World, state: State) -> Tensor:
        """Positions of the world's rows that nobody has been asked about, in its order."""
        free = world.data.without(torch.cat([state.data.row, late(state)[:, 0]]))
        return free[world.data.row[free] >= 0]  # nobody labels a generated row

    def _needs_groups(self) -> bool:
        return self.balance != "none" or self.plan_gap > 0 or self.adv_weight > 0 or self.probe > 0

    def _by(self, world: World) -> tuple[str, ...]:
        return self.balance_by or sensitive_columns(world.by)

    def _price(self, groups: GroupIndex, asked: Tensor) -> float:
        price = torch.tensor([self.cost.get(name, 1.0) for name in groups.names])
        return float(price[groups.cell[asked].cpu()].sum())

    def _stop(self, world: World, state: State, notes: Notes) -> str | None:
        """Why no further round is possible or wanted, or None."""
        spent, score = state.extra.get("spent", 0.0), notes.values.get("pool.score")
        waiting = len(late(state))
        if not waiting and int((world.data.row >= 0).sum()) == int((state.data.row >= 0).sum()):
            return "the pool is empty: every row has been asked about"
        if self.budget and len(state.data) >= self.budget:
            return f"the budget of {self.budget} labels is used up"
        if self.spend and spent >= self.spend:
            return f"labels for {spent:g} were bought, the limit is {self.spend:g}"
        if self.stop_below and score is not None and float(score) < self.stop_below:
            return f"the pool's mean score {float(score):.4g} is below {self.stop_below:g}"
        return None
