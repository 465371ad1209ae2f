"""Our rates and gaps equal Fairlearn's where both are defined.

Fairlearn scores a rate without items 0, where ours is missing; those groups are compared only
after they are taken out. Its ratio of two zeros depends on the order of the parts; ours leaves
that part out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, precision_score

from evenloop.measures import (
    Gap,
    Parity,
    accuracy_parity,
    demographic_parity,
    equal_opportunity,
    equalized_odds,
)
from evenloop.rates import group_counts, group_gaps, group_rates
from evenloop.rng import Rng

Ints = NDArray[np.int64]
Arrays = tuple[Ints, Ints, Ints]
RATES: Mapping[str, Callable[..., float]] = {
    "accuracy": accuracy_score,
    "selection_rate": fairlearn.selection_rate,
    "true_positive_rate": fairlearn.true_positive_rate,
    "false_positive_rate": fairlearn.false_positive_rate,
    "true_negative_rate": fairlearn.true_negative_rate,
    "false_negative_rate": fairlearn.false_negative_rate,
    "precision": lambda y, p: precision_score(y, p, zero_division=0.0),
}
GAPS: Mapping[str, tuple[Callable[..., Parity], Callable[..., float], Callable[..., float]]] = {
    "demographic parity": (
        demographic_parity,
        fairlearn.demographic_parity_difference,
        fairlearn.demographic_parity_ratio,
    ),
    "equal opportunity": (
        equal_opportunity,
        fairlearn.equal_opportunity_difference,
        fairlearn.equal_opportunity_ratio,
    ),
    "equalized odds": (
        equalized_odds,
        fairlearn.equalized_odds_difference,
        fairlearn.equalized_odds_ratio,
    ),
}


def random_arrays(seed: int, rows: int = 300, groups: int = 3) -> Arrays:
    draw = Rng.of(seed).at("fairlearn").numpy()
    truth, group = draw.integers(0, 2, rows), draw.integers(0, groups, rows)
    guess = np.where(draw.random(rows) < 0.6 + 0.1 * group, truth, 1 - truth)
    return truth, guess, group


@st.composite
def any_arrays(draw: st.DrawFn) -> Arrays:
    rows = draw(st.integers(2, 40))  # Fairlearn fails on a single row
    groups = draw(st.integers(1, 4))

    def column(top: int) -> st.SearchStrategy[list[int]]:
        return st.lists(st.integers(0, top), min_size=rows, max_size=rows)

    truth, guess, group = (draw(column(top)) for top in (1, 1, groups - 1))
    return np.array(truth), np.array(guess), np.array(group)


def quietly(f: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f(*arguments, **named)


def theirs_by_group(arrays: Arrays) -> Any:
    truth, guess, group = arrays
    return quietly(
        fairlearn.MetricFrame,
        metrics=dict(RATES),
        y_true=truth,
        y_pred=guess,
        sensitive_features=group,
    )


def check_rates(arrays: Arrays, frame: Any) -> None:
    table = group_rates(*arrays)
    ours = table[table["attribute"] == "group"]
    for metric in RATES:
        mine = ours[ours["metric"] == metric].set_index("group")
        assert mine.index.tolist() == [str(g) for g in frame.by_group.index]
        for group, want in frame.by_group[metric].items():
            value, n = mine.loc[str(group), ["value", "n"]]
            if n > 0:
                assert value == pytest.approx(want)
            else:
                assert math.isnan(value)
                assert want == 0
    overall = table[table["attribute"] == "overall"].set_index("metric")["value"]
    for metric, value in overall.items():
        if not math.isnan(value):
            assert value == pytest.approx(frame.overall[metric])


def check_frame_gaps(arrays: Arrays, frame: Any) -> None:
    """The gaps of one frame, which is what Fairlearn's own functions take them from."""
    counts = group_counts(*arrays)["group"]
    for reference, method in (("pairwise", "between_groups"), ("pooled", "to_overall")):
        apart = quietly(frame.difference, method=method)
        ratio = quietly(frame.ratio, method=method)
        for parity, rates in (
            (demographic_parity(counts), ["selection_rate"]),
            (equal_opportunity(counts), ["true_positive_rate"]),
            (equalized_odds(counts), ["true_positive_rate", "false_positive_rate"]),
        ):
            pairs = (
                (parity.difference(reference=reference), apart[rates].max()),
                (parity.ratio(reference=reference), ratio[rates].min()),
            )
            for gap, want in pairs:
                if gap.estimable and not gap.excluded:
                    assert gap.value == pytest.approx(want), gap.name


def check_gaps(arrays: Arrays) -> int:
    """Compare every gap that both define; how many were compared."""
    truth, guess, group = arrays
    counts = group_counts(*arrays)["group"]
    compared = 0
    for notion, difference, ratio in GAPS.values():
        for reference, method in (("pairwise", "between_groups"), ("pooled", "to_overall")):
            pairs: list[tuple[Gap, Callable[..., float]]] = [
                (notion(counts).difference(reference=reference), difference),
                (notion(counts).ratio(reference=reference), ratio),
            ]
            for gap, theirs in pairs:
                if gap.excluded or not gap.estimable:
                    continue
                want = quietly(theirs, truth, guess, sensitive_features=group, method=method)
                assert gap.value == pytest.approx(want), gap.name
                compared += 1
    return compared


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_random_predictions(groups: int) -> None:
    arrays = random_arrays(groups, groups=groups)
    check_rates(arrays, theirs_by_group(arrays))
    assert check_gaps(arrays) == 12


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(any_arrays())
def test_any_predictions(arrays: Arrays) -> None:
    frame = theirs_by_group(arrays)
    check_rates(arrays, frame)
    check_frame_gaps(arrays, frame)


@pytest.mark.parametrize("seed", range(3))
def test_a_group_without_the_rate_is_taken_out_of_both(seed: int) -> None:
    truth, guess, group = random_arrays(seed)
    truth = np.where(group == 1, 0, truth)
    gap = equalized_odds(group_counts(truth, guess, group)["group"]).difference()
    assert [e.what for e in gap.excluded] == ["1"]
    has_positives = group != 1
    rest = [a[has_positives] for a in (truth, guess, group)]
    tpr = fairlearn.equal_opportunity_difference(*rest[:2], sensitive_features=rest[2])
    frame = fairlearn.MetricFrame(
        metrics=fairlearn.false_positive_rate,
        y_true=truth,
        y_pred=guess,
        sensitive_features=group,
    )
    assert gap.value == pytest.approx(max(tpr, frame.difference()))


def test_accuracy_gaps_and_crossed_attributes() -> None:
    truth, guess, group = random_arrays(9)
    other = np.where(np.arange(len(truth)) % 3 == 0, "x", "y")
    frame = fairlearn.MetricFrame(
        metrics=accuracy_score,
        y_true=truth,
        y_pred=guess,
        sensitive_features={"group": group, "other": other},
    )
    counts = group_counts(truth, guess, {"group": group, "other": other})
    parity = accuracy_parity(counts["group & other"])
    assert parity.difference().value == pytest.approx(frame.difference())
    assert parity.ratio().value == pytest.approx(frame.ratio())
    assert parity.difference(reference="pooled").value == pytest.approx(
        frame.difference(method="to_overall")
    )


def test_the_table_of_gaps_holds_the_same_numbers() -> None:
    truth, guess, group = random_arrays(4)
    table = group_gaps(truth, guess, group).set_index("metric")["value"]
    for name, (_, difference, ratio) in GAPS.items():
        key = name.replace(" ", "_")
        for kind, theirs in (("difference", difference), ("ratio", ratio)):
            want = theirs(truth, guess, sensitive_features=group)
            assert table[f"{key}_{kind}"] == pytest.approx(want)
