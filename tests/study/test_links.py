"""Rows of a chain, read as its loops wrote them."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from evenloop.cli import app
from evenloop.record import Row
from evenloop.report.page import read, write_report
from evenloop.study.links import unlinked


def test_a_name_that_another_loop_shares_keeps_its_link() -> None:
    row = Row(0, {}, {}, values={"0.relabel.human": 1, "1.acquire.human": 2, "1.acquire.cost": 3})
    assert unlinked([row])[0].values == {"0.relabel.human": 1, "1.acquire.human": 2, "cost": 3}
    assert unlinked([row])[0].round == 0


def test_a_name_is_called_the_same_in_every_round() -> None:
    rows = [
        Row(0, {}, {}, values={"1.prune.layers": 3}),
        Row(1, {}, {}, values={"0.prune.layers": 3, "1.prune.layers": 3, "1.prune.tuned": 1}),
    ]
    assert [list(row.values) for row in unlinked(rows)] == [
        ["1.prune.layers"],
        ["0.prune.layers", "1.prune.layers", "tuned"],
    ]


def test_a_chain_of_three_studies_is_run_and_reported_with_the_sections_of_each(
    tmp_path: Path,
) -> None:
    settings = ["rounds=2", "seeds=1", "relabel.n0=60", "initial=60", "test_size=200"]
    settings += ["recipe.epochs=2", "tune.epochs=6", "draws=2"]
    out = CliRunner().invoke(app, ["run", "whole-life", *settings, "--out", str(tmp_path)])
    assert out.exit_code == 0, out.output
    folder = next(tmp_path.glob("whole-life-*"))
    study = read(folder)
    assert study.config.sampler == {"name": "quota", "budget": "100%"}
    html = write_report(folder).path.read_text()
    for title in ("Label feedback", "Whose labels were bought", "Compression", "Every group"):
        assert f"<h2>{title}</h2>" in html
    assert {"fit", "fit.reference", "audit.reference"} <= set(study.first.counts)
    sizes = [r.sizes["train"] for r in study.records[0].rows]
    assert sizes == [60, 60 + 20 + 80 + 40]  # people's rows, the net's, and the bought ones
