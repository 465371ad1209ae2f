"""What an `Acquire` refuses before any work: fields out of range, or at odds with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

import torch
from torch import nn

from evenloop.data import Schema
from evenloop.heads import find_head
from evenloop.heuristics.posterior import draws_differ
from evenloop.loop import World
from evenloop.loops._acquire import DRAWING, SPREAD, TOGETHER
from evenloop.loops._acquire_watch import sensitive_columns
from evenloop.rng import Rng
from evenloop.words import nearest

__all__ = ["check_fields", "check_world"]

LEAST = {
    "initial": 1, "query": 1, "draws": 1, "score_rows": 1, "pool_subsample": 0, "budget": 0,
    "probe": 0, "stop_rows": 0, "stop_plateau": 0,
}  # fmt: skip
# Numbers by field: least, most, and what to set instead.
RANGES = {
    "plan_gap": (0.0, 1.0, "a gap between two rates; 0 is off"),
    "adv_weight": (0.0, inf, "0 is no adversary"),
    "adv_alpha": (0.0, inf, "1 is the plain reversal"),
    "stop_below": (0.0, inf, "0 is off"),
    "stop_worst": (0.0, 1.0, "an accuracy; 0 is off"),
    "spend": (0.0, inf, "a total price; 0 is off"),
}
BY_GROUP = {"noise": (1.0, "a chance"), "cost": (inf, "a price"), "delay": (inf, "rounds")}


def check_fields(of: Mapping[str, Any]) -> None:
    """Raise `ValueError` where the fields of an `Acquire` are out of range or contradict."""
    for name, low in LEAST.items():
        if of[name] < low:
            raise ValueError(f"{name} must be at least {low}, got {of[name]}")
    _check_numbers(of)
    subsample, query = of["pool_subsample"], of["query"]
    if subsample and subsample < query:
        raise ValueError(
            f"pool_subsample={subsample} leaves fewer items than query={query}; raise it or set 0"
        )
    balanced, drawn = of["balance"] != "none" or of["plan_gap"] > 0, of["stochastic"] != "none"
    if of["heuristic"] in TOGETHER and (balanced or drawn):
        raise ValueError(
            f"heuristic {of['heuristic']!r} chooses items together and takes no balance, "
            "plan_gap or stochastic; use one that scores items, such as 'bald'"
        )
    if balanced and drawn:
        raise ValueError("balance and stochastic both choose among the scores; set one of them")
    scoreless = of["heuristic"] in ("random", *TOGETHER)
    if of["heuristic"] == "random" and drawn:
        raise ValueError(
            f"stochastic={of['stochastic']!r} draws by score and heuristic 'random' has none; set "
            "stochastic='none' or another heuristic"
        )
    if scoreless and of["stop_below"]:
        raise ValueError(
            f"stop_below={of['stop_below']:g} reads the pool's mean score and heuristic "
            f"{of['heuristic']!r} has none; set stop_below=0 or a heuristic such as 'bald'"
        )
    if of["heuristic"] in SPREAD and of["draws"] == 1:
        raise ValueError(
            f"heuristic {of['heuristic']!r} reads how draws differ and draws=1 makes one: every "
            "score would be 0; set draws=20, or heuristic='entropy'"
        )
    plateau, worst = of["stop_plateau"], of["stop_worst"]
    if (plateau or worst) and not (of["stop_rows"] and of["trains"]):
        raise ValueError(
            f"stop_plateau={plateau} and stop_worst={worst:g} are read on rows kept for it by the "
            "loop that trains; set stop_rows=200, say"
        )


def _check_numbers(of: Mapping[str, Any]) -> None:
    for name, (low, high, what) in RANGES.items():
        if not (low <= of[name] <= high and isfinite(of[name])):
            raise ValueError(f"{name} must be {_range(low, high)} ({what}), got {of[name]}")
    if not 0 < of["temperature"] < inf:
        raise ValueError(
            f"temperature must be a positive number, got {of['temperature']}; 1 draws by the "
            "scores as they are"
        )
    if not 0 <= of["adv_dropout"] < 1:
        raise ValueError(f"adv_dropout must be in [0, 1), got {of['adv_dropout']}; 0 is off")
    if of["adv_clip"] is not None and not 0 < of["adv_clip"] < inf:
        raise ValueError(
            f"adv_clip must be a positive number, got {of['adv_clip']}; leave it out (null) for "
            "no bound"
        )
    for name, (high, what) in BY_GROUP.items():
        for group, value in of[name].items():
            if not (0 <= value <= high and isfinite(value)):
                raise ValueError(
                    f"{name} of group {group!r} must be {_range(0.0, high)} ({what}), got {value}"
                )


def _range(low: float, high: float) -> str:
    return f"in [{low:g}, {high:g}]" if isfinite(high) else f"a number of at least {low:g}"


def check_world(of: Mapping[str, Any], world: World) -> None:
    """Raise `ValueError` where the fields of an `Acquire` do not fit this world.

    One model is built where its parts decide: for draws of a posterior, or for `adv_head`.
    """
    groups = world.groups(world.data)
    for name in BY_GROUP:
        _check_names(name, of[name], groups.names)
    for name in ("balance_by", "adv_attributes"):
        _check_attributes(name, of[name], world.data.schema)
    users = [name for name in ("plan_gap", "adv_weight", "probe") if of[name] > 0]
    users += ["balance"] if of["balance"] != "none" else []
    if of["adv_attributes"]:
        users = [name for name in users if name != "adv_weight"]
    by = of["balance_by"] or sensitive_columns(world.by)
    if users and not by:
        raise ValueError(
            f"{', '.join(f'{name}={of[name]}' for name in users)}: needs an attribute; add one to "
            "by or balance_by"
        )
    if of["heuristic"] in DRAWING and of["posterior"] != "ensemble":
        _check_draws(of, world)
    if not of["adv_weight"]:
        return
    for name in of["adv_attributes"] or by:
        code = world.data.attribute(name).to(groups.cell.device)
        pairs = torch.unique(torch.stack([groups.cell, code]), dim=1)
        if pairs.shape[1] > len(torch.unique(groups.cell)):
            field = "adv_attributes" if of["adv_attributes"] else "balance_by"
            raise ValueError(
                f"{field} names {name!r}, which differs within the groups that training knows "
                f"({', '.join(world.by) or 'none'}); add it to by"
            )
    if of["adv_head"] is not None:
        model = world.build("classifier", Rng.of(0))
        known = [name for name, _ in model.named_modules() if name]
        if of["adv_head"] not in known:
            raise ValueError(
                f"adv_head names no module of the model: {of['adv_head']!r}; "
                f"{nearest(of['adv_head'], known)}"
            )


def _check_draws(of: Mapping[str, Any], world: World) -> None:
    """Whether the net has what the posterior draws: dropout, or linear layers."""
    model, posterior = world.build("classifier", Rng.of(0)), of["posterior"]
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if posterior == "dropout":
        # entropy, margin and certainty also mean something of one net
        able = of["heuristic"] not in SPREAD or draws_differ(model, world.data.x[:2])
        needs = "dropout of a rate above 0"
    elif posterior == "laplace":
        able, needs = bool(linear) and isinstance(find_head(model), nn.Linear), "a linear head"
    else:
        able, needs = bool(linear), "a linear layer"
    if not able:
        raise ValueError(
            f"heuristic={of['heuristic']!r} with posterior={posterior!r} needs a net with {needs}, "
            f"and {type(model).__name__} has none: no two draws would differ; take such a net "
            "(net=dropout-mlp, say), posterior='ensemble', or a heuristic that reads one model "
            "('random', 'badge'; with posterior='dropout' also 'entropy')"
        )


def _check_names(field: str, values: Mapping[str, float], groups: Sequence[str]) -> None:
    for name in values:
        if name not in groups:
            raise ValueError(f"{field} names no group: {name!r}; {nearest(name, groups)}")


def _check_attributes(field: str, names: Sequence[str], schema: Schema) -> None:
    known = [attribute.name for attribute in schema.attributes]
    for name in names:
        if name not in known:
            raise ValueError(f"{field} has no attribute {name!r}; {nearest(name, known)}")
