"""The parts of a round of `mix`: rows, held-out rows, the method's batches and costs, notes.

Private to `evenloop.loops.mix`, which says in what order they come.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evenloop.counts import Counts
from evenloop.data import GroupedData, Origin
from evenloop.fit import Fit, predict
from evenloop.groups import LABEL, GroupIndex
from evenloop.loop import Notes, State, World
from evenloop.loops._mix_checks import MIXING, group_columns, without_generated
from evenloop.loops._mix_generated import generate
from evenloop.objectives.group_dro import GroupDRO
from evenloop.objectives.reweight import Reweight
from evenloop.rng import Rng
from evenloop.samplers.averaged import Averaged, Ema
from evenloop.samplers.balanced import CellBalanced, Rows, top_up
from evenloop.samplers.cells import GENERATED, REAL, CellIndex
from evenloop.samplers.fairbatch import FairBatchSampler
from evenloop.samplers.ratios import RatioBatchSampler
from evenloop.samplers.shares import Ratios
from evenloop.samplers.trail import Trail
from evenloop.samplers.validation import Validation
from evenloop.seams import Objective, Sampler

if TYPE_CHECKING:
    from evenloop.loops.mix import Mix

__all__ = ["KEY", "Mixture", "first_rows", "made_rows"]

KEY = "mix"
PATH = "ratio path"
ON_REAL_ROWS = ("real", "balanced", "reweight", "fairbatch", "group_dro")
Arm = tuple[Sampler | None, Objective | None, tuple[str, ...], GroupedData]


def first_rows(data: GroupedData, rows: int) -> GroupedData:
    """The first `rows` real rows and every generated one; all for 0.

    Raises:
        ValueError: there are fewer real rows.
    """
    if not rows:
        return data
    made = data.origin == int(Origin.GENERATED)
    if rows > int((~made).sum()):
        raise ValueError(f"rows={rows}, but the train side has {int((~made).sum())} real rows")
    return data.take((made | ((~made).cumsum(0) <= rows)).nonzero().flatten())


def made_rows(loop: Mix, world: World, rows: GroupedData, rng: Rng, born: int = 0) -> GroupedData:
    """New rows of every cell, made from these real rows alone."""
    return generate(
        world,
        rows,
        GroupIndex.of(rows, (LABEL, *group_columns(world))),
        loop.made_rows,
        rng,
        kind=loop.generator,
        noise=loop.noise,
        epochs=loop.generator_epochs,
        options=loop.generator_options,
        born=born,
    )


class Mixture:
    """One round's rows and ratios, and what it has to report."""

    def __init__(self, loop: Mix, world: World, state: State, round: int, rng: Rng) -> None:
        self.loop, self.world, self.round, self.rng = loop, world, round, rng
        self.columns = group_columns(world)
        self.before, self.schema = state, state.data.schema
        self.said: list[str] = []
        kept: Mapping[str, Any] = state.extra.get(KEY, {})
        self.goes_on = bool(kept) and not loop.restart
        self.data, self.held, self.made = self._rows(state.data, kept)
        trained = torch.ones(len(self.data), dtype=torch.bool)
        trained[self.held] = False
        self.training = self.data.take(trained.nonzero().flatten())
        self.cells = CellIndex.of(self.training, self.columns)
        self.kept_ratios = False
        if loop.method in MIXING and not bool(self.cells.counts[GENERATED].any()):
            self.said.append(without_generated(loop.method))
        with self._listening():
            self.ratios = self._ratios()
        if "ratios" in kept:
            self.ratios.load_state_dict(kept["ratios"])
        self.kept = kept
        self.sampler: Sampler | None = None
        self.ema: Ema | None = None

    # -- rows ---------------------------------------------------------------------------------

    def _rows(
        self, data: GroupedData, kept: Mapping[str, Any]
    ) -> tuple[GroupedData, Tensor, Tensor]:
        """All rows of the round, the positions of those held out, and of those made here."""
        if self.goes_on:
            return data, kept["held"], kept["made"]
        if "made" in kept:  # made from rows that the new split may hold out: they go
            stays = torch.ones(len(data), dtype=torch.bool)
            stays[kept["made"]] = False
            data = data.take(stays.nonzero().flatten()) if len(kept["made"]) else data
        held = self._drawn(data, torch.arange(len(data)), "held")
        made = data.origin == int(Origin.GENERATED)
        if self.loop.generator == "none" or bool(made.any()):
            return data, held, torch.arange(0)
        free = torch.ones(len(data), dtype=torch.bool)
        free[held] = False
        new = made_rows(
            self.loop,
            self.world,
            data.take(free.nonzero().flatten()),
            self.rng.at("generator"),
            self.round,
        )
        start, data = len(data), data.append(new)
        made_here = torch.arange(start, len(data))
        more = self._drawn(data, made_here, "held generated")
        return data, torch.cat([held, more]), made_here

    def _drawn(self, data: GroupedData, rows: Tensor, stream: str) -> Tensor:
        """Positions held out among `rows`: the same share of every cell, never its last row."""
        cells = CellIndex.of(data.take(rows), self.columns)
        names = tuple(map(str, range(cells.sources * cells.size)))
        groups = GroupIndex(cells.place, names)
        count = groups.count()
        wanted = (count * self.loop.validation).ceil().long().minimum((count - 1).clamp_min(0))
        picked = groups.draw(wanted, self.rng.at(stream).gen())
        return rows[picked.sort().values]

    # -- ratios -------------------------------------------------------------------------------

    def _ratios(self) -> Ratios:
        loop = self.loop
        real_only = loop.method == "real_ratios" or not bool(self.cells.counts[GENERATED].any())
        start: Any = 1.0 if real_only else loop.mu_init
        return Ratios(
            self.cells,
            mu_init=start,
            lambda_init=loop.lambda_init,
            lambda_min=loop.lambda_min,
            mu_min=0.0 if real_only else loop.mu_min,
        )

    def scouted(self) -> Mixture:
        """This round with ratios that a first model has learned and that move no more."""
        if self.goes_on:
            self.kept_ratios = True
            return self
        model = self.world.net(self.rng.at("scout"))
        sampler, objective, by, rows = self.arm(model)
        self.fit(model, rows, by, self.rng.at("fit", "scout"), sampler, objective)
        self.sampler, self.kept_ratios = None, True
        return self

    def validation(self) -> Validation:
        """The held-out rows, generated ones included."""
        held = self.data.take(self.held)
        return Validation(held.x, CellIndex.of(held, self.columns))

    # -- training -----------------------------------------------------------------------------

    def model(self, *names: str) -> nn.Module:
        """A new model, or a copy of the last round's to train on: the first there is of `names`."""
        if not self.goes_on:
            return self.world.net(self.rng.at("net"))
        models = self.before.models
        last = next(models[name] for name in (names or ("raw", "classifier")) if name in models)
        return copy.deepcopy(last)

    def reference(self) -> nn.Module:
        """A model from the same start, trained on the same real rows alone."""
        real = (self.cells.source == REAL).nonzero().flatten()
        model, sampler = self.model("reference", "classifier"), Rows(torch.arange(len(real)))
        rows, by = self.training.take(real), (LABEL, *self.columns)
        inner, self.sampler = self.sampler, None
        self.fit(model, rows, by, self.rng.at("fit", "reference"), sampler, None)
        self.sampler = inner
        return model

    def arm(self, model: nn.Module) -> Arm:
        """What the method puts in a batch, what that costs, its cells and its rows."""
        loop, rng, cells = self.loop, self.rng, self.cells
        real = (cells.source == REAL).nonzero().flatten()
        rows = self.training.take(real) if loop.method in ON_REAL_ROWS else self.training
        sampler: Sampler | None = None
        objective: Objective | None = None
        by = (LABEL, *self.columns)
        every, length = torch.arange(len(self.training)), len(real)
        generator = rng.at("sampler").gen()
        if loop.method in ("ratios", "real_ratios", "frozen", "fixed"):
            sampler = self._ratio_sampler(model, generator)
        elif loop.method in ("real", "reweight", "group_dro"):
            sampler = Rows(torch.arange(length))
        elif loop.method in ("generated", "pooled"):
            made = (cells.source == GENERATED).nonzero().flatten()
            sampler = Rows(made if loop.method == "generated" else every, length=length)
        elif loop.method == "topped_up":
            picked, short = top_up(cells, generator)
            if bool(short.any()):
                self.said.append(f"topping up lacked {int(short.sum())} generated rows")
            sampler = Rows(picked, length=length)
        elif loop.method == "balanced":
            sampler = CellBalanced(cells.take(real), generator=generator)
        elif loop.method == "balanced_mixed":
            sampler = CellBalanced(cells, generator=generator, sources=(REAL, GENERATED))
        else:
            sampler = self._fairbatch(cells.take(real), generator)
        if loop.method == "reweight":
            objective = Reweight()
        if loop.method == "group_dro":
            objective = GroupDRO(loop.dro_rate)
        self.sampler = sampler
        if loop.ema:
            self.ema = Ema(loop.ema)
            sampler = Averaged(sampler, self.ema)
        return sampler, objective, by, rows

    def _ratio_sampler(self, model: nn.Module, generator: torch.Generator) -> RatioBatchSampler:
        with self._listening():
            model.to(self.world.recipe.device)
            controller = self.loop.controller(self, model, self.rng.at("updates"))
        if controller is not None and self.goes_on and "controller" in self.kept:
            controller.load_state_dict(self.kept["controller"])
        return RatioBatchSampler(
            self.cells,
            self.ratios,
            self.world.recipe.batch,
            generator=generator,
            rounding=self.loop.rounding,
            controller=controller,
        )

    def _fairbatch(self, cells: CellIndex, generator: torch.Generator) -> FairBatchSampler:
        loop = self.loop
        positive = self.schema.klass(loop.positive) if loop.uses_positive else 1
        assert loop.fairness in ("eqodds", "eqopp", "dp")
        sampler = FairBatchSampler(
            cells,
            self.world.recipe.batch,
            generator=generator,
            measure=loop.fairness,
            alpha=loop.alpha,
            positive=positive,
        )
        if "fairbatch" in self.kept and self.goes_on:
            sampler.share = self.kept["fairbatch"].clone()
        return sampler

    def fit(
        self,
        model: nn.Module,
        rows: GroupedData,
        by: tuple[str, ...],
        rng: Rng,
        sampler: Sampler | None,
        objective: Objective | None,
    ) -> Fit:
        """Train by the world's recipe over the cells of `by`."""
        world = replace(self.world, by=by)
        with self._listening():
            done = world.fit(model, rows, rng=rng, sampler=sampler, objective=objective)
        inner = self.sampler
        if isinstance(inner, RatioBatchSampler) and inner.controller is not None:
            inner.controller.close()
        return done

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """What the samplers warn of (missing cells, short pools) becomes an alarm of the round."""
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", UserWarning)
            yield
        for warning in heard:
            if warning.category is UserWarning:
                self.said.append(str(warning.message))
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )

    # -- results ------------------------------------------------------------------------------

    def state(self, model: nn.Module, reference: nn.Module | None) -> State:
        """What crosses to the next round."""
        kept: dict[str, Any] = {
            "held": self.held,
            "made": self.made,
            "ratios": self.ratios.state_dict(),
        }
        inner = self.sampler
        if isinstance(inner, RatioBatchSampler) and inner.controller is not None:
            kept["controller"] = inner.controller.state_dict()
        if isinstance(inner, FairBatchSampler):
            kept["fairbatch"] = inner.share.clone()
        models = {**self.before.models, "classifier": model}
        if self.ema is not None:
            averaged = copy.deepcopy(model)
            self.ema.copy_to(averaged)
            models |= {"classifier": averaged, "raw": model}
        if reference is not None:
            models["reference"] = reference
        return State(self.data, models, {**self.before.extra, KEY: kept})

    def notes(self, model: nn.Module, reference: nn.Module | None) -> Notes:
        """Shares, what was really drawn, held-out accuracy, label agreement of generated rows."""
        values: dict[str, float | int | str] = {"method": self.loop.method}
        names, inner = self.cells.names, self.sampler
        lam: Tensor | None = None
        if isinstance(inner, RatioBatchSampler):
            lam = self.ratios.lam
            for name, share in zip(names, self.ratios.mu.flatten().tolist(), strict=True):
                values[f"mu {name}"] = share
            drawn = inner.counts.flatten(1)
            for name, real, made in zip(names, *drawn.tolist(), strict=True):
                values[f"drawn real {name}"], values[f"drawn generated {name}"] = real, made
            values["share of generated rows drawn"] = float(drawn[GENERATED].sum() / drawn.sum())
            if inner.last is not None:
                values |= {"outer": inner.last.value, "loss gap": inner.last.gap}
                values["updates"] = inner.last.update
                values[PATH] = _path(names, inner.trail)
        if isinstance(inner, FairBatchSampler):
            lam = inner.share
        if lam is not None:
            for name, share in zip(names, lam.flatten().tolist(), strict=True):
                values[f"lambda {name}"] = share
        counts = self._counts(model, reference)
        return Notes(values, counts, alarms=tuple(dict.fromkeys(self.said)))

    def _counts(self, model: nn.Module, reference: nn.Module | None) -> dict[str, Counts]:
        """Real held-out rows and generated rows by cell, against the label each was asked for.

        The reference judges all generated rows, none of which it was trained on; without one the
        model judges those that were held out.
        """
        held = self.data.take(self.held)
        made = held.origin == int(Origin.GENERATED)
        real, shown = (held.take(rows.nonzero().flatten()) for rows in (~made, made))
        counts = {"held out": self._table(model, real)}
        if reference is not None:
            counts["held out.reference"] = self._table(reference, real)
            shown = self.data.take((self.data.origin == int(Origin.GENERATED)).nonzero().flatten())
        if len(shown):
            counts["generated"] = self._table(reference or model, shown)
        return counts

    def _table(self, model: nn.Module, rows: GroupedData) -> Counts:
        groups = GroupIndex.of(rows, (LABEL, *self.columns))
        said = predict(model, rows.x, batch=self.world.recipe.eval_batch).argmax(1)
        return Counts.of(said.to(rows.y.device), rows.y, groups, self.schema.classes)


def _path(names: Sequence[str], trail: Trail) -> str:
    """How the shares moved in this round, as JSON: (T,) updates, (T, cells) lambda and mu."""
    return json.dumps(
        {
            "cells": list(names),
            "updates": [update for update, _, _ in trail.points],
            "lambda": [_short(lam) for _, lam, _ in trail.points],
            "mu": [_short(mu) for _, _, mu in trail.points],
        },
        separators=(",", ":"),
    )


def _short(shares: Tensor) -> list[float]:
    return [round(share, 4) for share in shares.flatten().tolist()]
