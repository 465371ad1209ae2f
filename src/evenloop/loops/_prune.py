"""The parts of a round of `prune`: what the dense net says, and what is noted of both nets.

Private to `evenloop.loops.prune`, which says in what order they come.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from evenloop.counts import Counts, Moments
from evenloop.data import GroupedData
from evenloop.fit import predict
from evenloop.groups import LABEL, TRUTH, GroupIndex
from evenloop.loop import Notes, World
from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.reference import Reference, marginal_members
from evenloop.objectives.traced import Traced
from evenloop.seams import Surgery
from evenloop.surgery.magnitude import GradualMagnitudePruning
from evenloop.surgery.structured import ChannelPruning

if TYPE_CHECKING:
    from evenloop.loops.prune import Prune

__all__ = ["Seen", "equal_target", "measured"]

ROUNDING = 1e-9  # accuracies are quotients of counts in float64


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The training rows, their groups, and the dense net's logits on them in evaluation mode."""

    data: GroupedData
    groups: GroupIndex
    dense: nn.Module
    logits: Tensor

    @staticmethod
    def of(world: World, data: GroupedData, dense: nn.Module) -> Seen:
        logits = predict(dense, data.x, batch=world.recipe.eval_batch)
        return Seen(data, world.groups(data), dense, logits)

    def columns(self, world: World) -> dict[str, tuple[str, ...]]:
        """Groups of each column by itself, as "race=Asian", by the column's name."""
        empty = self.data.take([])
        return {
            name: tuple(f"{name}={value}" for value in GroupIndex.of(empty, [name]).names)
            for name in world.by
        }

    def judge(self, world: World, loop: Prune) -> Callable[[nn.Module], tuple[bool, float]]:
        """Whether a net meets the tolerance on the training rows, and how accurate it is there.

        As it would be kept: rounded, if `loop` rounds at the end. Where a group has no rows no net
        is known to meet the tolerance, and none is said to.
        """
        reference, members = self.reference(world, loop.intersectional)
        cell = self.groups.cell
        cell = cell if members is None else members.to(cell.device)[cell]
        whole, rounds = bool((reference.count > 0).all()), loop.int8 or loop.structure == "int8"

        def judged(model: nn.Module) -> tuple[bool, float]:
            if rounds:
                model = copy.deepcopy(model)
                loop.rounding().finish(model)
            logits = predict(model, self.data.x, batch=world.recipe.eval_batch)
            now = Reference.of(logits, self.data.y, cell, reference.names)
            lost = reference.group_acc - now.group_acc
            excess = lost - (reference.acc - now.acc)
            meets = whole and float(excess.max()) <= (loop.tolerance or 0.0) + ROUNDING
            return meets, float(now.acc)

        return judged

    def reference(self, world: World, joint: bool) -> tuple[Reference, Tensor | None]:
        """The dense statistics by joint cells, or by column with each cell's (J, A) members."""
        cell, names = self.groups.cell, self.groups.names
        members = None
        if not joint and len(world.by) > 1:
            columns = self.columns(world)
            members = marginal_members([len(column) for column in columns.values()])
            cell = members.to(cell.device)[cell]
            names = tuple(value for column in columns.values() for value in column)
        return Reference.of(self.logits, self.data.y, cell, names), members


def measured(
    loop: Prune,
    world: World,
    seen: Seen,
    sparse: nn.Module,
    level: float,
    constraint: Traced | None,
    surgery: Surgery | None,
) -> Notes:
    """Counts of both nets on the training rows, who lost what, and how the constraint fared."""
    y, classes = seen.data.y, world.data.schema.classes
    before = seen.logits.argmax(1)
    after = predict(sparse, seen.data.x, batch=world.recipe.eval_batch).argmax(1)
    lost = (before == y).double() - (after == y).double()
    counts = {
        "fit.reference": Counts.of(before, y, seen.groups, classes),
        "fit": Counts.of(after, y, seen.groups, classes),
    }
    values: dict[str, float | int | str] = {
        "stage": "dense" if surgery is None else "sparse",
        "method": loop.method,
        "sparsity": level,
        "density": _density(sparse),
    }
    if loop.tolerance is not None:
        values["tolerance"] = loop.tolerance
    if not loop.intersectional and len(world.by) > 1:
        values["constrained_columns"] = json.dumps(seen.columns(world))
    if isinstance(surgery, (GradualMagnitudePruning, ChannelPruning)):
        values["layers"] = json.dumps({n: round(d, 6) for n, d in surgery.densities().items()})
    if constraint is not None:
        path = [[round(v, 6) for v in row] for row in constraint.multipliers().tolist()]
        values["multipliers"] = json.dumps({"groups": constraint.inner.names, "path": path})
    moments = {"fit.lost": Moments.of(lost, seen.groups)}
    return Notes(values, counts, moments, tuple(_alarms(loop, seen, constraint, surgery)))


def _alarms(
    loop: Prune, seen: Seen, constraint: Traced | None, surgery: Surgery | None
) -> Iterator[str]:
    """What a reader of the round should know before any figure of it."""
    held = zip(seen.groups.names, seen.groups.count().tolist(), strict=True)
    if absent := [name for name, count in held if not count]:
        yield f"no training rows, not estimable: {', '.join(absent)}"
    if isinstance(surgery, GradualMagnitudePruning) and (thin := surgery.thin()):
        yield f"layers with hardly a weight left: {', '.join(thin)}"
    if constraint is not None:
        yield from _stuck(constraint, loop)


def _stuck(constraint: Traced, loop: Prune) -> list[str]:
    """An alarm for groups violated at the end of tuning whose multipliers no longer come down.

    On a tolerance that can be met the violation ends, and its multiplier falls again. Thirds of
    tuning are compared, not single steps: a proportional term moves with every batch.
    """
    inner, path = constraint.inner, constraint.multipliers()
    third = len(path) // 3
    if not isinstance(inner, AccuracyGap) or third < 2:
        return []
    violated = constraint.violations()[-third:] - loop.margin
    late, before = path[-third:].mean(0), path[-2 * third : -third].mean(0)
    stuck = (violated.mean(0) > 0) & (violated[-(third // 2) :].mean(0) > 0)
    stuck &= (late >= before) & (late > 0)
    names = [name for name, is_stuck in zip(inner.names, stuck.tolist(), strict=True) if is_stuck]
    if not names:
        return []
    return [
        f"tolerance {loop.tolerance:g} was missed through the last third of tuning by: "
        f"{', '.join(names)}; it may be infeasible at this sparsity"
    ]


def _density(model: nn.Module) -> float:
    """Share of all parameters that are not zero, in [0, 1]."""
    parameters = list(model.parameters())
    left = sum(int(p.count_nonzero()) for p in parameters)
    return left / max(1, sum(p.numel() for p in parameters))


def equal_target(world: World) -> dict[str, str]:
    """A note for group columns that are the target itself: allowed, but worth knowing."""
    data = world.data
    same = [
        name
        for name in world.by
        if name in (LABEL, TRUTH) or bool((data.attribute(name) == data.truth).all())
    ]
    return {"groups_are_the_target": ", ".join(same)} if same else {}
