"""What a round of acquisition is made of: a posterior, scores, groups to balance, annotators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import exp, lgamma, nan
from math import log as ln

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.fit import predict
from evenloop.groups import LABEL, TRUTH, GroupIndex
from evenloop.heads import features_of
from evenloop.heuristics.laplace import LastLayerLaplace
from evenloop.heuristics.posterior import DropConnect, Ensemble, MCDropout, Posterior
from evenloop.heuristics.uncertainty import Score, bald, predictive_entropy
from evenloop.loop import State, World
from evenloop.rng import Rng

__all__ = [
    "annotated",
    "as_told",
    "auroc",
    "balance_groups",
    "cells_of",
    "enrichment",
    "enrichment_notes",
    "late",
    "linear_probe",
    "pool_posterior",
    "probe_accuracy",
    "rare_cells",
    "score_columns",
    "sensitive_columns",
    "shrunk",
]

# A cell is rare below half of its equal share; it is starved when bought below 0.8 of its share.
# Below ten expected items a shortfall is as likely chance.
RARE, STARVED, LEAST_EXPECTED = 0.5, 0.8, 10


def pool_posterior(
    kind: str,
    models: Mapping[str, nn.Module],
    labelled: Tensor,
    *,
    draws: int,
    consistent: bool,
    rows: int,
) -> Posterior:
    """The posterior called `kind` over the trained models of a round."""
    model = models["classifier"]
    if kind == "ensemble":
        members = [m for name, m in sorted(models.items()) if name.startswith("member.")]
        return Ensemble([model, *members], rows=rows)
    if kind == "dropconnect":
        return DropConnect(model, draws, rows=rows)
    if kind == "laplace":
        return LastLayerLaplace.fit(
            model, labelled, samples=draws, consistent=consistent, rows=rows
        )
    return MCDropout(model, draws, consistent=consistent, rows=rows)


def score_columns(rule: Score, logits: Tensor) -> Tensor:
    """(B, 3) urgency, BALD and predictive entropy of logits (B, C, T)."""
    columns = (
        rule.urgency(logits, kind="logits"),
        bald(logits, kind="logits"),
        predictive_entropy(logits, kind="logits"),
    )
    return torch.stack(columns, 1)


def sensitive_columns(by: Sequence[str]) -> tuple[str, ...]:
    """The group columns that are attributes, not the label."""
    return tuple(name for name in by if name not in (TRUTH, LABEL))


def balance_groups(
    kind: str,
    world: World,
    by: Sequence[str],
    pool: Tensor,
    labelled: GroupedData,
    model: nn.Module,
) -> tuple[GroupIndex, Tensor]:
    """The group of each pool item that quotas are for, and (G,) labels held in each.

    "group" reads the attributes of the pool, "cell" also its true class (a rule that could not be
    used in life), "predicted-cell" the class that the model predicts, "predicted-group" a group
    that a linear probe on the model's features predicts. Only the predictions look at inputs.
    """
    groups = GroupIndex.of(labelled, by)
    if kind == "predicted-group":
        features = [features_of(model, x, batch=1024) for x in (labelled.x, world.data.x[pool])]
        weights = linear_probe(features[0], groups.cell, groups.size)
        guessed = _with_one(features[1]) @ weights
        return GroupIndex(guessed.argmax(1), groups.names), groups.count()
    names = (LABEL, *by)
    if kind == "group":
        return GroupIndex.of(world.data, by).take(pool), groups.count()
    held = GroupIndex.of(labelled, names)
    if kind == "cell":
        return GroupIndex.of(world.data, (TRUTH, *by)).take(pool), held.count()
    guess = predict(model, world.data.x[pool]).argmax(1)
    cell = guess * groups.size + GroupIndex.of(world.data, by).take(pool).cell
    return GroupIndex(cell, held.names), held.count()


def linear_probe(features: Tensor, target: Tensor, classes: int, *, decay: float = 1e-3) -> Tensor:
    """(F + 1, classes) weights of multinomial logistic regression; a class without rows may stay.

    Newton-like steps of a quasi-Newton solver from zero, so the result depends on the rows alone.
    """
    x = _with_one(features)
    weights = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = nn.functional.cross_entropy(x @ weights, target) + decay * (weights**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


def _with_one(features: Tensor) -> Tensor:
    features = features.clone().double()  # out of inference mode
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def probe_accuracy(model: nn.Module, data: GroupedData, groups: GroupIndex, rng: Rng) -> float:
    """How well a linear probe on the features tells the group: mean recall over the groups.

    Fitted on a random half of the rows and read on the other; 1/G is chance.
    """
    features = features_of(model, data.x)
    half = torch.randperm(len(data), generator=rng.gen()).chunk(2)
    if len(half) < 2:
        return nan
    fitted, held = half
    weights = linear_probe(features[fitted], groups.cell[fitted], groups.size)
    right = (_with_one(features[held]) @ weights).argmax(1) == groups.cell[held]
    recall = groups.take(held).mean(right.double())
    return float(recall.nanmean())


def annotated(
    rows: GroupedData, groups: GroupIndex, noise: Mapping[str, float], rng: Rng
) -> GroupedData:
    """The rows with the labels that people give: a wrong class, uniformly, with chance `noise`.

    `noise` holds the chance of a wrong label by group name; groups it does not name are labelled
    right. One uniform number and one class are drawn per row whatever the noise.
    """
    rate = torch.tensor([noise.get(name, 0.0) for name in groups.names], dtype=torch.float64)
    classes = len(rows.schema.classes)
    generator = rng.gen()
    luck = torch.rand(len(rows), generator=generator, dtype=torch.float64)
    step = torch.randint(1, max(2, classes), (len(rows),), generator=generator)
    wrong = luck < rate[groups.cell.cpu()]
    columns = rows.columns()
    y = torch.where(wrong, (rows.truth.cpu() + step) % classes, rows.truth.cpu())
    columns["y"] = y.to(rows.y.device)
    return GroupedData.from_columns(rows.schema, columns)


def enrichment(bought: Tensor, pool: Tensor) -> Tensor:
    """(G,) share bought over share in the pool, from counts (G,); nan where the pool had none."""
    share = bought.double() / bought.sum().clamp_min(1)
    there = pool.double() / pool.sum().clamp_min(1)
    ratio = share / there
    return torch.where(pool > 0, ratio, torch.nan)


def auroc(score: Tensor, positive: Tensor) -> float:
    """Chance that a positive item scores above another, ties half; nan if one side is empty."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return nan
    _, inverse, count = torch.unique(score, return_inverse=True, return_counts=True)
    rank = (count.cumsum(0) - (count - 1) / 2)[inverse]
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def shrunk(old: nn.Module, new: nn.Module, keep: float) -> nn.Module:
    """A model whose weights are `keep` times the old ones plus (1 - keep) times the new ones."""
    mixed = deepcopy(new)
    with torch.no_grad():
        for a, b in zip(mixed.parameters(), old.parameters(), strict=True):
            a.mul_(1 - keep).add_(b.to(a.device), alpha=keep)
    return mixed


def cells_of(world: World, data: GroupedData) -> GroupIndex:
    """The (true class, group) cell of every row; by class alone where no attribute is grouped."""
    return GroupIndex.of(data, (TRUTH, *sensitive_columns(world.by)))


def enrichment_notes(
    heuristic: str, cells: GroupIndex, labelled: GroupIndex, state: State
) -> tuple[dict[str, float | int | str], tuple[str, ...]]:
    """Share bought so far over share in the first pool, by cell, and an alarm if it starves some.

    `cells` are those of all the world's rows, `labelled` those of the state's.
    """
    cell, first = labelled.cell, state.data.born == 0
    bought = torch.bincount(cell[~first], minlength=cells.size)
    pool = (cells.count() - torch.bincount(cell[first], minlength=cells.size)).clamp_min(0)
    ratio = enrichment(bought, pool)
    values: dict[str, float | int | str] = {
        f"enrichment.{name}": r for name, r in zip(cells.names, ratio.tolist(), strict=True)
    }
    rare = rare_cells(cells)
    got, total = int(bought[rare].sum()), int(pool.sum())
    n = int(bought.sum())
    share = int(pool[rare].sum()) / total if total else 0.0
    expected = share * n
    if expected == 0:
        return values, ()
    values["enrichment.rare"] = got / expected
    if got / expected >= STARVED or expected < LEAST_EXPECTED:
        return values, ()
    names = ", ".join(n for n, r in zip(cells.names, rare.tolist(), strict=True) if r)
    return values, (
        f"{heuristic} starves the rare cells ({names}): {got} bought where a random "
        f"choice would have bought {expected:.0f} (enrichment {got / expected:.2f}; a random "
        f"choice buys so few with chance {_at_most(got, n, share):.2g})",
    )


def _at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) of a binomial count."""
    if p >= 1:
        return float(k >= n)
    log = [
        lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * ln(p) + (n - i) * ln(1 - p)
        for i in range(k + 1)
    ]
    return min(1.0, sum(map(exp, log)))


def late(state: State) -> Tensor:
    """(L, 3) rows asked about and not yet answered: row, label, round in which it arrives."""
    waiting: Tensor = state.extra.get("late", torch.zeros(0, 3, dtype=torch.long))
    return waiting


def as_told(data: GroupedData, arrived: Tensor) -> GroupedData:
    """The rows of `arrived` (A, 3) with the labels that people gave."""
    place = torch.empty(int(data.row.max()) + 1, dtype=torch.long)
    place[data.row] = torch.arange(len(data))
    columns = data.take(place[arrived[:, 0]]).columns()
    return GroupedData.from_columns(data.schema, columns | {"y": arrived[:, 1].clone()})


def rare_cells(groups: GroupIndex) -> Tensor:
    """(G,) cells that hold less than half of an equal share of the rows, but some."""
    count = groups.count()
    equal = len(groups) / (count > 0).sum().clamp_min(1)
    return (count > 0) & (count < RARE * equal)
