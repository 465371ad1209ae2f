"""Tables of shares: what is written, in which colour, and what a screen reader is told."""

from __future__ import annotations

import numpy as np

from evenloop.report.heat import heat_figure


def test_cells_say_their_share_and_the_farthest_are_told() -> None:
    share = np.array([[0.5, 0.1], [0.375, 0.025]])
    start = np.array([[0.3, 0.1], [0.3, 0.3]])
    svg = heat_figure("Who", ["$a$", "b"], ["0", "1"], share, start, xlabel="x", ylabel="y")
    for text in ("50.0%", "10.0%", "37.5%", "2.5%", "$a$"):
        assert svg.count(f">{text}<") == 1
    assert 'aria-label="Who: b, 1 from 0.3 to 0.025; $a$, 0 from 0.3 to 0.5"' in svg
    assert "opacity: 0.75" in svg
    assert "var(--s1)" in svg
    assert "var(--s0)" in svg


def test_a_cell_without_a_share_says_none() -> None:
    share = np.array([[np.nan, 1.0]])
    svg = heat_figure("T", ["a"], ["0", "1"], share, np.full((1, 2), 0.5), xlabel="", ylabel="")
    assert svg.count(">none<") == 1
    same = heat_figure("T", ["a"], ["0", "1"], share, share, xlabel="", ylabel="")
    assert "opacity: 0.75" not in same
