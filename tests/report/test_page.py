"""The page of a study made by hand: what it says, what it escapes, what it leaves out."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evenloop.config import ConfigError
from evenloop.counts import Counts
from evenloop.record import Row
from evenloop.report.page import read, write_report
from evenloop.report.sections import Section, feedback
from feedback_kit import row, study_folder

Shares = list[float]


def noisy(seed: int, rounds: int, bias: Shares, gap: Shares | None = None) -> list[Row]:
    """A run whose bias and gap are these plus luck of .02."""
    luck = 0.02 * np.random.default_rng(seed).standard_normal(rounds)
    learnt = [0.25 + b - g for b, g in zip(bias, gap or bias, strict=True)]
    return [row(t, 0.25 + bias[t] + luck[t], learnt[t]) for t in range(rounds)]


GROWING = ([0.05, 0.2, 0.3, 0.45], [0.05, 0.15, 0.2, 0.3])
STEADY = ([0.1, 0.12, 0.14, 0.15], [0.1, 0.1, 0.1, 0.1])


def folder(path: Path, shares: tuple[Shares, Shares], seeds: int = 8) -> Path:
    return study_folder(path, [noisy(s, 4, *shares) for s in range(seeds)])


def section(path: Path) -> Section:
    found = feedback.build(read(path))
    assert found is not None
    return found


class TestWords:
    """What the section says, and what it must not."""

    def test_a_crossing_and_a_grown_gap_are_said(self, tmp_path: Path) -> None:
        text = " ".join(section(folder(tmp_path, GROWING)).text)
        assert "The bias crosses the bound drawn from round 0, first at round 1" in text
        assert "surely larger than at round 0" in text
        assert "is no bound for this labeller" in text

    def test_a_steady_gap_is_not_called_grown_and_no_crossing_is_seen(self, tmp_path: Path) -> None:
        text = " ".join(section(folder(tmp_path, STEADY)).text)
        assert "at no round surely above the bound" in text
        assert "at no round is it surely larger" in text

    def test_no_cause_is_named_where_the_gap_did_not_grow(self, tmp_path: Path) -> None:
        """The bias crosses while the gap to the labels shrinks, as an urn's may."""
        text = " ".join(section(folder(tmp_path, (GROWING[0], [0.05, 0.04, 0.03, 0.02]))).text)
        assert "crosses the bound" in text
        assert "is no bound for this labeller" not in text

    def test_a_crossing_is_rare_in_noise(self, tmp_path: Path) -> None:
        said = 0
        for study in range(20):
            runs = [noisy(100 * study + s, 4, [0.0] * 4) for s in range(5)]
            of = read(study_folder(tmp_path / str(study), runs))
            words = feedback._verdict_words(of, feedback._verdicts(of, 1, "first"))
            said += "crosses the bound" in words
        assert said <= 20 * 0.05 + 4 * (20 * 0.05 * 0.95) ** 0.5

    def test_one_seed_speaks_for_itself_only(self, tmp_path: Path) -> None:
        found = section(folder(tmp_path, GROWING, seeds=1))
        text = " ".join(found.text)
        assert "crosses the bound" in text
        assert "tested over seeds only" in text
        assert len(found.tables) == 1
        calm = " ".join(section(folder(tmp_path / "calm", STEADY, seeds=1)).text)
        assert "One seed cannot tell" in calm

    def test_one_round_has_nothing_to_hold_against_the_bound(self, tmp_path: Path) -> None:
        path = study_folder(tmp_path, [[row(0, 0.3, 0.3)], [row(0, 0.35, 0.3)]])
        assert "There is no later round" in " ".join(section(path).text)

    def test_abstentions_take_the_proof_away(self, tmp_path: Path) -> None:
        runs = [[row(0, 0.3, 0.3), row(1, 0.3, 0.3, values={"0.relabel.abstained": 7})]] * 2
        text = " ".join(section(study_folder(tmp_path, runs)).text)
        assert "abstained on 14 rows" in text
        assert "not a bound" in text
        assert "abstained" not in " ".join(section(folder(tmp_path / "b", STEADY)).text)

    def test_no_class_tracked_no_section(self, tmp_path: Path) -> None:
        path = study_folder(tmp_path, [[row(0, 0.3, 0.3)]], track=None)
        assert feedback.build(read(path)) is None


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study whose classes are hostile to HTML, to mathtext and to matplotlib's legend."""
    names = ("<script>alert(1)</script>", "_x $y$ & \"z'")
    runs = [[row(t, 0.3 + 0.02 * s, 0.3, names=names) for t in range(3)] for s in range(2)]
    path = study_folder(tmp_path_factory.mktemp("odd"), runs, by=["truth"])
    return write_report(path).path.read_text()


class TestPage:
    """The whole page."""

    def test_names_are_shown_and_never_markup(self, html: str) -> None:
        page = Tags(html)
        assert "script" not in {tag for tag, _ in page.tags}
        assert "_x $y$ & \"z'" in " ".join(page.text)

    def test_nothing_is_fetched(self, html: str) -> None:
        wanted = ("src", "href", "xlink:href", "action", "poster")
        for _, attributes in Tags(html).tags:
            for name in wanted:
                assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert not re.search(r"@import|url\((?!#)", html)

    def test_every_figure_has_words_for_those_who_cannot_see_it(self, html: str) -> None:
        drawn = [a for tag, a in Tags(html).tags if tag == "svg"]
        assert len(drawn) >= 5
        assert all(a.get("role") == "img" and a.get("aria-label") for a in drawn)

    def test_the_same_rows_give_the_same_bytes(self, tmp_path: Path) -> None:
        path = folder(tmp_path, STEADY, seeds=2)
        first = write_report(path).path.read_bytes()
        table = (path / "metrics.parquet").read_bytes()
        assert write_report(path).path.read_bytes() == first
        assert (path / "metrics.parquet").read_bytes() == table

    def test_the_verdict_is_the_summary(self, tmp_path: Path) -> None:
        page = write_report(folder(tmp_path, GROWING))
        assert page.summary[0].startswith("Bias towards class yes")
        assert "crosses the bound" in page.summary[1]

    def test_metrics_by_hand(self, tmp_path: Path) -> None:
        path = study_folder(tmp_path, [[row(0, 0.3, 0.25), row(1, 0.36, 0.31)]])
        write_report(path)
        table = pd.read_parquet(path / "metrics.parquet")
        bias = table[table["metric"] == "bias"]
        assert bias["value"].tolist() == pytest.approx([0.05, 0.11])
        assert bias["n"].tolist() == [1000, 1000]

    def test_an_absent_group_is_not_estimable(self, tmp_path: Path) -> None:
        plain = row(0, 0.3, 0.3)
        two = np.stack([plain.counts["audit"].table[0], np.zeros((2, 2), np.int64)])
        audit = Counts(two, ("here", "nobody"), ("no", "yes"))
        runs = [[Row(0, plain.sizes, {**plain.counts, "audit": audit})]]
        path = study_folder(tmp_path, runs, by=["sex"])
        html = write_report(path).path.read_text()
        assert re.search(r"<td>nobody</td><td>not estimable</td><td></td><td>0</td>", html)

    def test_alarms_of_a_seed_are_one_line(self, tmp_path: Path) -> None:
        runs = [[row(t, 0.3, 0.3, alarms=(f"round {t}: high",)) for t in range(4)]]
        page = write_report(study_folder(tmp_path, runs))
        assert "4 alarms in 1 of 1 seeds while it ran; see below." in page.summary
        assert "seed 0, round 0: high (3 more of this seed" in page.path.read_text()

    def test_a_folder_without_a_finished_round_is_refused(self, tmp_path: Path) -> None:
        path = study_folder(tmp_path, [[]], rounds=1)
        with pytest.raises(ConfigError, match="no finished round"):
            write_report(path)


class TestBands:
    """Lines over seeds."""

    def test_seeds_that_agree_are_shown_with_the_error_of_their_items(self, tmp_path: Path) -> None:
        study = read(study_folder(tmp_path, [[row(0, 0.0, 0.3, n=50)]] * 3))
        line = study.line("", "selection rate of yes")
        assert line.low is not None
        assert line.high is not None
        assert (line.value[0], line.low[0]) == (0, 0)
        assert 0.05 < line.high[0] < 0.1

    def test_seeds_of_other_lengths(self, tmp_path: Path) -> None:
        runs = [[row(t, 0.3 + 0.01 * s, 0.3) for t in range(2 + s)] for s in range(2)]
        study = read(study_folder(tmp_path, runs, rounds=3))
        line = study.line("", "bias")
        assert line.value.tolist() == pytest.approx([0.055, 0.055, 0.06])
        assert study.grid("bias").shape == (2, 3)
        assert line.low is not None
        assert np.isnan(line.low[2])

    def test_a_metric_nobody_has(self, tmp_path: Path) -> None:
        study = read(study_folder(tmp_path, [[row(0, 0.3, 0.3)]]))
        assert np.isnan(study.line("", "no such").value).all()
