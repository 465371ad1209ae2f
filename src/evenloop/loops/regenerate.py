"""Regenerate: each generation trains a generator and a classifier on what their parents made.

Source: Sierra Wyllie, Ilia Shumailov, Nicolas Papernot, "Fairness Feedback Loops: Training on
Synthetic Data Amplifies Bias", FAccT 2024 (arXiv 2403.07857): the settings SeqGenSeqClass,
SeqGenNonSeqClass and SeqClass, and stratified algorithmic reparation (STAR) of either model.

Assumption: labels and groups of generated rows are what two annotators, trained once on the
natural rows, say they are. The loop measures them, not the world.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import nn

from evenloop.data import GroupedData
from evenloop.groups import LABEL, GroupIndex
from evenloop.loop import Loop, Notes, State, World
from evenloop.loops._regenerate import KEY, Generation
from evenloop.loops._regenerate_annotators import (
    OFFICIAL,
    Natural,
    annotators,
    group_columns,
    held_out_rows,
    natural_rows,
)
from evenloop.loops._regenerate_population import describe
from evenloop.models.generators import (
    BringsObjective,
    FitsItself,
    build_generator,
    check_samples,
)
from evenloop.models.vae import Vae
from evenloop.objectives.vae import PRESETS
from evenloop.promises import Promise, SharesKept
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.samplers.quota import Fill, Quota, budget_of, quotas
from evenloop.samplers.quota_plan import plan_reparation
from evenloop.seams import Objective
from evenloop.words import nearest

__all__ = ["Regenerate"]

LEAST = {
    "natural": 0, "population": 1, "quality": 0, "validation": 0, "blocks": 1,
    "annotator_epochs": 1, "annotator_batch": 1,
}  # fmt: skip
Setting = Literal["seqgen-seqclass", "seqgen-nonseqclass", "seqclass"]
Reparation = Literal["none", "classifier", "generator", "both"]
Draws = Literal["fresh", "pool"]
Judge = Literal["none", "natural", "validation"]
WORDS = {
    "setting": Setting, "reparation": Reparation, "draws": Draws, "generator_draws": Draws,
    "judge": Judge,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Regenerate(Loop):
    """One generation a round; the classifier is trained by the world's recipe, on generated rows.

    Attributes:
        natural: natural rows, the first of the world's; 0 takes all.
        setting: "seqgen-seqclass" (new generator and new classifier, labels by the last
            classifier), "seqgen-nonseqclass" (labels always by the first annotator), "seqclass"
            (one generator for all generations).
        generator: name, see `evenloop.models.generators`.
        generator_options: its own options (latent, widths, cells).
        loss: of a VAE, see `evenloop.objectives.vae`; a generator that brings its own cost
            (diffusion) does not read it.
        beta: weight of the divergence; None keeps the loss's own.
        synthetic: share of generated rows in the batches of later generators.
        reparation: whose batches are curated toward `ideal`.
        budget: rows drawn beyond a curated batch, a count or a percentage.
        ideal: target share of every stratum (label x group, the group varying fastest); None is
            uniform.
        fill: how a curated batch's missing rows are supplied.
        draws: "fresh" rows for every batch of a classifier, or one finite "pool" of as many rows
            as there are natural ones.
        generator_draws: the same for a generator's training; a finite pool, drawn with
            replacement, adds the drift of a finite sample in every generation.
        population: rows drawn to describe a generation.
        quality: natural and generated rows whose features are compared by group; 0 for none.
        validation: natural rows which nothing but a judge may be trained on; the annotators and
            classifiers are tried on them. A number takes the last so many, "official" those that
            the data's own attribute "split" calls validation.
        judge: a second group annotator, with streams of its own, that never chooses a row and only
            measures the population beside the one that curates: "none", or the rows it learns
            from. "natural" are those of the other annotators; "validation" are the held-out ones,
            so that the two share neither start nor rows, and each is tried on the other's.
        annotator_floor: accuracy of an annotator below which the run warns.
        annotator_epochs, annotator_batch: of all annotators; None as the classifier.
        generator_optimizer, generator_lr, generator_weight_decay, generator_batch,
            generator_epochs, generator_clip: how a generator is trained, at a constant rate.
        blocks: batches drawn and annotated at once.
        compat_batching: the study's steps: annotators and un-repaired classifiers train at the
            generator's batch size, and every epoch has as many steps as the generator's.
            Not for a curated pool.
        tolerance: the claim of a run: largest distance of a group's share among generated rows
            from its natural share, in [0, 1] (`PopulationClaim`); None claims nothing.
    """

    natural: int = 0
    setting: Setting = "seqgen-seqclass"
    generator: str = "conv-vae"
    generator_options: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "bernoulli-sum"
    beta: float | None = None
    synthetic: float = 1.0
    reparation: Reparation = "none"
    budget: int | str = "25%"
    ideal: tuple[float, ...] | None = None
    fill: Fill = "unfiltered"
    draws: Draws = "fresh"
    generator_draws: Draws = "fresh"
    population: int = 10_000
    quality: int = 0
    validation: int | Literal["official"] = 0
    judge: Judge = "none"
    annotator_floor: float = 0.8
    annotator_epochs: int | None = None
    annotator_batch: int | None = None
    generator_optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    generator_lr: float = 1e-3
    generator_weight_decay: float = 1e-5
    generator_batch: int = 256
    generator_epochs: int = 30
    generator_clip: float | None = None
    blocks: int = 4
    compat_batching: bool = False
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.loss not in PRESETS:
            raise ValueError(f"loss must be one of {', '.join(PRESETS)}, got {self.loss!r}")
        for name, kind in WORDS.items():
            word, words = getattr(self, name), get_args(kind)
            if word not in words:
                raise ValueError(f"{name} has no {word!r}; {nearest(str(word), words)}")
        for name in ("synthetic", "annotator_floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share in [0, 1], got {getattr(self, name)}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if name == "validation" and isinstance(value, str):
                if value != OFFICIAL:
                    raise ValueError(f"validation must be a number or {OFFICIAL!r}, got {value!r}")
            elif value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.beta is not None and not self.beta >= 0:
            raise ValueError(f"beta must be at least 0, or None, got {self.beta}")
        if self.tolerance is not None and not 0 <= self.tolerance <= 1:
            raise ValueError(
                f"tolerance must be a difference of shares in [0, 1], got {self.tolerance}"
            )
        Quota(self.budget, self.ideal, self.fill)
        if self.reparation != "none" and budget_of(self.budget, 100) == 0:
            raise ValueError(
                f"budget={self.budget!r} curates nothing; give a budget above 0 or reparation=none"
            )
        if self.judge == "validation" and self.validation == 0:
            raise ValueError(
                "judge='validation' learns from rows held out of all other training, and "
                "validation=0 holds out none; give validation=N, or judge='natural'"
            )
        if self.setting == "seqclass" and self.reparation in ("generator", "both"):
            raise ValueError(
                f"reparation={self.reparation!r} needs a generator in every generation, and "
                "setting='seqclass' has one for all; use reparation='classifier'"
            )
        if (
            self.compat_batching
            and self.draws == "pool"
            and self.reparation in ("classifier", "both")
        ):
            raise ValueError(
                f"compat_batching fixes the steps of an epoch, which a curated pool does not have: "
                f"draws='pool' with reparation={self.reparation!r}; use draws='fresh', or "
                "compat_batching=False"
            )
        self.generator_recipe(Recipe())

    def promises(self) -> tuple[Promise, ...]:
        """Groups keep their shares, where a tolerance says how far."""
        return () if self.tolerance is None else (SharesKept(self.tolerance),)

    def foreseen(self, world: World) -> tuple[str, ...]:
        """Strata that the budget cannot fill even from the natural mix, as sentences."""
        return tuple(self.lost_strata(world, self._rows(world)))

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        """D: the world's rows, or those an earlier loop of a chain left. Nothing is trained yet."""
        if self.natural > len(world.data):
            raise ValueError(f"natural={self.natural}, but the world has {len(world.data)} rows")
        state = start or State(self._rows(world))
        self._check(world, state.data)
        return state

    def _rows(self, world: World) -> GroupedData:
        return world.data.take(torch.arange(self.natural)) if self.natural else world.data

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        """One generation: maybe a new generator G_g, what it makes, then a new classifier C_g."""
        at = Generation(self, world, state, round, rng)
        who = annotators(at)
        last = state.models.get("classifier") if round else None
        teacher = last or who.label
        if self.setting == "seqgen-nonseqclass":
            teacher = who.label

        generator = at.parent()
        if generator is None or self.setting != "seqclass":
            generator = at.generator(generator, last or who.label, who.group)
        describe(at, generator, who, teacher)
        classifier = at.classifier(generator, teacher, who.group)

        kept = {**who.states(), "generator": generator.state_dict()}
        models = {**state.models, "classifier": classifier}
        return State(state.data, models, {**state.extra, KEY: kept}), at.notes()

    def _check(self, world: World, data: GroupedData) -> None:
        """What the data contradicts, before anything is trained."""
        held_out_rows(natural_rows(data), self.validation)
        groups = group_columns(world, data)
        if self.judge == "validation":
            Natural.of(world, data, self.validation).check_judge()
        strata = GroupIndex.of(data, [LABEL, *groups])
        quotas(self.generator_batch, strata.size, self.ideal)
        self._check_generator(tuple(data.x.shape[1:]), strata.names)

    def _check_generator(self, shape: tuple[int, ...], strata: Sequence[str]) -> None:
        """Its options and, where it can draw before it is trained, what its samples look like."""
        model = build_generator(self.generator, shape, seed=0, options=self.generator_options)
        if isinstance(model, Vae) and model.cells not in (0, len(strata)):
            raise ValueError(
                f"generator_options: cells={model.cells}, but there are {len(strata)} strata "
                f"({', '.join(strata)}); give as many cells, or 0"
            )
        if not isinstance(model, FitsItself):
            check_samples(model.sample(2, Rng.of(0).gen()), shape, name="the untrained generator")  # type: ignore[operator]

    def generator_recipe(self, base: Recipe) -> Recipe:
        """The loop's own settings over the world's device, precision and the like."""
        return replace(
            base,
            channels_last=base.channels_last or False,
            optimizer=self.generator_optimizer,
            lr=self.generator_lr,
            weight_decay=self.generator_weight_decay,
            batch=self.generator_batch,
            epochs=self.generator_epochs,
            clip_norm=self.generator_clip,
            momentum=0.0,
            nesterov=False,
            sum_decay=False,
            drop_last=False,
            schedule="constant",
            augment="none",
            label_smoothing=0.0,
        )

    def generator_cost(self, generator: nn.Module) -> Objective:
        """What a batch costs in a generator's training: its own objective, or the VAE's loss."""
        if isinstance(generator, BringsObjective):
            return generator.objective()
        loss = PRESETS[self.loss]
        return loss if self.beta is None else replace(loss, beta=self.beta)

    def annotator_recipe(self, base: Recipe) -> Recipe:
        """The classifier's recipe with the annotators' own epochs and batch."""
        batch = self.annotator_batch or (
            self.generator_batch if self.compat_batching else base.batch
        )
        return replace(base, batch=batch, epochs=self.annotator_epochs or base.epochs)

    def lost_strata(self, world: World, data: GroupedData) -> list[str]:
        """Strata that the budget cannot fill even from the natural mix, as sentences."""
        if self.reparation == "none":
            return []
        strata = GroupIndex.of(data, [LABEL, *group_columns(world, data)])
        share = strata.count().double() / len(data)
        sizes = {"generator": self.generator_batch, "classifier": world.recipe.batch}
        return [
            f"{who}'s batches: {warning}"
            for who, batch in sizes.items()
            if self.reparation in (who, "both")
            for warning in plan_reparation(
                share, batch=batch, budget=self.budget, ideal=self.ideal, fill=self.fill
            ).warnings(strata.names)
        ]
