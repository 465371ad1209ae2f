"""UTKFace and FairFace in their official layouts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from evenloop.groups import GroupIndex
from evenloop.worlds.faces import FAIR_RACES, UTK_RACES, FairFace, UTKFace, _published_split
from worlds.layouts import encoded, pixels, write_fairface, write_image, write_utkface

GOOD = [
    "1_0_2_20161219140623097.jpg.chip.jpg",
    "26_1_0_20170116174525125.jpg.chip.jpg",
    "100_0_4_20170112213500903.jpg.chip.jpg",
]
BROKEN = [
    "39_1_20170116174525125.jpg.chip.jpg",
    "61_1_20170109142408075.jpg.chip.jpg",
    "10_2_0_20170109142408075.jpg",
]


def test_names_give_age_gender_and_race(tmp_path: Path) -> None:
    write_utkface(tmp_path, GOOD)
    data = UTKFace(tmp_path).load()  # sorted by name: 100, 1, 26
    order = sorted(GOOD)
    assert data.truth.tolist() == [int(name.split("_")[2]) for name in order]
    assert data.schema.classes == UTK_RACES
    assert [a.name for a in data.schema.attributes] == ["gender", "race", "age"]
    assert data.attribute("gender").tolist() == [int(name.split("_")[1]) for name in order]
    ages = data.schema.attributes[2].values
    assert len(ages) == 9
    assert [ages[i] for i in data.attribute("age").tolist()] == [
        {"1": "<10", "26": "[25, 30)", "100": ">=60"}[name.split("_")[0]] for name in order
    ]
    assert data.x.shape == (3, 3, 8, 8)


def test_absent_groups_keep_their_codes(tmp_path: Path) -> None:
    write_utkface(tmp_path, GOOD[:1])
    data = UTKFace(tmp_path, target="gender").load()
    assert data.schema.classes == ("male", "female")
    assert data.schema.attributes[1].values == UTK_RACES
    assert data.attribute("race").tolist() == [2]


def test_broken_names_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_utkface(tmp_path / "UTKFace", GOOD + BROKEN)
    (tmp_path / "UTKFace" / "notes.txt").touch()
    source = UTKFace(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(source.load()) == 3
    assert "left out 3 of 6 files" in caplog.text
    assert set(source.broken()) == set(BROKEN)
    caplog.clear()
    write_utkface(tmp_path / "fine", GOOD)
    UTKFace(tmp_path / "fine").load()
    assert not caplog.text
    assert UTKFace(tmp_path / "fine").broken() == ()


def test_the_published_split_holds_out_a_fixed_fifth(tmp_path: Path) -> None:
    names = [f"{age}_{age % 2}_{age % 5}_2017.jpg" for age in range(10, 21)]
    write_utkface(tmp_path, names)
    whole, data = UTKFace(tmp_path).load(), UTKFace(tmp_path, splits="published").load()
    assert [a.name for a in whole.schema.attributes] == ["gender", "race", "age"]
    assert data.schema.attributes[3].values == ("train", "test")
    held_out = data.attribute("split").nonzero().flatten().tolist()
    assert held_out == [0, 10]  # as NumPy's RandomState(1357) permutes eleven
    assert torch.equal(data.x, whole.x)


def test_the_published_split_of_the_whole_set_has_its_published_sizes() -> None:
    codes = _published_split(23_705).codes
    assert (int(codes.sum()), int((codes == 0).sum())) == (4_741, 18_964)
    assert codes.nonzero()[0][:4].tolist() == [4, 13, 15, 30]


def test_age_is_a_target_with_the_bins_asked_for(tmp_path: Path) -> None:
    write_utkface(tmp_path, GOOD)
    data = UTKFace(tmp_path, target="age", age_edges=(18,)).load()
    assert data.schema.classes == ("<18", ">=18")
    assert sorted(data.truth.tolist()) == [0, 1, 1]


def test_faces_from_a_table(tmp_path: Path) -> None:
    images = [{"bytes": encoded(i)} for i in pixels(3, 8, 8, 3)]
    frame = pd.DataFrame({"image": images, "age": [5, 70, 30], "gender": [0, 1, 1]})
    path = tmp_path / "faces.parquet"
    frame.assign(race=[4, 0, 1]).to_parquet(path)
    source = UTKFace(path, resize=4, cache=tmp_path / "cache")
    data = source.load()
    assert data.x.shape == (3, 3, 4, 4)
    assert data.truth.tolist() == [4, 0, 1]
    assert torch.equal(source.load().attributes, data.attributes)
    assert source.broken() == ()
    frame.assign(race=[5, 0, 1]).to_parquet(path)
    with pytest.raises(ValueError, match=r"label 'race' is 5 in row 0, but the 5 classes"):
        UTKFace(path).load()
    frame.to_parquet(path)
    with pytest.raises(ValueError, match="has no column 'race'"):
        UTKFace(path).load()


def test_faces_of_mixed_size_want_resize(tmp_path: Path) -> None:
    write_utkface(tmp_path, GOOD)
    write_image(tmp_path / GOOD[0], pixels(1, 9, 8, 3)[0])
    with pytest.raises(ValueError, match="give resize="):
        UTKFace(tmp_path).load()
    assert UTKFace(tmp_path, resize=8).load().x.shape == (3, 3, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "sex"}, "target is 'sex'; there are: age, gender, race"),
        ({"resize": 0}, "resize must be"),
        ({"splits": "official"}, "splits is 'official'; there are: none, published"),
        ({"age_edges": ()}, "age_edges must be ascending"),
        ({"age_edges": (20, 10)}, "age_edges must be ascending"),
        ({"age_edges": (10, 10)}, "age_edges must be ascending"),
    ],
)
def test_wrong_parameters_of_utkface(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UTKFace(**options)


def test_a_folder_without_usable_faces(tmp_path: Path) -> None:
    write_utkface(tmp_path, BROKEN)
    with pytest.raises(ValueError, match="holds no file named like age_gender_race"):
        UTKFace(tmp_path).load()
    with pytest.raises(FileNotFoundError, match=r"utkface: .* pass root=|Pass root="):
        UTKFace(tmp_path / "no").load()


def test_fairface_joins_its_splits(tmp_path: Path) -> None:
    write_fairface(tmp_path)
    data = FairFace(tmp_path).load()
    assert data.schema.classes == FAIR_RACES
    assert data.truth.tolist() == [0, 3, 2, 5, 1]
    assert [a.name for a in data.schema.attributes] == ["gender", "race", "age", "split"]
    assert data.attribute("gender").tolist() == [0, 1, 0, 1, 0]
    assert data.attribute("age").tolist() == [1, 4, 8, 0, 3]
    assert data.attribute("split").tolist() == [0, 0, 0, 1, 1]
    val = FairFace(tmp_path, target="gender", split="val", resize=4).load()
    assert val.truth.tolist() == [1, 0]
    assert val.x.shape == (2, 3, 4, 4)
    assert val.schema.attributes == data.schema.attributes


def test_fairface_in_the_28_strata_and_splits_of_the_generator_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fairface(tmp_path)
    monkeypatch.setattr("evenloop.worlds.faces.STUDY_TEST_ROWS", 2)
    source = FairFace(tmp_path, target="gender", ages="binary", splits="study")
    data = source.load()
    assert data.attribute("age").tolist() == [0, 1, 1, 0, 0]
    assert data.attribute("split").tolist() == [2, 2, 0, 1, 1]
    assert {a.name: a.values for a in data.schema.attributes}["split"][2] == "test"
    strata = GroupIndex.of(data, ["label", "race", "age"])
    assert strata.size == 28
    with pytest.raises(ValueError, match="needs split='all'"):
        FairFace(tmp_path, split="val", splits="study")
    with pytest.raises(ValueError, match="ages"):
        FairFace(tmp_path, ages="decades")


def test_fairface_from_the_cache(tmp_path: Path) -> None:
    write_fairface(tmp_path)
    source = FairFace(tmp_path, cache=tmp_path / "cache")
    first = source.load()
    assert np.array_equal(source.load().x, first.x)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_fairface_files_that_do_not_fit(tmp_path: Path) -> None:
    write_fairface(tmp_path)
    table = tmp_path / "fairface_label_train.csv"
    text = table.read_text()
    table.write_text(text.replace("East Asian", "East Asain"))
    with pytest.raises(
        ValueError, match=r"label 'East Asain' in row 0 .* did you mean 'East Asian'"
    ):
        FairFace(tmp_path).load()
    table.write_text(text.replace("train/2.jpg", "train/9.jpg"))
    with pytest.raises(ValueError, match=r"image file .*9\.jpg does not exist"):
        FairFace(tmp_path).load()
    table.write_text(text.replace("gender", "sex"))
    with pytest.raises(ValueError, match="has no column 'gender'"):
        FairFace(tmp_path).load()
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"fairface_label_train\.csv not found"):
        FairFace(tmp_path).load()
    with pytest.raises(ValueError, match="split is 'test'"):
        FairFace(split="test")  # type: ignore[arg-type]
