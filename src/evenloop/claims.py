"""Claims: a theorem or a tolerance checked against a record, round by round.

A claim says what may not be exceeded and what was measured; the verdict is "within", "exceeds" or
"inconclusive", with the slack, its interval and the number of items it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isnan, nan
from typing import Literal, Protocol

from evenloop.measures.excess import excess_gap
from evenloop.record import Row
from evenloop.shares import Z95, Measured, share_bias, share_gap

__all__ = ["Claim", "ExcessGapClaim", "FeedbackClaim", "Verdict", "sized_factor"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a claim says of one round.

    `slack` is bound minus measured, positive while there is room; `low` and `high` are its 95 %
    limits; `support` is the number of items behind the measurement.
    """

    round: int
    says: Literal["within", "exceeds", "inconclusive"]
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
        unsure = isnan(slack.value) or low <= 0 <= high
        says: Literal["within", "exceeds", "inconclusive"]
        says = "inconclusive" if unsure else "within" if low > 0 else "exceeds"
        return Verdict(round, says, bound.value, measured.value, slack.value, low, high, measured.n)


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
class FeedbackClaim(Claim):
    """The size of the bias stays below the feedback bound (Taori & Hashimoto, Theorem 1).

    The theorem needs a labeller whose gap to its own training labels stays within `delta` at every
    round. With `tolerance="first"` delta is the bias of round 0, as the paper plots it; with
    "running" it is the largest gap measured so far, which is what the premise asks for.

    The bound follows the rows that were really added: with m human and k model rows a round it is
    `feedback_bound`; abstentions and top-ups are taken as they happened.

    Attributes:
        klass: class code whose share is the statistic.
        tolerance: where delta comes from.
    """

    klass: int
    tolerance: Literal["first", "running"] = "first"

    def delta(self, rows: Sequence[Row], round: int) -> Measured:
        """Signed tolerance known at `round`, with its standard error."""
        first = share_bias(rows[0].counts["audit"], self.klass)
        if self.tolerance == "first":
            return first
        gaps = [
            share_gap(row.counts["audit"], row.counts["train"], self.klass)
            for row in rows[: round + 1]
        ]
        return max([first, *gaps], key=lambda gap: abs(gap.value))

    def bound(self, rows: Sequence[Row], round: int) -> Measured:
        """Size of the bound at `round`."""
        factor = sized_factor([row.sizes for row in rows[: round + 1]])[-1]
        delta = self.delta(rows, round)
        return Measured(factor * abs(delta.value), factor * delta.se, delta.n)

    def measured(self, rows: Sequence[Row], round: int) -> Measured:
        """Size of the bias on the audit split."""
        bias = share_bias(rows[round].counts["audit"], self.klass)
        return Measured(abs(bias.value), bias.se, bias.n)

    def alarm(self, rows: Sequence[Row]) -> str | None:
        """Names the round, the bias, the bound and the tolerance when the bound is crossed."""
        round = len(rows) - 1
        if round == 0:
            return None
        verdict = self.verdict(rows, round)
        if verdict.says != "exceeds":
            return None
        kind = "round 0" if self.tolerance == "first" else "the largest gap so far"
        return (
            f"round {round}: bias {verdict.measured:.3f} is above the feedback bound "
            f"{verdict.bound:.3f} (tolerance from {kind}; n={verdict.support}): "
            "the labeller's gap to its training labels has grown, the premise does not hold"
        )


def sized_factor(sizes: Sequence[Mapping[str, int]]) -> list[float]:
    """Bound over tolerance at each round, for training sets of these sizes by origin.

    The mean excess of the labels follows e_t = (1 - m_t / n_t) e_{t-1} + k_t / n_t per unit of
    tolerance (the recursion behind the theorem), whatever m_t and k_t are.
    """
    excess, factors = 0.0, [1.0]
    for before, now in pairwise(sizes):
        human = now["world"] - before["world"]
        model = now["relabelled"] - before["relabelled"]
        excess = (1 - human / now["train"]) * excess + model / now["train"]
        factors.append(1.0 + excess)
    return factors


@dataclass(frozen=True, slots=True)
class ExcessGapClaim(Claim):
    """No group lost more accuracy than all items did, plus a tolerance (Balancing Act, ICLR 2024).

    Compares the classifier with its "reference" on the same items. On the training rows ("fit")
    the gap is what it is; on the audit split it is estimated, with limits from paired items that
    hold for the largest of all groups. A group without items keeps the claim from being met.

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
        found = excess_gap(
            row.counts[f"{name}.reference"],
            row.counts[name],
            tolerance=self.tolerance,
            lost=row.moments.get(f"{name}.lost"),
            min_support=1,
        )
        worst, n = found.worst, min(found.worst.support)
        exact = self.split == "fit"
        error = 0.0 if exact else (worst.high - worst.low) / (2 * Z95)
        absent = bool((row.counts[name].support == 0).any())
        if absent and not worst.value - Z95 * error > self.tolerance:
            return Measured(nan, nan, n)
        return Measured(worst.value, error, n)

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
