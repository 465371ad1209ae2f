"""Paths through a plane: means, missing runs, texts as they are."""

from __future__ import annotations

import re

import numpy as np

from evenloop.report.plane import Path, plane_figure


def label(svg: str) -> str:
    return re.findall(r'aria-label="([^"]*)"', svg)[0]


def test_a_path_runs_through_the_means_of_its_runs() -> None:
    x = np.array([[0.0, 0.2], [0.0, 0.4]])
    y = np.array([[1.0, 0.9], [1.0, 0.7]])
    svg = plane_figure("t", [Path("<a>", x, y, ("0%", "90%"))], xlabel="x", ylabel="y", limit=0.1)
    assert label(svg) == "t: &lt;a&gt; from (0, 1) to (0.3, 0.8)"
    assert {"0%", "90%", "x", "y"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert not re.search(r"(?:stroke|fill): #", svg)


def test_a_run_without_a_value_is_left_out_of_the_mean() -> None:
    nan = float("nan")
    some = Path("some", np.array([[0.0, nan], [0.0, 0.4]]), np.array([[1.0, nan], [1.0, 0.5]]))
    none = Path("none", np.full((1, 2), nan), np.full((1, 2), nan))
    svg = plane_figure("t", [some, none], xlabel="x", ylabel="y")
    assert label(svg) == "t: some from (0, 1) to (0.4, 0.5); none without a point"
