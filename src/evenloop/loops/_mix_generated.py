"""Generated rows for `mix`, made from a round's real training rows alone.

Private to `evenloop.loops.mix`: tables are resampled, images come from a conditional VAE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from evenloop.data import GroupedData, Origin
from evenloop.groups import GroupIndex
from evenloop.heuristics.bootstrap import resampled
from evenloop.loop import World
from evenloop.models.generators import build_generator
from evenloop.models.vae import Vae, conditioned
from evenloop.objectives.vae import PRESETS
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform

__all__ = ["generate"]

_BATCH, _RATE = 64, 1e-3


def generate(
    world: World,
    rows: GroupedData,
    groups: GroupIndex,
    per_cell: int,
    rng: Rng,
    *,
    kind: str,
    noise: float,
    epochs: int,
    options: Mapping[str, Any],
    born: int = 0,
) -> GroupedData:
    """`per_cell` generated rows of every cell that has real rows, labelled as asked for.

    Args:
        world: trains the VAE ("vae"), on its recipe's device.
        rows: real training rows.
        groups: their cells, label by group.
        per_cell: rows of each cell.
        rng: the stream of this generator.
        kind: "smoothed" or "blind" for tables, "vae" for images.
        noise: see `resampled`.
        epochs: of the VAE over the rows.
        options: of the VAE (widths, latent).
        born: the round.

    Raises:
        ValueError: a kind that does not suit the rows, or options the VAE does not know.
    """
    if kind == "vae":
        x, cell = _from_vae(world, rows, groups, per_cell, rng, epochs, options)
    else:
        x, cell = resampled(
            rows.x,
            groups,
            per_cell,
            generator=rng.at("rows").gen(),
            kind=kind,  # type: ignore[arg-type]
            noise=noise,
        )
    # A made row has the label and groups it was asked for; its other attributes, which nothing
    # reads, are those of a row of the cell.
    like = rows.take(_first_of(groups)[cell])
    codes = {a.name: like.attribute(a.name) for a in rows.schema.attributes}
    return GroupedData.of(x, like.y, codes, rows.schema, origin=Origin.GENERATED, born=born)


def _from_vae(
    world: World,
    rows: GroupedData,
    groups: GroupIndex,
    per_cell: int,
    rng: Rng,
    epochs: int,
    options: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """uint8 images of a VAE that is told the cell, and their cells."""
    if rows.x.ndim != 4 or rows.x.dtype != torch.uint8:
        raise ValueError(
            f"generator=vae makes uint8 images, x is {rows.x.dtype} of shape "
            f"{tuple(rows.x.shape[1:])}; use generator=smoothed for tables"
        )
    shape = tuple(rows.x.shape[1:])
    vae = build_generator(
        "conv-vae", shape, seed=rng.at("net").seed, options={**options, "cells": groups.size}
    )
    assert isinstance(vae, Vae)
    columns = {**rows.columns(), "x": conditioned(rows.x, groups.cell)}
    seen = GroupedData.from_columns(rows.schema, columns)
    recipe = Recipe(
        optimizer="adam",
        lr=_RATE,
        batch=min(_BATCH, len(rows)),
        epochs=epochs,
        schedule="cosine",
        channels_last=False,
        device=world.recipe.device,
        checkpoint_seconds=world.recipe.checkpoint_seconds,
    )
    plain = replace(world, sampler=None, objective=None, surgery=None)
    plain.fit(
        vae,
        seen,
        rng=rng.at("fit"),
        recipe=recipe,
        sampler=Uniform(drop_last=True),
        objective=PRESETS["bernoulli-sum"],
    )
    held = (groups.count() > 0).nonzero().flatten()
    cell = held.repeat_interleave(per_cell)
    made = vae.sample(len(cell), rng.at("rows").gen(), cell.cpu())
    return (made * 255).round().to(torch.uint8).to(rows.x.device), cell


def _first_of(groups: GroupIndex) -> Tensor:
    """(G,) position of the first row of each cell; any row for a cell without rows."""
    order = torch.argsort(groups.cell, stable=True)
    count = groups.count()
    first = (count.cumsum(0) - count).clamp_max(len(order) - 1)
    return order[first]
