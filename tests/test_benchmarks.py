"""The benchmarks' page: a row that cannot be measured now keeps its last figures, marked."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_main", FOLDER / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def row(name: str, ours: float) -> dict[str, Any]:
    fixed = {"baseline": 2.0, "target": ">= 1", "unit": "CPU s"}
    return {"name": name, "ours": ours, "ratio": 2.0 / ours, **fixed}


class Bench:
    """A folder with one benchmark `x`, whose rows are given."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.main, self.folder, self.patch = module(), folder, patch
        (folder / "bench_x.py").write_text("")
        patch.setattr(self.main, "HERE", folder)
        self.days = iter(f"day {i}" for i in range(9))
        patch.setattr(self.main, "stamp", lambda: next(self.days))

    def run(self, *rows: dict[str, Any], fresh: bool = False) -> tuple[list[dict[str, Any]], str]:
        """The rows kept and the page after a run that measured `rows`."""
        self.patch.setitem(
            sys.modules, "benchmarks.bench_x", SimpleNamespace(rows=lambda: list(rows))
        )
        self.main.main(["x"], fresh)
        kept = json.loads((self.folder / "results.json").read_text())["x"]["rows"]
        return kept, (self.folder / "RESULTS.md").read_text()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_what_cannot_be_measured_keeps_its_last_figures_with_their_day(bench: Bench) -> None:
    both = row("ours alone", 1.0), row("against theirs", 0.5)
    kept, page = bench.run(*both)
    assert kept == [*both]
    assert "earlier" not in page.partition("## x")[2]
    for _ in range(2):  # the mark stays that of the first time
        kept, page = bench.run(row("ours alone", 0.8))
        assert [r["ours"] for r in kept] == [0.8, 0.5]
        assert "earlier" not in kept[0]
        assert kept[1]["earlier"].startswith("day 0, Python")
        assert "| against theirs *(earlier)* | 0.5 | 2 | CPU s | 4 | >= 1 | yes |" in page
        assert "kept from day 0, Python" in page
    kept, page = bench.run(*both)
    assert kept == [*both]


def test_fresh_keeps_no_earlier_row(bench: Bench) -> None:
    bench.run(row("gone", 1.0), row("stays", 1.0))
    kept, page = bench.run(row("stays", 1.0), fresh=True)
    assert kept == [row("stays", 1.0)]
    assert "gone" not in page


def test_rows_of_before_days_were_noted_say_so(bench: Bench) -> None:
    last = {"machine": "Python 3.", "rows": [row("old", 1.0)]}
    (bench.folder / "results.json").write_text(json.dumps({"x": last}))
    kept, _ = bench.run(row("new", 1.0))
    assert [r.get("earlier") for r in kept] == [None, "day not noted, Python 3."]


def test_an_unknown_benchmark_is_refused_and_nothing_is_written(bench: Bench) -> None:
    with pytest.raises(SystemExit, match="no benchmark y; there are: x"):
        bench.main.main(["y"])
    assert not (bench.folder / "RESULTS.md").exists()


def test_the_stamp_names_day_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    main = module()
    assert main._git("rev-parse", "--no-such-option-at-all", "x") is None
    said = iter(["1a2b3c4", "M src/evenloop/fit.py", "1a2b3c4", "", None, None])
    monkeypatch.setattr(main, "_git", lambda *words: next(said))
    commits = [main.stamp().partition(", ")[2] for _ in range(3)]
    assert commits == ["commit 1a2b3c4 and changes", "commit 1a2b3c4", "no commit"]


def test_the_page_is_what_the_results_say() -> None:
    results = json.loads((FOLDER / "results.json").read_text())
    assert module().page(results) == (FOLDER / "RESULTS.md").read_text()
