"""Figures as text: names as they are, a legend entry for every line, colours of the page."""

from __future__ import annotations

import re

import numpy as np

from evenloop.report.figures import Line, line_figure


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_every_line_has_its_name_whatever_it_is() -> None:
    names = ["_hidden", "$x$", "a$b", "<b> & 'c'", "plain"]
    lines = [Line(name, np.array([1.0, 2.0])) for name in names]
    svg = line_figure("$t$ <i>", lines, ylabel="$share", xlabel="_round$a$")
    wanted = ["_hidden", "$x$", "a$b", "&lt;b&gt; &amp; 'c'", "plain", "$t$ &lt;i&gt;", "$share"]
    assert set(wanted) <= set(texts(svg))
    assert "_round$a$" in texts(svg)


def colours(svg: str) -> list[str]:
    """Of the lines in their order, with the dashes."""
    drawn = re.findall(r'<path d="[^"]*" clip-path="[^"]*" style="([^"]*)"', svg)
    return [style for style in drawn if "var(--s" in style]


def test_a_line_with_a_place_keeps_its_colour_in_any_order() -> None:
    value = np.array([1.0, 2.0])
    red, green, ten = (Line(n, value, place=p) for n, p in (("r", 1), ("g", 0), ("t", 9)))
    one, other = (line_figure("t", lines, ylabel="y") for lines in ((red, green), (green, red)))
    assert [re.findall(r"--s\d", style) for style in colours(one)] == [["--s1"], ["--s0"]]
    assert colours(one) == colours(other)[::-1]
    same = colours(line_figure("t", (red, ten), ylabel="y"))
    assert all("--s1" in style for style in same)
    assert same[0] != same[1]  # another style


def test_lines_of_which_one_has_no_place_go_by_their_order() -> None:
    value = np.array([1.0, 2.0])
    lines = (Line("a", value, place=1), Line("b", value), Line("c", value, flat=True))
    shown = colours(line_figure("t", lines, ylabel="y"))
    assert [re.findall(r"--s\d", style) for style in shown] == [["--s0"], ["--s1"]]


def test_only_the_page_s_colours() -> None:
    svg = line_figure("t", [Line("a", np.array([1.0, 2.0])), Line("b", np.ones(2), flat=True)],
                      ylabel="y", zero=True)  # fmt: skip
    assert "var(--s0)" in svg
    assert "var(--ink)" in svg
    assert not re.search(r"(?:stroke|fill): #", svg)


def test_nan_and_nothing_at_all_are_drawn() -> None:
    svg = line_figure("t", [Line("a", np.array([np.nan, 1.0])), Line("b", np.full(2, np.nan))],
                      ylabel="y")  # fmt: skip
    label = re.findall(r'aria-label="([^"]*)"', svg)[0]
    assert label == "t: a from 1 to 1"


def test_crowded_panels_have_limits_at_the_end_only() -> None:
    value = np.array([1.0, 2.0, 3.0])
    lines = [Line(str(i), value, value - 0.1, value + 0.1, (value,)) for i in range(6)]
    few, many = (line_figure("t", shown, ylabel="y") for shown in (lines[:2], lines))
    assert "fill-opacity: 0.16" in few
    assert "fill-opacity: 0.16" not in many


def test_equal_figures_are_equal_bytes() -> None:
    first, second = (
        line_figure("t", [Line("a", np.array([1.0, 2.0]))], ylabel="y") for _ in range(2)
    )
    assert first == second


def test_points_may_be_called_by_other_numbers_than_theirs() -> None:
    line = Line("share", np.linspace(0.5, 0.6, 22))
    plain = line_figure("t", [line], ylabel="y")
    named = line_figure("t", [line], ylabel="y", at=range(10, 230, 10))
    assert ">21<" in plain
    assert ">220<" in named
    assert ">21<" not in named


def test_a_line_says_its_value_in_words() -> None:
    value, ends = np.array([0.5, np.nan, -0.25]), np.array([np.nan, np.nan, 0.125])
    line = Line("a", value, -ends, ends)
    said = [line.words(at) for at in range(4)]
    limited = "-0.250 [-0.125, +0.125]"
    assert said == ["+0.500 (no limits)", "not estimable", limited, "not estimable"]
    assert Line("b", value).words(2) == "-0.250 (no limits)"
