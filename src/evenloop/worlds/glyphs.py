"""Letters as pictures: faces found in packages, and one seeded picture per index.

A picture is a letter in one colour on a gradient, turned, slanted, scaled and shifted at random,
stretched in contrast, with a little noise. Everything random comes from the generator given, so
picture i is the same whoever draws it and in whichever order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["BLUE", "RED", "Face", "Look", "draw_letter", "find_faces", "random_look"]

BLUE, RED = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)
Pixels = NDArray[np.uint8]
Real = NDArray[np.float64]
Colour = tuple[float, float, float]

_GLYPH = 128  # pixels of the font size that masks are drawn in, before they are scaled down
_OVERSAMPLE = 2
_SLANT = 0.2
_NOISE = 0.01
_OCCLUDER = 0.4
# Symbols under the codes of letters, and pictures of missing characters.
_NOT_LETTERS = ("cmex10", "cmsy10", "LastResort")
_FONTS = (".ttf", ".otf")
_REGULAR = ("regular", "book", "roman", "normal")


@dataclass(frozen=True, slots=True)
class Face:
    """A font family with its regular file and, where it has one, its bold file."""

    family: str
    regular: str
    bold: str | None


def find_faces(fonts: str, letters: Iterable[str]) -> tuple[Face, ...]:
    """Families that draw every letter, sorted by name.

    Args:
        fonts: "packaged" for those that come with matplotlib, "installed" for these and the font
            packages that announce themselves under "fonts_ttf", or a folder of .ttf and .otf files.
        letters: single characters; a family that lacks one, or draws it as its capital, is left
            out.

    Raises:
        ValueError: no family is left.

    >>> [face.family for face in find_faces("packaged", "ad")][:2]
    ['Computer Modern', 'DejaVu Sans']
    """
    styles: dict[str, dict[str, str]] = {}
    for path in _font_files(fonts):
        if path.stem.startswith(_NOT_LETTERS):
            continue
        family, style = _names(path)
        if style in _REGULAR or style == "bold":
            styles.setdefault(family, {})["bold" if style == "bold" else "regular"] = str(path)
    faces = [
        Face(family, files["regular"], files.get("bold"))
        for family, files in sorted(styles.items())
        if "regular" in files and _covers(files["regular"], tuple(letters))
    ]
    if not faces:
        raise ValueError(f"fonts={fonts!r} holds no family that draws {', '.join(letters)}")
    return tuple(faces)


def _font_files(fonts: str) -> list[Path]:
    if fonts not in ("packaged", "installed"):
        folder = Path(fonts).expanduser()
        if not folder.is_dir():
            raise ValueError(
                f"fonts={fonts!r} must be 'packaged', 'installed' or a folder of .ttf or .otf files"
            )
        return sorted(p for p in folder.rglob("*") if p.suffix.lower() in _FONTS)
    import matplotlib

    found = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
    if fonts == "installed":
        # their files are listed, not their code run
        packages = {e.dist.name: e.dist for e in entry_points(group="fonts_ttf") if e.dist}
        files = (f for package in packages.values() for f in package.files or ())
        found += sorted(Path(str(f.locate())) for f in files if f.suffix.lower() in _FONTS)
    return found


def _names(path: Path) -> tuple[str, str]:
    """Family and style of a font file, Computer Modern's ten files told apart by their names."""
    family, style = ImageFont.truetype(str(path), 16).getname()
    if path.stem in ("cmr10", "cmb10"):
        return "Computer Modern", "regular" if path.stem == "cmr10" else "bold"
    return family or path.stem, (style or "regular").lower()


def _covers(path: str, letters: tuple[str, ...]) -> bool:
    """Whether the face has these letters: not the missing-glyph box, not a small capital."""
    font = ImageFont.truetype(path, 48)

    def picture(text: str) -> Real:
        mask = font.getmask(text)
        if 0 in mask.size:
            return np.zeros((24, 24))
        drawn = Image.frombytes("L", mask.size, bytes(mask)).resize((24, 24))
        return np.asarray(drawn, dtype=np.float64) / 255

    box = picture("\uffff")
    for letter in letters:
        drawn = picture(letter)
        if not drawn.any() or np.abs(drawn - box).mean() < 0.01:
            return False
        capital = letter.swapcase() != letter and letter.islower()
        if capital and np.abs(drawn - picture(letter.upper())).mean() < 0.04:
            return False
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Everything about a picture but its letter and colour.

    `face` indexes the faces; `rotation` in radians; `scale` the longest side of the glyph as a
    share of the picture; `shift` (x, y) in [-1, 1] of the free room.
    """

    face: int
    bold: bool
    slant: bool
    rotation: float
    scale: float
    shift: tuple[float, float]


def random_look(faces: int, rng: np.random.Generator) -> Look:
    """A look: face uniform, bold and slant each 1/2, rotation N(0, 0.3), scale 0.6 exp(N(0, 0.2)).

    >>> random_look(5, np.random.Generator(np.random.Philox(1))).face in range(5)
    True
    """
    return Look(
        int(rng.integers(faces)),
        bool(rng.random() < 0.5),
        bool(rng.random() < 0.5),
        float(rng.normal(0, 0.3)),
        float(0.6 * np.exp(rng.normal(0, 0.2))),
        (float(rng.uniform(-0.9, 0.9)), float(rng.uniform(-0.9, 0.9))),
    )


def draw_letter(
    letter: str,
    colour: Colour,
    look: Look,
    faces: tuple[Face, ...],
    size: int,
    rng: np.random.Generator,
    *,
    occluder: bool = False,
) -> Pixels:
    """A picture (3, size, size) uint8, RGB.

    >>> faces = find_faces("packaged", "a")
    >>> rng = np.random.Generator(np.random.Philox(1))
    >>> draw_letter("a", BLUE, random_look(len(faces), rng), faces, 32, rng).shape
    (3, 32, 32)
    """
    canvas = _gradient(size, rng)
    face = faces[look.face]
    path = face.bold if look.bold and face.bold else face.regular
    glyph = _glyph(path, letter, look.bold and face.bold is None)
    ink = _placed(glyph, look, size)
    canvas += ink * (np.asarray(colour)[:, None, None] - canvas)
    if occluder:
        mask = _shape(size, rng)
        canvas += mask * (_gradient(size, rng) - canvas)
    low, high = canvas.min(), canvas.max()
    canvas = (canvas - low) / max(high - low, 1e-9)
    canvas += rng.normal(0, _NOISE, canvas.shape)
    pixels: Pixels = (canvas.clip(0, 1) * 255).round().astype(np.uint8)
    return pixels


def _gradient(size: int, rng: np.random.Generator) -> Real:
    """(3, size, size) in [0, 1]: three random colours along a line or around a point."""
    colours = rng.random((3, 3))
    steps = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = steps[:, None], steps[None, :]
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        along = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2) / 2 + 0.5
    else:
        at_x, at_y = rng.uniform(-0.5, 0.5, 2)
        along = np.sqrt((x - at_x) ** 2 + (y - at_y) ** 2) / np.sqrt(4.5)
    along = along.clip(0, 1)
    return np.stack([np.interp(along, (0, 0.5, 1), colours[:, c]) for c in range(3)])


@lru_cache(maxsize=4096)
def _glyph(path: str, letter: str, embolden: bool) -> Image.Image:
    """The letter's mask, cropped to its ink, its longest side `_GLYPH` pixels."""
    font = ImageFont.truetype(path, 2 * _GLYPH)
    stroke = _GLYPH // 20 if embolden else 0
    left, top, right, bottom = font.getbbox(letter, stroke_width=stroke)
    mask = Image.new("L", (round(right - left) + 2, round(bottom - top) + 2))
    pen = ImageDraw.Draw(mask)
    pen.text((1 - left, 1 - top), letter, fill=255, font=font, stroke_width=stroke)
    mask = mask.crop(mask.getbbox())
    ratio = _GLYPH / max(mask.size)
    wide, high = (max(1, round(side * ratio)) for side in mask.size)
    return mask.resize((wide, high), Image.Resampling.LANCZOS)


def _placed(glyph: Image.Image, look: Look, size: int) -> Real:
    """(1, size, size) coverage in [0, 1] of the glyph under its look."""
    big = size * _OVERSAMPLE
    side = look.scale * big / _GLYPH
    cos, sin = np.cos(look.rotation), np.sin(look.rotation)
    forward = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, -_SLANT * look.slant], [0, 1]])
    forward = forward * side
    half = np.abs(forward) @ (np.asarray(glyph.size) / 2)
    room = (big / 2 - half).clip(0)
    return _warped(glyph, forward, room * np.asarray(look.shift), size)


def _warped(glyph: Image.Image, forward: Real, shift: Real, size: int) -> Real:
    """The mask under a linear map about its middle, shifted from the middle of the picture."""
    big = size * _OVERSAMPLE
    inverse = np.linalg.inv(forward)
    offset = np.asarray(glyph.size) / 2 - inverse @ (big / 2 + shift)
    matrix = (*inverse[0], offset[0], *inverse[1], offset[1])
    # Shrinking reads single pixels of the mask; averaging it first keeps thin strokes whole.
    warped = glyph.transform(
        (big, big), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
    )
    return np.asarray(warped.reduce(_OVERSAMPLE), dtype=np.float64)[None] / 255


@lru_cache(maxsize=8)
def _outline(kind: int) -> Image.Image:
    mask = Image.new("L", (_GLYPH, _GLYPH))
    pen = ImageDraw.Draw(mask)
    whole = (0, 0, _GLYPH - 1, _GLYPH - 1)
    shapes: tuple[Callable[[], None], ...] = (
        lambda: pen.rectangle(whole, fill=255),
        lambda: pen.polygon(
            [(0, _GLYPH - 1), (_GLYPH - 1, _GLYPH - 1), (_GLYPH // 2, 0)], fill=255
        ),
        lambda: pen.ellipse(whole, fill=255),
    )
    shapes[kind]()
    return mask


def _shape(size: int, rng: np.random.Generator) -> Real:
    """(1, size, size) coverage of a square, triangle or disc that may lie partly outside."""
    mask = _outline(int(rng.integers(3)))
    angle = rng.uniform(0, 2 * np.pi)
    big = size * _OVERSAMPLE
    side = _OCCLUDER * big / _GLYPH
    forward = side * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    room = big / 2 - np.full(2, _OCCLUDER * big / 2)
    return _warped(mask, forward, room * rng.uniform(-1.5, 1.5, 2), size)
