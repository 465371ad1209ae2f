"""Drawn letters with a colour bias: the data of the study on actively acquired labels.

Letters 'a' and 'd' in blue or red. Minority: blue is frequent whatever the letter. Spurious: blue
goes with 'a', red with 'd'. Validation and test rows are balanced over all four cells.

Reference: Branchaud-Charron, Atighehchian, Rodriguez, Abuhamad, Lacoste, Can Active Learning
Preemptively Mitigate Fairness Issues?, 2021; drawn there with Synbols (Lacoste et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.rng import Rng
from evenloop.worlds.base import Card, Normalisation, cached, check_choice, check_size
from evenloop.worlds.glyphs import BLUE, RED, draw_letter, find_faces, random_look

__all__ = ["Letters", "letter_and_colour"]

Codes = NDArray[np.int64]
SPLITS = ("train", "validation", "test")
COLOURS = ("blue", "red")


def letter_and_colour(
    kind: Literal["minority", "spurious"], p: float, n: int, seed: int
) -> tuple[Codes, Codes, Codes]:
    """Seeds (n,), letters (n,) 0 or 1 and colours (n,) 0 blue or 1 red, as the study draws them.

    The draws of NumPy's legacy generator, so counts of cells are exact for a data set's seed; the
    published spurious sampler, which failed, is mended to P(blue | first letter) = p and
    P(blue | second letter) = 1 - p.

    >>> seeds, letter, colour = letter_and_colour("minority", 0.9, 4, 1270)
    >>> int(seeds[0]), letter.tolist(), colour.tolist()
    (3084543534, [1, 1, 1, 0], [0, 0, 0, 0])
    """
    source = np.random.RandomState(seed)
    seeds = source.randint(np.iinfo(np.uint32).max, size=n, dtype=np.int64)
    letter, colour = np.zeros(n, np.int64), np.zeros(n, np.int64)
    own = np.random.RandomState(0)
    for i, each in enumerate(seeds):
        own.seed(int(each))
        blue = own.random_sample() < p
        letter[i] = own.randint(2)
        if kind == "spurious":
            blue = own.random_sample() < (p if letter[i] == 0 else 1 - p)
        colour[i] = not blue
    return seeds, letter, colour


@dataclass(frozen=True, slots=True)
class Letters:
    """Drawn letters, uint8 N x 3 x size x size, in the order train, validation, test.

    Attribute columns: color, font, bold, slant, rotation, scale and split.

    Attributes:
        kind: "minority" (blue is frequent) or "spurious" (blue goes with the first letter).
        p: the frequency in the train rows, in [0, 1]; 0.5 in the others.
        letters: the two classes, one character each.
        train, validation, test: rows of each split.
        split_seeds: of the (letter, colour) draws of each split; also name the pictures' streams.
        seed: added to all three, for other data of the same kind.
        size: side of a picture in pixels.
        occluder: one square, triangle or disc over each picture.
        fonts: "packaged" (with matplotlib), "installed" (also font packages), or a folder.
        cache: folder that keeps the drawn pictures, or None.

    >>> data = Letters(train=4, test=2, size=16).load()
    >>> data.x.shape, data.schema.classes
    (torch.Size([6, 3, 16, 16]), ('a', 'd'))
    """

    name: ClassVar[str] = "letters"
    about: ClassVar[Card] = Card(
        "Drawn letters",
        "as many pictures as asked for; the label is the letter",
        "pictures are made here; fonts under their own free licences",
        "colour, drawn with the frequencies given; no person is described",
        "drawn on the spot from the fonts that come with matplotlib",
    )

    kind: Literal["minority", "spurious"] = "spurious"
    p: float = 0.9
    letters: tuple[str, str] = ("a", "d")
    train: int = 10_000
    validation: int = 0
    test: int = 5_000
    split_seeds: tuple[int, int, int] = (1000, 3000, 2000)
    seed: int = 0
    size: int = 64
    occluder: bool = False
    fonts: str = "packaged"
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("minority", "spurious"))
        check_size("size", self.size)
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be in [0, 1], got {self.p}")
        if min(self.train, self.validation, self.test) < 0 or self.train + self.test < 1:
            raise ValueError(
                "train, validation and test must be at least 0 and not all 0, got "
                f"{self.train}, {self.validation}, {self.test}"
            )
        if len(set(self.letters)) != 2 or any(len(c) != 1 for c in self.letters):
            raise ValueError(f"letters must be two different characters, got {self.letters!r}")

    @property
    def normalisation(self) -> Normalisation | None:
        """The moments the study used, those of CIFAR-10."""
        return (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

    def load(self) -> GroupedData:
        """Draw every picture, or read them from the cache.

        Raises:
            ValueError: no font draws both letters.
        """
        faces = find_faces(self.fonts, self.letters)
        files = [Path(f) for face in faces for f in (face.regular, face.bold) if f]
        return cached(self, self.cache, files, self._draw)

    def _draw(self) -> GroupedData:
        faces = find_faces(self.fonts, self.letters)
        sizes = (self.train, self.validation, self.test)
        x = np.empty((sum(sizes), 3, self.size, self.size), np.uint8)
        columns: list[tuple[int, ...]] = []
        for split, (n, base) in enumerate(zip(sizes, self.split_seeds, strict=True)):
            seed = base + self.seed
            p = self.p if split == 0 else 0.5
            _, letter, colour = letter_and_colour(self.kind, p, n, seed)
            stream = Rng.of(seed).at("letters")
            for i in range(n):
                rng = stream.at(i).numpy()
                look = random_look(len(faces), rng)
                x[len(columns)] = draw_letter(
                    self.letters[letter[i]], (BLUE, RED)[colour[i]], look, faces, self.size, rng,
                    occluder=self.occluder,
                )  # fmt: skip
                turned, large = look.rotation >= 0, look.scale >= 0.6
                columns.append(
                    (letter[i], colour[i], look.face, look.bold, look.slant, turned, large, split)
                )
        table = np.array(columns, dtype=np.int64).reshape(-1, 8)
        attributes = (
            Attribute("color", COLOURS),
            Attribute("font", tuple(face.family for face in faces)),
            Attribute("bold", ("no", "yes")),
            Attribute("slant", ("no", "yes")),
            Attribute("rotation", ("<0", ">=0")),
            Attribute("scale", ("<0.6", ">=0.6")),
            Attribute("split", SPLITS),
        )
        codes = {a.name: table[:, i + 1] for i, a in enumerate(attributes)}
        schema = Schema(self.letters, attributes)
        return GroupedData.of(torch.from_numpy(x), table[:, 0], codes, schema)
