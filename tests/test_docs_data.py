"""The page on one's own data: its YAML is a run that passes every check, in both of its forms."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from evenloop.build import assemble, check
from evenloop.config import load
from evenloop.worlds.arrays import Arrays
from evenloop.worlds.tabular import Table

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")


def block(language: str, holding: str) -> str:
    """The page's one block of `language` that holds a text."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (one,) = [text for text in found if holding in text]
    return str(one)


@pytest.fixture
def yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    here: dict[str, object] = {}
    exec(block("python", 'to_csv("loans.csv"'), here)  # noqa: S102
    exec(block("python", 'to_parquet("both.parquet"'), here)  # noqa: S102
    Path("loans.yaml").write_text(block("yaml", "loans.csv"))
    return "loans.yaml"


def test_the_yaml_of_the_page_passes_every_check(yaml: str) -> None:
    assert check(load(yaml)) == ()
    job = assemble(load(yaml), 0)
    assert (len(job.world.data), len(job.audit.data), job.rounds) == (600, 300, 4)
    assert job.world.groups(job.world.data).names[:3] == ("f <30", "f [30, 60)", "f >=60")


def test_two_files_with_a_column_that_says_which_are_audited_on_the_second(yaml: str) -> None:
    split = ["world.path=both.parquet", "world.split=part", "audit=test"]
    job = assemble(load(yaml, split), 0)
    rows = pd.read_parquet("both.parquet")
    audited = sorted(rows["repaid"][rows["part"] == "test"])
    assert sorted(job.audit.data.schema.classes[c] for c in job.audit.data.truth) == audited
    assert (len(job.world.data), len(job.audit.data)) == (600, 300)


@pytest.mark.parametrize("source", [Table, Arrays])
def test_every_field_of_a_world_stands_on_the_page(source: type[Table] | type[Arrays]) -> None:
    table = PAGE.partition(f"name: {source.name}")[2]
    rows = re.findall(r"^\| (`.*?) \|", table.partition("\n## ")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {field.name for field in fields(source)}
