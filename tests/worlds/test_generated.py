"""Generated files beside real rows: names matched, copies refused, written and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evenloop.data import Attribute, GroupedData, Origin, Schema
from evenloop.worlds.folder import Manifest
from evenloop.worlds.generated import as_generated, write_generated

SCHEMA = Schema(("no", "yes"), (Attribute("sex", ("f", "m")), Attribute("age", ("a", "b"))))


def pictures(shade: int, schema: Schema = SCHEMA, n: int = 4) -> GroupedData:
    x = torch.full((n, 3, 6, 6), shade, dtype=torch.uint8)
    x[:, 0, 0, 0] = torch.arange(n, dtype=torch.uint8)
    codes = {a.name: torch.arange(n) % len(a.values) for a in schema.attributes}
    return GroupedData.of(x, torch.arange(n) % len(schema.classes), codes, schema)


def test_written_pictures_come_back_as_generated_rows(tmp_path: Path):
    made = pictures(90)
    path = write_generated(tmp_path / "made", made, note="a test")
    read = Manifest(path, groups=("sex", "age")).load()
    rows = as_generated(read, pictures(10))
    assert torch.equal(rows.x, made.x)
    assert torch.equal(rows.y, made.y)
    assert torch.equal(rows.attributes, made.attributes)
    assert set(rows.origin.tolist()) == {int(Origin.GENERATED)}
    with pytest.raises(FileExistsError, match=r"manifest.csv exists"):
        write_generated(tmp_path / "made", made)


def test_names_decide_whatever_their_order():
    turned = Schema(("yes", "no"), (Attribute("age", ("b", "a")), Attribute("sex", ("m", "f"))))
    rows = as_generated(pictures(90, turned), pictures(10))
    assert rows.y.tolist() == [1, 0, 1, 0]
    assert rows.attribute("sex").tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (pictures(10), "4 generated rows are copies of real rows, first row 0"),
        (pictures(9, Schema(("no", "maybe"), SCHEMA.attributes)), "label 'maybe'"),
        (pictures(9, Schema(("no",), (Attribute("sex", ("f",)),))), "lack the attribute 'age'"),
        (
            pictures(9, Schema(("no",), (SCHEMA.attributes[0], Attribute("age", ("c",))))),
            "age 'c'",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(made: GroupedData, text: str):
    with pytest.raises(ValueError, match=text):
        as_generated(made, pictures(10))


def test_other_shapes_are_refused_and_tables_are_not_written(tmp_path: Path):
    table = GroupedData.of(torch.eye(2), [0, 1], {"sex": [0, 1], "age": [0, 1]}, SCHEMA)
    with pytest.raises(ValueError, match="give resize="):
        as_generated(table, pictures(10))
    with pytest.raises(ValueError, match="only uint8 images"):
        write_generated(tmp_path, table)
