"""The long table of a record against values by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evenloop.bound import feedback_bound
from evenloop.claims import feedback_steps
from evenloop.counts import Counts
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
