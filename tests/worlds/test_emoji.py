"""Emoji roles: what a picture shows, the shares drawn, and that test pictures are kept apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenloop.roles.annotations import decode
from evenloop.worlds.emoji import EmojiRoles
from evenloop.worlds.emoji_pictures import drawn, find_emoji
from worlds.emoji_sets import ROLES, entries, write


def world(tmp_path: Path, **options: Any) -> EmojiRoles:
    root = tmp_path / "sets"
    if not root.exists():
        write(root)
    chosen = {"styles": ("fluent3d",), "train": 60, "test": 30, "size": 16, "held_out": 0.34}
    return EmojiRoles(root=root, cache=tmp_path / "cache", **(chosen | options))


def test_pictures_are_those_of_one_person_in_a_role_of_both_genders(tmp_path: Path) -> None:
    found = find_emoji(write(tmp_path), ("fluent3d",))
    assert {e.role for e in found} == set(ROLES)
    assert len(found) == 3 * 3 * 3
    cook = [e for e in found if e.role == "cook"]
    assert sorted({e.gender for e in cook}) == [0, 1, 2]
    assert sorted({e.skin for e in cook}) == [0, 1, 2]


def test_a_row_is_a_frame_of_its_picture(tmp_path: Path) -> None:
    source = world(tmp_path, moved=0.0)
    data = source.load()
    brought = source.structured()
    rows = decode(data.y, brought.net["layout"])
    genders = [("man", "woman", "person")[g] for g in data.attribute("gender").tolist()]
    for row, gender, x in zip(rows, genders, data.x, strict=True):
        assert row["frames"][0]["agent"] == gender
        red, green, blue = x[:, 8, 8].tolist()
        brightest = {"man": red, "woman": blue, "person": green}[gender]
        assert brightest == 200
        assert red + green + blue == 260
    read = brought.reading.read(data.x, data.y)
    assert read.tolist() == [{"man": 1, "woman": 2, "person": 0}[g] for g in genders]


def test_backgrounds_differ_from_row_to_row(tmp_path: Path) -> None:
    corners = world(tmp_path).load().x[:, :, 0, 0]
    assert len(corners.unique(dim=0)) > 80


def test_test_rows_show_other_pictures_than_train_rows(tmp_path: Path) -> None:
    source = world(tmp_path, train=600, test=300)
    pictures = source._pictures()
    chosen, split = source._draws(pictures)
    train, test = set(chosen[split == 0].tolist()), set(chosen[split == 1].tolist())
    assert not train & test
    assert len(test) == 9 + 9  # ceil(.34 * 3) of each role and gender
    assert len(train) == 9


def test_shares_are_drawn_as_asked(tmp_path: Path) -> None:
    data = world(tmp_path, women=0.2, persons=0.4, train=6000, test=1).load()
    count = torch.bincount(data.attribute("gender"), minlength=3).double() / len(data)
    torch.testing.assert_close(
        count, torch.tensor([0.48, 0.12, 0.4], dtype=torch.float64), atol=0.025, rtol=0
    )


def test_kinds_of_roles_can_be_chosen(tmp_path: Path) -> None:
    source = world(tmp_path, kinds=("role",))
    assert source.structured().net["layout"].verbs == ("cook", "judge")
    assert source.load().attribute("kind").unique().tolist() == [3]


def test_no_women_means_none(tmp_path: Path) -> None:
    data = world(tmp_path, women=0.0, persons=0.0).load()
    assert (data.attribute("gender") == 0).all()


def test_shares_by_role_and_spaced(tmp_path: Path) -> None:
    assert world(tmp_path, women={"cook": 0.9}).shares() == {
        "cook": 0.9,
        "judge": 0.5,
        "surfing": 0.5,
    }
    spaced = world(tmp_path, women=(0.2, 0.8)).shares()
    assert sorted(spaced.values()) == [0.2, 0.5, 0.8]
    assert len({tuple(world(tmp_path, women=(0.2, 0.8), seed=s).shares().values())
                for s in range(9)}) > 1  # fmt: skip
    data = world(tmp_path, women={"cook": 1.0, "judge": 0.0, "surfing": 0.0}, persons=0.0).load()
    assert torch.equal(data.attribute("gender"), (data.y[:, 0] == 0).long())


def test_bins_come_from_the_train_rows(tmp_path: Path) -> None:
    shares = {"cook": 1.0, "judge": 0.0, "surfing": 0.0}
    source = world(tmp_path, women=shares, persons=0.0, bins="data", watched=("cook",))
    reading = source.structured().reading
    assert [sorted(b) for b in reading.bins] == [["judge", "surfing"], [], [], [], ["cook"]]
    assert {"women.bin4", "women.cook"} <= set(reading.statistics())


def test_rows_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first = world(tmp_path).load()
    again = world(tmp_path).load()
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(world(tmp_path, seed=1).load().y, first.y)


def test_pictures_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world(tmp_path).load()
    monkeypatch.setattr("evenloop.worlds.emoji_pictures._draw", lambda *a: 1 / 0)
    assert torch.equal(world(tmp_path).load().x, first.x)


def test_a_damaged_cache_says_so(tmp_path: Path) -> None:
    world(tmp_path).load()
    (kept,) = (tmp_path / "cache").glob("*.npz")
    kept.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"is damaged .* delete it"):
        world(tmp_path).load()


def test_svg_sets_are_drawn_with_the_extra(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="needs the extra emoji")
    root = write(tmp_path / "sets", svg=True)
    found = find_emoji(root, ("openmoji", "fluent3d"))
    assert len(found) == 2 * 27
    pixels = drawn(found, 16, tmp_path / "cache")
    for picture, shown in zip(found, pixels, strict=True):
        assert int(shown[(0, 2, 1)[picture.gender], 8, 8]) == 200
        assert shown[3, 8, 8] == 255
        assert shown[3, 0, 0] == 0


def test_svg_sets_without_the_extra_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "sets", svg=True)
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ImportError, match=r"pip install 'evenloop\[emoji\]'"):
        drawn(find_emoji(root, ("openmoji",)), 16, tmp_path / "cache")


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no picture of a person in .*twemoji"):
        world(tmp_path, styles=("fluent3d", "twemoji")).load()
    with pytest.raises(FileNotFoundError, match="emoji-roles: openmoji/, fluent3d/ and twemoji/"):
        EmojiRoles(root=tmp_path / "nowhere").load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"openmoji/openmoji.json not found"):
        EmojiRoles(root=tmp_path / "empty").load()


def test_another_table_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "sets")
    (root / "openmoji" / "openmoji.json").write_text('[{"annotation": 3}]')
    with pytest.raises(ValueError, match="is not openmoji's table"):
        world(tmp_path).load()


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "sets")
    name = f"{entries()[0]['hexcode'].lower()}.webp"
    (root / "fluent3d" / name).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=f"{name} cannot be drawn"):
        world(tmp_path).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"women": 1.5}, r"women must hold shares in \[0, 1\], got 1.5"),
        ({"women": (0.1, 2.0)}, r"women must hold shares in \[0, 1\], got 2.0"),
        ({"women": (0.1,)}, "women must be a share, two shares or shares by role"),
        ({"women": "half"}, "women must be a share, two shares or shares by role"),
        ({"persons": 1.0}, r"persons is a share in \[0, 1\), got 1.0"),
        ({"held_out": 0.0}, "held_out must leave test pictures"),
        ({"moved": -0.1}, "moved is a share"),
        ({"styles": ()}, "styles is empty"),
        ({"styles": ("apple",)}, "styles"),
        ({"kinds": ()}, "kinds is empty"),
        ({"kinds": ("hobby",)}, "kinds"),
        ({"bins": "original"}, "bins"),
        ({"train": 0}, "train must be a whole number from 1 on"),
        ({"size": 4}, "size must be a whole number from 8 on"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        world(tmp_path, **options)


def test_a_share_for_an_unknown_role_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="women: no role 'cok'; did you mean 'cook'"):
        world(tmp_path, women={"cok": 0.3}).load()


def test_a_share_of_one_is_allowed(tmp_path: Path) -> None:
    data = world(tmp_path, women=1.0, persons=0.0).load()
    assert (data.attribute("gender") == 1).all()


def test_the_real_sets_hold_62_roles_in_three_styles(real_data: Callable[[str], Path]) -> None:
    styles = ("openmoji", "fluent3d", "twemoji")
    roots = {real_data(style).parent for style in styles}
    found = find_emoji(roots.pop(), styles)
    assert len(found) == 3378
    assert len({e.role for e in found}) == 62
    assert np.bincount([e.gender for e in found]).tolist() == [1132, 1132, 1114]
