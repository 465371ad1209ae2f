"""Small emoji sets in their official layout: openmoji's table, and pictures drawn with Pillow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

ROLES = {"cook": "person-role", "judge": "person-role", "surfing": "person-sport"}
TONES = ("", "1", "2")
MODIFIERS = {"": "", "1": "-1F3FB", "2": "-1F3FC"}
COLOURS = {"man": (200, 30, 30, 255), "woman": (30, 30, 200, 255), "person": (30, 200, 30, 255)}


def entries() -> list[dict[str, Any]]:
    """Lines of the table: every role, gender and tone, and lines that are to be left out."""
    listed = []
    for r, (role, subgroup) in enumerate(ROLES.items()):
        for g, gender in enumerate(COLOURS):
            for tone in TONES:
                said = f"{gender} {role}" if subgroup == "person-role" else role
                said = f"{gender} {role}" if gender != "person" else said
                tail = f": tone {tone}" if tone else ""
                listed.append(
                    {
                        "annotation": said + tail,
                        "group": "people-body",
                        "subgroups": subgroup,
                        "skintone": tone,
                        "skintone_combination": "single" if tone else "",
                        "hexcode": f"1F4{r}{g}{MODIFIERS[tone]}-200D-FE0F",
                    }
                )
    wrong = {"skintone": "1", "skintone_combination": "single", "group": "people-body"}
    return [
        *listed,
        {**wrong, "annotation": "man: old", "subgroups": "person", "hexcode": "1F500"},
        {**wrong, "annotation": "apple", "group": "food", "subgroups": "x", "hexcode": "1F501"},
        {**wrong, "annotation": "prince", "subgroups": "person-role", "hexcode": "1F502"},
    ]


def write(root: Path, *, svg: bool = False) -> Path:
    """The sets below `root`: fluent3d as WebP, and openmoji as SVG if asked for."""
    for folder in ("openmoji", "fluent3d"):
        (root / folder).mkdir(parents=True)
    (root / "openmoji" / "openmoji.json").write_text(json.dumps(entries()))
    for entry in entries():
        gender = entry["annotation"].split()[0]
        colour = COLOURS.get(gender, COLOURS["person"])
        image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        ImageDraw.Draw(image).rectangle((16, 16, 47, 47), fill=colour)
        image.save(root / "fluent3d" / f"{entry['hexcode'].lower()}.webp", lossless=True)
        if svg:
            fill = f"#{bytes(colour[:3]).hex()}"
            (root / "openmoji" / f"{entry['hexcode']}.svg").write_text(
                '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">'
                f'<rect x="16" y="16" width="32" height="32" fill="{fill}"/></svg>'
            )
    return root
