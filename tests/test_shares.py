"""Shares of a class: values by hand, limits that hold, and comparisons over runs."""

from __future__ import annotations

import numpy as np
import pytest

from evenloop.counts import Counts
from evenloop.shares import Limited, share_bias, share_gap, slack_over_runs
from feedback_kit import counts


class TestBias:
    """Predicted minus true share."""

    def test_by_hand(self) -> None:
        seen = Counts(np.array([[[5, 3], [1, 1]]]), ("all",), ("no", "yes"))
        found = share_bias(seen, 1)
        assert (found.value, found.n) == (pytest.approx(0.2), 10)
        # Bonett and Price: centre 2 / 12, variance (6 / 12 - centre^2) / 12
        error = ((6 / 12 - (2 / 12) ** 2) / 12) ** 0.5
        assert found.se == pytest.approx(error)
        assert found.low == pytest.approx(2 / 12 - 1.959964 * error, abs=1e-6)

    def test_the_other_class_has_the_opposite_bias(self) -> None:
        seen = counts(0.4, 100)
        assert share_bias(seen, 0).value == -share_bias(seen, 1).value

    def test_groups_are_pooled_and_an_absent_one_changes_nothing(self) -> None:
        table = np.array([[[5, 3], [1, 1]], [[0, 0], [0, 0]]])
        two = Counts(table, ("a", "b"), ("no", "yes"))
        assert share_bias(two, 1) == share_bias(two.pooled(), 1)

    def test_without_a_mistake_it_is_not_certain(self) -> None:
        found = share_bias(counts(0.25, 1000), 1)
        assert found.value == 0
        assert found.low < -0.001 < 0.001 < found.high

    def test_one_item_and_none(self) -> None:
        assert share_bias(counts(1.0, 1, share=0.0), 1).value == 1
        assert np.isnan(share_bias(counts(0, 0), 1).value)
        assert np.isnan(share_bias(counts(0, 0), 1).size()).all()


class TestGap:
    """Predicted share minus the share in the training labels."""

    def test_by_hand(self) -> None:
        found = share_gap(counts(0.4, 50), counts(0.3, 200, 0.3), 1)
        assert (round(found.value, 12), found.n) == (0.1, 50)
        assert found.low < 0.1 < found.high

    @pytest.mark.parametrize(("audit", "labels"), [(0, 10), (10, 0)])
    def test_a_side_without_items(self, audit: int, labels: int) -> None:
        assert np.isnan(share_gap(counts(0.4, audit), counts(0.3, labels), 1).value)


@pytest.mark.parametrize(
    ("low", "high", "size"),
    [(0.1, 0.3, (0.1, 0.3)), (-0.3, -0.1, (0.1, 0.3)), (-0.1, 0.3, (0, 0.3)), (0, 0.1, (0, 0.1))],
)
def test_limits_of_a_size(low: float, high: float, size: tuple[float, float]) -> None:
    assert Limited(0.0, 0.1, low, high, 9).size() == size


class TestSlackOverRuns:
    """Simulated studies: rates of false crossings, and power."""

    STUDIES = 600
    FACTOR = np.array([1.2, 1.5, 1.8, 2.0, 2.1, 2.2])

    def crossings(self, first: float, later: np.ndarray, noise: float) -> float:
        """Share of 600 studies of 20 seeds that say the bound is crossed at any round."""
        rng = np.random.default_rng(3)
        studies, seeds = self.STUDIES, 20
        crossed = 0
        for _ in range(studies):
            start = first + noise * rng.standard_normal(seeds)
            bias = later + noise * rng.standard_normal((seeds, len(later)))
            crossed += bool((slack_over_runs(start, bias, self.FACTOR).high < 0).any())
        return crossed / studies

    def nominal(self) -> float:
        return 0.05 + 4 * (0.05 * 0.95 / self.STUDIES) ** 0.5

    def test_pure_noise_rarely_crosses(self) -> None:
        assert self.crossings(0.0, np.zeros(6), 0.05) <= self.nominal()

    def test_a_constant_gap_on_the_bound_rarely_crosses(self) -> None:
        assert self.crossings(0.1, 0.1 * self.FACTOR, 0.02) <= self.nominal()

    def test_a_crossing_is_found(self) -> None:
        """As digits trained on a subsample: +.15 to +.51 with a bound of .34, sd of a seed .07."""
        later = np.linspace(0.2, 0.51, 6)
        assert self.crossings(0.15, later, 0.07) > 0.9

    def test_a_first_bias_near_zero_hides_nothing(self) -> None:
        """As text under beam search: -.01 at round 0 and +.3 later, either sign."""
        assert self.crossings(-0.01, np.full(6, 0.3), 0.1) > 0.9
        assert self.crossings(0.01, np.full(6, -0.3), 0.1) > 0.9

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_value_is_the_difference_of_the_sizes(self, sign: int) -> None:
        first, later = sign * np.array([0.1, 0.3]), np.array([[0.5], [0.8]])
        assert slack_over_runs(first, later, [2.0]).value.tolist() == pytest.approx([0.4 - 0.65])

    def test_runs_that_do_not_differ_say_nothing(self) -> None:
        same = slack_over_runs([0.0] * 5, [[0.004]] * 5, [1.5])
        assert same.value[0] == pytest.approx(-0.004)
        assert np.isnan([same.low, same.high]).all()

    def test_a_run_that_stopped_early_is_left_out(self) -> None:
        later = [[0.5], [0.6], [0.7], [np.nan]]
        with_it = slack_over_runs([0.1, 0.2, 0.3, 9.0], later, [1.0])
        assert with_it.value == pytest.approx([0.2 - 0.6])
