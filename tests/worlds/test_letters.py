"""Drawn letters: exact cells, pictures that depend on their index alone, fonts that hold up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evenloop.rng import Rng
from evenloop.worlds import build
from evenloop.worlds.glyphs import BLUE, RED, Look, draw_letter, find_faces, random_look
from evenloop.worlds.letters import Letters, letter_and_colour


def cells(kind: str, p: float, n: int, seed: int) -> list[int]:
    _, letter, colour = letter_and_colour(kind, p, n, seed)  # type: ignore[arg-type]
    return np.bincount(letter * 2 + colour, minlength=4).tolist()


@pytest.mark.parametrize(
    ("kind", "p", "n", "seed", "expected"),
    [
        ("minority", 0.9, 100_000, 1000, [45129, 5027, 44868, 4976]),
        ("minority", 0.5, 10_000, 2000, [2433, 2510, 2564, 2493]),
        ("minority", 0.5, 10_000, 3000, [2516, 2492, 2433, 2559]),
        ("spurious", 0.9, 100_000, 1000, [45237, 4919, 5029, 44815]),
        ("spurious", 0.5, 10_000, 2000, [2428, 2515, 2540, 2517]),
        ("spurious", 0.5, 10_000, 3000, [2484, 2524, 2471, 2521]),
        ("spurious", 0.9, 10_000, 1000, [4513, 474, 532, 4481]),
        ("spurious", 0.5, 5_000, 2000, [1256, 1230, 1317, 1197]),
    ],
)
def test_cells_of_the_study_and_of_its_demo(
    kind: str, p: float, n: int, seed: int, expected: list[int]
) -> None:
    assert cells(kind, p, n, seed) == expected


def test_a_longer_set_begins_with_the_shorter() -> None:
    short, long = (letter_and_colour("spurious", 0.9, n, 5) for n in (10, 30))
    for a, b in zip(short, long, strict=True):
        assert a.tolist() == b[:10].tolist()


@pytest.mark.parametrize(("p", "seed"), [(0.9, 1), (0.5, 2), (0.0, 3), (1.0, 4)])
def test_shares_are_within_five_deviations(p: float, seed: int) -> None:
    n = 4000
    blue_a, red_a, blue_d, red_d = cells("spurious", p, n, seed)
    a, d = blue_a + red_a, blue_d + red_d
    assert abs(a - n / 2) < 5 * (n / 4) ** 0.5
    assert abs(blue_a - p * a) <= 5 * (a * p * (1 - p)) ** 0.5
    assert abs(blue_d - (1 - p) * d) <= 5 * (d * p * (1 - p)) ** 0.5


@pytest.mark.parametrize(("p", "seed"), [(0.9, 1), (0.5, 2), (0.0, 3), (1.0, 4)])
def test_a_rare_colour_is_as_rare_for_either_letter(p: float, seed: int) -> None:
    n = 4000
    blue_a, red_a, blue_d, red_d = cells("minority", p, n, seed)
    a, d = blue_a + red_a, blue_d + red_d
    assert abs(a - n / 2) < 5 * (n / 4) ** 0.5
    assert abs(blue_a - p * a) <= 5 * (a * p * (1 - p)) ** 0.5
    assert abs(blue_d - p * d) <= 5 * (d * p * (1 - p)) ** 0.5


def homogeneity(one: list[int], other: list[int]) -> float:
    """Pearson's chi-square of two samples over the same cells."""
    table = np.array([one, other], float)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return float(((table - expected) ** 2 / expected).sum())


def test_without_a_correlation_both_kinds_have_one_law() -> None:
    # seeds differ, so the samples are independent; 21.1 is the 1e-4 point for 3 degrees
    same = homogeneity(cells("spurious", 0.5, 8000, 11), cells("minority", 0.5, 8000, 12))
    assert same < 21.1
    skewed = homogeneity(cells("spurious", 0.55, 8000, 11), cells("minority", 0.55, 8000, 12))
    assert skewed > 21.1


def test_picture_i_is_the_same_in_any_set() -> None:
    short = Letters(train=3, test=2, size=16).load()
    longer = Letters(train=6, test=4, size=16).load()
    assert torch.equal(short.x[:3], longer.x[:3])
    assert torch.equal(short.x[3:], longer.x[6:8])
    assert torch.equal(short.attributes[:3], longer.attributes[:3])


def test_splits_are_in_order_and_test_rows_are_balanced() -> None:
    data = Letters(kind="minority", train=60, validation=10, test=200, size=16).load()
    split = data.attribute("split")
    assert split.tolist() == [0] * 60 + [1] * 10 + [2] * 200
    colour = data.attribute("color")
    assert float((colour[split == 0] == 0).float().mean()) > 0.8
    assert 0.35 < float((colour[split == 2] == 0).float().mean()) < 0.65


def test_all_pictures_differ_and_use_the_whole_range() -> None:
    x = Letters(train=30, test=0, size=24).load().x
    assert len(torch.unique(x.flatten(1), dim=0)) == 30
    assert (x.flatten(1).amax(1) > 240).all()
    assert (x.flatten(1).amin(1) < 15).all()


def test_the_occluder_changes_the_picture_only() -> None:
    plain, covered = (Letters(train=20, test=0, size=24, occluder=o).load() for o in (False, True))
    assert torch.equal(plain.attributes, covered.attributes)
    assert not torch.equal(plain.x, covered.x)


def test_colour_and_letter_are_what_they_are_called() -> None:
    faces = find_faces("packaged", "ad")
    look = Look(0, True, False, 0.0, 0.9, (0.0, 0.0))

    def ink(letter: str, colour: tuple[float, float, float]) -> np.ndarray:
        drawn = draw_letter(letter, colour, look, faces, 64, Rng.of(1).numpy())
        return drawn.astype(int)

    blue, red = ink("a", BLUE), ink("a", RED)
    changed = (np.abs(blue - red).sum(0) > 200).sum()
    assert changed > 300
    assert (red - blue)[0].sum() > 0 > (red - blue)[2].sum()
    assert np.abs(ink("a", BLUE) - ink("d", BLUE)).sum() > 0


def test_looks_follow_their_laws() -> None:
    looks = [random_look(5, Rng.of(0).at(i).numpy()) for i in range(3000)]
    rotation = np.array([look.rotation for look in looks])
    scale = np.log([look.scale / 0.6 for look in looks])
    shift = np.array([look.shift for look in looks])
    assert abs(rotation.std() - 0.3) < 0.02
    assert abs(scale.mean()) < 0.02
    assert abs(scale.std() - 0.2) < 0.015
    assert np.abs(shift).max() <= 0.9
    assert abs(np.mean([look.bold for look in looks]) - 0.5) < 0.05
    assert abs(np.mean([look.slant for look in looks]) - 0.5) < 0.05
    assert np.bincount([look.face for look in looks], minlength=5).min() > 500


def test_fonts_without_the_letters_or_with_small_capitals_are_left_out() -> None:
    names = [face.family for face in find_faces("packaged", "ad")]
    assert {"DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral"} <= set(names)
    assert not any(n.startswith(("cmex", "cmsy", "Last", "STIXSiz", "STIXNon")) for n in names)
    assert set(names) <= {face.family for face in find_faces("installed", "ad")}


def test_a_folder_of_fonts(tmp_path: Path) -> None:
    regular = find_faces("packaged", "a")[1]
    (tmp_path / "own.ttf").write_bytes(Path(regular.regular).read_bytes())
    (face,) = find_faces(str(tmp_path), "ad")
    assert face.bold is None
    look = Look(0, True, False, 0.0, 0.8, (0.0, 0.0))
    bold = draw_letter("a", BLUE, look, (face,), 32, Rng.of(1).numpy())
    thin = draw_letter(
        "a", BLUE, Look(0, False, False, 0.0, 0.8, (0.0, 0.0)), (face,), 32, Rng.of(1).numpy()
    )
    assert not np.array_equal(bold, thin)  # a bold of its own making
    (tmp_path / "own.ttf").unlink()
    with pytest.raises(ValueError, match="no family"):
        find_faces(str(tmp_path), "ad")
    with pytest.raises(ValueError, match="a folder"):
        find_faces(str(tmp_path / "nothing"), "ad")


def test_the_cache_gives_back_the_same_rows(tmp_path: Path) -> None:
    source = Letters(train=4, test=2, size=16, cache=tmp_path)
    first, again = source.load(), source.load()
    assert torch.equal(first.x, again.x)
    assert first.schema == again.schema
    assert len(list(tmp_path.glob("letters-*.npz"))) == 1
    Letters(train=4, test=2, size=16, p=0.8, cache=tmp_path).load()
    assert len(list(tmp_path.glob("letters-*.npz"))) == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "spurius", "spurious"),
        ("p", 1.5, "p must be"),
        ("train", -1, "at least 0"),
        ("size", 0, "size"),
        ("letters", ("a", "a"), "different"),
        ("letters", ("ab", "c"), "different"),
    ],
)
def test_bad_fields(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("letters", **{field: value})


def test_good_fields() -> None:
    assert build("letters", kind="minority", p=0.0, letters=["b", "q"]).letters == ("b", "q")  # type: ignore[attr-defined]
