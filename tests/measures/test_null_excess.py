"""The largest excess gap by chance alone."""

from __future__ import annotations

import numpy as np
import pytest

from evenloop.counts import Moments
from evenloop.measures.null_excess import null_worst_excess


def moments(sizes: list[int], damaged: float, repaired: float) -> Moments:
    n = np.array(sizes, float)
    table = np.stack([n, n * (damaged - repaired), n * (damaged + repaired)], 1)
    return Moments(table, tuple(map(str, range(len(sizes)))))


def test_published_settings_have_the_noise_that_was_simulated_for_them() -> None:
    rng = np.random.default_rng(0)
    classes = null_worst_excess(moments([100] * 100, 0.16, 0.08), rng=rng)
    assert classes == pytest.approx([0.09, 0.12, 0.16], abs=0.01)
    faces = null_worst_excess(moments([1560] * 7, 0.10, 0.06), rng=rng)
    assert faces == pytest.approx([0.007, 0.014, 0.024], abs=0.003)


@pytest.mark.parametrize("seed", range(3))
def test_it_covers_what_it_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, damaged, repaired = np.array([40, 200, 90, 400]), 0.1, 0.04
    inside = 0
    for _ in range(200):
        worse = rng.binomial(sizes, damaged)
        better = rng.binomial(sizes - worse, repaired / (1 - damaged))
        table = np.stack([sizes, worse - better, worse + better], 1).astype(float)
        low, high = null_worst_excess(
            Moments(table, tuple("abcd")), rng=rng, quantiles=(0.05, 0.95), draws=400
        )
        psi = (worse - better) / sizes - (worse - better).sum() / sizes.sum()
        inside += bool(low <= psi.max() <= high)
    assert 165 <= inside <= 195


def test_groups_without_items_take_no_part() -> None:
    one, two = (
        null_worst_excess(moments(sizes, 0.1, 0.1), rng=np.random.default_rng(0))
        for sizes in ([50, 50], [50, 0, 50])
    )
    assert (one == two).all()


def test_without_any_change_there_is_no_gap() -> None:
    assert (
        null_worst_excess(moments([9, 9], 0, 0), rng=np.random.default_rng(0)).tolist() == [0] * 3
    )


@pytest.mark.parametrize(
    ("lost", "draws", "message"),
    [
        (moments([0, 0], 0.1, 0.1), 10, "no items"),
        (moments([9, 9], 0.1, 0.1), 0, "at least 1"),
        (Moments(np.array([[9.0, 20.0, 60.0]]), ("a",)), 10, "right before minus right after"),
    ],
)
def test_what_cannot_be_simulated_is_refused(lost: Moments, draws: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        null_worst_excess(lost, rng=np.random.default_rng(0), draws=draws)
