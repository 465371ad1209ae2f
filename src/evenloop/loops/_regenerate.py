"""The parts of a generation: what came before it, its generator and its classifier.

Private to `evenloop.loops.regenerate`, which says in what order they come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evenloop.counts import Counts
from evenloop.data import Attribute, GroupedData, Origin, Schema
from evenloop.fit import TrainsItself, predict
from evenloop.groups import LABEL, GroupIndex
from evenloop.loop import Notes, State, World
from evenloop.loops._regenerate_annotators import Natural
from evenloop.models.generators import FitsItself, build_generator, check_kept
from evenloop.models.vae import Vae, conditioned
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.samplers.fresh import Draw, Fresh, Mixed, from_pool
from evenloop.samplers.quota import Quota, Tally, quotas
from evenloop.samplers.quota_plan import plan_reparation
from evenloop.samplers.uniform import Uniform
from evenloop.seams import Objective, Sampler

if TYPE_CHECKING:
    from evenloop.loops.regenerate import Regenerate

__all__ = ["KEY", "Generation"]

KEY = "regenerate"


class Generation:
    """One round's work, in the order `step` asks for it, and what it has to report."""

    def __init__(self, loop: Regenerate, world: World, state: State, round: int, rng: Rng) -> None:
        self.loop, self.world, self.round, self.rng = loop, world, round, rng
        self.kept: Mapping[str, Any] = state.extra.get(KEY, {})
        self.natural = Natural.of(world, state.data, loop.validation)
        self.data, self.held_out = self.natural.data, self.natural.held_out
        self.groups, self.strata = self.natural.groups, self.natural.strata
        self.classes = self.data.schema.classes
        self.values: dict[str, float | int | str] = {}
        self.counts: dict[str, Counts] = {}
        self.alarms: tuple[str, ...] = ()
        self.samples: dict[str, Tensor] | None = None

    def parent(self) -> nn.Module | None:
        """The last generation's generator, or None before the first."""
        if "generator" not in self.kept:
            return None
        model = self._new_generator().to(self.world.recipe.device)
        model.load_state_dict(self.kept["generator"])
        return model.eval()

    def _new_generator(self) -> nn.Module:
        seed = self.rng.at("generator", "net").seed
        shape, options = tuple(self.data.x.shape[1:]), self.loop.generator_options
        return build_generator(self.loop.generator, shape, seed=seed, options=options)

    def generator(
        self, parent: nn.Module | None, teacher: nn.Module, group_annotator: nn.Module
    ) -> nn.Module:
        """A new generator: on natural rows first, then on its parent's, mixed or curated."""
        model, loop = self._new_generator(), self.loop
        draw = self._draw(parent)
        if parent is not None and loop.generator_draws == "pool":
            draw = from_pool(self.sample(parent, len(self.data), self.rng.at("generator", "pool")))
        conditional = isinstance(model, Vae) and model.cells > 0
        stratum = self._stratum(teacher, group_annotator)
        finish = conditioned if conditional else None
        tally = None
        sampler: Fresh | Mixed
        if parent is not None and loop.reparation in ("generator", "both"):
            tally = Tally(self.strata.size)
            # All full, as the batches of a generator that is not curated are.
            full = -(-len(self.data) // loop.generator_batch)
            quota = self._quota(tally)
            sampler = self._fresh(draw, stratum, quota, finish=finish, fixed_steps=full)
        else:
            share = 0.0 if parent is None else loop.synthetic
            known = stratum if conditional else None
            sampler = Mixed(draw, share, known, self.world.recipe.device, finish, loop.blocks)
        if conditional:
            assert isinstance(model, Vae)
            model.share.copy_(self._shares(parent, stratum))
        recipe = loop.generator_recipe(self.world.recipe)
        if isinstance(model, FitsItself):
            self._fit(model, sampler, recipe.batch, parent)
        else:
            cost = loop.generator_cost(model)
            self.train("generator", model, self.data, self.strata, recipe, sampler, cost)
        self._report("generator", tally, recipe.batch)
        return model

    def _fit(
        self, model: FitsItself, sampler: Fresh | Mixed, batch: int, parent: nn.Module | None
    ) -> None:
        """An epoch's rows to a generator that fits itself; the first is tried for what it keeps."""
        assert isinstance(model, nn.Module)
        device, rng = self.world.recipe.device, self.rng.at("generator")
        model.to(device)
        batches = sampler.epoch(self.data, self.strata, batch=batch, rng=rng.at("rows"))
        rows = torch.cat([made.x for made in batches])
        model.fit(rows, generator=rng.at("fit").gen(device))
        model.eval()  # as it is when it is rebuilt
        if parent is None:
            again = self._new_generator().to(device)
            check_kept(model, again, lambda: rng.at("kept").gen(device))

    def classifier(
        self, generator: nn.Module, teacher: nn.Module, group_annotator: nn.Module
    ) -> nn.Module:
        """A new classifier on generated rows only, labelled by the teacher, maybe curated."""
        loop, recipe = self.loop, self.world.recipe
        model = self.world.net(self.rng.at("classifier", "net"))
        curated = loop.reparation in ("classifier", "both")
        tally = Tally(self.strata.size) if curated else None
        quota = self._quota(tally) if curated else None
        if loop.compat_batching and not curated:
            recipe = replace(recipe, batch=loop.generator_batch)
        counted = loop.compat_batching and curated
        steps = -(-len(self.data) // loop.generator_batch) if counted else None
        stratum = self._stratum(teacher, group_annotator if curated else None)
        data, groups = self.data, self.strata
        sampler: Sampler = self._fresh(
            self._draw(generator), stratum, quota, groups=None if curated else 1, fixed_steps=steps
        )
        if loop.draws == "pool" or isinstance(model, TrainsItself):
            data, groups = self._pool(generator, self._stratum(teacher, group_annotator))
            sampler = quota or Uniform()
        if quota and isinstance(model, TrainsItself):
            source = self.rng.at("classifier", "rows")
            index = torch.cat([*quota.epoch(data, groups, batch=recipe.batch, rng=source)])
            data, groups = data.take(index), groups.take(index)
        self.train("classifier", model, data, groups, recipe, sampler)
        self._report("classifier", tally, recipe.batch)
        if loop.validation:
            predicted = predict(model, self.held_out.x).argmax(1)
            self.counts["validation"] = Counts.of(
                predicted, self.held_out.y, self.natural.held_out_groups, self.classes
            )
        return model

    def notes(self) -> Notes:
        """Everything noted."""
        return Notes(self.values, self.counts, alarms=self.alarms, samples=self.samples)

    def _stratum(
        self, teacher: nn.Module, group_annotator: nn.Module | None
    ) -> Callable[[Tensor], Tensor]:
        """Rows -> label x group by teacher and annotator; the label alone without the latter."""
        size = self.groups.size

        def of(x: Tensor) -> Tensor:
            label = self.predict(teacher, x).argmax(1)
            if group_annotator is None:
                return label
            return label * size + self.predict(group_annotator, x).argmax(1)

        return of

    def _quota(self, tally: Tally | None) -> Quota:
        loop = self.loop
        return Quota(loop.budget, loop.ideal, loop.fill, blocks=loop.blocks, tally=tally)

    def _fresh(
        self,
        draw: Draw,
        stratum: Callable[[Tensor], Tensor],
        quota: Quota | None,
        *,
        groups: int | None = None,
        finish: Callable[[Tensor, Tensor], Tensor] | None = None,
        fixed_steps: int | None = None,
    ) -> Fresh:
        return Fresh(
            draw,
            stratum,
            len(self.classes),
            groups or self.groups.size,
            quota,
            self.loop.blocks,
            self.world.recipe.device,
            finish,
            fixed_steps,
        )

    def sample(self, generator: nn.Module, n: int, rng: Rng) -> Tensor:
        return self._draw(generator)(n, rng.gen(self.world.recipe.device))

    def _draw(self, generator: nn.Module | None) -> Draw:
        """Samples of a frozen generator, in the recipe's precision."""

        def rows(n: int, source: torch.Generator) -> Tensor:
            assert generator is not None
            with self._precision():
                made: Tensor = generator.sample(n, source)  # type: ignore[operator]
            if len(made) != n:
                raise ValueError(
                    f"the generator was asked for {n} rows and gave {len(made)}; sample(n, "
                    "generator) must return n rows"
                )
            return made.float() if made.dtype == torch.bfloat16 else made

        return rows

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """What a frozen model says, in the recipe's precision."""
        with self._precision():
            return predict(model, x)

    def _precision(self) -> torch.autocast:
        recipe = self.world.recipe
        kind = torch.device(recipe.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=recipe.precision == "bf16")

    def _shares(self, parent: nn.Module | None, stratum: Callable[[Tensor], Tensor]) -> Tensor:
        """(K,) expected strata shares of a conditional generator's training rows."""
        loop = self.loop
        natural = self.strata.count() / len(self.data)
        if parent is None:
            return natural
        cells = stratum(self.sample(parent, loop.population, self.rng.at("shares")))
        made = torch.bincount(cells, minlength=self.strata.size) / len(cells)
        if loop.reparation in ("generator", "both"):
            plan = plan_reparation(
                made.double().cpu(),
                batch=loop.generator_batch,
                budget=loop.budget,
                ideal=loop.ideal,
                fill=loop.fill,
            )
            return plan.final.to(made)
        return loop.synthetic * made + (1 - loop.synthetic) * natural

    def _pool(
        self, generator: nn.Module, stratum: Callable[[Tensor], Tensor]
    ) -> tuple[GroupedData, GroupIndex]:
        """As many generated rows as natural ones, annotated once; pixels rounded to bytes."""
        x = self.sample(generator, len(self.data), self.rng.at("pool"))
        cell = stratum(x)
        size = self.groups.size
        if self.data.x.dtype == torch.uint8:
            x = (x * 255).round().to(torch.uint8)
        schema = Schema(self.classes, (Attribute("group", self.groups.names),))
        columns = {"group": cell.cpu() % size}
        rows = GroupedData.of(x.cpu(), cell.cpu() // size, columns, schema, origin=Origin.GENERATED)
        return rows, GroupIndex.of(rows, [LABEL, "group"])

    def train(
        self,
        name: str,
        model: nn.Module,
        data: GroupedData,
        groups: GroupIndex,
        recipe: Recipe,
        sampler: Sampler,
        objective: Objective | None = None,
    ) -> None:
        """Fit in place and note the last loss."""
        fitted = self.world.trainer(
            model,
            data,
            groups,
            recipe=recipe,
            rng=self.rng.at(name),
            sampler=sampler,
            objective=objective,
            keep=self.world.keep,
        )
        if fitted.losses:
            self.values[f"{name.replace(' ', '_')}_loss"] = fitted.losses[-1]

    def _report(self, name: str, tally: Tally | None, batch: int) -> None:
        """What curation did; a stratum it was to hold and never drew is an alarm.

        Of N independent draws of a stratum with share p none is of it with chance (1 - p)^N, which
        is below 5% for every p above the limit that the alarm names.
        """
        if tally is None:
            return
        read, wanted = tally.read(), quotas(batch, self.strata.size, self.loop.ideal).tolist()
        self.values[f"{name}.missing_share"] = read["missing_share"]
        for cell, share, quota in zip(self.strata.names, read["first_share"], wanted, strict=True):
            self.values[f"{name}.first_share.{cell}"] = share
            if quota and share == 0:
                n = read["drawn"]
                self.alarms += (
                    f"none of the {n} rows first drawn for the {name}'s batches was {cell}, of "
                    f"which each was to hold {quota}: of what is drawn it is at most "
                    f"{1 - 0.05 ** (1 / n):.3g} (a 95% limit for a share seen in none of {n})",
                )
