"""The table of rates: absent groups first, then the single measures bit by bit, then guards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from counts_kit import ABSENT, ONE, TWO, binary, random_counts
from evenloop.counts import Counts
from evenloop.intervals import Bounded
from evenloop.measures import (
    Estimate,
    Gap,
    Parity,
    RateTable,
    accuracy,
    accuracy_parity,
    demographic_parity,
    equal_opportunity,
    equalized_odds,
    false_negative_rate,
    false_positive_rate,
    precision,
    predictive_parity,
    rate_table,
    selection_rate,
    spread,
    true_negative_rate,
    true_positive_rate,
)
from evenloop.measures.contrasts import CHUNK
from evenloop.measures.proportions import CLASS_RATES, OneVsRest

Measure = Callable[..., Estimate]
MEASURES: dict[str, Measure] = {
    "selection rate": selection_rate,
    "true positive rate": true_positive_rate,
    "false positive rate": false_positive_rate,
    "true negative rate": true_negative_rate,
    "false negative rate": false_negative_rate,
    "precision": precision,
}


def single(counts: Counts, klass: int) -> dict[str, Measure]:
    """Each rate's own measure, by name."""
    of_class = {name: partial(m, counts, klass) for name, m in MEASURES.items()}
    return {"accuracy": partial(accuracy, counts), **of_class}


def one_rate(counts: Counts, klass: int, rate: str) -> Parity:
    """The parity of one rate, as a notion would state it."""

    def parts(table: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        hits, of = CLASS_RATES[rate](OneVsRest.of(table).at(klass))
        return hits[..., None, None, :], of[..., None, None, :]

    return Parity(rate, counts, ((rate,),), parts)


def notions(counts: Counts, klass: int) -> dict[str, Parity]:
    named = {
        "accuracy": accuracy_parity(counts),
        "selection rate": demographic_parity(counts, [klass]),
        "true positive rate": equal_opportunity(counts, [klass]),
        "precision": predictive_parity(counts, [klass]),
        "equalized odds": equalized_odds(counts, [klass]),
    }
    others = {rate: one_rate(counts, klass, rate) for rate in MEASURES if rate not in named}
    return named | others


def bits(*parts: object) -> bytes:
    return np.array(parts, np.float64).tobytes()


def same(found: Bounded, want: Estimate | Gap) -> bool:
    return bits(*found) == bits(want.value, want.low, want.high)


# --- absent groups, single rows and single groups -------------------------------------------


@pytest.mark.parametrize("level", [0.95, None])
def test_an_absent_group_is_nan_with_support_0_and_moves_nobody(level: float | None) -> None:
    table = rate_table(binary(ONE, ABSENT, TWO), level=level)
    assert table.groups == ("a", "b", "c")
    assert table.support[:, 1].tolist() == [0] * 7
    assert np.isnan([part[:, 1] for part in table.rate]).all()
    present = rate_table(binary(ONE, TWO), level=level)
    assert bits(*(part[:, [0, 2]] for part in table.rate)) == bits(*present.rate)
    for part in ("overall", "overall_support", "difference", "ratio"):
        assert bits(getattr(table, part)) == bits(getattr(present, part)), part


@pytest.mark.parametrize("level", [0.95, None])
def test_one_group_has_rates_and_no_gap(level: float | None) -> None:
    table = rate_table(binary(ONE), level=level)
    assert not np.isnan(table.rate.value).any()
    assert np.isnan([*table.difference, *table.ratio]).all()


def test_without_any_row_there_is_nothing() -> None:
    table = rate_table(binary(ABSENT, ABSENT))
    assert np.isnan([*table.rate]).all()
    assert np.isnan([*table.overall]).all()
    assert np.isnan([*table.difference, *table.ratio]).all()
    assert table.overall_support.tolist() == [0] * 7


def test_a_rate_that_one_group_lacks_has_no_gap_and_leaves_none_to_the_odds() -> None:
    nobody_is_yes = np.array([[4, 2], [0, 0]])
    for level in (0.95, None):
        table = rate_table(binary(ONE, nobody_is_yes), level=level)
        assert np.isnan(table.gap("true positive rate").value)
        assert np.isnan(table.gap("equalized odds").value)
        assert table.gap("false positive rate").value == pytest.approx(1 / 3 - 1 / 4)


# --- the single measures, to the last bit ---------------------------------------------------


@st.composite
def counted(draw: st.DrawFn) -> tuple[Counts, int]:
    groups, classes = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    cell = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 10**6))
    size = groups * classes**2
    table = np.array(draw(st.lists(cell, min_size=size, max_size=size)), np.int64)
    names = tuple(f"g{i}" for i in range(groups))
    counts = Counts(table.reshape(groups, classes, classes), names, tuple(map(str, range(classes))))
    return counts, draw(st.integers(0, classes - 1))


@settings(deadline=None, max_examples=150)
@given(counted(), st.sampled_from([0.5, 0.9, 0.95]), st.sampled_from([1, 2, 30]))
def test_rates_and_gaps_are_those_of_the_measures_bit_by_bit(
    given_counts: tuple[Counts, int], level: float, least: int
) -> None:
    counts, klass = given_counts
    table = rate_table(counts, klass, level=level, min_support=least)
    plain = rate_table(counts, klass, level=None, min_support=least)
    for name, measure in single(counts, klass).items():
        want = measure(level=level, min_support=least)
        found = table[name]
        assert same(Bounded(found.value, found.low, found.high), want), name
        assert found.support.tolist() == want.support.tolist()
        assert (found.name, found.groups, found.level) == (want.name, want.groups, want.level)
        assert bits(plain[name].value) == bits(want.value), name
        assert plain[name].support.tolist() == want.support.tolist()
    for name, notion in notions(counts, klass).items():
        apart = notion.difference(level=level, min_support=least)
        share = notion.ratio(level=level, min_support=least)
        assert same(table.gap(name), apart), name
        assert same(table.gap(name, "ratio"), share), name
        assert bits(plain.gap(name).value) == bits(apart.value), name
        assert bits(plain.gap(name, "ratio").value) == bits(share.value), name
    everyone = single(counts.pooled(), klass)
    for row, name in enumerate(table.rates):
        want = everyone[name](level=level, min_support=least)
        overall = Bounded(*(part[[row]] for part in table.overall))
        assert same(overall, want), name
        assert bits(plain.overall.value[row]) == bits(want.value[0]), name
        assert table.overall_support[row] == plain.overall_support[row] == want.support[0]


@pytest.mark.parametrize("groups", [2, 40])
def test_differences_are_those_of_the_spread_over_groups(groups: int) -> None:
    counts = random_counts(groups, 3, seed=groups, least=1)
    table = rate_table(counts, 2)
    for name, measure in single(counts, 2).items():
        want = spread(measure)
        assert tuple(table.gap(name)) == pytest.approx((want.value, want.low, want.high)), name


def test_many_pairs_a_few_rows_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = random_counts(12, 2, seed=3)
    whole = rate_table(counts)
    assert CHUNK > 9 * 12**2
    monkeypatch.setattr("evenloop.measures.table.CHUNK", 2 * 12**2)
    split = rate_table(counts)
    assert bits(*whole.difference, *whole.ratio) == bits(*split.difference, *split.ratio)


# --- values by hand -------------------------------------------------------------------------


def test_the_values_of_two_groups_by_hand() -> None:
    # truth x prediction of a: [[3, 1], [1, 5]], of b: [[4, 4], [3, 3]]
    table = rate_table(binary(ONE, TWO), "yes", level=None)
    want = {
        "accuracy": (8 / 10, 7 / 14, 15 / 24),
        "selection rate": (6 / 10, 7 / 14, 13 / 24),
        "true positive rate": (5 / 6, 3 / 6, 8 / 12),
        "false positive rate": (1 / 4, 4 / 8, 5 / 12),
        "true negative rate": (3 / 4, 4 / 8, 7 / 12),
        "false negative rate": (1 / 6, 3 / 6, 4 / 12),
        "precision": (5 / 6, 3 / 7, 8 / 13),
    }
    assert table.rates == tuple(want)
    for row, (name, (a, b, every)) in enumerate(want.items()):
        assert table[name].value.tolist() == pytest.approx([a, b]), name
        assert table.overall.value[row] == pytest.approx(every), name
        assert table.gap(name).value == pytest.approx(abs(a - b)), name
        assert table.gap(name, "ratio").value == pytest.approx(min(a, b) / max(a, b)), name
    assert table.gap("equalized odds").value == pytest.approx(1 / 3)
    assert table.gap("equalized odds", "ratio").value == pytest.approx(1 / 2)
    assert table["precision"].support.tolist() == [6, 7]
    assert table.klass == "yes"


def test_a_rate_of_0_everywhere_has_a_difference_and_no_ratio() -> None:
    never = np.array([[5, 0], [5, 0]])
    for level in (0.95, None):
        table = rate_table(binary(never, never), level=level)
        assert table.gap("selection rate").value == 0
        assert np.isnan(table.gap("selection rate", "ratio").value)
        assert np.isnan(table.gap("equalized odds", "ratio").value)


def test_one_class_of_three_is_held_against_the_rest() -> None:
    counts = random_counts(3, 3, seed=1)
    table = rate_table(counts, "2")
    rest = counts.table[:, :2, :2].sum((1, 2))
    false = counts.table[:, :2, 2].sum(1)
    assert table["false positive rate"].value.tolist() == pytest.approx(false / (rest + false))
    right = np.trace(counts.table, axis1=1, axis2=2) / counts.support
    assert table["accuracy"].value.tolist() == pytest.approx(right), "of all classes"


# --- what a reader sees ---------------------------------------------------------------------


def test_without_limits_the_counts_stay_in_print() -> None:
    lines = str(rate_table(binary(ONE, ABSENT, TWO), level=None)).splitlines()
    assert lines[0].split() == ["rates", "of", "yes", *"abc", "overall", "difference", "ratio"]
    assert [part.strip() for part in lines[1].split("  ") if part] == [
        "accuracy", "0.8 (n=10)", "not estimable (n=0)", "0.5 (n=14)", "0.625 (n=24)", "0.3",
        "0.625",
    ]  # fmt: skip
    assert lines[-1].split() == ["equalized", "odds", "0.333", "0.5"]
    assert len(lines) == 9
    assert "[" not in "".join(lines)


def test_with_limits_every_number_in_print_has_them() -> None:
    table = rate_table(binary(ONE, TWO))
    lines = str(table).splitlines()
    assert [line.count("[") for line in lines] == [0] + [5] * 7 + [2]
    assert table["accuracy"].words().removeprefix("a ") in lines[1]


# --- guards ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"klass": "maybe"}, "klass 'maybe' is none of the classes no, yes"),
        ({"klass": 2}, "klass 2 is none of the classes no, yes"),
        ({"level": 0.0}, "level must lie between 0 and 1, got 0.0"),
        ({"level": 95}, "level must lie between 0 and 1, got 95"),
        ({"min_support": 0}, "min_support must be at least 1, got 0"),
        ({"min_support": 0, "level": None}, "min_support must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rate_table(binary(ONE, TWO), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("klass", [0, "no", np.int64(0)])
def test_a_class_is_taken_by_name_or_code(klass: int | str) -> None:
    table: RateTable = rate_table(binary(ONE, TWO), klass, level=0.9, min_support=2)
    assert (table.klass, table.level, table.min_support) == ("no", 0.9, 2)


def test_an_unknown_rate_or_gap_is_named() -> None:
    table = rate_table(binary(ONE, TWO))
    with pytest.raises(KeyError, match="'recall' is none of accuracy, selection rate"):
        table["recall"]
    with pytest.raises(KeyError, match="'equalized odds' is none of accuracy"):
        table["equalized odds"]
    with pytest.raises(KeyError, match=r"'odds' is none of accuracy, .* equalized odds"):
        table.gap("odds")
