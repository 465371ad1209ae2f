"""The cubic schedule and exact counts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenloop.surgery.schedule import Cubic, pruned_count


def test_the_papers_example() -> None:
    want = [0, .1683, .3141, .4392, .5451, .6333, .7056, .7635, .8085, .8424, .8667, .8829, .8928,
            .8979, .8997, .9]  # fmt: skip
    cubic = Cubic(0.9, begin=0, end=15)
    assert [cubic.sparsity(t) for t in range(16)] == pytest.approx(want, abs=5e-5)


@given(st.integers(0, 5), st.integers(0, 20), st.floats(0, 0.99), st.floats(0, 1))
def test_it_never_falls_and_ends_exact(begin: int, length: int, final: float, part: float) -> None:
    initial = final if length == 0 else final * part
    cubic = Cubic(final, begin, begin + length, 1, initial)
    path = [cubic.sparsity(t) for t in range(begin + length + 3)]
    assert all(b >= a - 1e-12 for a, b in pairwise(path))
    assert path[-1] == cubic.sparsity(begin + length) == final


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"final": 1.0}, r"final sparsity must be in \[0, 1\)"),
        ({"final": -0.1}, "got -0.1"),
        ({"final": float("nan")}, "got nan"),
        ({"final": 0.5, "initial": 0.6}, "do not come back"),
        ({"final": 0.5, "begin": 3, "end": 2}, "begin=3, end=2"),
        ({"final": 0.5, "begin": -1}, "begin=-1"),
        ({"final": 0.5, "begin": 2, "end": 2}, "needs initial = final"),
        ({"final": 0.5, "every": 0}, "every must be at least 1"),
    ],
)
def test_impossible_schedules_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cubic(**wrong)


def test_one_shot_and_no_pruning_are_schedules() -> None:
    assert Cubic(0.5, 2, 2, initial=0.5).fires(2)
    assert Cubic(0.0).sparsity(20) == 0


@pytest.mark.parametrize(
    ("sparsity", "n", "want"),
    [(0.55, 100, 55), (0.07, 100, 7), (0.0, 9, 0), (1e-6, 50, 1), (0.1 + 0.2, 10, 3), (0.9, 10, 9)],
)
def test_the_ceiling_is_exact(sparsity: float, n: int, want: int) -> None:
    assert pruned_count(sparsity, n) == want
