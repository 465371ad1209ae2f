"""imSitu's official files, written small: the split, what rows keep, and every refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evenloop.objectives.frames import FrameLoss
from evenloop.roles.annotations import decode
from evenloop.worlds.roles import ImSitu

MAN, WOMAN, DOG = "n10287213", "n10787470", "n02084071"
Edit = Callable[[dict[str, Any]], None]


def annotated(verb: str, i: int) -> dict[str, Any]:
    agents = [(MAN, MAN, WOMAN), (WOMAN, WOMAN, WOMAN), (DOG, MAN, "")][i % 3]
    return {"verb": verb, "frames": [{"agent": a, "place": "n1" if i % 2 else ""} for a in agents]}


def write(root: Path, *, per_verb: int = 4, edit: Edit = lambda files: None) -> Path:
    files: dict[str, Any] = {"train.json": {}, "dev.json": {}, "test.json": {}}
    (root / "of500_images_resized").mkdir(parents=True)
    for verb in ("cooking", "hunting"):
        for i in range(per_verb):
            name = f"{verb}_{i}.jpg"
            files[("train.json", "dev.json", "test.json")[i % 3]][name] = annotated(verb, i)
            pixels = np.full((40, 64, 3), 10 * i, np.uint8)
            pixels[:, :6], pixels[:, -6:] = 255, 255
            Image.fromarray(pixels).save(root / "of500_images_resized" / name, quality=95)
    edit(files)
    for name, content in files.items():
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def world(root: Path, **options: Any) -> ImSitu:
    return ImSitu(root=root, **({"size": 16, "test_per_verb": 1} | options))


def test_rows_are_the_pictures_of_all_three_files(tmp_path: Path) -> None:
    data = world(write(tmp_path)).load()
    assert data.x.shape == (8, 3, 16, 16)
    assert data.x.dtype == torch.uint8
    assert data.schema.classes == ("other", "man", "woman")
    assert data.y.shape == (8, 1 + 3 * 2)


def test_pictures_keep_their_middle_square(tmp_path: Path) -> None:
    data = world(write(tmp_path)).load()
    assert int(data.x.max()) < 80  # the white margins left and right are cut off


def test_test_rows_keep_three_frames_and_train_rows_one(tmp_path: Path) -> None:
    source = world(write(tmp_path))
    data = source.load()
    layout = source.structured().net["layout"]
    test = data.attribute("split") == 1
    assert torch.bincount(data.y[test, 0]).tolist() == [1, 1]
    for row, is_test in zip(decode(data.y, layout), test.tolist(), strict=True):
        assert len(row["frames"]) == (3 if is_test else 1)


def test_train_rows_are_collapsed_by_majority_without_blanks(tmp_path: Path) -> None:
    source = world(write(tmp_path))
    data = source.load()
    layout = source.structured().net["layout"]
    rows = decode(data.y, layout)
    numbers = [0, 3, 0, 3, 1, 1, 2, 2]  # of the pictures: files are joined train, dev, test
    for i, row, test in zip(numbers, rows, data.attribute("split").tolist(), strict=True):
        if test:
            continue
        frame = row["frames"][0]
        assert frame["agent"] in {0: {MAN}, 1: {WOMAN}, 2: {DOG, MAN}}[i % 3]
        assert frame["place"] == ("n1" if i % 2 else "")


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    root = write(tmp_path, per_verb=9)
    first = world(root).load()
    assert torch.equal(world(root).load().y, first.y)
    assert any(
        not torch.equal(world(root, seed=s).load().attribute("split"), first.attribute("split"))
        for s in (1, 2)
    )


def test_what_it_brings_along(tmp_path: Path) -> None:
    (tmp_path / "imsitu_space.json").write_text(
        json.dumps({"nouns": {WOMAN: {"gloss": ["woman", "adult female"]}}, "verbs": {}})
    )
    source = world(write(tmp_path))
    data, brought = source.load(), source.structured()
    assert isinstance(brought.objective(), FrameLoss)
    assert set(brought.net) == {"layout", "pixels"}
    assert "agent=woman" in " ".join(brought.reading.show(data.x, data.y))
    assert {"women", "women.single", "women.bin0", "women.bin4", "women.cooking"} <= set(
        brought.reading.statistics()
    )


def test_bins_are_the_studys_or_the_datas_or_none(tmp_path: Path) -> None:
    root = write(tmp_path, per_verb=9)
    original = world(root).load()
    layout = world(root).structured().net["layout"]
    cooking = original.y[:, 0] == layout.verbs.index("cooking")
    assert original.attribute("bin")[cooking].unique().tolist() == [3]
    assert original.attribute("bin")[~cooking].unique().tolist() == [0]
    none = world(root, bins="none")
    assert none.load().attribute("bin").unique().tolist() == [5]
    assert "women.bin0" not in none.structured().reading.statistics()
    bins = world(root, bins="data").structured().reading.bins
    assert frozenset.union(*bins) == {"cooking", "hunting"}


def test_a_cache_returns_the_same_rows(tmp_path: Path) -> None:
    source = world(write(tmp_path / "data"), cache=tmp_path / "cache")
    first = source.load()
    (tmp_path / "data/of500_images_resized/cooking_0.jpg").write_bytes(b"not read again")
    again = source.load()
    assert torch.equal(again.x, first.x)
    assert torch.equal(again.y, first.y)
    assert again.schema == first.schema


def drop(files: dict[str, Any]) -> None:
    files["dev.json"]["cooking_99.jpg"] = annotated("cooking", 0)


def blank(files: dict[str, Any]) -> None:
    for listed in files.values():
        for situation in listed.values():
            if situation["verb"] == "hunting":
                for frame in situation["frames"]:
                    frame["place"] = " "


def twice(files: dict[str, Any]) -> None:
    files["dev.json"]["cooking_0.jpg"] = annotated("cooking", 0)


def broken(files: dict[str, Any]) -> None:
    files["dev.json"] = "{"


def a_list(files: dict[str, Any]) -> None:
    files["dev.json"] = []


def no_frames(files: dict[str, Any]) -> None:
    files["test.json"]["cooking_2.jpg"] = {"verb": "cooking", "frames": []}


def empty(files: dict[str, Any]) -> None:
    for name in files:
        files[name] = {}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop, "1 of 9 listed pictures are absent .* 'cooking_99.jpg'"),
        (blank, "role 'place' of verb 'hunting' has no nouns"),
        (twice, "picture 'cooking_0.jpg' is listed twice"),
        (broken, "dev.json is not JSON"),
        (a_list, "dev.json must hold one object of pictures, got list"),
        (no_frames, "test.json: picture 'cooking_2.jpg' must be"),
        (empty, "the files list no picture"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, edit: Edit, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        world(write(tmp_path, edit=edit)).load()


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "dev.json").write_bytes('{"caf\u00e9.jpg": 1}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"dev.json is not JSON in UTF-8"):
        world(root).load()


def test_missing_files_say_what_and_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"imsitu: train.json.* not found"):
        world(tmp_path).load()
    root = write(tmp_path / "data")
    (root / "of500_images_resized").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no folder of pictures .* images="):
        world(root).load()
    assert len(world(root, images="elsewhere").load()) == 8


def test_a_verb_needs_more_pictures_than_its_test_rows(tmp_path: Path) -> None:
    root = write(tmp_path)
    with pytest.raises(ValueError, match="verb 'cooking' has 4 pictures, and test_per_verb=4"):
        world(root, test_per_verb=4).load()
    assert len(world(root, test_per_verb=3).load()) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be a positive number of pixels"),
        ({"test_per_verb": 0}, "test_per_verb must be a whole number from 1 on"),
        ({"seed": -1}, "seed must be a whole number from 0 on"),
        ({"bins": "mine"}, "bins"),
        ({"gender_sets": "everybody"}, "gender_sets='everybody'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImSitu(**options)


def test_a_broken_space_file_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "imsitu_space.json").write_text("[]")
    with pytest.raises(ValueError, match="take it away to go without"):
        world(root).load()
