"""The claim on a generated population: no group's share leaves its natural share by too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np

from evenloop.claims import Claim
from evenloop.counts import Counts
from evenloop.intervals import normal_quantile
from evenloop.record import Row
from evenloop.shares import Z95, Measured

__all__ = ["PopulationClaim"]


@dataclass(frozen=True, slots=True)
class PopulationClaim(Claim):
    """Every group's share among generated rows is within `tolerance` of its natural share.

    The natural shares are those of the rows the run began with, exact; those of a generation are
    estimated from the rows that were drawn to describe it, by the group annotator, whose own
    errors are not part of the limits. The standard error is widened so that the limits hold for
    the largest of all groups (Bonferroni).

    Attributes:
        tolerance: largest difference of shares, in [0, 1].
    """

    tolerance: float

    def bound(self, rows: Sequence[Row], round: int) -> Measured:
        """The tolerance."""
        population = _population(rows[round])
        return Measured(self.tolerance, 0.0, 0 if population is None else population.total)

    def measured(self, rows: Sequence[Row], round: int) -> Measured:
        """Largest distance of a group's share from its natural one; nan without a population."""
        population, natural = _population(rows[round]), rows[0].counts["train"]
        if population is None or population.groups != natural.groups or not natural.total:
            return Measured(nan, nan, 0)
        n = population.total
        share = population.support / n
        far = np.abs(share - natural.support / natural.total)
        worst = int(far.argmax())
        p = float(share[worst])
        wide = normal_quantile(0.95, len(share)) / Z95
        return Measured(float(far[worst]), wide * sqrt(p * (1 - p) / n), n)

    def alarm(self, rows: Sequence[Row]) -> str | None:
        """Names the group and both shares when its share surely left the tolerance."""
        verdict = self.verdict(rows, len(rows) - 1)
        population = _population(rows[-1])
        if verdict.says != "exceeds" or population is None:
            return None
        natural = rows[0].counts["train"]
        now, then = population.support / population.total, natural.support / natural.total
        worst = int(np.abs(now - then).argmax())
        return (
            f"round {verdict.round}: {now[worst]:.3f} of the generated rows are "
            f"{population.groups[worst]}, {then[worst]:.3f} of the natural rows were, tolerance "
            f"{self.tolerance:g} (n={verdict.support})"
        )


def _population(row: Row) -> Counts | None:
    """The table of the generated population; in a chain it carries its place and loop in front."""
    name = next((k for k in row.counts if f".{k}".endswith(".population")), None)
    return None if name is None or not row.counts[name].total else row.counts[name]
