"""A run from lists and folders: tried by `evenloop check`, stopped before training, or run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from evenloop.build import assemble
from evenloop.cli import app
from evenloop.config import load
from evenloop.data import Origin
from evenloop.overrides import read_yaml
from evenloop.samplers.cells import CellIndex

HAIR, SEX = ("dark", "fair"), ("f", "m")


def draw(path: Path, shade: int, spot: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (8, 8), (shade, shade, shade))
    image.putpixel((spot % 8, spot // 8 % 8), (255, spot % 256, 90))
    image.save(path)
    return str(path)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A list of 96 pictures with splits, a fourth of them generated and weighed; a run on it."""
    rows = []
    for i in range(96):
        hair, sex = HAIR[i % 2], SEX[i // 2 % 2]
        part = ("train", "train", "val", "test")[i // 4 % 4]
        rows.append(
            {
                "path": draw(tmp_path / "in" / f"{i}.png", 60 + 100 * (i % 2), i),
                "hair": hair,
                "sex": sex,
                "split": "train" if i >= 72 else part,
                "source": "generated" if i >= 72 else "real",
                "weight": 2 if i >= 90 else 1,
            }
        )
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values = {
        "world": {"name": "manifest", "path": str(tmp_path / "list.jsonl"), "target": "hair",
                  "groups": ["sex"]},
        "by": ["sex"],
        "audit": "test",
        "test_size": 12,
        "loop": [{"mix": {"held_out": "split", "per_cell": 2}}],
        "net": {"name": "logistic"},
        "recipe": {"batch": 8, "epochs": 1},
        "rounds": 1,
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def check(folder: Path, *settings: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["check", str(folder / "run.yaml"), *settings])
    return done.exit_code, done.output


def test_a_list_of_both_sources_is_checked_and_run(lists: Path) -> None:
    code, said = check(lists)
    assert code == 0, said
    assert "rows by cell, real + generated (held out of them): dark | f 14 + 6 (4 + 2)" in said
    assert "nothing stops this run" in said
    assert not list(lists.glob("runs/*"))
    done = CliRunner().invoke(app, ["run", str(lists / "run.yaml"), "--out", str(lists / "runs")])
    assert done.exit_code == 0, done.output
    job = assemble(load(str(lists / "run.yaml")), 0)
    data, audit = job.world.data, job.audit.data
    made = data.origin == int(Origin.GENERATED)
    assert (int(made.sum()), int((~made).sum()), len(audit)) == (24, 56, 12)
    assert not (audit.origin == int(Origin.GENERATED)).any()
    values = {a.name: a.values for a in audit.schema.attributes}["split"]
    assert {values[code] for code in audit.attribute("split").tolist()} == {"test"}
    assert CellIndex.of(data, ["sex"]).weight[made].tolist().count(2.0) == 6


def without(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """No real row of one cell in one split."""
    cell = (frame["hair"] == "dark") & (frame["sex"] == "f") & (frame["source"] == "real")
    return frame[~(cell & (frame["split"] == split))]


def test_cells_without_rows_are_notes_and_do_not_stop_a_run(lists: Path) -> None:
    whole = pd.read_json(lists / "list.jsonl", lines=True)
    cases = {
        "cells ['dark | f']: no real rows to train on": without(whole, "train"),
        "cells ['dark | f']: no real held-out rows": without(whole, "val"),
        "cells ['fair | m']: no generated rows, so all real": whole[
            ~((whole["source"] == "generated") & (whole["sex"] == "m") & (whole["hair"] == "fair"))
        ],
    }
    for i, (text, frame) in enumerate(cases.items()):
        assert text not in check(lists)[1]
        frame.to_json(lists / f"{i}.jsonl", orient="records", lines=True)
        code, said = check(lists, f"world.path={lists / f'{i}.jsonl'}")
        assert code == 0, said
        assert text in said


@pytest.mark.parametrize(
    ("row", "column", "value", "text"),
    [
        (3, "source", "genrated", "row 3: source is 'genrated'; did you mean 'generated'?"),
        (4, "split", "hold", "row 4: split is 'hold'"),
        (5, "weight", -1, "row 5: weight is '-1'; a weight is a positive number"),
        (6, "path", "gone.png", "gone.png does not exist"),
        (7, "path", "broken.png", "broken.png cannot be read"),
        (0, "path", "8.png", "8.png in split 'val' are the same picture"),
        (80, "path", "1.png", "1 generated rows are copies of real rows"),
        (9, "hair", None, "label 'hair' is missing in 1 of 96 rows"),
    ],
)
def test_wrong_lists_end_before_training_with_exit_2(
    lists: Path, row: int, column: str, value: object, text: str
) -> None:
    frame = pd.read_json(lists / "list.jsonl", lines=True).astype(object)
    (lists / "in" / "broken.png").write_bytes(b"no picture")
    frame.loc[row, column] = str(lists / "in" / str(value)) if column == "path" else value
    frame.to_json(lists / "wrong.jsonl", orient="records", lines=True)
    code, said = check(lists, f"world.path={lists / 'wrong.jsonl'}")
    assert code == 2, said
    assert text in said
    assert len(said.strip().splitlines()) == 1


def with_folders(folder: Path) -> None:
    """Generated folders in a layout and words of their own, and the run takes them."""
    for i in range(16):
        token = ("brunette", "blond")[i % 2]
        draw(folder / "made" / ("w", "m")[i // 2 % 2] / f"{token}_{i % 3}" / f"{i}.png", 90, i + 9)
    words = {"sex": {"w": "f", "m": "m"}, "hair": {"brunette": "dark", "blond": "fair"}}
    (folder / "words.yaml").write_text(yaml.safe_dump(words))
    raw = read_yaml((folder / "run.yaml").read_text())
    raw["generated"] = {
        "name": "folder", "root": str(folder / "made"), "layout": "{sex}/{hair}_*/*",
        "target": "hair", "vocabulary": str(folder / "words.yaml"),
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(raw))


def test_generated_folders_of_any_layout_join_the_list(lists: Path) -> None:
    with_folders(lists)
    code, said = check(lists)
    assert code == 0, said
    data = assemble(load(str(lists / "run.yaml")), 0).world.data
    assert int((data.origin == int(Origin.GENERATED)).sum()) == 24 + 16
    weight = CellIndex.of(data, ["sex"]).weight
    assert weight is not None
    assert torch.equal(weight[-16:], torch.ones(16).double())
    shutil.move(lists / "made", lists / "strange")
    shutil.move(lists / "strange" / "w", lists / "strange" / "x")
    code, said = check(lists, f"generated.root={lists / 'strange'}")
    assert code == 2
    assert "unknown token 'x' for 'sex'" in said
