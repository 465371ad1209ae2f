"""The excess-gap claim: a case that holds, one built to fail, and absent groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evenloop.claims import ExcessGapClaim
from evenloop.counts import Counts, Moments
from evenloop.metrics import of_record
from evenloop.record import Row

GROUPS = ("a", "b", "c")


def counts(right: list[int], n: list[int]) -> Counts:
    table = np.zeros((3, 2, 2), np.int64)
    table[:, 0, 0], table[:, 0, 1] = right, np.array(n) - right
    return Counts(table, GROUPS, ("no", "yes"))


def row(right: list[int], n: list[int], prefix: str = "") -> Row:
    """A round whose dense net was right on every item, and the other on `right` of `n`."""
    lost = np.array(n) - right
    table = np.stack([np.array(n), lost, lost], 1).astype(float)
    fit = {f"{prefix}fit": counts(right, n), f"{prefix}fit.reference": counts(n, n)}
    audit = {"audit": counts(right, n), "audit.reference": counts(n, n)}
    moments = {f"{prefix}fit.lost": Moments(table, GROUPS), "audit.lost": Moments(table, GROUPS)}
    sizes = {"train": sum(n), "world": sum(n), "relabelled": 0, "generated": 0}
    return Row(0, sizes, fit | audit | {"train": counts(n, n)}, moments)


@pytest.mark.parametrize("prefix", ["", "1.prune."])
def test_on_training_rows_the_gap_is_what_it_is(prefix: str) -> None:
    rows = [row([90, 100, 100], [100, 100, 100], prefix)]  # overall loss 1/30, a lost 1/10
    assert ExcessGapClaim(0.07, "fit").verdict(rows, 0).says == "within"
    broken = ExcessGapClaim(0.06, "fit").verdict(rows, 0)
    assert (broken.says, broken.low, broken.high) == ("exceeds", broken.slack, broken.slack)
    assert broken.measured == pytest.approx(1 / 15)


def test_a_gap_of_exactly_the_tolerance_keeps_it_on_training_rows_alone() -> None:
    rows = [row([85, 100, 100], [100, 100, 100])]  # overall loss .05, a lost .15
    assert ExcessGapClaim(0.1, "fit").verdict(rows, 0).says == "within"
    assert ExcessGapClaim(0.1, "fit").alarm(rows) is None
    assert ExcessGapClaim(0.0999, "fit").verdict(rows, 0).says == "exceeds"
    assert ExcessGapClaim(0.1, "audit").verdict(rows, 0).says == "inconclusive"


def test_on_the_audit_split_it_takes_more_than_noise_to_break_it() -> None:
    few, many = ([row([9 * k, 10 * k, 10 * k], [10 * k] * 3)] for k in (1, 1000))
    claim = ExcessGapClaim(0.02, "audit")
    assert claim.verdict(few, 0).says == "inconclusive"
    assert claim.alarm(few) is None
    assert claim.verdict(many, 0).says == "exceeds"
    assert "audit split a group lost 0.067 more" in str(claim.alarm(many))
    assert ExcessGapClaim(0.2, "audit").verdict(many, 0).says == "within"


def test_a_group_without_items_is_never_satisfied_but_others_can_still_break_it() -> None:
    good, bad = row([100, 0, 100], [100, 0, 100]), row([50, 0, 100], [100, 0, 100])
    assert ExcessGapClaim(0.5, "fit").verdict([good], 0).says == "inconclusive"
    assert ExcessGapClaim(0.05, "fit").verdict([bad], 0).says == "exceeds"


@pytest.mark.parametrize("prefix", ["", "1.prune."])
def test_where_columns_were_constrained_their_groups_are_judged(prefix: str) -> None:
    # 2 x 2 joint groups of 100: the losses 20, 0, 0, 20 are even in each column by itself.
    names = ("a c", "a d", "b c", "b d")

    def table(right: list[int]) -> Counts:
        made = np.zeros((4, 2, 2), np.int64)
        made[:, 0, 0], made[:, 0, 1] = right, 100 - np.array(right)
        return Counts(made, names, ("no", "yes"))

    counts = {
        f"{name}{which}": table(right)
        for name in (f"{prefix}fit", "audit")
        for which, right in ((".reference", [100] * 4), ("", [80, 100, 100, 80]))
    }
    columns = '{"first": ["first=a", "first=b"], "second": ["second=c", "second=d"]}'
    said = {f"{prefix}constrained_columns": columns}
    sizes = {"train": 400, "world": 400, "relabelled": 0, "generated": 0}
    joint, each = (Row(0, sizes, counts, {}, values) for values in ({}, said))
    claim = ExcessGapClaim(0.05, "fit")
    assert claim.measured([joint], 0).value == pytest.approx(0.1)
    assert claim.measured([each], 0).value == pytest.approx(0.0)
    assert claim.verdict([each], 0).says == "within"
    assert claim.verdict([joint], 0).says == "exceeds"
    assert ExcessGapClaim(0.05, "audit").measured([each], 0).n == 200


def test_rounds_without_a_reference_say_nothing() -> None:
    plain = row([9, 9, 9], [10, 10, 10])
    bare = Row(0, plain.sizes, {"audit": plain.counts["audit"]})
    assert ExcessGapClaim(0.1, "audit").verdict([bare], 0).says == "inconclusive"


def test_the_long_table_has_every_groups_excess_on_both_splits() -> None:
    entries: list[Any] = list(of_record([row([90, 100, 100], [100] * 3)], track=None, groups=True))
    for split in ("fit", "audit"):
        here = {(e["metric"], e["group"]): e for e in entries if e["split"] == split}
        assert here["excess accuracy gap", "a"]["value"] == pytest.approx(1 / 15)
        assert here["excess accuracy gap", "b"]["value"] == pytest.approx(-1 / 30)
        worst = here["largest excess accuracy gap", "all"]
        assert worst["value"] == pytest.approx(1 / 15)
        assert worst["low"] < worst["value"] < worst["high"]
