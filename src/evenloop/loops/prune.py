"""Prune: a smaller net in which no group loses more accuracy than the average plus a tolerance.

Source: Hashemizadeh, Ramirez, Sukumaran, Farnadi, Lacoste-Julien and Gallego-Posada, "Balancing
Act: Constraining Disparate Impact in Sparse Models", ICLR 2024 (arXiv 2310.20673), with naive
fine-tuning and equalized loss as baselines.

Assumption: groups are known for every training row; only training rows are constrained, against
the user's own dense model, whose own unevenness is not judged. On held-out rows the requirement
is measured, not enforced.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.loop import Loop, Notes, State, World
from evenloop.loops._prune import Seen, equal_target, measured
from evenloop.loops._prune_fields import check_fields
from evenloop.objectives.accuracy_gap import AccuracyGap, Average, MemoryKind
from evenloop.objectives.distilled import Distilled, Taught
from evenloop.objectives.duals import AverageGradient, DualAscent
from evenloop.objectives.equalized_loss import EqualizedLoss
from evenloop.objectives.traced import Traced
from evenloop.promises import AccuracyKept, Promise
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform
from evenloop.seams import Objective, Surgery
from evenloop.surgery.chosen import Chosen
from evenloop.surgery.export import load_weights
from evenloop.surgery.int8 import Int8Weights, dynamic_int8
from evenloop.surgery.layers import FIRST_CONV, LAST_LINEAR
from evenloop.surgery.magnitude import GradualMagnitudePruning, Scope
from evenloop.surgery.schedule import Cubic
from evenloop.surgery.structured import ChannelPruning
from evenloop.surgery.together import Together
from evenloop.world import Net

__all__ = ["Prune"]

TRACE = 40  # points of the multipliers' path that a round notes


@dataclass(frozen=True, slots=True)
class Prune(Loop):
    """Round 0 trains (or loads) the dense net; each later round prunes it to the next sparsity.

    Rounds after the last sparsity tune its net further, masks kept. In a chain, where an earlier
    loop leaves a classifier, every round prunes that one to the last sparsity instead.

    Attributes:
        sparsity: share of prunable weights (or channels) removed, one for each round after 0.
        method: "none" fine-tunes on the mean loss, "equalized_loss" asks for equal losses,
            "accuracy_gap" for excess accuracy gaps of at most `tolerance`.
        tolerance: a fraction >= 0; needed by "accuracy_gap", only measured for the others.
        tune: fields of the recipe that differ from dense training (lr, epochs, schedule ...).
        rows: training rows, the first so many of the world; None for all.
        dense: "train", or the path of a state dict (.pt, .safetensors) of the configured net.
        structure: "unstructured" weights, two of every four ("2:4", a sparsity of 0.5), whole
            "channel"s, or "int8" (no sparsity: weights are rounded after tuning).
        scope: how unstructured sparsity is shared out between layers: "layer", "global", "erk".
        keep_dense: layers left whole; of "channel", with all that a residual sum ties to them.
        sparsity_start, prune_until, prune_every: the cubic schedule, in epochs of tuning.
        constrain_from: "pruning_end", "start", or an epoch.
        buffer_size, memory, average, average_gradient, floor, two_sided: see `AccuracyGap`. None
            for average_gradient is "bounded" for a one-sided "accuracy_gap", else "full".
        absolute: of "equalized_loss".
        margin: how much less than `tolerance` the multipliers allow, in [0, tolerance]: an active
            constraint hovers around its bound, and what is judged should lie below it.
        dual_lr, dual_kp, dual_ema, dual_momentum, dual_restart, dual_cap: see `DualAscent`.
        intersectional: constrain the product of the group columns, or each column by itself.
        select: "last" keeps the net of the last epoch; "feasible" the most accurate of the last
            third of tuning that meets the tolerance, both on the training rows (else the last;
            so too where a group has no training rows, as no net is known to meet it then).
        distil: weight in [0, 1] of imitating the dense net while tuning.
        int8: whether the weights that are left are rounded to eight bits after tuning; "dynamic"
            rounds the inputs of linear layers too, item by item. What is chosen by, measured and
            kept is the rounded net.

    Raises:
        ValueError: a field is out of range, unknown, or at odds with another; the message names
            it, its value and what would do.
    """

    sparsity: float | tuple[float, ...] = 0.9
    method: Literal["none", "equalized_loss", "accuracy_gap"] = "accuracy_gap"
    tolerance: float | None = None
    tune: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None
    dense: str = "train"
    structure: Literal["unstructured", "2:4", "channel", "int8"] = "unstructured"
    scope: Scope = "layer"
    keep_dense: tuple[str, ...] = (FIRST_CONV, LAST_LINEAR)
    sparsity_start: float = 0.0
    prune_until: int = 15
    prune_every: int = 1
    constrain_from: int | Literal["pruning_end", "start"] = "pruning_end"
    buffer_size: int | Literal["auto"] | None = "auto"
    average: Average = "population"
    average_gradient: AverageGradient | None = None
    floor: float = 0.0
    absolute: bool = False
    memory: MemoryKind = "ring"
    two_sided: bool = False
    margin: float = 0.0
    dual_lr: float = 1e-2
    dual_kp: float = 0.0
    dual_ema: float = 0.0
    dual_momentum: float = 0.0
    dual_restart: bool = False
    dual_cap: float | None = None
    intersectional: bool = True
    distil: float = 0.0
    select: Literal["last", "feasible"] = "last"
    int8: bool | Literal["dynamic"] = False

    def __post_init__(self) -> None:
        check_fields(self)
        for level in self.levels:
            self.schedule(level)
        self.rule()

    @property
    def levels(self) -> tuple[float, ...]:
        """Sparsities, one a round after round 0."""
        return (self.sparsity,) if isinstance(self.sparsity, (int, float)) else self.sparsity

    def schedule(self, level: float, at_once: bool = False) -> Cubic:
        """The cubic schedule to sparsity `level`, or all of it before the first epoch."""
        if at_once or self.prune_until == 0:
            return Cubic(level, 0, 0, initial=level)
        return Cubic(level, 0, self.prune_until, self.prune_every, self.sparsity_start)

    def first_epoch(self, again: bool = False) -> int:
        """Epoch of tuning from which the constraints hold; 0 for a net that is sparse already."""
        if again or self.constrain_from == "start":
            return 0
        if self.constrain_from == "pruning_end":
            return 0 if self.structure == "int8" else self.prune_until
        return self.constrain_from

    def rule(self) -> DualAscent:
        """How the multipliers move."""
        return DualAscent(
            self.dual_lr,
            self.dual_kp,
            1.0,
            self.dual_ema,
            self.dual_momentum,
            self.dual_restart,
            self.dual_cap,
        )

    def rounding(self) -> Int8Weights:
        """What rounds the net that is kept."""
        return Int8Weights(self.int8 == "dynamic")

    def nets(self, world: World) -> Mapping[str, Net]:
        """The classifier, where it rounds its inputs too, as no state dict says that it does."""
        if self.int8 != "dynamic":
            return {}
        return {"classifier": lambda rng: dynamic_int8(world.net(rng))}

    def recipe(self, dense: Recipe) -> Recipe:
        """The recipe of tuning.

        Raises:
            ValueError: a field out of range, or tuning that ends before pruning does.
        """
        recipe = replace(dense, **dict(self.tune))
        if isinstance(recipe.epochs, int) and recipe.epochs <= self.prune_until:
            raise ValueError(
                f"prune_until={self.prune_until} leaves none of the {recipe.epochs} epochs of "
                "tuning to tune in; raise tune.epochs or lower prune_until"
            )
        first = self.constrain_from
        if isinstance(recipe.epochs, int) and isinstance(first, int) and first >= recipe.epochs:
            raise ValueError(
                f"constrain_from={first} leaves none of the {recipe.epochs} epochs of tuning under "
                "the constraint; use a smaller epoch, or pruning_end"
            )
        return recipe

    def promises(self) -> tuple[Promise, ...]:
        """Groups keep their accuracy, where a tolerance says how far."""
        return () if self.tolerance is None else (AccuracyKept(self.tolerance),)

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        """All rows of the world, or what an earlier loop of a chain left."""
        self.recipe(world.recipe)
        if self.method != "none" and not world.by:
            raise ValueError(
                f"method={self.method!r} compares groups, and by is empty: name the group columns "
                "in by, or set method='none'"
            )
        if self.dense != "train":
            load_weights(world.net(rng.at("net")), self.dense)
        if start is not None:
            return State(start.data, start.models, {**start.extra, "prunes": "what it is given"})
        if self.rows is not None and self.rows > len(world.data):
            raise ValueError(
                f"rows={self.rows} is more than the {len(world.data)} rows outside the audit split"
            )
        data = world.data if self.rows is None else world.data.take(torch.arange(self.rows))
        self._check_buffer(world.groups(data))
        return State(data)

    def _check_buffer(self, groups: GroupIndex) -> None:
        """Before any training: no buffer larger than a joint group that has rows."""
        if not isinstance(self.buffer_size, int) or not self.intersectional:
            return
        for name, n in zip(groups.names, groups.count().tolist(), strict=True):
            if 0 < n < self.buffer_size:
                raise ValueError(
                    f"buffer_size={self.buffer_size} is larger than group {name!r} ({n} training "
                    f'rows); use at most {n}, or "auto"'
                )

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        """Measure the dense net, copy it, prune and tune the copy under the constraint."""
        given = "prunes" in state.extra
        if not given and round == 0:
            return self._dense(world, state, rng)
        again = not given and round > len(self.levels)
        level = self.levels[-1] if given or again else self.levels[round - 1]
        dense = state.models["classifier" if given else "reference"]
        seen = Seen.of(world, state.data, dense)
        constraint = self.constraint(world, seen, self.first_epoch(again))
        surgery = self.surgery(self.schedule(level, again), state.data)
        if again:  # a weight that was rounded to 0 ties with those pruned, and may yet grow
            surgery.load_state_dict(state.extra.get("masks", {}))
        start = state.models["classifier"] if again else dense
        chosen = self.chosen(world, seen)
        sparse = self.tuned(world, seen, start, rng.at("tune"), constraint, surgery, chosen)
        notes = measured(self, world, seen, sparse, level, constraint, surgery)
        if chosen is not None:
            kept = chosen.epoch or self.recipe(world.recipe).epochs_for(len(seen.data))
            notes = replace(notes, values={**notes.values, "kept_epoch": kept})
        extra = dict(state.extra)
        if constraint is not None:
            extra["multipliers"] = constraint.inner.multipliers.cpu()
        if masks := surgery.state_dict():
            extra["masks"] = {name: mask.cpu() for name, mask in masks.items()}
        models = {**state.models, "classifier": sparse, "reference": dense}
        return State(state.data, models, extra), notes

    def _dense(self, world: World, state: State, rng: Rng) -> tuple[State, Notes]:
        model = world.net(rng.at("net"))
        if self.dense == "train":
            model = world.fit(model, state.data, rng=rng.at("fit")).model
        else:
            model = load_weights(model, self.dense).to(world.recipe.device).eval()
        seen = Seen.of(world, state.data, model)
        notes = measured(self, world, seen, model, 0.0, None, None)
        values = {**notes.values, **equal_target(world)}
        models = {"classifier": model, "reference": model}
        return State(state.data, models, state.extra), replace(notes, values=values)

    def constraint(self, world: World, seen: Seen, first_epoch: int) -> Traced | None:
        """The objective of the method with its multipliers over time; None for the plain mean."""
        if self.method == "none":
            return None
        recipe, rows = self.recipe(world.recipe), len(seen.data)
        steps = Uniform(drop_last=recipe.drop_last).steps(rows, recipe.batch)
        reference, members = seen.reference(world, self.intersectional)
        shared: dict[str, Any] = {
            "buffer_size": self.buffer_size,
            "memory": self.memory,
            "average": self.average,
            "dual": self.rule(),
            "start": steps * first_epoch,
            "members": members,
            "label_smoothing": recipe.label_smoothing,
        }
        if self.average_gradient is not None:
            shared["average_gradient"] = self.average_gradient
        inner: AccuracyGap | EqualizedLoss
        if self.method == "accuracy_gap":
            assert self.tolerance is not None
            if self.two_sided:
                shared = {"average_gradient": "full", "two_sided": True} | shared
            bound = self.tolerance - self.margin
            inner = AccuracyGap(reference, bound, floor=self.floor, **shared)
        else:
            inner = EqualizedLoss(reference, absolute=self.absolute, **shared)
        return Traced(inner, every=max(1, steps * recipe.epochs_for(rows) // TRACE))

    def surgery(self, schedule: Cubic, data: GroupedData) -> Surgery:
        """What removes weights on `schedule`."""
        if self.structure == "int8":
            return self.rounding()
        if self.structure == "channel":
            return ChannelPruning(data.x[:1], schedule, self.keep_dense)
        scope = "2:4" if self.structure == "2:4" else self.scope
        return GradualMagnitudePruning(None, schedule, self.keep_dense, scope)

    def chosen(self, world: World, seen: Seen) -> Chosen | None:
        """What keeps the net of the best epoch, if one is to be chosen."""
        if self.select == "last":
            return None
        epochs = self.recipe(world.recipe).epochs_for(len(seen.data))
        # Nets before the last pruning event are not as sparse as asked.
        return Chosen(seen.judge(world, self), max(epochs - epochs // 3, self.prune_until + 1))

    def tuned(
        self,
        world: World,
        seen: Seen,
        start: nn.Module,
        rng: Rng,
        constraint: Traced | None,
        surgery: Surgery,
        chosen: Chosen | None = None,
    ) -> nn.Module:
        """A copy of `start`, pruned and tuned."""
        sparse: nn.Module = copy.deepcopy(start)
        objective: Objective | None = constraint
        if self.distil:
            sparse, objective = Taught(sparse, seen.dense), Distilled(constraint, self.distil)
        recipe = self.recipe(world.recipe)
        # In this order: the net to keep is put back before it is rounded.
        parts = [*([chosen] if chosen else []), surgery, *([self.rounding()] if self.int8 else [])]
        done = world.fit(
            sparse, seen.data, rng=rng, recipe=recipe, objective=objective, surgery=Together(*parts)
        ).model
        return done.student if isinstance(done, Taught) else done
