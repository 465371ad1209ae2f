"""Hugging Face datasets: a stand-in always, the library where it is installed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from evenloop.worlds.hub import HuggingFace, from_hugging_face
from worlds.layouts import encoded, pixels


@dataclass
class Named:
    """A feature with names, as `datasets.ClassLabel`."""

    names: list[str]


@dataclass
class Column:
    """A feature without names."""

    kind: str = "value"


@dataclass
class Stand:
    """What is used of a `datasets.Dataset`."""

    table: pa.Table
    features: dict[str, Any] = field(default_factory=dict)

    def with_format(self, type: str) -> pa.Table:
        assert type == "arrow"
        return Sliceable(self.table)


@dataclass
class Sliceable:
    """A view whose only slice is the whole table."""

    table: pa.Table

    def __getitem__(self, index: slice) -> pa.Table:
        assert index == slice(None)
        return self.table


def stand() -> Stand:
    columns = {
        "image": [{"bytes": encoded(i), "path": None} for i in pixels(3, 4, 4, 3)],
        "label": [2, 0, 2],
        "sex": [1, 0, None],
        "age": [30, 60, 20],
    }
    features = {
        "image": Column(),
        "label": Named(["cat", "dog", "eel"]),
        "sex": Named(["f", "m"]),
        "age": Column(),
    }
    return Stand(pa.table(columns), features)


def test_class_labels_give_their_names() -> None:
    data = from_hugging_face(stand(), groups=["sex", "age:40"])
    assert np.array_equal(data.x.numpy(), pixels(3, 4, 4, 3).transpose(0, 3, 1, 2))
    assert data.schema.classes == ("cat", "dog", "eel")
    assert data.truth.tolist() == [2, 0, 2]
    assert data.schema.attributes[0].values == ("f", "m", "unknown")
    assert data.attribute("sex").tolist() == [1, 0, 2]
    assert data.attribute("age").tolist() == [0, 1, 0]


def test_a_table_of_features() -> None:
    data = from_hugging_face(stand(), image=None, features=["age"], groups=["sex"])
    assert data.x.shape == (3, 1)
    assert data.truth.tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "labl"}, "the dataset has no column 'labl'; did you mean 'label'"),
        ({"image": "img"}, "the dataset has no column 'img'"),
        ({"groups": ["sx"]}, "no column 'sx'; did you mean 'sex'"),
        ({"classes": ("cat", "dog")}, "is 2 in row 0, but the 2 classes"),
        ({"image": "age"}, "the image in row 0 is 30"),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_hugging_face(stand(), **options)


def test_an_unlabelled_row_is_an_error() -> None:
    hidden = stand()
    hidden.table = hidden.table.set_column(1, "label", pa.array([2, -1, 0]))
    with pytest.raises(ValueError, match="label 'label' is -1 in row 1"):
        from_hugging_face(hidden)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no folder written by save_to_disk.*download=true"
    ):
        HuggingFace(tmp_path / "no").load()
    with pytest.raises(ValueError, match="resize must be"):
        HuggingFace(tmp_path, resize=0)


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'evenloop\[text\]'"):
        HuggingFace(tmp_path).load()


def test_a_real_dataset_shuffled_saved_and_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'text' (datasets)")
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["cat", "dog"]),
        sex=datasets.Value("string"),
    )
    rows = {
        "image": [{"bytes": encoded(i), "path": None} for i in pixels(4, 4, 4, 3)],
        "label": [0, 1, 1, 0],
        "sex": ["f", "m", "m", "f"],
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    turned = whole.select([3, 1])
    data = from_hugging_face(turned, groups=["sex"])
    expected = pixels(4, 4, 4, 3)[[3, 1]].transpose(0, 3, 1, 2)
    assert np.array_equal(data.x.numpy(), expected)
    assert data.truth.tolist() == [0, 1]
    assert data.schema.classes == ("cat", "dog")
    assert data.attribute("sex").tolist() == [0, 1]

    whole.save_to_disk(tmp_path / "one")
    assert len(HuggingFace(tmp_path / "one", groups=("sex",)).load()) == 4
    datasets.DatasetDict(train=whole, test=turned).save_to_disk(tmp_path / "two")
    assert len(HuggingFace(tmp_path / "two", split="test").load()) == 2
    with pytest.raises(ValueError, match="split is 'tset'; did you mean 'test'"):
        HuggingFace(tmp_path / "two", split="tset").load()
