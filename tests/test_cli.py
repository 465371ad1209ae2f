"""The command line as a newcomer meets it: help, results, and one line for every mistake."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from evenloop.cli import app

FILE = """
world: {name: digits8, form: pca}
track: "8"
test_size: 300
loop: [{relabel: {n0: 200, human: 20, machine: 80}}]
net: {name: logistic}
recipe: {base: logistic, epochs: 1}
rounds: 2
"""
COMMANDS = (
    "run", "resume", "compare", "sweep", "report", "bound", "audit", "data", "presets", "doctor",
    "demo", "plan", "ask", "tell", "check",
)  # fmt: skip


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(result: Result, *parts: str) -> None:
    """Exit 2 with one line on stderr that holds every part, and no traceback."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("evenloop: ")
    for part in parts:
        assert part in lines[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(FILE)
    return path


class TestDiverged:
    """What would end alike is not advised to be resumed."""

    def test_a_loss_that_is_no_number(self, file: Path, tmp_path: Path) -> None:
        with_lr = FILE.replace("base: logistic", "base: logistic, lr: 1.0e+38")
        file.write_text(with_lr.replace("name: logistic", "name: mlp, hidden: [8, 8]"))
        result = call("run", file, "-q", "-o", tmp_path / "runs")
        assert result.exit_code == 1, result.output
        line = result.stderr.strip().splitlines()[-1]
        assert "loss is nan" in line
        assert "resumed, it would end alike: change a setting" in line
        assert "evenloop resume" not in line


class TestHelp:
    """Every command says what it is for."""

    def test_the_first_page_names_every_command(self) -> None:
        shown = call("--help")
        assert shown.exit_code == 0
        assert [c for c in COMMANDS if f" {c} " not in shown.stdout] == []

    @pytest.mark.parametrize("command", [*COMMANDS, "data list", "data get", "data check"])
    def test_each_has_a_page_with_a_sentence(self, command: str) -> None:
        shown = call(*command.split(), "-h")
        assert shown.exit_code == 0
        sentence = shown.stdout.strip().splitlines()[2].strip()
        assert sentence.endswith((".", ":", "?")) or len(sentence.split()) > 3, shown.stdout


class TestRun:
    """A short run, continued, shown again and refused where it differs."""

    def test_a_run_leaves_a_report_and_is_continued(self, file: Path, tmp_path: Path) -> None:
        out = tmp_path / "runs"
        first = call("run", file, "seeds=1", "--out", out, "-q")
        assert first.exit_code == 0, first.output
        (folder,) = out.iterdir()
        assert f"run folder: {folder}" in first.stdout
        assert (folder / "report.html").exists()
        longer = call("run", file, "rounds=3", "--out", out, "-q")
        assert longer.exit_code == 0, longer.output
        assert [*out.iterdir()] == [folder]
        assert len((folder / "seed-0" / "rows.jsonl").read_text().splitlines()) == 3
        assert call("report", folder).exit_code == 0
        compared = call("compare", folder, folder, "-m", "bias")
        assert compared.exit_code == 0
        assert "bias, last round" in compared.stdout
        refused(call("compare", folder, "-m", "bais"), "'bais'", "did you mean 'bias'")

    def test_a_folder_of_another_configuration_is_refused(self, file: Path, tmp_path: Path) -> None:
        out = tmp_path / "runs"
        assert call("run", file, "--out", out, "-q").exit_code == 0
        (folder,) = out.iterdir()
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["config"]["test_size"] = 200
        (folder / "manifest.json").write_text(json.dumps(manifest))
        before = (folder / "seed-0" / "rows.jsonl").read_bytes()
        refused(
            call("run", file, "--out", out, "-q"), str(folder), "another configuration", "--out"
        )
        assert (folder / "seed-0" / "rows.jsonl").read_bytes() == before

    @pytest.mark.parametrize(
        ("settings", "parts"),
        [
            (["n0=-1"], ["n0", "-1"]),
            (["n0=4000"], ["n0=4000", "lower n0"]),
            (["human=700", "machine=900"], ["700 + 900", "1497 rows", "lower"]),
            (["track=dog"], ["track", "dog"]),
            (["imbalance=-3"], ["imbalance", "-3"]),
            (["test_size=0"], ["test_size", "0"]),
            (["humann=3"], ["'humann'", "did you mean 'human'"]),
            (["human_share=abc", "per_round=10"], ["human_share='abc'"]),
            (["device=foo"], ["device='foo'", "device=cpu"]),
            (["out=x"], ["--out"]),
        ],
    )
    def test_a_wrong_value_starts_nothing(
        self, file: Path, tmp_path: Path, settings: list[str], parts: list[str]
    ) -> None:
        refused(call("run", file, *settings, "--out", tmp_path / "runs"), *parts)
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize("source", ["dmeo", "demo:tiny", "nothing.yaml"])
    def test_an_unknown_source_is_refused(self, source: str) -> None:
        refused(call("run", source), source.split(":")[0])

    def test_a_folder_that_is_no_run_is_refused(self, tmp_path: Path) -> None:
        for command in ("resume", "report"):
            refused(call(command, tmp_path), str(tmp_path), "manifest.json")

    def test_a_short_class_is_told_and_the_run_goes_on(self, tmp_path: Path) -> None:
        rows = ["x,label", *(f"{i},a" for i in range(60)), *(f"{i},b" for i in range(12))]
        table = tmp_path / "t.csv"
        table.write_text("\n".join(rows))
        path = tmp_path / "run.yaml"
        path.write_text(
            f"{{world: {{name: table, path: {table}, target: label}}, track: a, imbalance: 3, "
            "test_size: 5, loop: [{relabel: {n0: 5, human: 1, machine: 2}}], net: logistic, "
            "recipe: logistic, rounds: 1}"
        )
        done = call("run", path, "--out", tmp_path / "runs", "-q")
        assert done.exit_code == 0, done.output
        note = "imbalance=3: too few rows: b has 12 of 20"
        assert f"note: {note}" in done.stderr
        (folder,) = (tmp_path / "runs").iterdir()
        assert json.loads((folder / "seed-0" / "manifest.json").read_text())["notes"] == [note]
        assert note in (folder / "report.html").read_text()


def picture(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), 9, np.uint8)).save(path)


def mixed_sizes(folder: Path) -> str:
    for i, size in enumerate((8, 8, 9)):
        picture(folder / "pictures" / "ab"[i % 2] / f"{i}.png", size)
    return f"{{name: folder, root: {folder / 'pictures'}}}"


def unreadable_picture(folder: Path) -> str:
    picture(folder / "pictures" / "a" / "0.png", 8)
    picture(folder / "pictures" / "b" / "0.png", 8)
    (folder / "pictures" / "b" / "1.png").write_bytes(b"no picture")
    return f"{{name: folder, root: {folder / 'pictures'}}}"


def arrays(folder: Path, x: np.ndarray, y: list[int]) -> str:
    np.savez(folder / "rows.npz", x=x, y=np.array(y))
    return f"{{name: arrays, path: {folder / 'rows.npz'}, classes: [a, b]}}"


def nan_pixels(folder: Path) -> str:
    x = np.zeros((4, 3), np.float32)
    x[2, 1] = np.nan
    return arrays(folder, x, [0, 1, 0, 1])


def label_out_of_range(folder: Path) -> str:
    return arrays(folder, np.zeros((4, 3), np.float32), [0, 1, 0, 7])


def no_file(folder: Path) -> str:
    return f"{{name: mnist, root: {folder / 'nowhere'}}}"


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (mixed_sizes, ["differ in size", "2.png is 9 x 9", "give resize="]),
        (unreadable_picture, ["1.png cannot be read"]),
        (nan_pixels, ["row 2"]),
        (label_out_of_range, ["is 7 in row 3", "2 classes are 0..1"]),
        (no_file, ["nowhere", "root="]),
    ],
)
def test_bad_rows_start_nothing(
    tmp_path: Path, make: Callable[[Path], str], parts: list[str]
) -> None:
    path = tmp_path / "run.yaml"
    world = f"world: {make(tmp_path)}"
    path.write_text(FILE.replace("world: {name: digits8, form: pca}", world))
    refused(call("run", path, "--out", tmp_path / "runs"), *parts)
    assert not (tmp_path / "runs").exists()


class TestOthers:
    """The commands that need no run."""

    def test_bound_prints_the_closed_form(self) -> None:
        words = ["bound", "--n0", 100, "--human", 0, "--machine", 10, "--delta", 0.05]
        assert json.loads(call(*words, "--rounds", 1, "--json").stdout) == pytest.approx(
            [0.05, 0.05 + 0.05 / 11]
        )
        refused(call(*words, "--rounds", -1), "rounds")
        assert call("bound").exit_code == 2

    def test_audit_counts_every_group(self, tmp_path: Path) -> None:
        path = tmp_path / "p.csv"
        rows = [("y_true", "y_pred", "sex"), (1, 1, "f"), (0, 1, "m"), (1, 1, "m")]
        with path.open("w", newline="") as handle:
            csv.writer(handle).writerows(rows)
        shown = call("audit", path, "--by", "sex")
        assert shown.exit_code == 0, shown.output
        assert "f" in shown.stdout
        refused(call("audit", path, "--by", "sexx"), "'sexx'", "did you mean 'sex'")
        refused(call("audit", path), "--by")
        refused(call("audit", tmp_path / "no.csv", "--by", "sex"), "no.csv")

    def test_presets_small_needs_no_gpu(self) -> None:
        shown = call("presets", "--small")
        assert shown.exit_code == 0
        assert "fig3-top-left:small" in shown.stdout
        assert "  demo\n" in shown.stdout
        assert "GPU" not in shown.stdout
        whole = call("presets").stdout
        assert whole.index("  fig3-top-left\n") < whole.index("  fig10-left\n")

    def test_data_names_what_it_has(self) -> None:
        assert "mnist5k" in call("data", "list").stdout
        assert "1797 rows" in call("data", "check", "digits8").stdout
        refused(call("data", "check", "digits9"), "'digits9'", "digits8")
        refused(call("data", "card", "digits9"), "'digits9'")
        refused(call("data", "get", "digits8"), "digits8", "no public download")

    def test_doctor_knows_this_machine(self) -> None:
        assert "torch" in call("doctor").stdout

    def test_an_unknown_sweep_is_refused(self) -> None:
        refused(call("sweep", "digits-rule"), "did you mean 'digits-rules'")
