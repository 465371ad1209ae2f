"""Generated populations and absorbing states, with absent groups first."""

from __future__ import annotations

import math

import pytest
import torch

from evenloop.heuristics.population import absorbed, population


def test_a_population_without_group_one():
    logits = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
    made = population(logits.flip(1), logits, groups=2)
    assert made.strata.tolist() == [0, 0, 2, 0]
    assert made.group_share.tolist() == [1.0, 0.0]
    assert math.isnan(made.margin[1])
    assert made.sure.tolist() == [2, 0]


def test_a_population_of_one_row_and_three_groups():
    made = population(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0, 9.0]]), groups=3)
    assert made.strata.tolist() == [0, 0, 0, 0, 0, 1]
    assert made.label_share.tolist() == [0.0, 1.0]


def test_margins_leave_out_unsure_rows():
    logits = torch.tensor([[0.0, 0.1], [0.0, 9.0]])
    made = population(logits, logits, groups=2)
    assert made.sure.tolist() == [0, 1]
    assert float(made.margin[1]) == pytest.approx(1, abs=1e-3)


def test_rows_and_groups_must_agree():
    with pytest.raises(ValueError, match="the same rows, and 3 groups"):
        population(torch.zeros(2, 2), torch.zeros(2, 2), groups=3)


@pytest.mark.parametrize(
    ("table", "state"),
    [
        ([[[0, 10], [0, 10]], [[0, 10], [0, 10]]], "constant 1"),
        ([[[10, 0], [10, 0]], [[10, 0], [10, 0]]], "constant 0"),
        ([[[0, 10], [0, 10]], [[10, 0], [10, 0]]], "group rule"),
        ([[[9, 1], [1, 9]], [[9, 1], [1, 9]]], "none"),
        ([[[10, 0], [10, 0]], [[0, 0], [0, 0]]], "constant 0"),
        ([[[0, 10], [0, 10]], [[9, 1], [1, 9]]], "none"),
    ],
)
def test_absorbing_states(table, state):
    assert absorbed(torch.tensor(table)) == state


def test_absorbing_states_need_two_classes_and_items():
    with pytest.raises(ValueError, match=r"must be \(G, 2, 2\)"):
        absorbed(torch.zeros(2, 2, 2))
