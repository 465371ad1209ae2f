"""The claim on generated populations: within, exceeds, inconclusive, and rows that say nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evenloop.build import assemble
from evenloop.config import load
from evenloop.counts import Counts
from evenloop.population_claim import PopulationClaim
from evenloop.record import Row


def counts(by: list[int], groups: tuple[str, ...] = ("green", "red")) -> Counts:
    table = np.zeros((len(by), 2, 2), np.int64)
    table[:, 0, 0] = by
    return Counts(table, groups, ("no", "yes"))


def row(round: int, by: list[int], prefix: str = "") -> Row:
    sizes = {"train": 100, "world": 100, "relabelled": 0, "generated": 0}
    return Row(round, sizes, {"train": counts([50, 50]), f"{prefix}population": counts(by)})


@pytest.mark.parametrize("prefix", ["", "0.regenerate."])
def test_the_largest_distance_is_held_against_the_tolerance(prefix: str) -> None:
    claim = PopulationClaim(0.1)
    rows = [row(0, [5_200, 4_800], prefix), row(1, [7_000, 3_000], prefix)]
    first, last = claim.verdict(rows, 0), claim.verdict(rows, 1)
    assert (first.says, first.measured) == ("within", pytest.approx(0.02))
    assert (last.says, last.measured, last.support) == ("exceeds", pytest.approx(0.2), 10_000)
    # two groups: the normal quantile at 1 - .05 / 4, 2.2414
    half = 2.2414 * math.sqrt(0.7 * 0.3 / 10_000)
    assert last.high - last.low == pytest.approx(2 * half, rel=1e-4)
    assert claim.alarm(rows[:1]) is None
    assert "of the generated rows are" in str(claim.alarm(rows))
    assert "0.500 of the natural rows were, tolerance 0.1 (n=10000)" in str(claim.alarm(rows))


def test_few_rows_break_nothing() -> None:
    rows = [row(0, [7, 3])]
    assert PopulationClaim(0.1).verdict(rows, 0).says == "inconclusive"
    assert PopulationClaim(0.1).alarm(rows) is None


def test_a_group_that_vanished_is_counted_and_other_groups_are_not_compared() -> None:
    assert PopulationClaim(0.1).verdict([row(0, [10_000, 0])], 0).says == "exceeds"
    other = Row(0, row(0, [1, 1]).sizes, {
        "train": counts([50, 50], ("a", "b")), "population": counts([9, 1]),
    })  # fmt: skip
    for rows in ([other], [row(0, [0, 0])]):
        assert PopulationClaim(0.1).verdict(rows, 0).says == "inconclusive"
        assert PopulationClaim(0.1).alarm(rows) is None


def test_a_run_claims_what_its_tolerance_says() -> None:
    settings = ["base=digits8", "size=null", "test_size=300"]
    assert assemble(load("colored-mnist-mc:small", settings), 0).claims == ()
    claims = assemble(load("colored-mnist-mc:small", [*settings, "tolerance=0.1"]), 0).claims
    assert claims == (PopulationClaim(0.1),)
