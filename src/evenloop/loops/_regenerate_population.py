"""What a generator makes, as the annotators see it: shares, drift, margins, image quality.

Private to `evenloop.loops.regenerate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evenloop.counts import Counts
from evenloop.data import Origin
from evenloop.groups import GroupIndex
from evenloop.heads import features_of
from evenloop.heuristics.frechet import frechet_by_group
from evenloop.heuristics.population import Population, population
from evenloop.measures.shares import divergence
from evenloop.models.generators import check_samples

if TYPE_CHECKING:
    from evenloop.loops._regenerate import Generation
    from evenloop.loops._regenerate_annotators import Annotators

__all__ = ["describe"]

SHOWN = 4
BY_JUDGE = " (judge)"


def describe(
    at: Generation, generator: nn.Module, annotators: Annotators, teacher: nn.Module
) -> None:
    """POPULATION: labels by A_L and by the teacher, groups by A_S, margins, image quality."""
    x = at.sample(generator, at.loop.population, at.rng.at("population"))
    check_samples(x, at.data.x.shape[1:], name=f"generator of round {at.round}")
    first, second = (at.predict(m, x) for m in (annotators.label, annotators.group))
    seen = population(first, second, groups=at.groups.size)
    groups = GroupIndex(second.argmax(1), at.groups.names)
    labels = at.predict(teacher, x).argmax(1)
    at.counts["population"] = Counts.of(labels, first.argmax(1), groups, at.classes)
    at.samples = _shown(at, x, labels * groups.size + groups.cell)
    taught = torch.bincount(labels, minlength=len(at.classes)) / len(labels)
    for who, share in (("annotated", seen.label_share), ("taught", taught)):
        for name, value in zip(at.classes, share, strict=True):
            at.values[f"share of {who} {name}"] = float(value)
    _shares(at, seen)
    for name, margin, sure in zip(groups.names, seen.margin, seen.sure, strict=True):
        at.values[f"margin.{name}"] = float(margin)
        at.values[f"sure.{name}"] = int(sure)
    _quality(at, annotators.label, x, groups)
    if annotators.judge is not None:
        third = at.predict(annotators.judge, x)
        judged = GroupIndex(third.argmax(1), at.groups.names)
        at.counts["judged_population"] = Counts.of(labels, first.argmax(1), judged, at.classes)
        at.counts["group_agreement"] = Counts.of(
            groups.cell, judged.cell, groups.together(), groups.names
        )
        _shares(at, population(first, third, groups=judged.size), BY_JUDGE)


def _shares(at: Generation, seen: Population, by: str = "") -> None:
    """Shares of groups and strata and how far they are from their natural ones and the ideal."""
    total = seen.strata.sum()
    for names, share in (
        (at.groups.names, seen.group_share),
        (at.strata.names, seen.strata / total),
    ):
        for name, value in zip(names, share, strict=True):
            at.values[f"share of {name}{by}"] = float(value)
    start = (at.groups.count() / len(at.data)).to(seen.group_share)
    at.values[f"group drift{by}"] = float((seen.group_share - start).abs().sum() / 2)
    far_off = divergence(seen.strata.cpu(), at.loop.ideal)
    at.values[f"divergence from ideal{by}"] = far_off.kl
    at.values[f"distance from ideal{by}"] = far_off.total_variation


def _quality(at: Generation, label_annotator: nn.Module, x: Tensor, groups: GroupIndex) -> None:
    """Distance of generated from natural rows in the annotator's features, group by group."""
    n = min(at.loop.quality, len(x), len(at.data))
    if n:
        real, made = (features_of(label_annotator, r[:n]) for r in (at.data.x, x))
        index = torch.arange(n, device=x.device)
        far = frechet_by_group(real, at.groups.take(index), made, groups.take(index))
        for name, distance in zip(groups.names, far, strict=True):
            at.values[f"frechet.{name}"] = float(distance)


def _shown(at: Generation, x: Tensor, cell: Tensor) -> dict[str, Tensor] | None:
    """A few pictures of each stratum, for the record."""
    if x.dim() != 4:
        return None
    strata = GroupIndex(cell, at.strata.names)
    each = torch.full((strata.size,), SHOWN, device=cell.device)
    chosen = strata.top(torch.zeros(len(cell), device=cell.device), each)
    label = (cell[chosen] // at.groups.size).cpu()
    whole = torch.full_like(label, at.round)
    return {
        "x": (x[chosen] * 255).round().to(torch.uint8).cpu(),
        "y": label,
        "truth": label,
        "stratum": cell[chosen].cpu(),
        "origin": torch.full_like(label, int(Origin.GENERATED), dtype=torch.uint8),
        "born": whole.to(torch.int32),
        "row": torch.full_like(label, -1),
    }
