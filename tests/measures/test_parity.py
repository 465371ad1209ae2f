"""Gaps between groups: absent groups, known classifiers, laws, exclusions, limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from counts_kit import ABSENT, BINARY, ONE, TWO, binary, random_counts
from evenloop.counts import Counts
from evenloop.intervals import difference, wilson
from evenloop.measures import (
    Gap,
    Parity,
    accuracy,
    accuracy_parity,
    demographic_parity,
    equal_opportunity,
    equalized_odds,
    false_positive_rate,
    precision,
    predictive_parity,
    selection_rate,
    true_positive_rate,
)
from evenloop.measures.contrasts import Over
from evenloop.measures.parity import Reference

Notion = Callable[[Counts], Parity]
NOTIONS: list[Notion] = [
    accuracy_parity,
    demographic_parity,
    equal_opportunity,
    equalized_odds,
    predictive_parity,
]


def same_but_for(found: Gap, other: Gap) -> bool:
    parts = ("value", "low", "high", "between", "support", "rate")
    return all(getattr(found, part) == getattr(other, part) for part in parts)


# --- absent groups and single rows ----------------------------------------------------------


@pytest.mark.parametrize("notion", NOTIONS)
def test_an_absent_group_changes_nothing_and_is_named(notion: Notion) -> None:
    whole = notion(binary(ONE, ABSENT, TWO))
    names = {"a": "a", "b": "c"}
    for kind in ("difference", "ratio"):
        found: Gap = getattr(whole, kind)()
        without: Gap = getattr(notion(binary(ONE, TWO)), kind)()
        assert (found.value, found.low, found.high) == (without.value, without.low, without.high)
        assert without.between is not None
        assert found.between == tuple(names[g] for g in without.between)
        assert {e.what for e in found.excluded} == {"b"}
        assert found.excluded[0].support == 0


@pytest.mark.parametrize("notion", NOTIONS)
def test_a_batch_of_one_row_has_no_gap(notion: Notion) -> None:
    counts = binary(ABSENT, np.array([[0, 0], [0, 1]]), ABSENT)
    for found in (notion(counts).difference(), notion(counts).ratio()):
        assert not found.estimable
        assert np.isnan([found.value, found.low, found.high]).all()
        assert found.between is None
        assert found.support == (0, 0)
        assert {"a", "c"} <= {e.what for e in found.excluded}
        assert str(found).startswith(f"{found.name}: not estimable; left out: a (0 items")


# --- known classifiers ----------------------------------------------------------------------
# Coloured digits: half of the labels 1, 5% flipped; the group follows the label (0.7 against 0.3,
# the "matched" test set) or not ("balanced"). Counts per 4,000 items, groups green and red.


def population(matched: bool) -> np.ndarray:
    """Items by group, noisy label and clean label."""
    green = (0.3, 0.7) if matched else (0.5, 0.5)
    items = np.zeros((2, 2, 2))
    for label in range(2):
        for clean in range(2):
            share = 0.5 * (0.95 if label == clean else 0.05)
            items[:, label, clean] = share * np.array([green[label], 1 - green[label]])
    return (items * 4000).round().astype(int)


def classify(items: np.ndarray, predict: Callable[[int, int, int], int]) -> Counts:
    table = np.zeros((2, 2, 2), np.int64)
    for g, label, clean in np.ndindex(2, 2, 2):
        table[g, label, predict(g, label, clean)] += items[g, label, clean]
    return Counts(table, ("green", "red"), BINARY)


@pytest.mark.parametrize(
    ("predict", "matched", "overall", "parity", "odds"),
    [
        (lambda g, label, clean: clean, True, 0.95, 0.36, 0.0),
        (lambda g, label, clean: clean, False, 0.95, 0.0, 0.0),
        (lambda g, label, clean: label, True, 1.0, 0.40, 0.0),
        (lambda g, label, clean: 1 - g, True, 0.70, 1.0, 1.0),
        (lambda g, label, clean: 1 - g, False, 0.50, 1.0, 1.0),
        (lambda g, label, clean: 1, True, 0.5, 0.0, 0.0),
        (lambda g, label, clean: 0, True, 0.5, 0.0, 0.0),
    ],
    ids=["clean", "clean-balanced", "noisy", "colour", "colour-balanced", "one", "zero"],
)
def test_reference_classifiers(
    predict: Callable[[int, int, int], int],
    matched: bool,
    overall: float,
    parity: float,
    odds: float,
) -> None:
    counts = classify(population(matched), predict)
    assert accuracy(counts.pooled()).value[0] == pytest.approx(overall)
    assert demographic_parity(counts).difference().value == pytest.approx(parity, abs=1e-12)
    assert equalized_odds(counts).difference().value == pytest.approx(odds, abs=1e-12)


def test_perfect_predictions_have_no_gap_but_are_not_called_certain() -> None:
    counts = binary(np.diag([8, 4]), np.diag([3, 9]))
    odds = equalized_odds(counts).difference()
    assert odds.value == 0
    assert odds.low == 0 < odds.high
    ratio = equalized_odds(counts).ratio()
    assert ratio.value == 1
    assert [str(e) for e in ratio.excluded] == [
        "false positive rate of yes (0 in every group, no ratio)"
    ]


# --- laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("notion", NOTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_order_and_names_of_the_groups_do_not_matter(notion: Notion, seed: int) -> None:
    counts = random_counts(4, 2 + seed % 2, seed)
    order = [3, 1, 0, 2]
    turned = Counts(counts.table[order], tuple("wxyz"), counts.classes)
    for kind in ("difference", "ratio"):
        one, other = (getattr(notion(c), kind)() for c in (counts, turned))
        assert other.value == pytest.approx(one.value, nan_ok=True)
        assert (other.low, other.high) == pytest.approx((one.low, one.high), nan_ok=True)


@pytest.mark.parametrize("notion", NOTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_limits_hold_the_value_and_stay_in_range(notion: Notion, seed: int) -> None:
    parity = notion(random_counts(3, 3, seed))
    for reference in ("pairwise", "pooled"):
        for over in ("worst", "mean"):
            for found in (
                parity.difference(reference=reference, over=over),
                parity.ratio(reference=reference, over=over),
            ):
                assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("seed", range(4))
def test_odds_are_the_worse_of_their_parts(seed: int) -> None:
    counts = random_counts(3, 2, seed, least=1)
    parts = [np.ptp(rate(counts, 1).value) for rate in (true_positive_rate, false_positive_rate)]
    odds = equalized_odds(counts).difference()
    assert odds.value == pytest.approx(max(parts))
    assert odds.value >= equal_opportunity(counts).difference().value
    named = ("true positive rate of 1", "false positive rate of 1")[int(np.argmax(parts))]
    assert odds.rate == named


@pytest.mark.parametrize("seed", range(4))
def test_more_classes_take_the_worst_or_the_mean(seed: int) -> None:
    counts = random_counts(3, 4, seed, least=1)
    gaps = [np.ptp(selection_rate(counts, k).value) for k in range(4)]
    parity = demographic_parity(counts)
    assert parity.difference().value == pytest.approx(max(gaps))
    assert parity.difference(over="mean").value == pytest.approx(np.mean(gaps))
    assert parity.difference().rate == f"selection rate of {int(np.argmax(gaps))}"
    ratios = [np.min(v := selection_rate(counts, k).value) / np.max(v) for k in range(4)]
    assert parity.ratio().value == pytest.approx(min(ratios))
    assert parity.ratio(over="mean").value == pytest.approx(np.mean(ratios))
    two = demographic_parity(counts, classes=["3", 1]).difference()
    assert two.value == pytest.approx(max(gaps[1], gaps[3]))


@pytest.mark.parametrize("seed", range(4))
def test_pooled_gaps_are_against_all_items_and_smaller(seed: int) -> None:
    counts = random_counts(3, 2, seed, least=1)
    rate, whole = selection_rate(counts, 1), selection_rate(counts.pooled(), 1)
    parity = demographic_parity(counts)
    found = parity.difference(reference="pooled")
    apart = rate.value - whole.value[0]
    assert found.value == pytest.approx(np.abs(apart).max())
    assert found.value <= parity.difference().value
    assert found.reference == "pooled"
    group = counts.groups[int(np.abs(apart).argmax())]
    order = (group, "all") if apart[np.abs(apart).argmax()] > 0 else ("all", group)
    assert found.between == order
    against = np.minimum(rate.value / whole.value, whole.value / rate.value)
    assert parity.ratio(reference="pooled").value == pytest.approx(against.min())


@pytest.mark.parametrize("notion", NOTIONS)
@pytest.mark.parametrize("reference", ["pairwise", "pooled"])
@pytest.mark.parametrize("over", ["worst", "mean"])
def test_both_are_the_difference_and_the_ratio(
    notion: Notion, reference: Reference, over: Over
) -> None:
    parity = notion(random_counts(4, 3, seed=5))
    asked: dict[str, Any] = {"level": 0.9, "min_support": 8, "reference": reference, "over": over}
    found = parity.both(**asked)
    assert [gap.row() for gap in found] == [
        parity.difference(**asked).row(),
        parity.ratio(**asked).row(),
    ]
    assert all(gap.level == 0.9 for gap in found)


def test_two_groups_have_newcombes_limits() -> None:
    found = accuracy_parity(binary(ONE, TWO)).difference()
    want = difference(wilson(8, 10), wilson(7, 14))
    assert found.value == pytest.approx(float(want.value))
    assert (found.low, found.high) == (max(0.0, float(want.low)), pytest.approx(float(want.high)))
    assert found.method == "Newcombe, Bonferroni over 1"


def test_a_ratio_names_the_higher_group_first_too() -> None:
    for found in (
        demographic_parity(binary(TWO, ONE)).ratio(),
        demographic_parity(binary(TWO, ONE)).difference(),
    ):
        assert found.between == ("b", "a")
        assert found.support == (10, 14)


def test_odds_given_the_exact_class_see_what_one_against_the_rest_hides() -> None:
    """Class 0 is mistaken for 1 in group a and for 2 in group b: one against the rest is even."""
    table = np.array(
        [[[6, 4, 0], [0, 9, 1], [0, 0, 10]], [[6, 0, 4], [0, 10, 0], [0, 1, 9]]], dtype=np.int64
    )
    counts = Counts(table, ("a", "b"), ("0", "1", "2"))
    rest = equalized_odds(counts).difference()
    exact = equalized_odds(counts, given="class").difference()
    assert rest.value == pytest.approx(0.15)
    assert exact.value == pytest.approx(0.4)
    assert exact.rate in ("share of 0 called 1", "share of 0 called 2")
    two = binary(ONE, TWO)
    assert same_but_for(
        equalized_odds(two, given="class").difference(), equalized_odds(two).difference()
    )


# --- what takes part ------------------------------------------------------------------------


def test_odds_need_both_rates_in_two_groups() -> None:
    no_positives = np.array([[6, 2], [0, 0]])
    found = equalized_odds(binary(ONE, no_positives)).difference()
    assert not found.estimable, "a false positive gap alone is not equalized odds"
    assert [str(e) for e in found.excluded] == [
        "b (0 items: true positive rate of yes)",
        "true positive rate of yes and false positive rate of yes (fewer than two groups have it)",
    ]
    third = equalized_odds(binary(ONE, no_positives, TWO)).difference()
    assert third.estimable
    assert [e.what for e in third.excluded] == ["b"]


def test_a_class_that_one_group_lacks_is_left_out_and_the_others_count() -> None:
    table = random_counts(2, 3, 7, least=1).table.copy()
    table[1, 2] = 0
    counts = Counts(table, ("a", "b"), ("0", "1", "2"))
    found = equal_opportunity(counts).difference()
    gaps = [np.ptp(true_positive_rate(counts, k).value) for k in (0, 1)]
    assert found.value == pytest.approx(max(gaps))
    assert equal_opportunity(counts).difference(over="mean").value == pytest.approx(np.mean(gaps))
    assert [e.what for e in found.excluded] == ["b", "true positive rate of 2"]


def test_a_group_below_the_support_takes_no_part() -> None:
    counts = binary(ONE, TWO, np.array([[0, 2], [0, 0]]))
    loose, strict = (accuracy_parity(counts).difference(min_support=n) for n in (2, 3))
    assert loose.value == pytest.approx(0.8)
    assert loose.excluded == ()
    assert strict.value == pytest.approx(0.3)
    assert [str(e) for e in strict.excluded] == ["c (2 items, fewer than 3: accuracy)"]


def test_a_group_that_never_predicts_a_class_has_no_predictive_parity() -> None:
    counts = binary(ONE, np.array([[5, 0], [5, 0]]), TWO)
    found = predictive_parity(counts).difference()
    assert found.value == pytest.approx(abs(5 / 6 - 3 / 7))
    assert [e.what for e in found.excluded] == ["b"]
    assert np.isnan(precision(counts, 1).value[1])


@pytest.mark.parametrize("notion", [demographic_parity, equalized_odds])
def test_classes_that_are_none_are_refused(notion: Callable[..., Parity]) -> None:
    with pytest.raises(ValueError, match="classes names no class"):
        notion(binary(ONE, TWO), classes=[])
    with pytest.raises(ValueError, match="klass 'maybe' is none of the classes no, yes"):
        notion(binary(ONE, TWO), classes=["maybe"])
    assert notion(binary(ONE, TWO), classes=["yes"]).difference().estimable


def test_a_gap_as_a_row_and_in_words() -> None:
    found = demographic_parity(binary(ONE, ABSENT, TWO)).difference()
    row = found.row()
    assert (row["higher"], row["n_higher"], row["lower"], row["n_lower"]) == ("a", 10, "c", 14)
    assert row["excluded"] == "b (0 items: selection rate of yes)"
    assert str(found).endswith(
        "a (n=10) above c (n=14), selection rate of yes; "
        "left out: b (0 items: selection rate of yes)"
    )
