"""Coloured digits: a binary label with noise, and a colour that goes with it in training.

The construction of Wyllie, Shumailov and Papernot, "Fairness Feedback Loops: Training on Synthetic
Data Amplifies Bias" (FAccT 2024): the label says whether the digit is at least `threshold`, 5% of
labels are flipped, and the colour (the group) is drawn given the noisy label. Labels hold the noise
in training and in evaluation. Colour is a mark we add; it says nothing about people.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.rng import Rng
from evenloop.worlds.base import Card, Normalisation, Source, check_choice, check_size
from evenloop.worlds.digits import MNIST, Digits8, FashionMNIST, MNIST5k
from evenloop.worlds.painted import Painted, paint

__all__ = [
    "ColoredMNIST",
    "assign",
    "assign_like_the_study",
    "darken",
    "luma",
    "paint",
    "replicate",
    "shares",
]

COLOURS = ("green", "red")
BASES = ("mnist5k", "digits8", "mnist", "fashion")
TEST_KINDS = ("balanced", "matched")
Codes = NDArray[np.int64]

_CARD_GROUPS = (
    "colour, drawn by us given the (noisy) label: green with probability p_majority_given_0 or "
    "p_majority_given_1, else red; never a measurement of people"
)


def luma(rgb: Tensor) -> Tensor:
    """(N, H, W) uint8 grey of uint8 (N, 3, H, W), by the integer rule of ITU-R 601-2.

    Pillow's: (19595 R + 38470 G + 7471 B + 2^15) / 2^16, rounded down.
    """
    weight = torch.tensor([19595, 38470, 7471], device=rgb.device)
    total = (rgb.long() * weight[:, None, None]).sum(1)
    return ((total + 0x8000) >> 16).to(torch.uint8)


def darken(rgb: Tensor, factor: float) -> Tensor:
    """uint8 images with every channel multiplied by `factor` in [0, 1] and rounded down."""
    return (rgb.double() * factor).to(torch.uint8)


def replicate(rgb: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 images without colour: the luma in all three channels."""
    return luma(rgb)[:, None].expand(-1, 3, -1, -1).contiguous()


def _labels(digit: Codes, threshold: int, positive: str) -> Codes:
    high = digit >= threshold
    return (high if positive == "high" else ~high).astype(np.int64)


def assign(
    digit: Codes,
    *,
    threshold: int = 5,
    positive: Literal["high", "low"] = "high",
    noise: float = 0.05,
    p_majority: tuple[float, float] = (0.3, 0.7),
    rng: Rng,
) -> tuple[Codes, Codes]:
    """Noisy labels (N,) and groups (N,) of digits (N,).

    Label 1 for digits of at least `threshold` ("high") or below it ("low"), flipped with
    probability `noise`; group 0 (green) with probability `p_majority[label]`, else 1 (red).

    >>> y, a = assign(np.arange(10), noise=0.0, p_majority=(0.0, 1.0), rng=Rng.of(0))
    >>> y.tolist(), a.tolist()
    ([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    """
    flip = rng.at("flip").numpy().random(len(digit)) < noise
    label = _labels(digit, threshold, positive) ^ flip
    green = rng.at("colour").numpy().random(len(digit)) < np.asarray(p_majority)[label]
    return label, 1 - green.astype(np.int64)


def assign_like_the_study(
    digit: Codes,
    *,
    threshold: int = 5,
    positive: str = "high",
    noise: float = 0.05,
    p_majority: tuple[float, float] = (0.3, 0.7),
    legacy_seed: int,
) -> tuple[Codes, Codes]:
    """As `assign`, with the draws of the study's data builder: exact for its seed.

    It takes two numbers per image from NumPy's legacy generator, one for the flip and one for the
    colour, so the stream of a data set is one block of uniform numbers.
    """
    legacy = np.random.RandomState(legacy_seed)
    draw = legacy.random_sample((len(digit), 2))
    label = _labels(digit, threshold, positive) ^ (draw[:, 0] < noise)
    green = draw[:, 1] < np.asarray(p_majority)[label]
    return label, 1 - green.astype(np.int64)


def shares(
    clean: float, *, noise: float = 0.05, p_majority: tuple[float, float] = (0.3, 0.7)
) -> tuple[float, float, float]:
    """P(y=1), P(y=1 | g=0), P(y=1 | g=1) of the construction, from the clean share of label 1.

    >>> [round(p, 3) for p in shares(0.4861)]
    [0.487, 0.689, 0.29]
    """
    one = (1 - noise) * clean + noise * (1 - clean)
    low, high = p_majority
    green = high * one / (high * one + low * (1 - one))
    red = (1 - high) * one / ((1 - high) * one + (1 - low) * (1 - one))
    return one, green, red


@dataclass(frozen=True, slots=True)
class ColoredMNIST:
    """Digits in two colours: uint8 N x channels x H x W; attributes color, digit, split.

    Resident are the grey planes; pictures are painted when a batch is taken (`Painted`).

    Attributes:
        base: "mnist5k" (embedded, 5,000 digits), "digits8" (embedded, 8x8), "mnist" or "fashion"
            (the user's files).
        root: folder of MNIST or Fashion-MNIST; None for the one `evenloop data get` fills.
        threshold: label 1 is a digit (or article code) of at least this, 1..9.
        label_noise: share of labels flipped, in [0, 1].
        p_majority_given_0, p_majority_given_1: chance of green given the noisy label.
        test_kind: colour in the test rows: "balanced" (independent of the label) or "matched" (as
            in training).
        channels: 3, or 2 without the channel that is always zero.
        size: side in pixels that pictures are resampled to (bilinear); None keeps them.
        seed: of noise, colours, and of the split where the base has none.
        compat: the study's own draws and its split after row 50,000 instead of before it.

    Rows keep the order train, validation, test. MNIST and Fashion-MNIST: the first 50,000 training
    images, the other 10,000, and the official test images. Embedded sets: 60%, 20%, 20% at random.

    >>> data = ColoredMNIST(base="digits8").load()
    >>> data.x.shape, [a.name for a in data.schema.attributes]
    (torch.Size([1797, 3, 8, 8]), ['color', 'digit', 'split'])
    """

    name: ClassVar[str] = "colored-mnist"
    about: ClassVar[Card] = Card(
        "ColoredMNIST",
        "digits of MNIST (or its kin) in red or green; label 1 is a digit of at least 5, with 5% "
        "of labels flipped, in training and in evaluation",
        "that of the base set (MNIST: Creative Commons Attribution-ShareAlike 3.0)",
        _CARD_GROUPS,
        "embedded (mnist5k, digits8), or the home page of the base set",
    )

    base: Literal["mnist5k", "digits8", "mnist", "fashion"] = "mnist5k"
    root: Path | str | None = None
    threshold: int = 5
    label_noise: float = 0.05
    p_majority_given_0: float = 0.3
    p_majority_given_1: float = 0.7
    test_kind: Literal["balanced", "matched"] = "balanced"
    channels: int = 3
    size: int | None = None
    seed: int = 0
    compat: bool = False

    def __post_init__(self) -> None:
        check_choice("base", self.base, BASES)
        check_construction(self)
        if not 1 <= self.threshold <= 9:
            raise ValueError(f"threshold must be in 1..9, got {self.threshold}")

    @property
    def normalisation(self) -> Normalisation | None:
        """None is taken off: the study's classifiers see pixels in [0, 1]."""
        return (0.0,) * self.channels, (1.0,) * self.channels

    def load(self) -> GroupedData:
        """Rows in the order train, validation, test.

        Raises:
            FileNotFoundError: the base set's files are not there.
        """
        grey, digit, split = self._base()
        rng = Rng.of(self.seed).at("colored-mnist")
        label, group = coloured_labels(self, digit, split, "high", rng)
        plane = resampled(torch.from_numpy(grey), self.size)
        image = Painted(plane, torch.from_numpy(group), self.channels)
        return with_splits(image, label, group, digit, split)

    def _base(self) -> tuple[NDArray[np.uint8], Codes, Codes]:
        """Grey images (N, H, W), digits and splits (0 train, 1 validation, 2 test)."""
        source: Source
        if self.base in ("mnist", "fashion"):
            source = (MNIST if self.base == "mnist" else FashionMNIST)(self.root)
            data = source.load()
            test = data.attribute("split").numpy() == 1
            first = 50_000 + self.compat
            split = np.where(test, 2, (np.arange(len(data)) >= first).astype(np.int64))
            return data.x[:, 0].numpy(), data.truth.numpy(), split
        source = MNIST5k() if self.base == "mnist5k" else Digits8()
        data = source.load()
        n = len(data)
        order = Rng.of(self.seed).at("colored-mnist", "split").numpy().permutation(n)
        split = np.searchsorted([n * 3 // 5, n * 4 // 5], np.arange(n), side="right")
        return data.x[:, 0].numpy()[order], data.truth.numpy()[order], split


def check_construction(source: Constructed) -> None:
    """Raise `ValueError` unless the fields that coloured sets share are in range."""
    check_choice("test_kind", source.test_kind, TEST_KINDS)
    check_size("size", source.size)
    if source.channels not in (2, 3):
        raise ValueError(f"channels must be 2 or 3, got {source.channels}")
    for name in ("label_noise", "p_majority_given_0", "p_majority_given_1"):
        value = getattr(source, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be a probability in [0, 1], got {value}")


class Constructed(Protocol):
    """The fields that coloured sets share."""

    @property
    def threshold(self) -> int: ...
    @property
    def label_noise(self) -> float: ...
    @property
    def p_majority_given_0(self) -> float: ...
    @property
    def p_majority_given_1(self) -> float: ...
    @property
    def test_kind(self) -> str: ...
    @property
    def channels(self) -> int: ...
    @property
    def size(self) -> int | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def compat(self) -> bool: ...


def coloured_labels(
    source: Constructed, digit: Codes, split: Codes, positive: Literal["high", "low"], rng: Rng
) -> tuple[Codes, Codes]:
    """Labels and groups of all rows; the test rows (split 2) by the source's `test_kind`."""
    label, group = np.empty_like(digit), np.empty_like(digit)
    biased = (source.p_majority_given_0, source.p_majority_given_1)
    for part, test in (("train", False), ("test", True)):
        rows = (split == 2) == test
        odds = (0.5, 0.5) if test and source.test_kind == "balanced" else biased
        if source.compat:
            made = assign_like_the_study(
                digit[rows],
                threshold=source.threshold,
                positive=positive,
                noise=source.label_noise,
                p_majority=odds,
                legacy_seed=source.seed,
            )
        else:
            made = assign(
                digit[rows],
                threshold=source.threshold,
                positive=positive,
                noise=source.label_noise,
                p_majority=odds,
                rng=rng.at(part),
            )
        label[rows], group[rows] = made
    return label, group


def resampled(plane: Tensor, size: int | None, chunk: int = 4096) -> Tensor:
    """(N, size, size) uint8 planes, bilinear without antialiasing, rounded to whole levels."""
    if size is None or plane.shape[1:] == (size, size):
        return plane
    out = plane.new_empty(len(plane), size, size)
    for start in range(0, len(plane), chunk):
        part = plane[start : start + chunk, None].float()
        small = torch.nn.functional.interpolate(part, size=(size, size), mode="bilinear")
        out[start : start + chunk] = small[:, 0].round().to(torch.uint8)
    return out


def with_splits(
    image: Tensor, label: Codes, group: Codes, digit: Codes, split: Codes
) -> GroupedData:
    """The rows with their three attributes."""
    names = (
        Attribute("color", COLOURS),
        Attribute("digit", tuple(map(str, range(10)))),
        Attribute("split", ("train", "validation", "test")),
    )
    codes = {"color": group, "digit": digit, "split": split}
    return GroupedData.of(image, label, codes, Schema(("0", "1"), names))
