"""What a run is tried for before its first round: that its parts fit one another.

A mistake found here costs two rows through the net; found later it costs a training, or the truth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evenloop.audit import Audit
from evenloop.data import GroupedData
from evenloop.fit import TrainsItself, placed, private_noise
from evenloop.groups import LABEL, TRUTH
from evenloop.known import OF_THE_WORLD, KnownRows
from evenloop.rng import Rng
from evenloop.seams import Objective, Sampler, Surgery, reads_labels
from evenloop.words import nearest
from evenloop.world import World

__all__ = ["check_net", "check_same_kind", "check_seams", "shared_rows"]

LOOKED_AT = 256
"""Rows, of those with one identity on both sides, whose columns are compared."""
PROTOCOLS = {"sampler": Sampler, "objective": Objective, "surgery": Surgery}


def check_same_kind(world: World, audit: Audit) -> None:
    """Whether codes and inputs mean one thing on both sides, and groups are columns there.

    Raises:
        ValueError: the schemas differ, or the shape or type of `x`; or a group is no column.
    """
    mine, theirs = world.data, audit.data
    _check_by("World.by", world.by, mine)
    _check_by("Audit.by", audit.by, theirs)
    differing = mine.schema.difference(theirs.schema)
    if differing is not None:
        raise ValueError(
            f"{differing} in the world and the audit: one code would mean two things; encode both "
            "files together and divide the rows then (evenloop.worlds.holdout, or data.take)"
        )
    if mine.x.shape[1:] != theirs.x.shape[1:] or mine.x.dtype != theirs.x.dtype:
        raise ValueError(
            f"x is {tuple(mine.x.shape[1:])} of {mine.x.dtype} in the world and "
            f"{tuple(theirs.x.shape[1:])} of {theirs.x.dtype} in the audit; encode both files "
            "together and divide the rows then (evenloop.worlds.holdout, or data.take)"
        )


def _check_by(field: str, by: tuple[str, ...], data: GroupedData) -> None:
    known = [a.name for a in data.schema.attributes] + [LABEL, TRUTH]
    for name in by:
        if name not in known:
            raise ValueError(f"{field}={by} has no attribute {name!r}; {nearest(name, known)}")


def shared_rows(world: GroupedData, audit: GroupedData) -> int:
    """How many rows of the audit are rows of the world, known by identity and columns.

    Rows of two sources may carry one number, so up to 256 of them are compared: 0 unless they all
    agree.
    """
    known = KnownRows(world)
    here = (audit.row >= 0).nonzero().flatten()
    here = here[known.at(audit.row[here]).to(here.device) >= 0]
    some = audit.take(here[:LOOKED_AT]).columns()
    return len(here) if all(known.holds(name, some) for name in OF_THE_WORLD) else 0


def check_seams(world: World) -> None:
    """Whether the world's builders of seams give seams.

    Raises:
        TypeError: one lacks what training calls; names it.
    """
    for name, protocol in PROTOCOLS.items():
        builder = getattr(world, name)
        if builder is None:
            continue
        made = builder()
        wanted = [n for n, f in vars(protocol).items() if n[0] != "_" and callable(f)]
        missing = [n for n in wanted if not callable(getattr(made, n, None))]
        if missing:
            raise TypeError(
                f"{name} gave a {type(made).__name__}, which has no {', '.join(missing)}; let it "
                f"inherit evenloop.{protocol.__name__}, which has what you do not need"
            )


def check_net(world: World, called: str = "net") -> nn.Module:
    """The world's net, tried on up to two rows: it must give a logit for each class.

    A net that trains itself, or writes labels with structure, is only built.

    Args:
        world: with the net, the rows and the recipe that says where and how it computes.
        called: what to call the net in an error.

    Raises:
        TypeError: it cannot be built from a stream, is no module, or gives no tensor.
        ValueError: it does not take these rows, or gives another number of outputs.
    """
    few = world.data.take(range(min(2, len(world.data))))
    try:
        net = world.net(Rng.of(0).at("check"))
    except TypeError as error:
        raise TypeError(
            f"{called} cannot be built from a stream ({error}); write net=lambda rng: ... that "
            "returns a fresh torch.nn.Module"
        ) from error
    if not isinstance(net, nn.Module):
        raise TypeError(f"{called} gave a {type(net).__name__} where a torch.nn.Module is needed")
    if isinstance(net, TrainsItself) or not len(few):
        return net
    placed(net, world.recipe)
    double = few.x.is_floating_point() and world.recipe.precision == "fp64"
    x = (few.x.double() if double else few.x[torch.arange(len(few))]).to(world.recipe.device)
    shown = (x, few.y.to(x.device)) if reads_labels(net) else (x,)
    try:
        with torch.no_grad(), private_noise(Rng.of(0).at("check"), x.device):
            given = net.eval()(*shown)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{called} does not take rows of shape {tuple(x.shape[1:])} and type {few.x.dtype} "
            f"({said}); choose another net or world"
        ) from error
    if few.schema.structure is None and not reads_labels(net):
        _check_logits(given, len(few), len(few.schema.classes), called)
    return net


def _check_logits(given: object, rows: int, classes: int, called: str) -> None:
    needed = f"({rows}, {classes}), a logit for each of the {classes} classes"
    if not isinstance(given, Tensor):
        raise TypeError(
            f"{called} gives a {type(given).__name__} for {rows} rows; what is needed is a tensor "
            f"of shape {needed}"
        )
    if given.shape != (rows, classes) or not given.is_floating_point():
        raise ValueError(
            f"{called} gives shape {tuple(given.shape)} of {given.dtype} for {rows} rows; what is "
            f"needed is {needed}"
        )
