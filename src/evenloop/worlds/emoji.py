"""Roles of emoji people: pictures whose label is a frame with an agent and a skin tone.

A stand-in for photographs with annotated roles that anybody may have and share: 62 roles in three
styles, each drawn as a man, a woman and a person without gender. A bias is made by drawing pictures
with chosen frequencies, so what people's labels hold is known exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from evenloop.data import Attribute, GroupedData, Schema, Structure
from evenloop.objectives.frames import FrameLoss
from evenloop.readings import Structured
from evenloop.rng import Rng
from evenloop.roles import Layout
from evenloop.roles.gender import AGENT, FrameReading, NounSets, verb_bins
from evenloop.words import nearest
from evenloop.worlds.base import Card, Normalisation, check_choice, find_root
from evenloop.worlds.download import data_folder
from evenloop.worlds.emoji_pictures import (
    GENDERS,
    KINDS,
    SKINS,
    STYLES,
    TABLE,
    Emoji,
    drawn,
    find_emoji,
)

__all__ = ["EmojiRoles"]

SKIN = "skin tone"
SETS = NounSets(frozenset({"man"}), frozenset({"woman"}))
MOMENTS = ((0.5,) * 3, (0.29,) * 3)  # about those of pictures on backgrounds of any colour
Codes = NDArray[np.int64]
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class EmojiRoles:
    """Emoji people: uint8 N x 3 x size x size, in the order train, test.

    Every row is a draw: a role (all alike), a gender with the shares given, then one of the
    pictures of that role and gender, shifted, scaled, perhaps mirrored, on a random colour. Test
    rows show pictures that no train row shows.

    The label is a frame: the role is its verb, with the roles `agent` (man, woman, person) and
    `skin tone`. Attribute columns: kind, style, gender, skin and split.

    Attributes:
        root: folder with openmoji/, fluent3d/ and twemoji/.
        women: share of women among men and women: one for all roles; two, of which the roles get
            evenly spaced shares in a random order; or a share by role, .5 where none is given.
        persons: share of rows that show a person without gender, in [0, 1).
        train, test: rows of each split.
        size: side of a picture in pixels.
        styles: art styles to draw from.
        kinds: kinds of roles to draw from: 13 activities, 10 gestures, 1 way of resting, 25
            occupations and looks ("role") and 13 sports.
        held_out: share of the pictures of every role and gender that test rows show.
        moved: most a picture is shifted, and shrunk, as a share of its side.
        bins: "none", or "data" for a statistic of each fifth of the roles' shares of women, as the
            train rows' labels give them.
        watched: roles with a statistic of their own.
        seed: of the split, the order of shares and the draws.
        cache: folder that keeps the drawn pictures; None for the one `root` defaults to.

    Raises:
        ValueError: a value out of range, an unknown style, or (on load) an unknown role.
    """

    name: ClassVar[str] = "emoji-roles"
    about: ClassVar[Card] = Card(
        "Emoji roles",
        "drawn from 3,378 pictures of 62 roles; the label is role, gender and skin tone",
        "OpenMoji CC BY-SA 4.0, Twemoji CC BY 4.0, Fluent Emoji MIT",
        "gender and skin tone are design categories of the emoji (man, woman, person; five "
        "Fitzpatrick modifiers or none), not attributes of people",
        "the npm packages openmoji, @twemoji/svg and @lobehub/fluent-emoji-3d, unpacked to "
        "openmoji/, twemoji/ and fluent3d/, with openmoji.json in openmoji/",
    )

    root: Path | str | None = None
    women: float | tuple[float, float] | Mapping[str, float] = 0.5
    persons: float = 0.25
    train: int = 4000
    test: int = 1000
    size: int = 32
    styles: tuple[str, ...] = tuple(STYLES)
    kinds: tuple[str, ...] = KINDS
    held_out: float = 0.25
    moved: float = 0.15
    bins: str = "none"
    watched: tuple[str, ...] = ()
    seed: int = 0
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_choice("bins", self.bins, ("none", "data"))
        for name, known in (("styles", tuple(STYLES)), ("kinds", KINDS)):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; choose from {', '.join(known)}")
            for chosen in getattr(self, name):
                check_choice(name, chosen, known)
        for name, least in (("train", 1), ("test", 1), ("size", 8), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")
        for share in _shares(self.women):
            if (
                isinstance(share, bool)
                or not isinstance(share, (int, float))
                or not 0 <= share <= 1
            ):
                raise ValueError(f"women must hold shares in [0, 1], got {share!r}")
        for name in ("persons", "held_out", "moved"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share in [0, 1), got {getattr(self, name)}")
        if self.held_out == 0:
            raise ValueError("held_out must leave test pictures, got 0; try 0.25")

    @property
    def normalisation(self) -> Normalisation | None:
        """None: the net that writes frames normalises its own pictures."""
        return None

    def load(self) -> GroupedData:
        """Draw every row.

        Raises:
            FileNotFoundError: the sets are not there.
            ImportError: the extra `emoji` is not installed.
        """
        pictures = self._pictures()
        chosen, split = self._draws(pictures)
        cache = data_folder(self.name) / "drawn" if self.cache is None else Path(self.cache)
        pixels = drawn(pictures, self.size, cache.expanduser())
        x = _scenes(torch.from_numpy(pixels), torch.from_numpy(chosen), self.moved, self._rng())
        layout, y = _frames(pictures)
        shown = [pictures[i] for i in chosen.tolist()]
        columns: dict[str, Sequence[int] | Codes] = {
            "kind": [p.kind for p in shown],
            "style": [self.styles.index(p.style) for p in shown],
            "gender": [p.gender for p in shown],
            "skin": [p.skin for p in shown],
            "split": split,
        }
        attributes = (
            Attribute("kind", KINDS),
            Attribute("style", self.styles),
            Attribute("gender", GENDERS),
            Attribute("skin", SKINS),
            Attribute("split", ("train", "test")),
        )
        structure = Structure(1 + layout.max_roles, layout.codes)
        schema = Schema(("other", "man", "woman"), attributes, structure)
        return GroupedData.of(x, y[chosen], columns, schema)

    def structured(self) -> Structured:
        """Frames are read for the gender of their agent."""
        pictures = self._pictures()
        layout, y = _frames(pictures)
        reading = FrameReading(layout, SETS, watched=self.watched, single=False)
        if self.bins == "data":
            chosen, split = self._draws(pictures)
            bins = verb_bins(torch.from_numpy(y[chosen[split == 0]]), reading)
            reading = replace(reading, bins=bins)
        return Structured(reading, FrameLoss, net={"layout": layout, "pixels": MOMENTS})

    def shares(self) -> dict[str, float]:
        """The share of women among men and women that each role is drawn with."""
        pictures = self._pictures()
        roles = sorted({p.role for p in pictures})
        if isinstance(self.women, Mapping):
            for role in self.women:
                if role not in roles:
                    raise ValueError(f"women: no role {role!r}; {nearest(role, roles)}")
            return {role: float(self.women.get(role, 0.5)) for role in roles}
        if isinstance(self.women, (int, float)):
            return dict.fromkeys(roles, float(self.women))
        spaced = np.linspace(self.women[0], self.women[1], len(roles))
        order = self._rng().at("shares").numpy().permutation(len(roles))
        return {role: float(spaced[order[i]]) for i, role in enumerate(roles)}

    def _rng(self) -> Rng:
        return Rng.of(self.seed).at("emoji")

    def _pictures(self) -> list[Emoji]:
        root = find_root(self, self.root, "openmoji/, fluent3d/ and twemoji/")
        if not (root / TABLE).is_file():
            raise FileNotFoundError(
                f"{self.name}: {TABLE} not found at {root}. Pass root= with the folder of the "
                f"three sets. Where they may be found: {self.about.home}"
            )
        kinds = {KINDS.index(kind) for kind in self.kinds}
        return [p for p in _found(root, self.styles) if p.kind in kinds]

    def _draws(self, pictures: Sequence[Emoji]) -> tuple[Codes, Codes]:
        """(N,) picture and split (0 train, 1 test) of every row."""
        rng = self._rng()
        roles = sorted({p.role for p in pictures})
        place = {role: i for i, role in enumerate(roles)}
        cells = np.array([place[p.role] * len(GENDERS) + p.gender for p in pictures])
        order = rng.at("split").numpy().permutation(len(pictures))
        order = order[np.argsort(cells[order], kind="stable")]
        count = np.bincount(cells, minlength=len(roles) * len(GENDERS))
        test = np.minimum(np.ceil(self.held_out * count).astype(np.int64), count - 1).clip(0)
        first = np.cumsum(count) - count
        women = np.array([*self.shares().values()])
        weight = np.stack(
            [
                (1 - self.persons) * (1 - women),
                (1 - self.persons) * women,
                0 * women + self.persons,
            ],
            1,
        )
        weight *= (test > 0).reshape(weight.shape)
        weight /= weight.sum(1, keepdims=True)
        luck = rng.at("rows").numpy().random((self.train + self.test, 3))
        role = (luck[:, 0] * len(roles)).astype(np.int64)
        gender = (weight.cumsum(1)[role] <= luck[:, 1:2]).sum(1).clip(max=len(GENDERS) - 1)
        cell = role * len(GENDERS) + gender
        split = np.repeat([0, 1], [self.train, self.test])
        start = first[cell] + np.where(split == 1, 0, test[cell])
        room = np.where(split == 1, test[cell], count[cell] - test[cell])
        return order[start + (luck[:, 2] * room).astype(np.int64)], split


def _shares(women: Any) -> Sequence[Any]:
    """The numbers in `women`, whichever of its forms it has.

    Raises:
        ValueError: it has none of them.
    """
    if isinstance(women, Mapping):
        return [*women.values()]
    if isinstance(women, (int, float)):
        return [women]
    if isinstance(women, (list, tuple)) and len(women) == 2:
        return women
    raise ValueError(f"women must be a share, two shares or shares by role, got {women!r}")


@lru_cache(maxsize=4)
def _found(root: Path, styles: tuple[str, ...]) -> tuple[Emoji, ...]:
    return tuple(find_emoji(root, styles))


def _frames(pictures: Sequence[Emoji]) -> tuple[Layout, Codes]:
    """The layout of all roles and (P, 3) the frame of every picture."""
    verbs = sorted({p.role for p in pictures})
    place = {verb: v for v, verb in enumerate(verbs)}
    genders: list[set[int]] = [set() for _ in verbs]
    skins: list[set[int]] = [set() for _ in verbs]
    for p in pictures:
        genders[place[p.role]].add(p.gender)
        skins[place[p.role]].add(p.skin)
    orders = [(sorted(g), sorted(s)) for g, s in zip(genders, skins, strict=True)]
    layout = Layout(
        tuple(verbs),
        ((AGENT, SKIN),) * len(verbs),
        tuple((tuple(GENDERS[c] for c in g), tuple(SKINS[c] for c in s)) for g, s in orders),
    )
    codes = [
        (v, orders[v][0].index(p.gender), orders[v][1].index(p.skin))
        for p in pictures
        for v in (place[p.role],)
    ]
    return layout, np.array(codes, dtype=np.int64)


def _scenes(pictures: Tensor, chosen: Tensor, moved: float, rng: Rng) -> Tensor:
    """(N, 3, S, S) uint8: pictures `chosen` (N,) shifted, shrunk, mirrored, on random colours."""
    gen = rng.at("scenes").gen()
    n, size = len(chosen), pictures.shape[-1]
    shift = moved * (2 * torch.rand(n, 2, generator=gen) - 1)
    scale = 1 / (1 - moved * torch.rand(n, generator=gen))
    mirror = 1.0 - 2.0 * (torch.rand(n, generator=gen) < 0.5)
    colour = torch.rand(n, 3, 1, 1, generator=gen) * 255
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale * mirror, scale
    theta[:, :, 2] = shift
    out = torch.empty(n, 3, size, size, dtype=torch.uint8)
    for start in range(0, n, _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = pictures[chosen[rows]].float()
        opacity = part[:, 3:] / 255
        part = torch.cat([part[:, :3] * opacity, opacity], 1)  # colours of clear pixels do not mix
        grid = F.affine_grid(theta[rows], [*part.shape], align_corners=False)
        part = F.grid_sample(part, grid, align_corners=False)
        scene = part[:, :3] + (1 - part[:, 3:]) * colour[rows]
        out[rows] = scene.round().clamp(0, 255).to(torch.uint8)
    return out
