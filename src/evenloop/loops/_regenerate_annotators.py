"""Who says what a generated row is: the natural rows, the annotators trained on them, the judge.

Private to `evenloop.loops.regenerate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evenloop.counts import Counts
from evenloop.data import GroupedData, Origin, Schema
from evenloop.fit import TrainsItself, predict
from evenloop.groups import LABEL, TRUTH, GroupIndex
from evenloop.loop import World
from evenloop.models.outputs import with_outputs
from evenloop.samplers.uniform import Uniform

if TYPE_CHECKING:
    from evenloop.loops._regenerate import Generation

__all__ = [
    "OFFICIAL",
    "Annotators",
    "Natural",
    "annotators",
    "group_columns",
    "held_out_rows",
    "natural_rows",
]

OFFICIAL = "official"
GROUP, JUDGE, LABELS = "group annotator", "group judge", "label annotator"


@dataclass(frozen=True, slots=True, eq=False)
class Natural:
    """Natural rows and those of them held out of training; all of them where none are.

    `groups` and `held_out_groups` are cells of the group columns, `strata` label x group.
    """

    data: GroupedData
    held_out: GroupedData
    groups: GroupIndex
    held_out_groups: GroupIndex
    strata: GroupIndex

    @staticmethod
    def of(world: World, data: GroupedData, held: int | str) -> Natural:
        """Those of `data` that no generator made, on the recipe's device; see `held_out_rows`."""
        natural = natural_rows(data.to(world.recipe.device))
        late = held_out_rows(natural, held)
        first = natural.take((~late).nonzero().flatten()) if held else natural
        last = natural.take(late.nonzero().flatten()) if held else natural
        columns = group_columns(world, first)
        return Natural(
            first,
            last,
            GroupIndex.of(first, columns),
            GroupIndex.of(last, columns),
            GroupIndex.of(first, [LABEL, *columns]),
        )

    def check_judge(self) -> None:
        """Refuses held-out rows from which a group cannot be learned.

        Raises:
            ValueError: a group of the natural rows has none among those held out.
        """
        missing = (self.groups.count() > 0) & (self.held_out_groups.count() == 0)
        names = [name for name, lost in zip(self.groups.names, missing, strict=True) if lost]
        if names:
            raise ValueError(
                f"judge='validation' learns from {len(self.held_out)} held-out natural rows, and "
                f"none of them is {' or '.join(names)}; give more validation rows, or "
                "judge='natural'"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Annotators:
    """A_L, A_S and, where the loop asks for one, the judge: a second A_S that only measures."""

    label: nn.Module
    group: nn.Module
    judge: nn.Module | None

    def states(self) -> dict[str, dict[str, Any]]:
        """What is kept for later generations, by name."""
        kept = {_key(LABELS): self.label.state_dict(), _key(GROUP): self.group.state_dict()}
        return kept if self.judge is None else kept | {_key(JUDGE): self.judge.state_dict()}


def annotators(at: Generation) -> Annotators:
    """Those that an earlier generation trained, else new ones; how often they are right is noted.

    The judge has streams of its own, so that nothing else changes where it is asked for.
    """
    label = at.world.net(at.rng.at(LABELS, "net"))
    group = _of_groups(at, GROUP)
    if at.kept:
        return Annotators(_restored(at, LABELS, label), _restored(at, GROUP, group), _judge(at))
    asked, cells = _asked(at.data, at.groups)
    recipe = at.loop.annotator_recipe(at.world.recipe)
    at.train(LABELS, label, at.data, at.strata, recipe, Uniform())
    at.train(GROUP, group, asked, cells, recipe, Uniform())
    natural = at.natural
    said = predict(label, natural.held_out.x).argmax(1)
    right = Counts.of(said, natural.held_out.y, natural.held_out_groups, at.classes)
    held_out = bool(at.loop.validation)
    _note(at, LABELS, right, held_out)
    _note(at, GROUP, _hits(group, natural.held_out, natural.held_out_groups), held_out)
    judge = _judge(at)
    at.alarms += tuple(at.loop.lost_strata(at.world, at.data))
    return Annotators(label, group, judge)


def _judge(at: Generation) -> nn.Module | None:
    """The judge, trained when it is first asked for, or None.

    Trained on the validation rows it shares none with the annotator that curates; each of the two
    is then tried on the rows of the other.
    """
    if at.loop.judge == "none":
        return None
    judge = _of_groups(at, JUDGE)
    if _key(JUDGE) in at.kept:
        return _restored(at, JUDGE, judge)
    natural = at.natural
    mine, others = (natural.data, natural.groups), (natural.held_out, natural.held_out_groups)
    if at.loop.judge == "validation":
        mine, others = others, mine
    asked, cells = _asked(*mine)
    at.train(JUDGE, judge, asked, cells, at.loop.annotator_recipe(at.world.recipe), Uniform())
    _note(at, JUDGE, _hits(judge, *others), bool(at.loop.validation))
    return judge


def _of_groups(at: Generation, name: str) -> nn.Module:
    """A fresh net of the world's kind with an output for each group."""
    start = at.rng.at(name, "net")
    net = at.world.net(start)
    if isinstance(net, TrainsItself):
        return net
    return with_outputs(net, len(at.groups.names), seed=start.at("head").seed)


def _restored(at: Generation, name: str, model: nn.Module) -> nn.Module:
    model.to(at.world.recipe.device).load_state_dict(at.kept[_key(name)])
    return model.eval()


def _asked(data: GroupedData, groups: GroupIndex) -> tuple[GroupedData, GroupIndex]:
    """The rows with their groups as labels."""
    asked = GroupedData.of(data.x, groups.cell, {}, Schema(groups.names))
    return asked, GroupIndex.of(asked)


def _hits(model: nn.Module, data: GroupedData, groups: GroupIndex) -> Counts:
    return Counts.of(predict(model, data.x).argmax(1), groups.cell, groups, groups.names)


def _note(at: Generation, name: str, counts: Counts, held_out: bool) -> None:
    """How often an annotator is right; below the floor, an alarm."""
    at.counts[_key(name)] = counts
    right = float(counts.table.trace(axis1=1, axis2=2).sum()) / max(counts.total, 1)
    if right < at.loop.annotator_floor:
        where = "held-out" if held_out else "its own training"
        at.alarms += (
            f"the {name} is right on {right:.1%} of {counts.total} {where} "
            f"rows, below {at.loop.annotator_floor:.0%}: what follows measures it, not the "
            "world; train it longer, or with another net",
        )


def _key(name: str) -> str:
    """The name of a model's training as that of a field of the state or record."""
    return name.replace(" ", "_")


def group_columns(world: World, data: GroupedData) -> list[str]:
    """The group columns: the world's, without the label.

    Raises:
        ValueError: there is none.
    """
    columns = [name for name in world.by if name not in (LABEL, TRUTH)]
    known = [a.name for a in data.schema.attributes]
    if not columns:
        raise ValueError(
            f"regenerate needs at least one group column in by=, such as {known[:3] or 'none here'}"
            f"; got by={list(world.by)}"
        )
    return columns


def natural_rows(data: GroupedData) -> GroupedData:
    """Those that no generator made."""
    made = data.origin == int(Origin.GENERATED)
    return data.take((~made).nonzero().flatten()) if bool(made.any()) else data


def held_out_rows(data: GroupedData, held: int | str) -> Tensor:
    """(N,) bool: the last `held` rows, or those the data's own "split" keeps for validation.

    Raises:
        ValueError: "official" is asked for and no row is for validation; or no other row is left.
    """
    if held == OFFICIAL:
        values = {a.name: a.values for a in data.schema.attributes}.get("split", ())
        code = next((values.index(name) for name in ("validation", "val") if name in values), -1)
        if code < 0 or not bool((late := data.attribute("split") == code).any()):
            raise ValueError(
                "validation='official' holds out the rows that the attribute 'split' calls "
                f"validation (or val), and none of {len(data)} natural rows is one; give a number "
                "of rows instead"
            )
    else:
        late = torch.arange(len(data), device=data.y.device) >= len(data) - int(held)
    if bool(late.all()):
        raise ValueError(f"validation={held!r} leaves none of {len(data)} natural rows")
    return late
