"""Rates of groups: absent groups first, one row second, then values and what they obey."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score

from evenloop.counts import Counts, Moments
from evenloop.groups import GroupIndex
from evenloop.intervals import Bounded, difference, wilson
from evenloop.measures import (
    Estimate,
    accuracy,
    accuracy_parity,
    bias,
    cell_accuracy,
    error_rate,
    f1,
    false_negative_rate,
    false_positive_rate,
    macro,
    mean,
    precision,
    predicted_share,
    recall,
    selection_rate,
    spread,
    true_negative_rate,
    true_positive_rate,
    true_share,
    worst_cell_accuracy,
    worst_group_accuracy,
)
from evenloop.rng import Rng

Measure = Callable[..., Estimate]
CLASS_MEASURES = (
    selection_rate,
    true_share,
    true_positive_rate,
    false_positive_rate,
    true_negative_rate,
    false_negative_rate,
    precision,
    f1,
    bias,
)
MEASURES: list[Measure] = [accuracy, error_rate, *(partial(m, klass=1) for m in CLASS_MEASURES)]
NAMES = ("a", "b", "c")


def counts_of(truth: list[int], predicted: list[int], cell: list[int], classes: int = 2) -> Counts:
    index = GroupIndex(torch.tensor(cell), NAMES)
    return Counts.of(torch.tensor(predicted), torch.tensor(truth), index, classes)


def random_counts(groups: int, classes: int, seed: int, items: int = 20) -> Counts:
    draw = Rng.of(seed).at("table").numpy()
    table = draw.integers(0, items, (groups, classes, classes))
    names = tuple(f"g{i}" for i in range(groups))
    return Counts(table, names, tuple(map(str, range(classes))))


# truth x prediction of group a: [[3, 1], [1, 4]]; nobody of group b; of group c: [[2, 0], [1, 1]]
WITHOUT_B = counts_of(
    [0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1],
    [0, 0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2],
)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_without_group_b_leaves_a_gap_and_shifts_nobody(measure: Measure) -> None:
    found = measure(WITHOUT_B)
    assert found.groups == NAMES
    assert found.support[1] == 0
    assert np.isnan([found.value[1], found.low[1], found.high[1]]).all()
    present = measure(Counts(WITHOUT_B.table[[0, 2]], ("a", "c"), WITHOUT_B.classes))
    for part in ("value", "low", "high", "support"):
        assert getattr(found, part)[[0, 2]].tolist() == getattr(present, part).tolist()


def test_the_values_of_that_batch() -> None:
    want = {
        accuracy: (7 / 9, 3 / 4),
        error_rate: (2 / 9, 1 / 4),
        selection_rate: (5 / 9, 1 / 4),
        true_share: (5 / 9, 2 / 4),
        true_positive_rate: (4 / 5, 1 / 2),
        false_positive_rate: (1 / 4, 0),
        true_negative_rate: (3 / 4, 1),
        false_negative_rate: (1 / 5, 1 / 2),
        precision: (4 / 5, 1),
        f1: (8 / 10, 2 / 3),
        bias: (0, -1 / 4),
    }
    for measure, (a, c) in want.items():
        found = measure(WITHOUT_B) if measure in (accuracy, error_rate) else measure(WITHOUT_B, 1)
        assert found.value[[0, 2]].tolist() == pytest.approx([a, c]), found.name
    assert true_positive_rate(WITHOUT_B, 1).support.tolist() == [5, 0, 2]
    assert false_positive_rate(WITHOUT_B, 1).support.tolist() == [4, 0, 2]
    assert precision(WITHOUT_B, 1).support.tolist() == [5, 0, 1]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_of_one_row(measure: Measure) -> None:
    found = measure(counts_of([1], [1], [2]))
    assert np.isnan(found.value[:2]).all()
    if found.support[2]:
        assert found.value[2] in (0, 1)
        assert found.low[2] <= found.value[2] <= found.high[2]
        assert found.high[2] - found.low[2] > 0.5, "one item proves little"
    else:
        assert np.isnan(found.value[2]), "no negatives: no false positive rate"


def test_three_classes_are_judged_one_against_the_rest() -> None:
    table = np.array([[[5, 1, 0], [2, 3, 1], [0, 2, 6]]])
    counts = Counts(table, ("all",), ("cat", "dog", "fox"))
    assert recall(counts, "dog").value[0] == 3 / 6
    assert precision(counts, "dog").value[0] == 3 / 6
    assert false_positive_rate(counts, "dog").value[0] == 3 / 14
    assert predicted_share(counts, 2).value[0] == 7 / 20
    assert f1(counts, "fox").value[0] == pytest.approx(12 / 15)
    assert bias(counts, "fox").value[0] == pytest.approx(-1 / 20)


@pytest.mark.parametrize("klass", [2, -1, "yes", "", 0.5, None])
def test_a_class_that_is_none_is_refused(klass: object) -> None:
    with pytest.raises(ValueError, match="is none of the classes 0, 1"):
        recall(WITHOUT_B, klass)  # type: ignore[arg-type]


def test_a_class_is_given_by_name_or_code() -> None:
    assert recall(WITHOUT_B, "1").value.tolist()[0] == recall(WITHOUT_B, 1).value.tolist()[0]
    assert recall(WITHOUT_B, np.int64(1)).value[0] == 0.8  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_rates_complement_each_other_and_shares_add_up(seed: int) -> None:
    counts = random_counts(4, 3, seed)
    pairs = (
        (accuracy(counts), error_rate(counts)),
        (true_positive_rate(counts, 2), false_negative_rate(counts, 2)),
        (false_positive_rate(counts, 2), true_negative_rate(counts, 2)),
    )
    for one, other in pairs:
        assert one.value + other.value == pytest.approx(np.ones(4))
        assert one.low == pytest.approx(1 - other.high)
    assert sum(predicted_share(counts, k).value for k in range(3)) == pytest.approx(np.ones(4))
    assert sum(bias(counts, k).value for k in range(3)) == pytest.approx(np.zeros(4))
    for k in range(3):
        apart = predicted_share(counts, k).value - true_share(counts, k).value
        assert bias(counts, k).value == pytest.approx(apart)


@pytest.mark.parametrize("seed", range(3))
def test_merged_counts_are_the_joined_data_and_pooling_is_the_weighted_mean(seed: int) -> None:
    one, other = random_counts(3, 2, seed), random_counts(3, 2, seed + 100)
    a, b, both = (accuracy(c) for c in (one, other, one + other))
    joined = (a.value * a.support + b.value * b.support) / both.support
    assert both.value == pytest.approx(joined)
    pooled = accuracy(both_pooled := (one + other).pooled())
    assert pooled.value[0] == pytest.approx(np.average(both.value, weights=both.support))
    assert bias(both_pooled, 1).groups == ("all",)


def test_permuting_groups_permutes_the_rates() -> None:
    counts = random_counts(4, 2, 3)
    order = [2, 0, 3, 1]
    names = tuple(counts.groups[i] for i in order)
    turned = f1(Counts(counts.table[order], names, counts.classes), 1)
    assert turned.value.tolist() == f1(counts, 1).value[order].tolist()


def test_too_few_items_are_not_estimable_and_keep_their_count() -> None:
    found = true_positive_rate(WITHOUT_B, 1, min_support=3)
    assert found.estimable.tolist() == [True, False, False]
    assert found.support.tolist() == [5, 0, 2]
    assert found.words(2) == "c not estimable (n=2)"
    assert [str(e) for e in found.left_out()] == [
        "b (0 items, fewer than 3)",
        "c (2 items, fewer than 3)",
    ]
    assert true_positive_rate(WITHOUT_B, 1, min_support=2).estimable.tolist() == [True, False, True]


@pytest.mark.parametrize("measure", [accuracy, worst_group_accuracy])
def test_a_support_below_one_is_refused(measure: Measure) -> None:
    with pytest.raises(ValueError, match="min_support must be at least 1, got 0"):
        measure(WITHOUT_B, min_support=0)


def test_signed_and_absolute_bias() -> None:
    table = np.array([[[50, 30], [5, 15]], [[50, 5], [30, 15]], [[50, 6], [5, 39]]])
    signed = bias(Counts(table, NAMES, ("0", "1")), 1)
    size = signed.absolute()
    assert signed.value.tolist() == pytest.approx([0.25, -0.25, 0.01])
    assert size.value.tolist() == pytest.approx([0.25, 0.25, 0.01])
    assert size.low[0] == size.low[1] > 0
    assert size.high[0] == size.high[1] == signed.high[0]
    assert size.low[2] == 0
    assert size.high[2] == max(signed.high[2], -signed.low[2])


def test_an_estimate_as_rows_and_words() -> None:
    rows = list(accuracy(WITHOUT_B).rows())
    assert [row["n"] for row in rows] == [9, 0, 4]
    assert set(rows[0]) == {"group", "metric", "value", "low", "high", "n"}
    assert str(accuracy(WITHOUT_B)).startswith("accuracy: a 0.778 [")
    assert "b not estimable (n=0)" in str(accuracy(WITHOUT_B))


# --- aggregates -----------------------------------------------------------------------------


def test_the_worst_group_and_cell_are_named_with_what_took_no_part() -> None:
    group = worst_group_accuracy(WITHOUT_B)
    assert (group.groups, group.value.tolist(), group.support.tolist()) == (("c",), [0.75], [4])
    assert [e.what for e in group.excluded] == ["b"]
    cell = worst_cell_accuracy(WITHOUT_B)
    assert (cell.groups, cell.value.tolist()) == (("c 1",), [0.5])
    assert [e.what for e in cell.excluded] == ["b 0", "b 1"]
    assert cell_accuracy(WITHOUT_B).groups == ("a 0", "a 1", "b 0", "b 1", "c 0", "c 1")


def test_without_any_item_nothing_is_worst() -> None:
    found = worst_group_accuracy(Counts(np.zeros((2, 2, 2), np.int64), ("a", "b"), ("0", "1")))
    assert np.isnan(found.value).all()
    assert found.support.tolist() == [0]
    assert [e.what for e in found.excluded] == ["a", "b"]


def test_limits_of_the_worst_group_cover_the_true_worst() -> None:
    draw, held = Rng.of(1).at("worst").numpy(), 0
    truth = np.array([0.9, 0.85, 0.8, 0.8, 0.95])
    for _ in range(300):
        x = draw.binomial(60, truth)
        table = np.zeros((5, 2, 2), np.int64)
        table[:, 0, 0], table[:, 0, 1] = x, 60 - x
        found = worst_group_accuracy(Counts(table, tuple("abcde"), ("0", "1")))
        held += bool(found.low[0] <= 0.8 <= found.high[0])
    assert held / 300 > 0.94


def test_limits_of_the_worst_group_are_those_of_all_groups_at_once() -> None:
    found = worst_group_accuracy(WITHOUT_B)
    both = wilson([7, 3], [9, 4], comparisons=2)
    assert (found.low[0], found.high[0]) == (both.low.min(), both.high.min())
    assert found.method == "Wilson, Bonferroni over 2"


def test_limits_of_a_spread_are_those_of_all_pairs_at_once() -> None:
    counts = random_counts(3, 2, 8)
    want = wilson([*map(np.trace, counts.table)], counts.support, comparisons=3)
    gap = spread(partial(accuracy, counts))
    high, low = int(want.value.argmax()), int(want.value.argmin())
    widest = difference(
        Bounded(*(part[high] for part in want)), Bounded(*(part[low] for part in want))
    )
    assert gap.between == (counts.groups[high], counts.groups[low])
    assert gap.value == pytest.approx(float(widest.value))
    assert gap.high >= widest.high
    assert gap.low >= widest.low
    assert gap.method == "MOVER of Wilson, Bonferroni over 3"
    assert gap.high == pytest.approx(accuracy_parity(counts).difference().high)


def test_macro_means_are_sklearns_where_every_class_occurs() -> None:
    draw = Rng.of(4).at("macro").numpy()
    truth, guess = draw.integers(0, 3, 200), draw.integers(0, 3, 200)
    cell = GroupIndex(torch.zeros(200, dtype=torch.long), ("all",))
    counts = Counts.of(torch.tensor(guess), torch.tensor(truth), cell, 3)
    assert macro(recall, counts).value[0] == pytest.approx(balanced_accuracy_score(truth, guess))
    want = precision_score(truth, guess, average="macro")
    assert macro(precision, counts).value[0] == pytest.approx(want)
    assert macro(f1, counts).value[0] == pytest.approx(f1_score(truth, guess, average="macro"))


def test_macro_leaves_out_and_names_classes_without_items() -> None:
    table = np.array([[[4, 0, 0], [2, 2, 0], [0, 0, 0]], [[0, 0, 0]] * 3])
    found = macro(recall, Counts(table, ("a", "b"), ("x", "y", "z")))
    assert found.name == "macro true positive rate"
    assert found.value[0] == 0.75
    assert np.isnan(found.value[1])
    assert found.support.tolist() == [4, 0]
    left = [e.what for e in found.excluded]
    assert left == ["b, class x", "b, class y", "a, class z", "b, class z"]


@pytest.mark.parametrize("measure", [recall, precision, f1])
def test_macro_limits_cover(measure: Measure) -> None:
    draw = Rng.of(5).at("macro", measure.__name__).numpy()
    share = np.array([[0.3, 0.05, 0.05], [0.05, 0.2, 0.05], [0.1, 0.05, 0.15]])
    truth = macro(measure, Counts((share * 100).round().astype(int)[None], ("all",), tuple("xyz")))
    held = 0
    for _ in range(300):
        table = draw.multinomial(200, share.ravel()).reshape(1, 3, 3)
        found = macro(measure, Counts(table, ("all",), tuple("xyz")))
        held += bool(found.low[0] <= truth.value[0] <= found.high[0])
    assert held / 300 > 0.93
    if measure is not f1:
        assert held / 300 < 0.99, "separate samples need no cautious sum"


def test_means_of_a_statistic_and_their_spread() -> None:
    index = GroupIndex(torch.tensor([0, 0, 2, 2, 2]), NAMES)
    loss = Moments.of(torch.tensor([1.0, 3.0, 0.5, 0.5, 0.2]), index)
    found = mean(loss, name="loss")
    assert found.value[[0, 2]].tolist() == pytest.approx([2.0, 0.4])
    assert np.isnan(found.value[1])
    gap = spread(partial(mean, loss, name="loss"))
    assert gap.value == pytest.approx(1.6)
    assert (gap.between, gap.support) == (("a", "c"), (2, 3))
    assert [str(e) for e in gap.excluded] == ["b (0 items)"]
    alone = spread(partial(mean, loss), min_support=3)
    assert not alone.estimable
    assert alone.between is None
    assert [e.what for e in alone.excluded] == ["a", "b"]


def test_the_spread_of_means_covers() -> None:
    draw, held = Rng.of(6).at("spread").numpy(), 0
    for _ in range(300):
        x = draw.normal([0.0, 0.0, 0.3], 1.0, (40, 3))
        table = np.stack([np.full(3, 40.0), x.sum(0), (x**2).sum(0)], 1)
        gap = spread(partial(mean, Moments(table, NAMES)))
        held += gap.low <= 0.3 <= gap.high
    assert held / 300 > 0.93
