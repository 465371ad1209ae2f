"""Claims: a theorem or a tolerance checked against a record, round by round.

A claim says what may not be exceeded and what was measured; the verdict is "within", "exceeds" or
"inconclusive", with the slack, its interval and the number of items it rests on. An alarm says what
was measured; it does not say why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Literal, Protocol

from evenloop.counts import Counts, Moments
from evenloop.measures.excess import by_column, excess_gap
from evenloop.record import Row
from evenloop.shares import UNKNOWN, Z95, Limited, Measured, share_bias, share_gap

__all__ = [
    "Claim",
    "ExcessGapClaim",
    "FeedbackClaim",
    "FeedbackStep",
    "Verdict",
    "feedback_steps",
    "larger",
    "spent",
    "trained",
]

Says = Literal["within", "exceeds", "inconclusive", "n/a"]
TrainOn = Literal["all", "subsample", "latest"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a claim says of one round.

    `slack` is bound minus measured, positive while there is room; `low` and `high` are its limits;
    `support` is the number of items behind the measurement. "n/a" is said of a round in which the
    bound is made of what was measured, so that there is nothing to compare.
    """

    round: int
    says: Says
    bound: float
    measured: float
    slack: float
    low: float
    high: float
    support: int

    @staticmethod
    def of(round: int, bound: Measured, measured: Measured) -> Verdict:
        """The verdict on `measured <= bound` at 95 %, both with their standard errors."""
        slack = bound - measured
        low, high = slack.value - Z95 * slack.se, slack.value + Z95 * slack.se
        return Verdict.between(round, bound.value, measured.value, low, high, measured.n)

    @staticmethod
    def between(
        round: int, bound: float, measured: float, low: float, high: float, support: int
    ) -> Verdict:
        """The verdict from the limits of the slack; nan limits make it inconclusive."""
        says: Says = "within" if low > 0 else "exceeds" if high < 0 else "inconclusive"
        return Verdict(round, says, bound, measured, bound - measured, low, high, support)


class Claim(Protocol):
    """Something a run may not exceed."""

    def bound(self, rows: Sequence[Row], round: int) -> Measured:
        """What may not be exceeded at `round`."""
        ...

    def measured(self, rows: Sequence[Row], round: int) -> Measured:
        """What was measured at `round`, in the bound's unit."""
        ...

    def verdict(self, rows: Sequence[Row], round: int) -> Verdict:
        """The two held against each other."""
        return Verdict.of(round, self.bound(rows, round), self.measured(rows, round))

    def alarm(self, rows: Sequence[Row]) -> str | None:
        """A sentence for a person when the last of `rows` breaks the claim."""
        ...


@dataclass(frozen=True, slots=True)
class FeedbackStep:
    """What is known of the feedback bound after one round; the next follows from it and a row.

    Attributes:
        round: counted from 0.
        bias, gap: of this round, with limits at the level of `spent`.
        delta: the bias of round 0.
        factor: bound over tolerance.
        largest: signed tolerance of largest size so far: the bias of round 0 or a gap.
        largest_size: limits of its size.
    """

    round: int
    bias: Limited
    gap: Limited
    delta: Limited
    factor: float
    largest: float
    largest_size: tuple[float, float]

    @property
    def first_bound(self) -> float:
        """Bound with the tolerance of round 0, signed like it."""
        return self.factor * self.delta.value

    @property
    def largest_bound(self) -> float:
        """Bound with the largest tolerance measured so far, signed like it."""
        return self.factor * self.largest


def spent(round: int) -> float:
    """Level of the limits of one round such that those of all rounds hold at 95 % together.

    The error is spent as 0.05 / ((t + 1)(t + 2)), which sums to 0.05 over t = 0, 1, ... however
    many rounds follow, and halved between the bias and the gap. Nothing is assumed of how rounds
    depend on each other: they are measured on the same audit items.

    >>> [round(1 - spent(t), 5) for t in range(3)]
    [0.0125, 0.00417, 0.00208]
    """
    return 1 - 0.05 / (2 * (round + 1) * (round + 2))


def feedback_steps(
    rows: Iterable[Row], klass: int, *, train_on: TrainOn = "all", since: FeedbackStep | None = None
) -> Iterator[FeedbackStep]:
    """The feedback bound over a record, a step per row; each costs the same, whatever the round.

    The labels' mean excess per unit of tolerance follows e_t = (1 - m_t / n_t) e_{t-1} + k_t / n_t
    (the recursion behind Theorem 1), whatever m_t and k_t are; where only the latest rows are
    trained on, e_t = k_t / (m_t + k_t) (e_{t-1} + 1). The factor is 1 + e_t.

    Args:
        rows: the rounds after `since`, or all.
        klass: class code whose share is the statistic.
        train_on: which labelled rows a model is trained on, as in `Relabel`.
        since: the step of the round before `rows`, together with `rows` starting at that round.
    """
    before: Row | None = None
    step = since
    for row in rows:
        if since is not None and row.round <= since.round:
            before = row
            continue
        step = _next(step, before, row, klass, train_on)
        before = row
        yield step


def larger(so_far: float, gap: float) -> float:
    """The one of larger size, with its sign; the first where both are equal or one is nan.

    >>> larger(0.1, -0.3), larger(-0.3, 0.3)
    (-0.3, -0.3)
    """
    return gap if abs(gap) > abs(so_far) else so_far


def _next(
    last: FeedbackStep | None, before: Row | None, row: Row, klass: int, train_on: TrainOn
) -> FeedbackStep:
    audit, level = row.counts.get("audit"), spent(row.round)
    if audit is None:
        bias = gap = UNKNOWN
    else:
        bias = share_bias(audit, klass, level=level)
        gap = share_gap(audit, trained(row), klass, level=level)
    if last is None or before is None:
        delta, factor, largest, size = bias, 1.0, bias.value, bias.size()
    else:
        delta, largest, size = last.delta, last.largest, last.largest_size
        factor = 1.0 + _excess(last.factor - 1.0, before.sizes, row.sizes, train_on)
    largest = larger(largest, gap.value)
    least, most = gap.size()
    size = (max(size[0], least), max(size[1], most)) if not isnan(least) else size
    return FeedbackStep(row.round, bias, gap, delta, factor, largest, size)


def _excess(
    last: float, before: Mapping[str, int], now: Mapping[str, int], train_on: TrainOn
) -> float:
    human, model = now["world"] - before["world"], now["relabelled"] - before["relabelled"]
    if train_on == "latest":
        return model / (human + model) * (last + 1) if human + model else last
    return (1 - human / now["train"]) * last + model / now["train"]


def trained(row: Row) -> Counts:
    """Truth against label in the rows the model of this round was really trained on."""
    return row.counts.get("trained", row.counts["train"])


@dataclass(frozen=True, slots=True)
class FeedbackClaim(Claim):
    """The size of the bias stays below the feedback bound (Taori & Hashimoto, Theorem 1).

    The theorem needs a labeller whose gap to its own training labels stays within `delta` at every
    round. With `tolerance="first"` delta is the bias of round 0, as the paper plots it; with
    "running" it is the largest gap measured so far, which is what the premise asks for.

    The bound follows the rows that were really added: with m human and k model rows a round it is
    `feedback_bound`. It is a bound for rows drawn at random. Where a model abstains, the rows it
    does label are selected, and the curve is only something to compare with, not a bound; nor does
    it hold for a single run's luck, only for its mean.

    Verdicts rest on limits of all rounds at once (`spent`): "exceeds" means that the lower limit of
    the bias is above the bound made of upper limits, "within" the opposite. So a run whose bias
    never exceeds its bound raises an alarm in at most 5 % of cases, over any number of rounds.
    Round 0 is n/a: its bias is the tolerance.

    Attributes:
        klass: class code whose share is the statistic.
        tolerance: where delta comes from.
        train_on: which labelled rows a model is trained on, as in `Relabel`.
    """

    klass: int
    tolerance: Literal["first", "running"] = "first"
    train_on: TrainOn = "all"
    _seen: list[tuple[Mapping[str, Counts], FeedbackStep]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def bound(self, rows: Sequence[Row], round: int) -> Measured:
        """Size of the bound at `round`; the running one without an error of its own."""
        step = self._step(rows, round)
        if self.tolerance == "first":
            delta = step.delta
            return Measured(abs(step.first_bound), step.factor * delta.se, delta.n)
        return Measured(abs(step.largest_bound), nan, step.gap.n)

    def measured(self, rows: Sequence[Row], round: int) -> Measured:
        """Size of the bias on the audit split."""
        bias = self._step(rows, round).bias
        return Measured(abs(bias.value), bias.se, bias.n)

    def verdict(self, rows: Sequence[Row], round: int) -> Verdict:
        """The two held against each other, with limits that hold for all rounds at once."""
        return self._judge(self._step(rows, round))

    def verdicts(self, rows: Sequence[Row]) -> list[Verdict]:
        """The verdict of every round, in one pass."""
        steps = feedback_steps(rows, self.klass, train_on=self.train_on)
        return [self._judge(step) for step in steps]

    def alarm(self, rows: Sequence[Row]) -> str | None:
        """Names the round, the bias, the bound and both gaps when the bound is crossed."""
        step = self._step(rows, len(rows) - 1)
        verdict = self._judge(step)
        if verdict.says != "exceeds":
            return None
        kind = "round 0" if self.tolerance == "first" else "the largest gap so far"
        first = rows[0].counts
        start = share_gap(first["audit"], trained(rows[0]), self.klass).value
        return (
            f"round {step.round}: the bias, {step.bias.value:+.3f}, is above the feedback bound, "
            f"{verdict.bound:.3f} in size (tolerance from {kind}; n={verdict.support}; limits that "
            f"hold for all rounds); the gap to the training labels is {step.gap.value:+.3f}, at "
            f"round 0 it was {start:+.3f}"
        )

    def _step(self, rows: Sequence[Row], round: int) -> FeedbackStep:
        """The step of `round`, carried on from the last one asked for where that belongs to it."""
        place, step = 0, None
        for counts, seen in self._seen[:1]:
            if seen.round <= round and rows[seen.round].counts is counts:
                place, step = seen.round, seen
        rest = rows[place : round + 1]
        for newer in feedback_steps(rest, self.klass, train_on=self.train_on, since=step):
            step = newer
        assert step is not None
        self._seen[:] = [(rows[round].counts, step)]
        return step

    def _judge(self, step: FeedbackStep) -> Verdict:
        least, most = step.bias.size()
        size, bound = step.delta.size(), abs(step.first_bound)
        if self.tolerance == "running":
            size, bound = step.largest_size, abs(step.largest_bound)
        measured, n = abs(step.bias.value), step.bias.n
        if step.round == 0:
            return Verdict(0, "n/a", bound, measured, bound - measured, nan, nan, n)
        low, high = step.factor * size[0] - most, step.factor * size[1] - least
        return Verdict.between(step.round, bound, measured, low, high, n)


@dataclass(frozen=True, slots=True)
class ExcessGapClaim(Claim):
    """No group lost more accuracy than all items did, plus a tolerance (Balancing Act, ICLR 2024).

    Compares the classifier with its "reference" on the same items. On the training rows ("fit")
    the gap is what it is; on the audit split it is estimated, with limits from paired items that
    hold for the largest of all groups. A group without items keeps the claim from being met.
    Where a round says that columns were constrained one by one, their groups are judged, not the
    intersections.

    Attributes:
        tolerance: largest excess accuracy gap, a fraction >= 0.
        split: "fit" or "audit".
    """

    tolerance: float
    split: Literal["fit", "audit"] = "audit"

    def bound(self, rows: Sequence[Row], round: int) -> Measured:
        """The tolerance."""
        return Measured(self.tolerance, 0.0, rows[round].counts["audit"].total)

    def measured(self, rows: Sequence[Row], round: int) -> Measured:
        """Largest excess gap of any group; nan where a group is not estimable and none exceeds."""
        row = rows[round]
        # In a chain a loop's own tables carry its place and name in front.
        name = next((k for k in row.counts if f".{k}".endswith(f".{self.split}")), None)
        if name is None or f"{name}.reference" not in row.counts:
            return Measured(nan, nan, 0)
        dense, sparse = row.counts[f"{name}.reference"], row.counts[name]
        parts = _by_column(dense, sparse, row.moments.get(f"{name}.lost"), _columns(row))
        found = [
            excess_gap(
                one.dense,
                one.sparse,
                tolerance=self.tolerance,
                lost=one.lost,
                level=1 - 0.05 / len(parts),  # the limits of all columns hold together
                min_support=1,
            ).worst
            for one in parts
        ]
        worst = max(found, key=lambda gap: gap.value)
        n = min(worst.support)
        error = 0.0 if self.split == "fit" else (worst.high - worst.low) / (2 * Z95)
        absent = any(bool((one.sparse.support == 0).any()) for one in parts)
        if absent and not worst.value - Z95 * error > self.tolerance:
            return Measured(nan, nan, n)
        return Measured(worst.value, error, n)

    def verdict(self, rows: Sequence[Row], round: int) -> Verdict:
        """As every claim's; a gap of exactly the tolerance keeps it where nothing is estimated."""
        found = Verdict.of(round, self.bound(rows, round), self.measured(rows, round))
        even = self.split == "fit" and abs(found.slack) < 1e-12
        return replace(found, says="within") if even else found

    def alarm(self, rows: Sequence[Row]) -> str | None:
        """Names the split, the gap and the tolerance when a group surely pays more."""
        verdict = self.verdict(rows, len(rows) - 1)
        if verdict.says != "exceeds":
            return None
        where = "training rows" if self.split == "fit" else "audit split"
        return (
            f"round {verdict.round}: on the {where} a group lost {verdict.measured:.3f} more "
            f"accuracy than all items did, tolerance {self.tolerance:g} (n={verdict.support})"
        )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Counts of two models on the same items, and the moments of what the items lost."""

    dense: Counts
    sparse: Counts
    lost: Moments | None


def _columns(row: Row) -> tuple[tuple[str, ...], ...]:
    """The columns that were constrained one by one; none where intersections were."""
    text = next((v for k, v in row.values.items() if f".{k}".endswith(".constrained_columns")), "")
    return tuple(tuple(values) for values in json.loads(str(text)).values()) if text else ()


def _by_column(
    dense: Counts, sparse: Counts, lost: Moments | None, columns: Sequence[tuple[str, ...]]
) -> list[_Pair]:
    """The pair itself, or one for each column that its groups are the product of."""
    if not columns:
        return [_Pair(dense, sparse, lost)]
    first, second = (by_column(counts.table, columns) for counts in (dense, sparse))
    moved = [None] * len(columns) if lost is None else by_column(lost.table, columns)
    return [
        _Pair(
            Counts(first[at], names, dense.classes),
            Counts(second[at], names, sparse.classes),
            None if (table := moved[at]) is None else Moments(table, names),
        )
        for at, names in enumerate(columns)
    ]
