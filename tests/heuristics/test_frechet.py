"""Frechet distance against the textbook formula, with absent groups first."""

from __future__ import annotations

import math

import pytest
import torch

from evenloop.groups import GroupIndex
from evenloop.heuristics.frechet import frechet, frechet_by_group


def rows(n: int, width: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    gen = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, width, generator=gen, dtype=torch.float64)


def test_a_group_nobody_generated_has_no_distance():
    real, made = GroupIndex(torch.tensor([0, 0, 1, 1]), ("a", "b")), rows(3, 2, 1)
    far = frechet_by_group(rows(4, 2, 0), real, made, GroupIndex(torch.zeros(3).long(), ("a", "b")))
    assert far[0] > 0
    assert math.isnan(far[1])


def test_one_row_has_no_distance():
    assert math.isnan(frechet(rows(1, 2, 0), rows(5, 2, 1)))


@pytest.mark.parametrize(("n", "m"), [(200, 150), (6, 200), (7, 6)])
def test_it_is_the_textbook_formula(n, m):
    a, b = rows(n, 5, 0), rows(m, 5, 1, 2.0) + 0.5
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt().sum()
    want = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root
    assert float(frechet(a, b)) == pytest.approx(float(want), rel=1e-6)


def test_the_same_rows_are_at_distance_zero():
    a = rows(50, 4, 0)
    assert float(frechet(a, a)) == pytest.approx(0, abs=1e-9)


def test_groups_must_be_the_same():
    real = GroupIndex(torch.zeros(2).long(), ("a",))
    with pytest.raises(ValueError, match="groups differ"):
        frechet_by_group(rows(2, 2, 0), real, rows(2, 2, 0), GroupIndex(real.cell, ("b",)))
