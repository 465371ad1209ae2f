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
from evenloop.data import GroupedData
from evenloop.fit import Fit, predict
from evenloop.groups import LABEL, GroupIndex
from evenloop.loop import Notes, State, World
from evenloop.loops._mix_checks import MIXING, group_columns, without_generated
from evenloop.loops._mix_rows import RoundRows, is_generated
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

__all__ = ["KEY", "Mixture"]

KEY = "mix"
PATH = "ratio path"
ON_REAL_ROWS = ("real", "balanced", "reweight", "fairbatch", "group_dro")
Arm = tuple[Sampler | None, Objective | None, tuple[str, ...], GroupedData]


class Mixture:
    """One round's rows and ratios, and what it has to report."""

    def __init__(self, loop: Mix, world: World, state: State, round: int, rng: Rng) -> None:
        self.loop, self.world, self.round, self.rng = loop, world, round, rng
        self.columns = group_columns(world)
        self.before, self.schema = state, state.data.schema
        self.said: list[str] = []
        kept: Mapping[str, Any] = state.extra.get(KEY, {})
        self.goes_on = bool(kept) and not loop.restart
        self.rows = self._rows(state.data, kept)
        self.data, self.held = self.rows.data, self.rows.held
        self.training = self.rows.training
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

    def _rows(self, data: GroupedData, kept: Mapping[str, Any]) -> RoundRows:
        """The rows of the last round and their split, or a new split."""
        before = RoundRows.again(data, kept) if kept else None
        if before is not None and self.goes_on:
            return before
        if before is not None:
            data = before.unmade()
        drawn = RoundRows.drawn
        return drawn(self.loop, self.world, self.columns, data, self.round, self.rng)

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
        sampler = self._uniform(torch.arange(len(real)), len(real), real)
        model = self.model("reference", "classifier")
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
            sampler = self._uniform(torch.arange(length), length, real)
        elif loop.method in ("generated", "pooled"):
            made = (cells.source == GENERATED).nonzero().flatten()
            sampler = self._uniform(made if loop.method == "generated" else every, length)
        elif loop.method == "topped_up":
            picked, short = top_up(cells, generator)
            if bool(short.any()):
                self.said.append(f"topping up lacked {int(short.sum())} generated rows")
            sampler = self._uniform(picked, length)
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

    def _uniform(self, rows: Tensor, length: int, of: Tensor | None = None) -> Rows:
        """Batches of `rows`, positions among the training rows `of`, uniform or by weight."""
        weight = self.cells.weight
        if weight is not None:
            weight = (weight if of is None else weight[of])[rows]
        return Rows(rows, length=length, weight=weight)

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
        kept: dict[str, Any] = {**self.rows.state_dict(), "ratios": self.ratios.state_dict()}
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
            if inner.controller is not None:
                values["objective"] = inner.controller.sight.objective.words()
            if inner.last is not None:
                values |= {"outer": inner.last.value, "loss gap": inner.last.gap}
                values["updates"] = inner.last.update
                values[PATH] = _path(names, inner.trail)
        if isinstance(inner, FairBatchSampler):
            lam = inner.share
            values["objective"] = f"{inner.measure} gap of losses (reference=pairwise)"
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
        made = is_generated(held)
        real, shown = held.take(~made), held.take(made)
        counts = {"held out": self._table(model, real)}
        if reference is not None:
            counts["held out.reference"] = self._table(reference, real)
            shown = self.data.take(is_generated(self.data))
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
