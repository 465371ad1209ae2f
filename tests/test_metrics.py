"""The long table of a record against values by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evenloop.bound import feedback_bound
from evenloop.claims import feedback_steps
from evenloop.counts import Counts
from evenloop.intervals import wilson
from evenloop.measures import (
    accuracy_parity,
    demographic_parity,
    equal_opportunity,
    equalized_odds,
)
from evenloop.metrics import COLUMNS, frame
from evenloop.record import Record, Row
from feedback_kit import counts, row

ROWS = [row(0, 0.3, 0.25), row(1, 0.36, 0.31), row(2, 0.2, 0.29)]


def table(rows: Sequence[Row], **options: Any) -> Any:
    return frame({4: Record(rows=list(rows))}, **{"track": 1, "groups": False, **options})


def cells(found: Any, metric: str, split: str = "audit", group: str = "all") -> Any:
    kept = found[(found["metric"] == metric) & (found["split"] == split)]
    return kept[kept["group"] == group].sort_values("round")


def test_columns_and_seed() -> None:
    found = table(ROWS)
    assert tuple(found.columns) == COLUMNS
    assert set(found["seed"]) == {4}


@pytest.mark.parametrize(
    ("metric", "split", "wanted"),
    [
        ("bias", "audit", [0.05, 0.11, -0.05]),
        ("size of bias", "audit", [0.05, 0.11, 0.05]),
        ("gap to labels", "audit", [0.05, 0.05, -0.09]),
        ("accuracy", "audit", [0.95, 0.89, 0.95]),
        ("selection rate of yes", "audit", [0.3, 0.36, 0.2]),
        ("true share of yes", "audit", [0.25, 0.25, 0.25]),
        ("label share of yes", "train", [0.25, 0.31, 0.29]),
        ("share relabelled", "train", [0, 40 / 150, 80 / 200]),
        ("rows train", "train", [100, 150, 200]),
        ("labels that differ from the truth", "train", [0, 0, 0]),
    ],
)
def test_values_by_hand(metric: str, split: str, wanted: list[float]) -> None:
    assert cells(table(ROWS), metric, split)["value"].tolist() == pytest.approx(wanted)


def test_the_size_of_a_bias_has_limits_of_a_size() -> None:
    found = table(ROWS).set_index(["metric", "round"])
    for t in range(3):
        bias, size = found.loc[("bias", t)], found.loc[("size of bias", t)]
        crosses = bias["low"] <= 0 <= bias["high"]
        ends = sorted((abs(bias["low"]), abs(bias["high"])))
        assert (size["low"], size["high"]) == pytest.approx((0 if crosses else ends[0], ends[1]))
        assert size["n"] == bias["n"]


def test_bounds_are_the_claim_s() -> None:
    found = table(ROWS)
    first = feedback_bound(n0=100, human=10, model=40, delta=0.05, rounds=2)
    assert cells(found, "bound of round 0")["value"].tolist() == pytest.approx(first.tolist())
    steps = [step.largest_bound for step in feedback_steps(ROWS, 1)]
    largest = cells(found, "bound of largest gap")
    assert largest["value"].tolist() == pytest.approx(steps)
    assert steps[2] == pytest.approx(-0.09 * first[2] / 0.05)
    assert (largest["low"] <= largest["value"]).all()
    assert (largest["value"] <= largest["high"]).all()


def test_only_the_latest_rows_have_another_bound() -> None:
    found = cells(table(ROWS, train_on="latest"), "bound over tolerance")
    assert found["value"].tolist() == pytest.approx([1, 1.8, 2.44])


def test_rows_really_trained_on_make_the_gap_and_the_label_share() -> None:
    plain = ROWS[0]
    used = Row(0, plain.sizes, {**plain.counts, "trained": counts(0.28, 100, 0.28)})
    found = table([used])
    assert cells(found, "gap to labels")["value"].item() == pytest.approx(0.02)
    assert cells(found, "label share of yes", "train")["value"].item() == pytest.approx(0.28)
    assert "trained" not in set(found["split"])


def test_an_absent_group_is_nan_with_support_0() -> None:
    two = Counts(np.array([[[6, 2], [0, 2]], [[0, 0], [0, 0]]]), ("f", "m"), ("no", "yes"))
    found = table([Row(0, ROWS[0].sizes, {**ROWS[0].counts, "audit": two})], groups=True)
    absent = cells(found, "accuracy", group="m")
    assert (len(absent), absent["n"].item()) == (1, 0)
    assert np.isnan(absent["value"].item())


def audited(*tables: list[list[int]]) -> Any:
    counted = Counts(np.array(tables), ("f", "m"), ("no", "yes"))
    return table([Row(0, ROWS[0].sizes, {**ROWS[0].counts, "audit": counted})], groups=True)


def test_precision_of_either_of_two_classes_makes_the_gap() -> None:
    wide, both = "predictive parity difference", "predictive parity difference, mean over classes"
    # precision of no: 8/10 and 5/10, of yes: 8/10 and 9/10
    found = audited([[8, 2], [2, 8]], [[5, 1], [5, 9]])
    assert cells(found, wide)["value"].item() == pytest.approx(0.3)
    assert cells(found, both)["value"].item() == pytest.approx(0.2)
    turned = audited([[8, 2], [2, 8]], [[9, 5], [1, 5]])
    assert cells(turned, wide)["value"].item() == pytest.approx(0.3)


BY_RATE = {
    # of yes, by hand: f (4 no: 3 right, 4 yes: 3 right), m (5 no: 4 right, 10 yes: 5 right)
    "selection rate": ((4, 8), (6, 15)),
    "true positive rate": ((3, 4), (5, 10)),
    "false positive rate": ((1, 4), (1, 5)),
    "true negative rate": ((3, 4), (4, 5)),
    "false negative rate": ((1, 4), (5, 10)),
    "precision": ((3, 4), (5, 6)),
}


@pytest.mark.parametrize("rate", BY_RATE)
def test_every_rate_of_every_group_has_limits_and_a_count(rate: str) -> None:
    found = audited([[3, 1], [1, 3]], [[4, 1], [5, 5]])
    (f, of_f), (m, of_m) = BY_RATE[rate]
    for group, hits, of in (("f", f, of_f), ("m", m, of_m), ("all", f + m, of_f + of_m)):
        entry = cells(found, f"{rate} of yes", group=group)
        assert (len(entry), entry["n"].item()) == (1, of)
        limits = wilson(np.array(hits), np.array(of))
        shown = entry[["value", "low", "high"]].to_numpy()[0]
        assert shown == pytest.approx([hits / of, float(limits.low), float(limits.high)])


def test_every_ratio_is_the_notion_s() -> None:
    found = audited([[3, 1], [1, 3]], [[4, 1], [5, 5]])
    of = Counts(np.array([[[3, 1], [1, 3]], [[4, 1], [5, 5]]]), ("f", "m"), ("no", "yes"))
    for notion in (accuracy_parity, demographic_parity, equal_opportunity, equalized_odds):
        ratio = notion(of).ratio()
        entry = cells(found, ratio.name)
        shown = entry[["value", "low", "high"]].to_numpy()
        assert shown.tolist() == [pytest.approx([ratio.value, ratio.low, ratio.high])]
    assert cells(found, "equalized odds ratio")["value"].item() == pytest.approx(0.5 / 0.75)
    assert cells(found, "equalized odds ratio")["n"].item() == 4
    assert cells(found, "true negative rate difference")["value"].item() == pytest.approx(0.05)
    assert cells(found, "precision ratio")["value"].item() == pytest.approx(0.9)


def test_no_ratio_of_rates_that_are_all_0() -> None:
    entry = cells(audited([[4, 0], [4, 0]], [[5, 0], [5, 0]]), "demographic parity ratio")
    assert np.isnan(entry["value"].item())
    assert entry["n"].item() == 0


def test_what_a_loop_counts_of_the_same_groups_has_every_rate_too() -> None:
    counted = Counts(np.array([[[3, 1], [1, 3]], [[4, 1], [5, 5]]]), ("f", "m"), ("no", "yes"))
    plain = ROWS[0]
    rows = [Row(0, plain.sizes, {**plain.counts, "audit": counted, "validation": counted})]
    found = table(rows, groups=True)
    mine, audit = (
        found[(found["split"] == split) & found["metric"].str.contains("rate|ratio")]
        for split in ("validation", "audit")
    )
    # the audit has its selection rate from the tracked class, the loop's counts from here
    key = ["metric", "group", "value", "low", "high", "n"]
    assert set(map(tuple, audit[key].values)) == set(map(tuple, mine[key].values))
    assert cells(found, "false negative rate of yes", "validation", "m")["value"].item() == 0.5
    assert not found.duplicated(["round", "split", "group", "metric"]).any()


def test_classes_as_groups_and_three_classes_have_no_such_rates() -> None:
    assert not table(ROWS)["metric"].str.contains("true positive").any()
    three = Counts(np.ones((2, 3, 3), np.int64), ("f", "m"), ("x", "y", "z"))
    rows = [Row(0, ROWS[0].sizes, {"train": three, "audit": three})]
    found = table(rows, track=None, groups=True)
    assert not found["metric"].str.contains("true positive|ratio").any()
    assert len(cells(found, "equalized odds difference")) == 1


def test_a_class_that_a_group_never_gets_leaves_no_precision_gap() -> None:
    found = audited([[8, 2], [2, 8]], [[5, 0], [5, 0]])
    for metric in (
        "predictive parity difference",
        "predictive parity difference, mean over classes",
    ):
        entry = cells(found, metric)
        assert np.isnan(entry["value"].item())
        assert entry["n"].item() == 0


def test_nothing_audited_and_notes() -> None:
    plain = ROWS[0]
    quiet = Row(0, plain.sizes, {"train": plain.counts["train"]}, values={"machine": 4, "why": "x"})
    found = table([quiet])
    assert "audit" not in set(found["split"])
    assert cells(found, "machine", "notes")["value"].tolist() == [4.0]
    assert "why" not in set(found["metric"])
