"""Tables of a stranger's arrays: absent groups, one row, kinds of input, errors, seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from evenloop.measures import demographic_parity
from evenloop.rates import bootstrap_gaps, group_counts, group_gaps, group_rates
from evenloop.rates.count import MOST_CELLS
from evenloop.rng import Rng

TRUTH = [0, 1, 1, 0, 1, 0]
GUESS = [0, 1, 0, 0, 1, 1]
SEX = ["f", "f", "f", "m", "m", "m"]
TABLES = [group_rates, group_gaps, bootstrap_gaps]


def arrays(rows: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    draw = Rng.of(seed).at("rates").numpy()
    truth = draw.integers(0, 2, rows)
    guess = np.where(draw.random(rows) < 0.8, truth, 1 - truth)
    groups = {"sex": draw.choice(["f", "m"], rows), "age": draw.integers(0, 3, rows)}
    return truth, guess, groups


def value(table: pd.DataFrame, **where: Any) -> float:
    rows = table
    for column, want in where.items():
        rows = rows[rows[column] == want]
    assert len(rows) == 1, rows
    return float(rows["value"].iloc[0])


# --- absent groups and single rows ----------------------------------------------------------


def test_a_category_that_no_row_has_stays_in_the_table() -> None:
    sex = pd.Categorical(SEX, categories=["f", "d", "m"])
    table = group_rates(TRUTH, GUESS, {"sex": sex})
    d = table[table["group"] == "d"]
    assert d["n"].tolist() == [0] * 7
    assert d[["value", "low", "high"]].isna().to_numpy().all()
    plain = group_rates(TRUTH, GUESS, {"sex": SEX})
    rest = table[table["group"] != "d"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, plain)
    gaps = group_gaps(TRUTH, GUESS, sex)
    assert gaps["excluded"].str.contains(r"d \(0 items").all()
    assert gaps["value"].tolist() == group_gaps(TRUTH, GUESS, SEX)["value"].tolist()


@pytest.mark.parametrize("table", [group_gaps, bootstrap_gaps])
def test_one_row_or_one_group_has_no_gap(table: Callable[..., pd.DataFrame]) -> None:
    for arguments in (([1], [1], ["f"]), (TRUTH, GUESS, ["f"] * 6)):
        found = table(*arguments)
        assert len(found) == 10
        assert found[["value", "low", "high"]].isna().to_numpy().all()
        assert found["excluded"].str.contains("fewer than two groups have it").all()


def test_rates_of_one_row() -> None:
    table = group_rates([1], [1], ["f"])
    assert value(table, group="f", metric="accuracy") == 1
    assert np.isnan(value(table, group="f", metric="false_positive_rate"))


# --- what the tables say --------------------------------------------------------------------


def test_every_rate_stands_beside_its_count() -> None:
    table = group_rates(TRUTH, GUESS, SEX)
    assert list(table.columns) == [
        "attribute",
        "group",
        "metric",
        "class",
        "value",
        "low",
        "high",
        "n",
    ]
    f = table[table["group"] == "f"].set_index("metric")
    assert f.loc["true_positive_rate", ["value", "n"]].tolist() == [0.5, 2]
    assert f.loc["precision", ["value", "n"]].tolist() == [1.0, 1]
    assert f.loc["accuracy", ["value", "n"]].tolist() == pytest.approx([2 / 3, 3])
    assert set(table["class"]) == {"", "1"}
    assert table["attribute"].unique().tolist() == ["overall", "group"]
    assert value(table, group="overall", metric="accuracy") == pytest.approx(4 / 6)


def test_gaps_name_the_groups_and_their_counts() -> None:
    table = group_gaps(TRUTH, GUESS, {"sex": SEX}).set_index("metric")
    assert table.index.tolist() == [
        f"{notion}_{kind}"
        for notion in (
            "accuracy",
            "demographic_parity",
            "equal_opportunity",
            "equalized_odds",
            "predictive_parity",
        )
        for kind in ("difference", "ratio")
    ]
    row = table.loc["demographic_parity_difference"]
    assert row["value"] == pytest.approx(1 / 3)
    assert (row["higher"], row["n_higher"], row["lower"], row["n_lower"]) == ("m", 3, "f", 3)
    assert row["reference"] == "pairwise"
    assert row["low"] == 0 < row["high"]


def test_several_attributes_are_tabled_alone_and_crossed() -> None:
    truth, guess, groups = arrays()
    table = group_rates(truth, guess, groups)
    assert table["attribute"].unique().tolist() == ["overall", "sex", "age", "sex & age"]
    crossed = table[table["attribute"] == "sex & age"]
    assert crossed["group"].unique().tolist() == ["f 0", "f 1", "f 2", "m 0", "m 1", "m 2"]
    mine = (groups["sex"] == "m") & (groups["age"] == 1)
    want = (truth == guess)[mine].mean()
    found = value(crossed, group="m 1", metric="accuracy")
    assert found == pytest.approx(want)
    counts = group_counts(truth, guess, groups)
    assert [int(c.total) for c in counts.values()] == [400] * 4


def test_a_missing_group_is_unknown_and_joins_those_called_so() -> None:
    counts = group_counts(TRUTH, GUESS, {"sex": ["f", None, "m", float("nan"), "unknown", pd.NA]})
    assert counts["sex"].groups == ("f", "m", "unknown")
    assert counts["sex"].support.tolist() == [1, 1, 4]
    text = group_counts([0, 1, 1], [0, 1, 0], ["z", float("nan"), "unknown"])
    assert text["group"].groups == ("unknown", "z")
    assert text["group"].support.tolist() == [2, 1]
    numbers = group_counts(TRUTH, GUESS, np.array([1.0, np.nan, 2.0, 2.0, 1.5, 1.0]))
    assert numbers["group"].groups == ("1", "1.5", "2", "unknown")
    assert numbers["group"].support.tolist() == [2, 1, 2, 1]


def test_three_classes_are_tabled_one_by_one() -> None:
    table = group_rates(["a", "b", "c", "a"], ["a", "b", "b", "c"], [0, 0, 1, 1])
    assert table["class"].unique().tolist() == ["", "a", "b", "c"]
    assert value(table, group="0", metric="true_positive_rate", **{"class": "b"}) == 1
    assert np.isnan(value(table, group="0", metric="true_positive_rate", **{"class": "c"}))


@pytest.mark.parametrize(
    ("truth", "guess", "names"),
    [
        ([0, 0], [0, 0], ("0", "1")),
        ([True, False], [True, True], ("0", "1")),
        ([-1, 1], [1, 1], ("-1", "1")),
        ([1.0, 0.0], [0, 1], ("0", "1")),
        (["no", "yes"], ["yes", "yes"], ("no", "yes")),
        ([5, 5], [5, 9], ("5", "9")),
        ([10**12, 7], [7, 7], ("7", "1000000000000")),
        (np.array([2, 1], np.uint8), torch.tensor([1, 2]), ("1", "2")),
        (pd.Series([1, 2], dtype="Int64"), pd.Series([2, 2]), ("1", "2")),
        (pd.Series(["x", "y"]), pd.Series(["y", "y"], dtype="category"), ("x", "y")),
    ],
)
def test_labels_of_every_kind(truth: Any, guess: Any, names: tuple[str, ...]) -> None:
    counts = group_counts(truth, guess, ["f", "m"])["overall"]
    assert counts.classes == names
    assert counts.total == 2


def test_given_classes_are_kept_in_order_and_may_be_absent() -> None:
    counts = group_counts(["b", "a"], ["b", "b"], [0, 1], classes=["b", "a", "c"])["overall"]
    assert counts.classes == ("b", "a", "c")
    assert counts.table[0].tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    flipped = group_gaps([0, 1, 1], [0, 1, 0], [0, 0, 1], classes=[1, 0]).set_index("metric")
    assert flipped.loc["demographic_parity_difference", "rate"] == "selection rate of 0"


def test_arrays_series_and_frames_give_the_same_table() -> None:
    truth, guess, groups = arrays(60)
    want = group_gaps(truth, guess, groups)
    for same in (pd.DataFrame(groups), {k: v.tolist() for k, v in groups.items()}):
        pd.testing.assert_frame_equal(group_gaps(truth.tolist(), guess, same), want)
    named = group_gaps(truth, guess, pd.Series(groups["sex"], name="sex"))
    pd.testing.assert_frame_equal(named, want[want["attribute"] == "sex"].reset_index(drop=True))
    assert group_gaps(truth, guess, groups["sex"])["attribute"].unique() == ["group"]


def test_a_support_and_a_level_reach_every_table() -> None:
    truth, guess, groups = arrays()
    wide, narrow = (group_rates(truth, guess, groups, level=p) for p in (0.99, 0.5))
    assert ((wide["high"] - wide["low"]) > (narrow["high"] - narrow["low"])).all()
    few = group_rates(truth, guess, groups, min_support=100)
    assert few["value"].isna().tolist() == (few["n"] < 100).tolist()
    assert few["value"].isna().any()
    for gaps in (group_gaps, bootstrap_gaps):
        assert gaps(truth, guess, groups, min_support=500)["value"].isna().all()


# --- the bootstrap --------------------------------------------------------------------------


def test_the_bootstrap_keeps_the_values_and_depends_on_the_seed_alone() -> None:
    truth, guess, groups = arrays()
    plain = group_gaps(truth, guess, groups)
    one, again, other = (
        bootstrap_gaps(truth, guess, groups, resamples=200, seed=s) for s in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, again)
    assert one["value"].tolist() == plain["value"].tolist()
    assert one["low"].tolist() != other["low"].tolist()
    assert (one["low"] <= one["value"]).all()
    assert (one["value"] <= one["high"]).all()


def test_an_attribute_has_its_draws_whatever_else_is_tabled() -> None:
    truth, guess, groups = arrays()
    both = bootstrap_gaps(truth, guess, groups, resamples=50)
    alone = bootstrap_gaps(truth, guess, {"age": groups["age"]}, resamples=50)
    mine = both[both["attribute"] == "age"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone)


def test_bootstrap_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        bootstrap_gaps(TRUTH, GUESS, SEX, resamples=0)
    with pytest.raises(ValueError, match="seed must be an integer"):
        bootstrap_gaps(TRUTH, GUESS, SEX, seed=-1)


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("truth", "guess", "groups", "message"),
    [
        ([0, 1], [0], ["f", "m"], "y_true has 2 rows, y_pred 1"),
        ([0, 1], [0, 1], ["f"], "sensitive feature 'group' has 1 rows, y_true 2"),
        ([0, 1], [0, 1], {"sex": ["f", "m"], "age": [1]}, "sensitive feature 'age' has 1 rows"),
        ([], [], [], "y_true has no rows"),
        ([0, float("nan")], [0, 1], ["f", "m"], "y_true is missing in row 1"),
        ([0, 1], ["a", None], ["f", "m"], "y_pred is missing in row 1"),
        ([0, 1], [0.2, 1], ["f", "m"], "y_pred holds 0.2, a score; pass labels"),
        ([0, 1], np.array([0.2, 1], np.float32), ["f", "m"], "y_pred holds 0.2, a score"),
        ([0, 1], [float("inf"), 1], ["f", "m"], "y_pred holds inf, a score"),
        ([0, 1], ["0", "1"], ["f", "m"], "y_true and y_pred mix int and str"),
        ([[0, 1]], [0, 1], ["f", "m"], r"y_true must be one-dimensional, got shape \(1, 2\)"),
        ([0, 1], [0, 1], [["f", "m"]], "sensitive feature 'group' must be one-dimensional"),
        ([0, 1], [0, 1], {}, "sensitive_features names no attribute"),
        ([0, 1], [0, 1], {"overall": ["f", "m"]}, "may not name an attribute 'overall'"),
    ],
)
def test_bad_input_is_named(
    table: Callable[..., pd.DataFrame], truth: Any, guess: Any, groups: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        table(truth, guess, groups)


def test_a_label_outside_the_given_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label '2' is not among classes \[0, 1\]"):
        group_rates([0, 1], [2, 1], SEX[:2], classes=[0, 1])


def test_too_many_crossed_groups_are_refused() -> None:
    rows = np.arange(2000)
    with pytest.raises(ValueError, match="cross to 8,000,000,000 groups of 2 classes, too many"):
        group_counts(rows % 2, rows % 2, {"a": rows, "b": rows, "c": rows})
    assert MOST_CELLS > 2000 * 2000 * 4
    assert len(group_counts(rows % 2, rows % 2, {"a": rows, "b": rows % 2})) == 4


def test_counts_are_those_of_the_loop_over_rows() -> None:
    truth, guess, groups = arrays(100)
    counts = group_counts(truth, guess, groups)["sex & age"]
    slow = np.zeros_like(counts.table)
    for t, p, sex, age in zip(truth, guess, groups["sex"], groups["age"], strict=True):
        slow[counts.groups.index(f"{sex} {age}"), t, p] += 1
    assert counts.table.tolist() == slow.tolist()
    gap = demographic_parity(counts).difference()
    table = group_gaps(truth, guess, groups).query("attribute == 'sex & age'")
    assert table.set_index("metric").loc["demographic_parity_difference", "value"] == gap.value
