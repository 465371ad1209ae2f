"""Split, source and weight of every row, as manifests and tables may say them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from evenloop.data import Attribute, GroupedData, Origin, Schema
from evenloop.samplers.cells import SPLIT, WEIGHT, CellIndex
from evenloop.worlds.folder import ImageFolder, Manifest
from evenloop.worlds.generated import apart, as_generated, with_weights
from evenloop.worlds.listing import listed
from evenloop.worlds.tabular import Table
from worlds.layouts import pixels, write_image

SCHEMA = Schema(("no", "yes"), (Attribute("sex", ("f", "m")),))


def rows(n: int = 4, shade: float = 0.0, schema: Schema = SCHEMA) -> GroupedData:
    x = torch.arange(2 * n).view(n, 2) / (2 * n) + shade
    return GroupedData.of(x, torch.arange(n) % 2, {"sex": torch.arange(n) // 2 % 2}, schema)


def pictures(folder: Path, n: int) -> list[str]:
    names = [f"{i}.png" for i in range(n)]
    for i, name in enumerate(names):
        write_image(folder / name, pixels(1, 4, 4, 3, seed=i)[0])
    return names


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    frame = pd.DataFrame(
        {
            "path": pictures(tmp_path, 4),
            "label": ["a", "b", "a", "b"],
            "sex": ["f", "m", "m", None],
            "split": ["train", "validation", "test", "train"],
            "source": ["real", "real", "Real", "generated"],
            "weight": [1, 2.5, 1, 0.12345],
            "generator": ["", "", "", "gan"],
            "seed": [0, 0, 0, 7],
        }
    )
    path = tmp_path / f"list.{request.param}"
    if request.param == "csv":
        frame.to_csv(path, index=False)
    elif request.param == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    return path


def test_a_manifest_says_split_source_and_weight_in_three_formats(manifest: Path) -> None:
    data = Manifest(manifest, groups=("sex",), cache=manifest.parent / "kept").load()
    assert [a.name for a in data.schema.attributes] == ["sex", "split", "weight"]
    assert data.schema.attributes[1].values == ("train", "val", "test")
    assert data.attribute(SPLIT).tolist() == [0, 1, 2, 0]
    assert data.origin.tolist() == [0, 0, 0, int(Origin.GENERATED)]
    assert data.row.tolist() == [0, 1, 2, -1]
    assert CellIndex.of(data, ["sex"]).weight.tolist() == [1.0, 2.5, 1.0, 0.123]
    again = Manifest(manifest, groups=("sex",), cache=manifest.parent / "kept").load()
    assert torch.equal(again.origin, data.origin)
    assert torch.equal(again.attributes, data.attributes)


def test_columns_may_be_left_unread(manifest: Path) -> None:
    data = Manifest(manifest, split="", source="", weight="").load()
    assert data.schema.attributes == ()
    assert set(data.origin.tolist()) == {int(Origin.WORLD)}


@pytest.mark.parametrize(
    ("column", "word", "message"),
    [
        ("split", "tset", r"row 2: split is 'tset'; did you mean 'test'\?.*split=''"),
        ("source", "gen", r"row 2: source is 'gen'; .*source=''"),
        ("source", None, "row 2: source is"),
        ("weight", 0, r"row 2: weight is .*a weight is a positive number"),
        ("weight", "heavy", "row 2: weight is 'heavy'"),
    ],
)
def test_words_and_weights_that_mean_nothing_are_named(
    tmp_path: Path, column: str, word: object, message: str
) -> None:
    frame = pd.DataFrame({"image": pictures(tmp_path, 3), "label": ["a", "b", "a"]})
    good = {"split": "train", "source": "real", "weight": "2"}[column]
    frame[column] = pd.Series([good, good, word], dtype=object)
    path = tmp_path / "list.parquet"
    frame.astype({column: str} if word is not None else {}).to_parquet(path)
    with pytest.raises(ValueError, match=message):
        Manifest(path).load()
    assert len(Manifest(path, **{column: ""}).load()) == 3
    frame[column] = good
    frame.to_parquet(path)
    assert len(Manifest(path).load()) == 3


def test_a_manifest_in_other_words_names_its_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"image": pictures(tmp_path, 2), "label": [0, 1], "made": ["real", "fake"]}
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert Manifest(tmp_path / "t.csv", source="made").load().origin.tolist() == [0, 2]
    with pytest.raises(ValueError, match="no column 'maed'; did you mean 'made'"):
        Manifest(tmp_path / "t.csv", source="maed").load()


def test_a_table_keeps_what_a_list_says_out_of_its_features(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y,kind,w,part\n1,0,real,1,train\n,1,real,1,train\n3,1,fake,2,test\n")
    data = Table(path, target="y", missing="drop", source="kind", weight="w", split="part").load()
    assert data.x.shape == (2, 1)
    assert data.origin.tolist() == [0, 2]
    assert data.attribute(SPLIT).tolist() == [0, 2]
    assert CellIndex.of(data, []).weight.tolist() == [1.0, 2.0]
    plain = Table(path, target="y", missing="drop", leave_out=("kind", "part")).load()
    assert plain.x.shape == (2, 2)
    assert plain.schema.attributes == ()


def test_a_split_named_as_a_group_stays_as_it_is() -> None:
    data = rows(2, schema=Schema(("no", "yes"), (Attribute("sex", ("f", "m")),)))
    frame = pd.DataFrame({"split": ["train", "dev"]})
    once = listed(data, frame, "t", split="split")
    assert listed(once, frame, "t", split="split").schema == once.schema


def test_a_folder_level_may_say_the_source(tmp_path: Path) -> None:
    for i, place in enumerate(("real/dog", "generated/dog")):
        write_image(tmp_path / place / "a.png", pixels(1, 4, 4, 3, seed=i)[0])
    data = ImageFolder(tmp_path, layout="{source}/{label}").load()
    assert sorted(data.origin.tolist()) == [0, 2]
    assert data.schema.attributes == ()
    write_image(tmp_path / "rael" / "dog" / "a.png", pixels(1, 4, 4, 3, seed=5)[0])
    with pytest.raises(ValueError, match="source is 'rael'; did you mean 'real'"):
        ImageFolder(tmp_path, layout="{source}/{label}").load()


# -- generated rows beside real ones ------------------------------------------------------------


def test_a_list_of_both_is_taken_apart_and_generated_test_rows_are_left_out() -> None:
    said = pd.DataFrame({"s": ["real", "fake", "fake", "real"], "p": ["train", "test"] * 2})
    both = listed(rows(), said, "t", source="s", split="p")
    real, made = apart(both)
    assert real.row.tolist() == [0, 3]
    assert made is not None
    assert torch.equal(made.x, both.x[2:3])
    assert apart(real) == (real, None)
    alone = listed(rows(), pd.DataFrame({"s": ["fake"] * 4}), "t", source="s")
    with pytest.raises(ValueError, match="all rows of the world are generated"):
        apart(alone)


def test_a_generated_copy_inside_one_list_is_refused() -> None:
    twice = rows(2).append(rows(2))
    both = listed(twice, pd.DataFrame({"s": ["real", "real", "fake", "fake"]}), "t", source="s")
    with pytest.raises(ValueError, match="2 generated rows are copies of real rows"):
        apart(both)


def test_weights_and_splits_of_one_side_only_are_filled_in() -> None:
    made = listed(rows(shade=3.0), pd.DataFrame({"w": [2, 2, 0.5, 4]}), "t", weight="w")
    real = listed(rows(), pd.DataFrame({"p": ["train", "val"] * 2}), "t", split="p")
    like = with_weights(real, made)
    assert CellIndex.of(like, ["sex"]).weight.tolist() == [1.0] * 4
    joined = as_generated(made, like)
    assert CellIndex.of(joined, ["sex"]).weight.tolist() == [2.0, 2.0, 0.5, 4.0]
    assert joined.attribute(SPLIT).tolist() == [0] * 4
    assert len(like.append(joined)) == 8
    weighed = listed(rows(), pd.DataFrame({"w": [3, 1, 1, 1]}), "t", weight="w")
    both = with_weights(weighed, made)
    assert CellIndex.of(both, ["sex"]).weight.tolist() == [3.0, 1.0, 1.0, 1.0]
    assert both.schema.attributes[-1].values == ("1", "3", "0.5", "2", "4")
    assert with_weights(real, rows()) is real
    assert WEIGHT not in [a.name for a in real.schema.attributes]


def test_real_rows_among_generated_ones_are_refused() -> None:
    said = pd.DataFrame({"s": ["fake", "real", "fake", "fake"]})
    mixed = listed(rows(shade=3.0), said, "t", source="s")
    with pytest.raises(ValueError, match="1 of 4 generated rows are marked as real, first row 1"):
        as_generated(mixed, rows())
    assert len(as_generated(rows(shade=3.0), rows())) == 4
