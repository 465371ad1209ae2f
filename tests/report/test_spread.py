"""Medians, quartiles and single seeds: exact values, fewest seeds, seeds that stopped early."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from evenloop.report.figures import Line
from evenloop.report.spread import (
    FEWEST,
    course_figures,
    explained,
    last_table,
    median_figure,
    middle,
)
from evenloop.report.study import Study

NAN = float("nan")


def seeds(*values: float) -> list[np.ndarray]:
    return [np.array([0.5, value]) for value in values]


def test_the_middle_is_a_seed_where_the_mean_is_none() -> None:
    """Three seeds collapsed, two did not: the mean, 0.44, is the accuracy of nobody."""
    line = middle("a", seeds(0.1, 0.2, 0.0, 0.9, 1.0))
    assert line.low is not None
    assert line.high is not None
    assert [line.low[1], line.value[1], line.high[1]] == pytest.approx([0.1, 0.2, 0.9])
    assert [line.low[0], line.value[0], line.high[0]] == [0.5, 0.5, 0.5]
    assert len(line.thin) == 5
    assert line.legible


def test_quartiles_need_five_seeds_in_the_round_itself() -> None:
    assert FEWEST == 5
    few = middle("a", seeds(0.1, 0.2, 0.3, 0.4))
    assert few.low is None
    assert few.high is None
    assert few.value.tolist() == pytest.approx([0.5, 0.25])
    stopped = [*seeds(0.1, 0.2, 0.3, 0.4), np.array([0.7])]
    some = middle("a", stopped)
    assert some.low is not None
    assert np.isnan(some.low).tolist() == [False, True]
    assert some.value.tolist() == pytest.approx([0.5, 0.25])


def test_a_round_that_no_seed_has_a_value_for_is_nan() -> None:
    line = middle("a", seeds(NAN, NAN))
    assert line.value[0] == 0.5
    assert np.isnan(line.value[1])
    nothing = [np.full(2, NAN)] * 5
    assert np.isnan(middle("a", nothing).value).all()
    svg = median_figure("t", {"a": nothing, "b": seeds(1, 2, 3, 4, 5)}, ylabel="y")
    assert 'aria-label="t: median of 5 seeds: b from 0.5 to 3"' in svg


def test_every_figure_says_of_how_many_seeds() -> None:
    one = median_figure("t", {"a": seeds(1.0, 2.0)}, ylabel="y")
    assert ">t: median of 2 seeds<" in one
    two = median_figure("t", {"a": seeds(1.0, 2.0), "b": seeds(1.0)}, ylabel="y")
    assert ">t: median of 1 to 2 seeds<" in two
    assert "fill-opacity: 0.16" not in one
    assert "fill-opacity: 0.16" in median_figure("t", {"a": seeds(1, 2, 3, 4, 5)}, ylabel="y")


def study(*values: float) -> Study:
    """Stands for a study whose every metric has these values in its last round."""
    found = seeds(*values)
    mean = np.mean(found, axis=0)
    line = Line("a", mean, mean - 1, mean + 1, tuple(found))
    fake: Any = SimpleNamespace(line=lambda *_: line, curves=lambda *_: found)
    return cast(Study, fake)


def test_an_arm_without_a_value_leaves_the_others_theirs() -> None:
    arms = {"a": study(NAN, NAN), "b": study(1, 2)}
    assert len(course_figures("t", arms, "m", "audit", ylabel="y")) == 2
    lost: Any = SimpleNamespace(
        line=lambda *_: Line("c", np.full(2, NAN)), curves=lambda *_: [np.full(2, NAN)] * 2
    )
    assert len(course_figures("t", {"c": lost}, "m", "audit", ylabel="y")) == 2


def test_means_and_medians_stand_side_by_side_on_one_scale() -> None:
    mean, median = course_figures("t", {"a": study(1, 2, 3, 4, 9)}, "m", "audit", ylabel="y")
    assert ">t: mean of 5 seeds<" in mean
    assert 'aria-label="t: mean of 5 seeds: a from 0.5 to 3.8"' in mean
    assert 'aria-label="t: median of 5 seeds: a from 0.5 to 3"' in median
    assert mean.count("stroke-width: 0.") < median.count("stroke-width: 0.")  # seeds, thin
    places = [
        re.findall(r'id="ytick_\d+".*?<use [^>]*y="([\d.]+)"', f, re.S) for f in (mean, median)
    ]
    assert places[0] == places[1]
    assert len(places[0]) > 2


def test_one_seed_is_one_figure() -> None:
    (only,) = course_figures("t", {"a": study(1.0)}, "m", "audit", ylabel="y")
    assert ">t<" in only


def test_the_note_says_what_is_drawn() -> None:
    quartiles, none, thin = "lower to the upper quartile", "No quartiles are drawn", "Thin lines"
    assert (quartiles in explained([5, 5]), none in explained([5, 5])) == (True, False)
    assert (quartiles in explained([3, 3]), none in explained([3, 3])) == (False, True)
    assert (quartiles in explained([3, 9]), none in explained([3, 9])) == (True, True)
    assert all(thin in explained(n) for n in ([5, 5], [3, 3], [3, 9]))
    crowded = explained([9] * 6)
    assert "bar at the last generation" in crowded
    assert thin not in crowded


def test_the_table_counts_seeds_that_have_a_last_value() -> None:
    rows = {
        ("m", "a"): seeds(0.1, 0.2, 0.0, 0.9, 1.0),
        ("m", "b"): seeds(0.1, NAN, 0.3),
        ("m", "c"): seeds(NAN),
    }
    table = last_table(rows, ("measure", "arm"))
    assert table.rows == [
        ("m", "a", "0.200", "0.100 to 0.900", "0.000", "1.000", "5"),
        ("m", "b", "0.200", "fewer than 5 seeds", "0.100", "0.300", "2"),
        ("m", "c", *["not estimable"] * 4, "0"),
    ]
    assert len(table.head) == 7
