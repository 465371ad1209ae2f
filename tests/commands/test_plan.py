"""`evenloop plan reparation`: the closed form as a table, and wrong input."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from evenloop.cli import app
from evenloop.commands.plan import reparation_lines

ASK = ["plan", "reparation", "--batch", "256", "--budget", "64"]


def test_the_table_holds_the_closed_form() -> None:
    lines = list(reparation_lines([0.16, 0.30, 0.34, 0.20], batch=256, budget="64", names="abcd"))
    assert lines[1].split() == ["a", "16.00%", "25.0%", "64", "3.31%", "21.0%"]
    assert lines[5] == "expected rows that the rule 'unfiltered' supplies: 15.73 of 256"
    assert len(lines) == 6


def test_the_command_says_what_cannot_be_repaired() -> None:
    done = CliRunner().invoke(app, [*ASK, "--share", "0.02,0.02,0.48,0.48"])
    assert done.exit_code == 0
    assert "stratum 0 (2.000% of the source)" in done.output


def test_wrong_input_is_exit_2() -> None:
    for extra in (
        ["--share", "0.5,0.4"],
        ["--share", "0.5,0.5", "--ideal", "1,1"],
        ["--share", "x"],
    ):
        done = CliRunner().invoke(app, [*ASK, *extra])
        assert done.exit_code == 2, extra
    with pytest.raises(ValueError, match="1 names for 2 shares"):
        list(reparation_lines([0.5, 0.5], batch=8, budget="25%", names=["a"]))
    with pytest.raises(ValueError, match="fill must be one of"):
        list(reparation_lines([0.5, 0.5], batch=8, budget="25%", fill="magic"))
