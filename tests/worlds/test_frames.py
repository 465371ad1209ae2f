"""Frames to data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evenloop.worlds.frames import images_from_frame, picture, table_from_frame
from worlds.layouts import encoded, pixels, write_image


def people() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": [20.0, 60.0, np.nan, 40.0],
            "sex": ["f", "m", "f", None],
            "id": ["p1", "p2", "p3", "p4"],
            "paid": ["no", "yes", "yes", None],
        }
    )


def test_pictures_as_bytes_records_and_paths(tmp_path: Path) -> None:
    x = pixels(3, 4, 4, 3)
    write_image(tmp_path / "sub" / "c.png", x[2])
    frame = pd.DataFrame(
        {
            "image": [encoded(x[0]), {"bytes": encoded(x[1]), "path": None}, "sub/c.png"],
            "label": ["b", "a", "b"],
            "age": [30, 50, None],
        }
    )
    data = images_from_frame(frame, target="label", groups=["age:40"], base=tmp_path)
    assert np.array_equal(data.x.numpy(), x.transpose(0, 3, 1, 2))
    assert data.schema.classes == ("a", "b")
    assert data.truth.tolist() == [1, 0, 1]
    assert data.schema.attributes[0].values == ("<40", ">=40", "unknown")
    assert data.attribute("age").tolist() == [0, 1, 2]
    assert data.row.tolist() == [0, 1, 2]


def test_a_record_without_bytes_means_its_path() -> None:
    assert picture({"bytes": None, "path": "a.png"}, Path("/b"), 0) == Path("/b/a.png")
    assert picture("/abs.png", Path("/b"), 0) == Path("/abs.png")


@pytest.mark.parametrize("cell", [None, "", 3, {"bytes": None, "path": None}, float("nan")])
def test_what_is_no_picture_names_its_row(cell: object) -> None:
    with pytest.raises(ValueError, match="the image in row 7 is"):
        picture(cell, Path(), 7)


def test_a_bad_picture_in_a_table_names_its_row() -> None:
    frame = pd.DataFrame({"image": [encoded(pixels(1, 4, 4, 3)[0]), b"no"], "label": [0, 1]})
    with pytest.raises(ValueError, match="image row 1 cannot be read"):
        images_from_frame(frame, target="label")


def test_one_row_is_enough() -> None:
    frame = pd.DataFrame({"image": [encoded(pixels(1, 4, 4, 3)[0])], "label": [1]})
    data = images_from_frame(frame, target="label", classes=("no", "yes"))
    assert data.truth.tolist() == [1]


def test_a_table_leaves_out_what_is_no_feature() -> None:
    frame = people().iloc[:2]
    data = table_from_frame(frame, target="paid", groups=["sex"], leave_out=["id"], scale="none")
    assert data.x.dtype is torch.float32
    assert data.x.tolist() == [[20, 1, 0], [60, 0, 1]]
    only = table_from_frame(frame, target="paid", features=["age"], scale="none")
    assert only.x.tolist() == [[20], [60]]
    assert only.schema.attributes == ()


def test_rows_that_lack_a_number_or_label_stop_or_are_dropped() -> None:
    with pytest.raises(ValueError, match="label 'paid' is missing"):
        table_from_frame(people(), target="paid", leave_out=["id"])
    with pytest.raises(ValueError, match=r"'age' is missing or infinite .* missing=drop"):
        table_from_frame(people().iloc[:3], target="paid", leave_out=["id"])
    kept = table_from_frame(people(), target="paid", groups=["sex"], missing="drop")
    assert len(kept) == 2
    with pytest.raises(ValueError, match="leaves none of 1 rows"):
        table_from_frame(people().iloc[2:3], target="paid", missing="drop")
    with pytest.raises(ValueError, match="missing is 'skip'"):
        table_from_frame(people(), target="paid", missing="skip")


def test_a_category_without_value_is_kept_as_unknown() -> None:
    frame = people().assign(age=1.0, paid="no")
    data = table_from_frame(frame, target="paid", groups=["sex"], leave_out=["id"])
    assert data.schema.attributes[0].values == ("f", "m", "unknown")
    assert data.attribute("sex").tolist() == [0, 1, 0, 2]


def test_the_target_is_no_feature() -> None:
    with pytest.raises(ValueError, match="'paid' is listed as a feature"):
        table_from_frame(people(), target="paid", features=["paid"])


def test_a_group_is_named_once() -> None:
    frame = people().iloc[:2]
    with pytest.raises(ValueError, match="group column 'age' is named twice"):
        table_from_frame(frame, target="paid", groups=["age", "age:30"], leave_out=["id"])


def test_a_vocabulary_keeps_absent_values() -> None:
    data = table_from_frame(
        people().iloc[:1],
        target="paid",
        groups=["sex"],
        features=["age"],
        vocabulary={"sex": ("m", "f", "x")},
    )
    assert data.schema.attributes[0].values == ("m", "f", "x")
    assert data.attribute("sex").tolist() == [1]
