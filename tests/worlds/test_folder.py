"""Image folders and manifests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evenloop.overrides import read_yaml
from evenloop.worlds.folder import ImageFolder, Manifest
from evenloop.worlds.layout import read_vocabulary, scan
from worlds.layouts import encoded, pixels, write_image


def tree(root: Path, *files: str, side: int = 4) -> Path:
    for i, file in enumerate(files):
        write_image(root / file, pixels(1, side, side, 3, seed=i)[0])
    return root


def test_a_class_is_a_directory(tmp_path: Path) -> None:
    tree(tmp_path, "dog/b.png", "dog/a.png", "cat/z.png", "cat/deep/er/y.png")
    data = ImageFolder(tmp_path).load()
    assert data.schema.classes == ("cat", "dog")
    assert data.truth.tolist() == [0, 0, 1, 1]
    assert data.x.shape == (4, 3, 4, 4)
    last = pixels(1, 4, 4, 3, seed=0)[0].transpose(2, 0, 1)
    assert np.array_equal(data.x[3].numpy(), last)  # dog/b.png comes after dog/a.png


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    tree(tmp_path, "dog/a.png", "dog/.a.png", ".trash/b.png")
    (tmp_path / "dog" / "notes.txt").touch()
    (tmp_path / "read.me").touch()
    assert scan(tmp_path)["path"].tolist() == [str(tmp_path / "dog" / "a.png")]


def test_directory_levels_become_attributes(tmp_path: Path) -> None:
    tree(tmp_path, "train/f_old/dog/a.png", "test/m_young/cat/b.png", "test/f_young/dog/c.png")
    data = ImageFolder(tmp_path, layout="{split}/{sex}_{age}/{label}").load()
    assert [a.name for a in data.schema.attributes] == ["split", "sex", "age"]
    assert data.truth.tolist() == [1, 0, 1]  # sorted by path: test first
    assert data.schema.attributes[0].values == ("test", "train")
    assert data.attribute("sex").tolist() == [0, 1, 0]
    assert data.attribute("age").tolist() == [1, 1, 0]


def test_a_picture_in_two_splits_is_named_with_both_files(tmp_path: Path) -> None:
    tree(tmp_path, "train/dog/a.png", "train/dog/b.png", "test/dog/c.png", "test/cat/d.png")
    layout = "{split}/{label}"
    shutil.copy(tmp_path / "train/dog/a.png", tmp_path / "train/dog/again.png")
    assert len(ImageFolder(tmp_path, layout=layout).load()) == 5  # twice in one split: allowed
    shutil.copy(tmp_path / "train/dog/b.png", tmp_path / "test/cat/b.png")
    named = r"test/cat/b\.png in split 'test' and .*train/dog/b\.png in split 'train' are the same"
    with pytest.raises(ValueError, match=named):
        ImageFolder(tmp_path, layout=layout).load()
    assert len(ImageFolder(tmp_path, layout="{part}/{label}").load()) == 6  # no splits


def test_a_picture_in_two_splits_of_a_manifest_is_named(tmp_path: Path) -> None:
    images = [encoded(i) for i in pixels(2, 4, 4, 3)]
    path = tmp_path / "t.parquet"
    rows = {"image": [*images, images[0]], "label": [1, 0, 1], "split": ["train", "train", "test"]}
    pd.DataFrame(rows).to_parquet(path)
    with pytest.raises(ValueError, match="row 0 in split 'train' and row 2 in split 'test'"):
        Manifest(path, groups=("split",)).load()


def test_classes_may_be_named_in_another_order(tmp_path: Path) -> None:
    tree(tmp_path, "dog/a.png", "cat/b.png")
    data = ImageFolder(tmp_path, classes=("dog", "eel", "cat")).load()
    assert data.truth.tolist() == [2, 0]
    with pytest.raises(ValueError, match="label 'cat' in row 0 is no class"):
        ImageFolder(tmp_path, classes=("dog", "eel")).load()


def test_sizes_gray_and_the_fix(tmp_path: Path) -> None:
    tree(tmp_path, "dog/a.png")
    tree(tmp_path, "cat/b.png", side=6)
    with pytest.raises(ValueError, match=r"b\.png is 6 x 6 and .*a\.png is 4 x 4 .*give resize="):
        ImageFolder(tmp_path).load()
    assert ImageFolder(tmp_path, resize=5, gray=True).load().x.shape == (2, 1, 5, 5)


def test_the_cache_notices_a_changed_picture(tmp_path: Path) -> None:
    tree(tmp_path / "in", "dog/a.png", "cat/b.png")
    source = ImageFolder(tmp_path / "in", cache=tmp_path / "kept")
    first = source.load()
    assert torch.equal(source.load().x, first.x)
    assert source.load().schema == first.schema
    write_image(tmp_path / "in" / "dog" / "a.png", pixels(1, 4, 4, 3, seed=9)[0])
    assert not torch.equal(source.load().x, first.x)
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize(
    ("files", "layout", "message"),
    [
        (["a.png"], "{label}", r"a\.png lies above the directories of the layout"),
        (["dog/a.png"], "{sex}/{label}", "lies above the directories"),
        (["dog/a.png"], "{sex}_{label}", "dog does not fit the layout"),
        ([], "{label}", "holds no directories of pictures"),
    ],
)
def test_trees_that_do_not_fit(tmp_path: Path, files: list[str], layout: str, message: str) -> None:
    tree(tmp_path, *files)
    with pytest.raises(ValueError, match=message):
        ImageFolder(tmp_path, layout=layout).load()


def test_a_class_without_pictures_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "dog/a.png")
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="cat holds no picture"):
        ImageFolder(tmp_path).load()


@pytest.mark.parametrize(
    "layout", ["", "{split}", "{label}/{label}", "{path}/{label}", "{label}/{0}", "{label}/{a b}"]
)
def test_a_layout_names_the_label_once(tmp_path: Path, layout: str) -> None:
    with pytest.raises(ValueError, match="layout"):
        ImageFolder(tmp_path, layout=layout)


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "dog/a.png")
    (tmp_path / "dog" / "b.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"image .*b\.png cannot be read"):
        ImageFolder(tmp_path).load()


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder: a folder of pictures not found at"):
        ImageFolder(tmp_path / "no").load()


def test_wrong_sizes_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resize must be a positive number"):
        ImageFolder(tmp_path, resize=0)
    with pytest.raises(ValueError, match="resize must be a positive number"):
        Manifest(tmp_path / "t.csv", resize=-2)


def manifest(tmp_path: Path) -> Path:
    tree(tmp_path / "pictures", "a.png", "b.png", "c.png")
    path = tmp_path / "list.csv"
    path.write_text(
        "file,kind,sex,age\npictures/a.png,dog,f,20\npictures/b.png,cat,,70\npictures/c.png,dog,m,\n"
    )
    return path


def test_a_manifest_of_paths(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    data = Manifest(path, target="kind", image="file", groups=("sex", "age:50")).load()
    assert data.truth.tolist() == [1, 0, 1]
    assert data.schema.attributes[0].values == ("f", "m", "unknown")
    assert data.attribute("sex").tolist() == [0, 2, 1]
    assert data.attribute("age").tolist() == [0, 1, 2]
    moved = tmp_path / "elsewhere.csv"
    path.rename(moved)
    other = Manifest(moved, target="kind", image="file", root=tmp_path).load()
    assert torch.equal(other.x, data.x)


def test_a_manifest_of_bytes(tmp_path: Path) -> None:
    images = [encoded(i) for i in pixels(2, 4, 4, 3)]
    path = tmp_path / "t.parquet"
    pd.DataFrame({"image": images, "label": [1, 0]}).to_parquet(path)
    data = Manifest(path, classes=("no", "yes"), gray=True, cache=tmp_path / "kept").load()
    assert data.x.shape == (2, 1, 4, 4)
    assert data.truth.tolist() == [1, 0]
    assert torch.equal(
        Manifest(path, classes=("no", "yes"), gray=True, cache=tmp_path / "kept").load().x, data.x
    )


def test_the_cache_of_a_manifest_notices_table_and_pictures(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    source = Manifest(path, target="kind", image="file", cache=tmp_path / "kept")
    first = source.load()
    write_image(tmp_path / "pictures" / "a.png", pixels(1, 4, 4, 3, seed=9)[0])
    assert not torch.equal(source.load().x, first.x)
    path.write_text(path.read_text().replace("cat", "eel"))
    assert source.load().schema.classes == ("dog", "eel")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "fiel"}, r"list\.csv has no column 'fiel'; did you mean 'file'"),
        ({"target": "knd"}, "no column 'knd'; did you mean 'kind'"),
        ({"groups": ("sexx",)}, "no column 'sexx'; did you mean 'sex'"),
        ({"image": "kind"}, r"image file .*dog does not exist"),
        ({"image": "age"}, "the image in row 0 is 20.0"),
    ],
)
def test_manifests_that_do_not_fit(tmp_path: Path, options: dict[str, str], message: str) -> None:
    named = {"target": "kind", "image": "file"} | options
    with pytest.raises(ValueError, match=message):
        Manifest(manifest(tmp_path), **named).load()  # type: ignore[arg-type]


# -- any layout, and what its tokens mean -------------------------------------------------------

MEANING = {"hair": {"blackhair": "black", "darkhair": "black", "blondhair": "blond"},
           "age": ["old", "young"]}  # fmt: skip


def test_tokens_of_any_layout_get_the_values_of_a_vocabulary(tmp_path: Path) -> None:
    tree(tmp_path, "f/young_darkhair/a.png", "m/old_blondhair/b.png", "m/young_blackhair/c.png")
    source = ImageFolder(tmp_path, layout="{sex}/{age}_{hair}/*", target="hair", vocabulary=MEANING)
    data = source.load()
    assert data.schema.classes == ("black", "blond")
    assert data.truth.tolist() == [0, 1, 0]
    assert [(a.name, a.values) for a in data.schema.attributes] == [
        ("sex", ("f", "m")), ("age", ("old", "young"))
    ]  # fmt: skip
    assert data.attribute("age").tolist() == [1, 0, 1]


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_vocabulary_may_be_a_file(tmp_path: Path, ending: str) -> None:
    tree(tmp_path / "in", "young_darkhair/a.png", "old_blondhair/b.png")
    path = tmp_path / f"words.{ending}"
    path.write_text(json.dumps(MEANING))  # JSON is YAML, too
    options = {"layout": "{age}_{hair}", "target": "hair", "cache": tmp_path / "kept"}
    source = ImageFolder(tmp_path / "in", vocabulary=path, **options)
    assert source.load().schema.classes == ("black", "blond")
    path.write_text(json.dumps({"hair": {"darkhair": "brown", "blondhair": "blond"}}))
    assert source.load().schema.classes == ("brown", "blond")
    path.write_text("hair: [a\n")
    with pytest.raises(ValueError, match=r"words.* cannot be read"):
        source.load()
    path.rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"words.* does not exist"):
        source.load()


def test_a_vocabulary_file_says_what_is_written(tmp_path: Path) -> None:
    """No word of it is a number of base 60, an octal number or a truth value."""
    path = tmp_path / "words.yaml"
    path.write_text("taken: {12:30: noon, 007: early, 1.50: late}\nsmiling: [no, yes]\n")
    assert read_vocabulary(path) == {
        "taken": {"12:30": "noon", "007": "early", "1.50": "late"},
        "smiling": {"no": "no", "yes": "yes"},
    }
    assert read_vocabulary(read_yaml("{smiling: ['no', 'yes']}")) == {
        "smiling": {"no": "no", "yes": "yes"}
    }
    for unquoted in ("[no, yes]", "{no: grave}", "{grave: no}"):
        with pytest.raises(ValueError, match=r"has False for 'smiling'.* put it in quotes"):
            read_vocabulary(read_yaml(f"smiling: {unquoted}"))


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({"hair": ["darkhair", "blndhair"]}, r"unknown token 'blondhair' for 'hair': did you mean "
         r"'blndhair'\? \(first at .*b\.png\)"),
        ({"hiar": ["x"]}, "vocabulary of 'hiar', but the layout has: age, hair"),
        ({"hair": "darkhair"}, "must give 'hair' a list of tokens or token: value pairs"),
        ({}, "must name attributes and their tokens"),
        ("words.txt", r"must end in \.yaml, \.yml or \.json"),
    ],
)  # fmt: skip
def test_vocabularies_that_do_not_fit(tmp_path: Path, vocabulary: object, message: str) -> None:
    tree(tmp_path, "young_darkhair/a.png", "old_blondhair/b.png")
    with pytest.raises(ValueError, match=message):
        ImageFolder(tmp_path, "{age}_{hair}", "hair", vocabulary).load()  # type: ignore[arg-type]


def test_a_star_stands_for_anything(tmp_path: Path) -> None:
    tree(tmp_path, "x1/dog_7/a.png", "x2/cat_8/b.png")
    data = ImageFolder(tmp_path, layout="*/{label}_*").load()
    assert data.schema.classes == ("cat", "dog")
    assert data.truth.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"must hold \{kind\} once"):
        ImageFolder(tmp_path, layout="*/{label}_*", target="kind")
