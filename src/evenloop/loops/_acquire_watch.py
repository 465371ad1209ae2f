"""What a round of acquisition says about itself, and when it should be the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.counts import Counts
from evenloop.data import GroupedData
from evenloop.fit import predict
from evenloop.groups import LABEL, TRUTH, GroupIndex
from evenloop.heuristics.uncertainty import SCORES
from evenloop.intervals import wilson
from evenloop.loop import State, World

__all__ = [
    "Stop",
    "cell_columns",
    "check_validation",
    "enrichment",
    "enrichment_notes",
    "group_columns",
    "late",
    "rare_cells",
    "sensitive_columns",
    "shown",
    "tied",
    "validated",
]

# A cell is rare below half of its equal share; it is starved when bought below 0.8 of its share.
RARE, STARVED = 0.5, 0.8
# An accuracy of fewer validation rows than this says nothing that a run should stop for.
LEAST_VALIDATED = 10
SHOWN = 24
# Scores are sums of a few float64 numbers of at most ln C: less than this apart is rounding.
ROUNDING = 1e-12
Values = dict[str, float | int | str]


def group_columns(by: Sequence[str]) -> tuple[str, ...]:
    """The columns of the groups of training rows; where groups are classes, the labels given."""
    return tuple(LABEL if name == TRUTH else name for name in by)


def sensitive_columns(by: Sequence[str]) -> tuple[str, ...]:
    """The group columns that are attributes, not the label."""
    return tuple(name for name in by if name not in (TRUTH, LABEL))


def cell_columns(by: Sequence[str]) -> tuple[str, ...]:
    """The columns of a cell: the true class and the attributes that are grouped, if any."""
    return (TRUTH, *sensitive_columns(by))


def rare_cells(count: Tensor) -> Tensor:
    """(G,) cells that hold less than half of an equal share of the rows (G,), but some.

    >>> rare_cells(torch.tensor([90, 0, 10])).tolist()
    [False, False, True]
    """
    equal = int(count.sum()) / max(1, int((count > 0).sum()))
    return (count > 0) & (count < RARE * equal)


def enrichment(bought: Tensor, pool: Tensor) -> Tensor:
    """(G,) share bought over share in the pool, from counts (G,); nan where the pool had none.

    >>> enrichment(torch.tensor([3, 1, 0]), torch.tensor([50, 50, 0])).tolist()
    [1.5, 0.5, nan]
    """
    share = bought.double() / bought.sum().clamp_min(1)
    there = pool.double() / pool.sum().clamp_min(1)
    return torch.where(pool > 0, share / there, torch.nan)


def enrichment_notes(
    heuristic: str, world: Tensor, labelled: GroupIndex, born: Tensor
) -> tuple[Values, tuple[str, ...]]:
    """Share bought so far over share in the first pool, by cell, and an alarm if rare ones starve.

    The limits of the rare cells' enrichment are Wilson's for independent choices at 95 %, one round
    at a time. An estimate below 0.8 is an alarm. It says that the cells starve where the upper
    limit is below 0.8 too, and otherwise that the labels are too few to tell it from chance.

    Args:
        heuristic: who chose.
        world: (G,) rows of each cell that could be labelled.
        labelled: cells of the rows labelled.
        born: (N,) the round in which each of them was.
    """
    first = born == 0
    bought = torch.bincount(labelled.cell[~first], minlength=labelled.size).cpu()
    begun = torch.bincount(labelled.cell[first], minlength=labelled.size).cpu()
    pool = (world - begun).clamp_min(0)
    values: Values = {
        f"enrichment.{name}": r
        for name, r in zip(labelled.names, enrichment(bought, pool).tolist(), strict=True)
    }
    rare = rare_cells(world)
    got, n, total = int(bought[rare].sum()), int(bought.sum()), int(pool.sum())
    share = int(pool[rare].sum()) / total if total else 0.0
    if share * n == 0:
        return values, ()
    ratio, low, high = (float(v) / share for v in wilson(got, n))
    says = "starved" if high < STARVED else "not starved" if low >= STARVED else "inconclusive"
    values |= {"rare.enrichment": ratio, "rare.low": low, "rare.high": high, "rare.says": says}
    if ratio >= STARVED:
        return values, ()
    sure = says == "starved"
    cells = ", ".join(name for name, r in zip(labelled.names, rare.tolist(), strict=True) if r)
    return values, (
        f"{heuristic} {'starves' if sure else 'may starve'} the rare cells ({cells}): {got} bought "
        f"where a random choice would have bought {share * n:.0f}, enrichment {ratio:.2f} "
        f"[{low:.2f}, {high:.2f}]{'' if sure else f', not told from chance by {n} labels'}",
    )


def tied(heuristic: str, scores: Tensor, chosen: Tensor, *, top: bool) -> tuple[str, ...]:
    """An alarm where the scores (M,) could not decide which items were `chosen` (q,), or none.

    With `top` the chosen ones have the highest scores, and a tie of all of them with items left
    out is told; otherwise quotas or a draw had their say, and only a tie of the whole pool is.

    >>> tied("bald", torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1]), top=True)[0]
    "bald cannot tell the items of this query apart: 3 of 3 items have the score 0 ...
    """
    if heuristic not in SCORES or not 0 < len(chosen) < len(scores):
        return ()
    read = scores[chosen] if top else scores
    high = float(read.max())
    near = ROUNDING * max(1.0, abs(high))
    alike = (scores - high).abs() <= near
    if high - float(read.min()) > near or int(alike.sum()) <= len(chosen):
        return ()
    exact = bool((scores[alike] == high).all())
    how = "chance, drawn with the run's seed" if exact else "rounding errors of the arithmetic"
    return (
        f"{heuristic} cannot tell the items of this query apart: {int(alike.sum())} of "
        f"{len(scores)} items have the score {high:.4g} (within {ROUNDING:g}), so which "
        f"{len(chosen)} of them were asked about is {how}, not {heuristic}'s choice",
    )


def check_validation(groups: GroupIndex, place: Tensor, worst: float) -> None:
    """Raise `ValueError` if the worst group is to be watched and one has too few rows in `place`.

    Args:
        groups: of all the world's rows; a group without any is not waited for.
        place: positions of the validation rows.
        worst: the accuracy to be reached, 0 if none.
    """
    there, held = groups.count(), groups.take(place).count()
    if worst and bool(((there > 0) & (held < LEAST_VALIDATED)).any()):
        short = int(torch.where(there > 0, held, held.max() + 1).argmin())
        raise ValueError(
            f"stop_worst={worst} needs {LEAST_VALIDATED} validation rows of every group, "
            f"{groups.names[short]!r} has {int(held[short])} of stop_rows={len(place)}; raise it, "
            "or leave stop_worst=0"
        )


def validated(
    model: nn.Module, rows: GroupedData, world: World, extra: Mapping[str, Any]
) -> tuple[Counts, Values, dict[str, Any]]:
    """Counts on the validation rows, what to note, and `extra` with the best accuracy so far."""
    y, groups = extra["validation"][:, 1], world.groups(rows)
    guess = predict(model, rows.x).argmax(1).cpu()
    cells = GroupIndex(groups.cell.cpu(), groups.names)
    counts = Counts.of(guess, y, cells, rows.schema.classes)
    right = (guess == y).double()
    accuracy, by_group = float(right.mean()), cells.mean(right)
    risen = accuracy > extra.get("best", -1.0)
    now = {
        "best": accuracy if risen else extra["best"],
        "stale": 0 if risen else extra["stale"] + 1,
        "worst": float(by_group[~by_group.isnan()].min()),
    }
    noted: Values = {"validation.worst": now["worst"], "validation.stale": now["stale"]}
    return counts, noted, {**extra, **now}


def late(state: State) -> Tensor:
    """(L, 3) rows asked about and not yet answered: row, label, round in which it arrives."""
    waiting: Tensor = state.extra.get("late", torch.zeros(0, 3, dtype=torch.long))
    return waiting


def shown(
    data: GroupedData, asked: Tensor, y: Tensor, round: int, cells: GroupIndex
) -> dict[str, Tensor] | None:
    """The first rows asked about, to look at, with their labels `y` and cells; None if no images.

    `cells` are those of all rows of `data`.
    """
    if data.x.dim() != 4:
        return None
    first = asked[:SHOWN]
    rows = data.take(first).as_of(round).columns()
    kept = {n: rows[n].cpu() for n in ("x", "truth", "origin", "born", "row")}
    return kept | {"y": y[: len(first)].cpu(), "cell": cells.cell[first]}


@dataclass(frozen=True, slots=True)
class Stop:
    """When a run should end; every rule is off at 0.

    Attributes:
        budget: labels.
        spend: total price.
        below: the pool's mean score.
        plateau: rounds since validation accuracy last rose.
        worst: accuracy of the worst group on the validation rows.
    """

    budget: int = 0
    spend: float = 0.0
    below: float = 0.0
    plateau: int = 0
    worst: float = 0.0

    def reason(self, state: State, values: Mapping[str, Any], empty: bool) -> str | None:
        """Why no further round is possible or wanted, or None."""
        extra, score = state.extra, values.get("pool.score")
        if empty:
            return "the pool is empty: every row has been asked about"
        if self.budget and len(state.data) + len(extra.get("validation", ())) >= self.budget:
            return f"the budget of {self.budget} labels is used up"
        if self.spend and extra.get("spent", 0.0) >= self.spend:
            return f"labels for {extra['spent']:g} were bought, the limit is {self.spend:g}"
        if self.below and score is not None and float(score) < self.below:
            return f"the pool's mean score {float(score):.4g} is below {self.below:g}"
        if self.plateau and extra.get("stale", 0) >= self.plateau:
            return (
                f"accuracy on the validation rows has not risen above {extra['best']:.3f} for "
                f"{extra['stale']} rounds"
            )
        if self.worst and extra.get("worst", 0.0) >= self.worst:
            return (
                f"every group's accuracy on the validation rows is at least {self.worst:g}; the "
                f"lowest is {extra['worst']:.3f}"
            )
        return None
