"""Stand-in generators: whose rows they use, how they shake them, what they refuse."""

from __future__ import annotations

import pytest
import torch

from evenloop.groups import GroupIndex
from evenloop.heuristics.bootstrap import resampled


def gen() -> torch.Generator:
    return torch.Generator().manual_seed(0)


X = torch.cat([torch.randn(200, 2, generator=gen()), 50 + 3 * torch.randn(100, 2, generator=gen())])
GROUPS = GroupIndex(torch.tensor([0] * 200 + [2] * 100), ("a", "b", "c"))


def test_smoothed_rows_keep_the_cell_s_mean_and_widen_its_spread_by_the_noise():
    x, cell = resampled(X, GROUPS, 4000, generator=gen(), noise=0.5)
    assert torch.bincount(cell, minlength=3).tolist() == [4000, 0, 4000]
    for code in (0, 2):
        old, new = X[GROUPS.cell == code], x[cell == code]
        torch.testing.assert_close(new.mean(0), old.mean(0), rtol=0.01, atol=0.1)
        wide = old.std(0, correction=0) * 1.25**0.5
        torch.testing.assert_close(new.std(0), wide, rtol=0.05, atol=0)


def test_blind_rows_are_the_same_for_every_cell():
    x, cell = resampled(X, GROUPS, 4000, generator=gen(), kind="blind")
    means = [x[cell == code].mean(0) for code in (0, 2)]
    torch.testing.assert_close(means[0], means[1], rtol=0.1, atol=1.5)


def test_one_row_gives_copies_of_itself():
    one = GroupIndex(torch.tensor([1]), ("a", "b"))
    x, cell = resampled(torch.tensor([[3.0]]), one, 2, generator=gen())
    assert (x.flatten().tolist(), cell.tolist()) == ([3.0, 3.0], [1, 1])


@pytest.mark.parametrize(
    ("x", "options", "text"),
    [
        (torch.zeros(300, 3, 2, 2), {}, "only tables"),
        (X, {"kind": "sharp"}, "kind must be"),
        (X, {"noise": -1.0}, "noise >= 0"),
    ],
)
def test_bad_input_is_refused(x, options, text):
    with pytest.raises(ValueError, match=text):
        resampled(x, GROUPS, 5, generator=gen(), **options)
