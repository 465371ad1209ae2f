"""What a round of acquisition is made of: a posterior, scores, groups to balance, annotators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from math import log as ln
from math import nan

import torch
from torch import Tensor, nn

from evenloop.counts import Moments
from evenloop.data import GroupedData, Schema
from evenloop.fit import predict
from evenloop.groups import LABEL, TRUTH, GroupIndex
from evenloop.heads import features_of
from evenloop.heuristics.batch import badge, batch_bald, core_set, epig
from evenloop.heuristics.external import STRATEGIES, skactiveml_selection, strategy
from evenloop.heuristics.laplace import LastLayerLaplace
from evenloop.heuristics.posterior import (
    DropConnect,
    Ensemble,
    MCDropout,
    Posterior,
    draw_pool,
)
from evenloop.heuristics.stochastic import random_order_top
from evenloop.heuristics.uncertainty import SCORES, Score, bald, predictive_entropy
from evenloop.loop import State
from evenloop.loops._acquire_pool import shelf_of
from evenloop.rng import Rng

__all__ = [
    "BINS",
    "DRAWING",
    "SPREAD",
    "TOGETHER",
    "auroc",
    "balance_groups",
    "bald_bins",
    "labels_given",
    "linear_probe",
    "pool_posterior",
    "probe_accuracy",
    "quota_columns",
    "score_columns",
    "shrunk",
    "together",
]

BINS = 20
DRAWING = ("batch-bald", "epig", *SCORES)  # these read a posterior, the others one model
SPREAD = ("bald", "variance", "batch-bald", "epig")  # 0 for every item if all draws are equal
TOGETHER = ("batch-bald", "epig", "badge", "core-set", *STRATEGIES)


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
    known = {of: of(logits, kind="logits") for of in (bald, predictive_entropy)}
    urgency = known.get(rule.of)
    if urgency is None:
        urgency = rule.urgency(logits, kind="logits")
    return torch.stack((urgency, *known.values()), 1)


def quota_columns(kind: str, by: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns of the pool whose cells get quotas, and those of the labelled rows; () for none."""
    if kind == "none":
        return (), ()
    return ((TRUTH, *by), (LABEL, *by)) if kind == "cell" else (tuple(by), tuple(by))


def balance_groups(
    kind: str,
    world: GroupedData,
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
        features = [features_of(model, x, batch=1024) for x in (labelled.x, world.x[pool])]
        weights = linear_probe(features[0], groups.cell, groups.size)
        guessed = _with_one(features[1]) @ weights
        return GroupIndex(guessed.argmax(1), groups.names), groups.count()
    shelf = shelf_of(world)
    there = shelf.by(world, by).index.take(pool)
    if kind == "group":
        return there, groups.count()
    held = GroupIndex.of(labelled, (LABEL, *by))
    if kind == "cell":
        return shelf.by(world, (TRUTH, *by)).index.take(pool), held.count()
    guess = predict(model, world.x[pool]).argmax(1)
    cell = guess.to(there.cell.device) * groups.size + there.cell
    return GroupIndex(cell, held.names), held.count()


def together(
    heuristic: str,
    x: Tensor,
    state: State,
    scored: Tensor,
    k: int,
    posterior: Callable[[], Posterior],
    rng: Rng,
) -> Tensor:
    """(k,) places in `scored`, chosen by a rule that looks at items together.

    Draws of the `posterior` are read by BatchBALD and EPIG, features by the others.
    """
    model, generator = state.models["classifier"], rng.gen()
    if heuristic in ("badge", "core-set", *STRATEGIES):
        features = features_of(model, x[scored])
        if heuristic in STRATEGIES:
            outside = strategy(heuristic, seed=rng.seed % 2**32)
            held = features_of(model, state.data.x)
            return skactiveml_selection(outside, features, held, state.data.y, k)
        if heuristic == "core-set":
            return core_set(features, features_of(model, state.data.x), k)
        return badge(predict(model, x[scored]).softmax(1), features, k, generator=generator)
    draws = draw_pool(posterior(), x, rng=rng.at("draws"), index=scored)
    if heuristic == "batch-bald":
        return batch_bald(draws, k, kind="logits", generator=generator)
    # what should be predicted well is the population that the pool is a sample of
    some = torch.randperm(len(scored), generator=generator)[:200]
    return random_order_top(epig(draws, draws[some], kind="logits"), k, generator=generator)


def linear_probe(
    features: Tensor,
    target: Tensor,
    classes: int,
    *,
    weight: Tensor | None = None,
    decay: float = 1e-3,
) -> Tensor:
    """(F + 1, classes) weights of multinomial logistic regression; a class without rows may stay.

    Newton-like steps of a quasi-Newton solver from zero, so the result depends on the rows alone.
    `weight` (N,) are the rows' shares of the loss, equal ones by default.
    """
    x = _with_one(features)
    share = x.new_full((len(x),), 1 / max(1, len(x))) if weight is None else weight / weight.sum()
    weights = x.new_zeros(x.shape[1], classes, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        each = nn.functional.cross_entropy(x @ weights, target, reduction="none")
        loss = (share * each).sum() + decay * (weights**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


def _with_one(features: Tensor) -> Tensor:
    features = features.clone().double()  # out of inference mode
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def probe_accuracy(model: nn.Module, data: GroupedData, groups: GroupIndex, rng: Rng) -> float:
    """How well a linear probe on the features tells the group within a class: mean recall.

    Fitted on a random half of the rows and read on the other, every (true class, group) cell with
    the same weight. Where each class has rows of each group, features that hold the class alone
    reach 1/G, however much the class says about the group in these rows; G counts the groups with
    rows. A group read in fewer classes than others leaves such features some of their lead.
    """
    features = features_of(model, data.x)
    half = torch.randperm(len(data), generator=rng.gen()).chunk(2)
    if len(half) < 2:
        return nan
    fitted, held = half
    cell = data.truth.to(groups.cell.device) * groups.size + groups.cell
    count = torch.bincount(cell[fitted], minlength=groups.size * len(data.schema.classes))
    weight = 1 / count[cell[fitted]].double()
    weights = linear_probe(features[fitted], groups.cell[fitted], groups.size, weight=weight)
    right = (_with_one(features[held]) @ weights).argmax(1) == groups.cell[held]
    names = tuple(f"{c}|{g}" for c in data.schema.classes for g in groups.names)
    recall = GroupIndex(cell[held], names).mean(right.double())
    return float(recall.view(-1, groups.size).nanmean(0).nanmean())


def labels_given(
    truth: Tensor, groups: GroupIndex, schema: Schema, noise: Mapping[str, float], rng: Rng
) -> Tensor:
    """(N,) labels that people give: a wrong class, uniformly, with chance `noise`.

    `noise` holds the chance of a wrong label by group name; groups it does not name are labelled
    right. One uniform number and one class are drawn per row whatever the noise.
    """
    rate = torch.tensor([noise.get(name, 0.0) for name in groups.names], dtype=torch.float64)
    classes, generator, n = len(schema.classes), rng.gen(), len(truth)
    luck = torch.rand(n, generator=generator, dtype=torch.float64)
    step = torch.randint(1, max(2, classes), (n,), generator=generator)
    wrong = luck < rate[groups.cell.cpu()]
    right = truth.cpu()
    return torch.where(wrong, (right + step) % classes, right).to(truth.device)


def bald_bins(bald: Tensor, classes: int, cells: GroupIndex) -> Moments:
    """Items of each (cell, bin) of BALD; bins are even in its square root, up to ln C.

    Most scores are small, so bins of equal width would put them all into the first.
    """
    place = (bald.clamp_min(0) / ln(max(2, classes))).sqrt().mul(BINS).long().clamp(0, BINS - 1)
    names = tuple(f"{cell}|{b}" for cell in cells.names for b in range(BINS))
    return Moments.of(bald, GroupIndex(cells.cell * BINS + place, names))


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
