"""CelebA's table and folders of generated faces, on pictures drawn here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evenloop.data import Origin
from evenloop.worlds.celeba import CelebA, GeneratedFaces, celeba_codes, folder_codes, squeeze

NAMES = ["Black_Hair", "Blond_Hair", "Eyeglasses", "Male", "Smiling", "Young"]
SMALL = {"through": 16, "to": 16, "crop": 12}


def face(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 24), (shade, shade, shade)).save(path)


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    rows = ["000001.png -1  1 -1  1 -1  1", "000002.png  1  1  1 -1  1 -1"]
    table = "\n".join(["2", " ".join(NAMES), *rows])
    (tmp_path / "list_attr_celeba.txt").write_text(table + "\n")
    for i in (1, 2):
        face(tmp_path / "img_align_celeba" / f"{i:06}.png", 40 * i)
    return tmp_path


def test_rows_take_codes_positions_and_pictures_from_their_files(celeba):
    data = CelebA(celeba, target="haircolors", **SMALL).load()
    assert data.schema.classes == ("blackhair", "blondhair", "otherhair")
    assert data.y.tolist() == [1, 0]
    assert data.attribute("gender").tolist() == [1, 0]
    assert data.attribute("age").tolist() == [1, 0]
    assert data.row.tolist() == [0, 1]
    assert data.x.shape == (2, 3, 12, 12)
    assert data.x[1].unique().tolist() == [80]


def test_splits_are_positions_in_the_table(celeba):
    assert len(CelebA(celeba, limit=1, **SMALL).load()) == 1
    with pytest.raises(ValueError, match="split 'test' starts at row 182637, the table has 2"):
        CelebA(celeba, split="test", **SMALL).load()


def test_generated_folders_give_the_same_schema_and_no_identity(celeba, tmp_path):
    made = tmp_path / "made"
    face(made / "old_male_nosmile_glasses_blackhair" / "0.png", 10)
    face(made / "young_female_smile_noglasses_otherhair" / "0.png", 20)
    data = GeneratedFaces(made, target="age", **SMALL).load()
    real = CelebA(celeba, target="age", **SMALL).load()
    assert data.schema == real.schema
    assert len(real.append(data)) == 4
    assert data.y.tolist() == [0, 1]
    assert set(data.origin.tolist()) == {int(Origin.GENERATED)}
    assert data.row.tolist() == [-1, -1]


def test_nested_layouts_are_read(tmp_path):
    face(tmp_path / "male" / "old_smile_glasses" / "blondhair" / "0.png", 10)
    layout = "{gender}/{age}_{smiling}_{glasses}/{haircolors}"
    data = GeneratedFaces(tmp_path, target="gender", layout=layout, **SMALL).load()
    assert data.y.tolist() == [1]
    assert data.attribute("haircolors").tolist() == [1]


def test_unknown_token_is_named_with_the_nearest(tmp_path):
    face(tmp_path / "old_mail_nosmile_glasses_blackhair" / "0.png", 10)
    with pytest.raises(ValueError, match=r"unknown token 'mail' for 'gender'.*male"):
        GeneratedFaces(tmp_path, **SMALL).load()


def test_unreadable_picture_is_named(celeba):
    (celeba / "img_align_celeba" / "000002.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"000002.png cannot be read"):
        CelebA(celeba, **SMALL).load()


def test_tables_in_another_form_are_refused(celeba):
    table = celeba / "list_attr_celeba.txt"
    table.write_text("Male Young\n1 1\n")
    with pytest.raises(ValueError, match="must begin with the number of rows"):
        CelebA(celeba, **SMALL).load()
    table.write_text("1\nMale Young\n1.png 1\n")
    with pytest.raises(ValueError, match="line 3: 1 values for 2"):
        CelebA(celeba, **SMALL).load()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": "hair"}, "target"),
        ({"split": "valid"}, "split"),
        ({"limit": 0}, "limit"),
        ({"crop": 300}, "crop must be at most"),
        ({"through": 0}, "through must be"),
    ],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        CelebA(**options)


def test_a_limit_is_spread_over_all_folders(tmp_path):
    for age in ("old", "young"):
        for i in range(4):
            face(tmp_path / f"{age}_male_nosmile_glasses_blackhair" / f"{i}.png", 10 + i)
    few = GeneratedFaces(tmp_path, limit=4, **SMALL).load()
    assert few.y.tolist() == [0, 0, 1, 1]
    assert len(GeneratedFaces(tmp_path, limit=99, **SMALL).load()) == 8
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        GeneratedFaces(tmp_path, limit=0)


def test_layout_must_name_every_attribute():
    with pytest.raises(ValueError, match="layout must hold"):
        GeneratedFaces("x", layout="{age}_{gender}")


def test_codes_refuse_missing_columns_and_other_values():
    with pytest.raises(ValueError, match="no column 'Black_Hair'"):
        celeba_codes(NAMES[1:], np.ones((1, 5), int))
    with pytest.raises(ValueError, match="row 0 holds another"):
        celeba_codes(NAMES, np.zeros((1, 6), int))
    with pytest.raises(ValueError, match="no vocabulary for 'hair'"):
        folder_codes({"hair": ["blackhair"]})


def test_squeeze_brings_any_size_to_the_crop():
    assert squeeze(Image.new("L", (178, 218))).shape == (3, 224, 224)
    assert squeeze(Image.new("RGB", (64, 40)), **SMALL).shape == (3, 12, 12)


def test_all_rows_say_their_published_split(celeba, monkeypatch):
    data = CelebA(celeba, split="all", **SMALL).load()
    assert data.schema.attributes[-1].name == "split"
    assert data.attribute("split").tolist() == [0, 0]
    monkeypatch.setattr("evenloop.worlds.celeba.SPLITS", (("train", 1), ("val", 1), ("test", 1)))
    data = CelebA(celeba, split="all", **SMALL).load()
    assert data.schema.attributes[-1].values == ("train", "val", "test")
    assert data.attribute("split").tolist() == [0, 1]
    assert "split" not in [a.name for a in CelebA(celeba, **SMALL).load().schema.attributes]
