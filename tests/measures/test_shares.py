"""Shares of cells and distance from an ideal mix."""

from __future__ import annotations

import numpy as np
import pytest

from evenloop.counts import Counts
from evenloop.measures import cell_shares, divergence, shares
from evenloop.rng import Rng


def test_a_cell_without_items_has_share_zero_and_a_population_without_any_has_none() -> None:
    found = shares([2, 0, 6], ("a", "b", "c"))
    assert found.value.tolist() == [0.25, 0, 0.75]
    assert found.support.tolist() == [8, 8, 8]
    assert found.low[1] == 0 < found.high[1]
    assert np.isnan(shares([0, 0], ("a", "b")).value).all()


def test_one_item_is_one_share() -> None:
    found = shares([1], ("only",))
    assert (found.value.tolist(), found.high.tolist()) == ([1.0], [1.0])
    assert found.low[0] < 0.3


def test_cells_are_group_by_class_of_truth_or_prediction() -> None:
    table = np.array([[[3, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 0], [2, 3]]])
    counts = Counts(table, ("a", "b", "c"), ("0", "1"))
    assert cell_shares(counts).value.tolist() == [0.4, 0, 0, 0, 0.1, 0.5]
    assert cell_shares(counts, by="predicted").value.tolist() == [0.3, 0.1, 0, 0, 0.3, 0.3]
    assert cell_shares(counts).groups == ("a 0", "a 1", "b 0", "b 1", "c 0", "c 1")


def test_divergence_from_the_ideal() -> None:
    found = divergence([6, 2, 0, 0])
    want = 0.75 * np.log(0.75 / 0.25)
    assert found.kl == pytest.approx(want)
    assert found.total_variation == pytest.approx(0.5)
    assert (found.support, found.kl_noise) == (8, 3 / 16)
    ideal = divergence([6, 2, 0, 0], [0.75, 0.25, 0, 0])
    assert (ideal.kl, ideal.total_variation, ideal.kl_noise) == (0, 0, 1 / 16)
    assert divergence([6, 2], [1.0, 0.0]).kl == np.inf


def test_no_items_have_no_divergence() -> None:
    found = divergence([0, 0])
    assert np.isnan([found.kl, found.total_variation, found.kl_noise]).all()
    assert found.support == 0


def test_the_noise_level_is_the_mean_divergence_of_the_ideal_itself() -> None:
    drawn = Rng.of(0).at("ideal").numpy().multinomial(500, np.full(8, 1 / 8), 400)
    found = [divergence(items) for items in drawn]
    assert np.mean([d.kl for d in found]) == pytest.approx(found[0].kl_noise, rel=0.1)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "items must be a vector of whole counts"),
        ([[1, 2]], r"items must be a vector of whole counts, got shape \(1, 2\)"),
        ([0.5, 0.5], "whole counts, got shape .* of float64"),
        ([3, -1], "items must not be negative, got -1"),
    ],
)
def test_items_that_are_not_counts_are_refused(items: object, message: str) -> None:
    for measure in (divergence, lambda x: shares(x, ("a", "b"))):
        with pytest.raises(ValueError, match=message):
            measure(items)


@pytest.mark.parametrize("ideal", [[0.5, 0.6], [1.5, -0.5], [1.0], [[0.5, 0.5]], [np.nan, 1]])
def test_an_ideal_that_is_no_mix_is_refused(ideal: object) -> None:
    with pytest.raises(ValueError, match="ideal must"):
        divergence([1, 2], ideal)  # type: ignore[arg-type]


def test_names_must_fit_the_cells() -> None:
    with pytest.raises(ValueError, match="names must name 2 cells, got 1"):
        shares([1, 2], ("a",))
