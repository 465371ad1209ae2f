"""Emoji of people at work, in sport, in gestures: which file shows what, drawn once.

The three sets are folders of the packages openmoji (SVG), @lobehub/fluent-emoji-3d (WebP) and
@twemoji/svg (SVG). What an emoji shows is read from openmoji's table: "woman cook: medium skin
tone" is the role cook, the gender woman and the skin tone medium.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenloop.worlds.base import whole_file

__all__ = ["GENDERS", "KINDS", "SKINS", "STYLES", "Emoji", "drawn", "find_emoji"]

GENDERS = ("man", "woman", "person")
SKINS = ("none", "light", "medium-light", "medium", "medium-dark", "dark")
KINDS = ("activity", "gesture", "resting", "role", "sport")
STYLES = {"openmoji": ".svg", "fluent3d": ".webp", "twemoji": ".svg"}
TABLE = "openmoji/openmoji.json"

_FORMAT = 1
_WOMAN, _MAN = re.compile(r"\bwom[ae]n\b"), re.compile(r"\bm[ae]n\b")
_ANYBODY = re.compile(r"\b(wom[ae]n|m[ae]n|person|people)\b")


@dataclass(frozen=True, slots=True, order=True)
class Emoji:
    """One picture: its role, codes of gender, skin tone and kind, its style and file."""

    role: str
    gender: int
    skin: int
    kind: int
    style: str
    path: Path


def find_emoji(root: Path, styles: Sequence[str]) -> list[Emoji]:
    """Pictures of one person whose role is drawn as a man and as a woman, sorted.

    Raises:
        ValueError: a table of another form, or no picture for a style (names its folder).
    """
    try:
        listed = json.loads((root / TABLE).read_text("utf-8"))
        files = {style: _files(root / style, STYLES[style]) for style in styles}
        found = [each for entry in listed for each in _of(entry, files)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{root / TABLE} is not openmoji's table ({type(error).__name__}: {error})"
        ) from error
    both = {e.role for e in found if e.gender == 0} & {e.role for e in found if e.gender == 1}
    kept = sorted(e for e in found if e.role in both)
    for style in styles:
        if not any(e.style == style for e in kept):
            raise ValueError(
                f"no picture of a person in {root / style} (*{STYLES[style]}); unpack that set "
                f"there, or leave {style!r} out of styles"
            )
    return kept


def _of(entry: dict[str, Any], files: Mapping[str, Mapping[str, Path]]) -> list[Emoji]:
    """The pictures of one line of openmoji's table, in the styles that have it."""
    kind = entry["subgroups"].removeprefix("person-")
    if entry["group"] != "people-body" or kind not in KINDS:
        return []
    if entry["skintone_combination"] not in ("", "single"):
        return []
    said = entry["annotation"].split(":")[0]
    gender = 1 if _WOMAN.search(said) else 0 if _MAN.search(said) else 2
    role = " ".join(_ANYBODY.sub("", said).split())
    skin = int(entry["skintone"] or 0)
    code, place = _plain(entry["hexcode"]), KINDS.index(kind)
    return [
        Emoji(role, gender, skin, place, style, of_style[code])
        for style, of_style in files.items()
        if code in of_style
    ]


def _files(folder: Path, suffix: str) -> dict[str, Path]:
    """The files of a set by their code points: sets differ in case and variation selectors."""
    return {_plain(path.stem): path for path in sorted(folder.glob(f"*{suffix}"))}


def _plain(code: str) -> str:
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def drawn(pictures: Sequence[Emoji], size: int, cache: Path) -> NDArray[np.uint8]:
    """(N, 4, size, size) red, green, blue and opacity; drawn once and kept in the folder `cache`.

    Raises:
        ImportError: an SVG is to be drawn and the extra `emoji` is not installed.
        ValueError: a file cannot be drawn, or the kept file is damaged.
    """
    stamps = [
        [*map(str, astuple(p)), p.path.stat().st_size, p.path.stat().st_mtime_ns] for p in pictures
    ]
    key = hashlib.blake2b(json.dumps([_FORMAT, size, stamps]).encode(), digest_size=12).hexdigest()
    path = cache / f"emoji-{size}-{key}.npz"
    if path.exists():
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
                pixels: NDArray[np.uint8] = kept["pixels"]
                return pixels
        except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
            raise ValueError(f"the cached file {path} is damaged ({error}); delete it") from error
    pixels = np.stack([_draw(picture.path, size) for picture in pictures])
    with whole_file(path) as file:
        np.savez(file, pixels=pixels)
    return pixels


def _draw(path: Path, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    content: Any = path
    try:
        if path.suffix == ".svg":
            content = io.BytesIO(_render(path, size))
        with Image.open(content) as image:
            picture = image.convert("RGBA").resize((size, size))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"emoji {path} cannot be drawn: {error}") from error
    return np.asarray(picture).transpose(2, 0, 1)


def _render(path: Path, size: int) -> bytes:
    try:
        import resvg_py
    except ImportError as error:
        raise ImportError(
            "drawing SVG emoji needs resvg_py; install the extra: pip install 'evenloop[emoji]', "
            "or choose styles=[fluent3d]"
        ) from error
    return bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=size, height=size))
