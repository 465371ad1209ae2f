"""The feedback bound against the theorem's own sum, its limits, and every guard."""

from __future__ import annotations

import numpy as np
import pytest

from evenloop.bound import feedback_bound, feedback_factor, mean_path


def by_sum(n0: int, m: int, k: int, delta: float, rounds: int) -> list[float]:
    """Theorem 1 as it is written: a sum of products, afresh at every round."""
    n = [n0 + t * (m + k) for t in range(rounds + 1)]
    return [
        delta
        * (1 + sum(k / n[i] * np.prod([(n[j] - m) / n[j] for j in range(i + 1, t + 1)])
                   for i in range(1, t + 1)))
        for t in range(rounds + 1)
    ]  # fmt: skip


@pytest.mark.parametrize(("n0", "m", "k"), [(100, 10, 40), (100, 0, 10), (1, 3, 0), (7, 5, 5)])
def test_it_is_the_theorem_s_sum(n0: int, m: int, k: int) -> None:
    mine = feedback_bound(n0=n0, human=m, model=k, delta=-0.05, rounds=40)
    np.testing.assert_allclose(mine, by_sum(n0, m, k, -0.05, 40), rtol=1e-12)


def test_its_limits() -> None:
    long = feedback_factor(n0=10, human=500, model=500, rounds=5000)
    assert 1.99 < long[-1] < 2
    assert feedback_factor(n0=10, human=5, model=0, rounds=9).tolist() == [1] * 10
    assert feedback_bound(n0=10, human=5, model=5, delta=0.3, rounds=0).tolist() == [0.3]


def test_more_people_lower_it_and_more_machine_labels_raise_it() -> None:
    def last(**change: int) -> float:
        sizes = {"n0": 100, "human": 10, "model": 40} | change
        return float(feedback_factor(**sizes, rounds=20)[-1])

    assert last(human=20) < last() < last(model=80)
    assert last(n0=200) < last()


@pytest.mark.parametrize(
    ("name", "value"), [("n0", 0), ("human", -1), ("model", 1.5), ("rounds", True)]
)
def test_a_bad_count_is_named(name: str, value: object) -> None:
    sizes = {"n0": 9, "human": 1, "model": 1, "rounds": 2} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be.*{value}"):
        feedback_factor(**sizes)  # type: ignore[arg-type]


def test_least_counts_pass() -> None:
    assert feedback_factor(n0=1, human=0, model=0, rounds=0).tolist() == [1]


@pytest.mark.parametrize("delta", [float("nan"), float("inf")])
def test_delta_must_be_a_number(delta: float) -> None:
    with pytest.raises(ValueError, match="delta must be finite"):
        feedback_bound(n0=9, human=1, model=1, delta=delta, rounds=2)


def test_a_growing_gap_goes_above_it() -> None:
    _, written = mean_path(
        lambda f: f + 0.05 + (f - 0.3), n0=9, human=1, model=2, rounds=9, population=0.3
    )
    bound = feedback_bound(n0=9, human=1, model=2, delta=0.05, rounds=9)
    assert (written[1:] - 0.3 > bound[1:]).all()
