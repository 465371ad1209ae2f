"""Street View House Numbers, plain and coloured (Netzer et al., NIPS 2011 workshop)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.rng import Rng
from evenloop.worlds.base import Card, Normalisation, Source, check_choice, find_file, find_root
from evenloop.worlds.coloured import (
    check_construction,
    coloured_labels,
    luma,
    resampled,
    with_splits,
)
from evenloop.worlds.painted import Painted

__all__ = ["SVHN", "ColoredSVHN"]

HOME = "the SVHN page of Netzer et al.; files train_32x32.mat and test_32x32.mat (format 2)"
TRAIN_ROWS = 52_327
"""Rows the study trains on; the other 20,930 of its 73,257 training images validate."""


def _read(source: Source, root: Path | str | None, part: str) -> tuple[Tensor, NDArray[np.int64]]:
    """(N, 3, 32, 32) uint8 pictures and digits 0..9 of one official file."""
    from scipy.io import loadmat

    folder = find_root(source, root, "a folder with train_32x32.mat and test_32x32.mat")
    path = find_file(source, folder, f"{part}_32x32.mat", f"{source.name}/{part}_32x32.mat")
    try:
        content = loadmat(path, variable_names=["X", "y"])
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        raise ValueError(f"{path} is no MATLAB file that can be read: {error}") from error
    missing = {"X", "y"} - set(content)
    if missing:
        raise ValueError(f"{path} has no variable {sorted(missing)}; SVHN's format 2 has X and y")
    pixels, digit = content["X"], content["y"].reshape(-1).astype(np.int64)
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(digit)):
        raise ValueError(
            f"{path}: X is {pixels.dtype} {pixels.shape}; uint8 (32, 32, 3, {len(digit)}) is wanted"
        )
    if len(digit) and not (digit.min() >= 1 and digit.max() <= 10):
        raise ValueError(f"{path}: y must be 1..10 (10 is the digit 0), got {digit.max()}")
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
    return images, digit % 10


@dataclass(frozen=True, slots=True)
class SVHN:
    """Cropped house numbers: uint8 N x 3 x 32 x 32, attribute "split"; train, then test.

    Attributes:
        root: folder of the two .mat files.
    """

    name: ClassVar[str] = "svhn"
    about: ClassVar[Card] = Card(
        "Street View House Numbers (cropped)",
        "73,257 + 26,032 pictures of 32x32 pixels; the label is the digit",
        "for non-commercial use, as its authors state",
        "none",
        HOME,
    )

    root: Path | str | None = None

    @property
    def normalisation(self) -> Normalisation | None:
        """Moments of the training pictures."""
        return (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)

    def load(self) -> GroupedData:
        """Rows in file order. Raises what `base.find_root` and the reader raise."""
        parts = [_read(self, self.root, part) for part in ("train", "test")]
        split = np.repeat([0, 1], [len(y) for _, y in parts])
        schema = Schema(tuple("0123456789"), (Attribute("split", ("train", "test")),))
        x = torch.cat([x for x, _ in parts])
        return GroupedData.of(x, np.concatenate([y for _, y in parts]), {"split": split}, schema)


@dataclass(frozen=True, slots=True)
class ColoredSVHN:
    """House numbers in red or green: uint8 N x channels x size x size; color, digit, split.

    Label 1 is a digit below `threshold` (the study's code; its comment says the opposite), the
    picture is the luma in one channel, resampled bilinearly without antialiasing. The grey planes
    of 64 pixels take 0.4 GB; pictures are painted when a batch is taken (`Painted`).

    Attributes:
        root: folder of the two .mat files.
        threshold: label 1 is a digit below this, 1..9.
        label_noise: share of labels flipped, in [0, 1].
        p_majority_given_0, p_majority_given_1: chance of green given the noisy label.
        test_kind: colour in the test rows: "balanced" (independent of the label) or "matched".
        channels: 3, or 2 without the channel that is always zero.
        size: side in pixels.
        seed: of noise and colours.
        compat: the study's own draws.
    """

    name: ClassVar[str] = "colored-svhn"
    about: ClassVar[Card] = Card(
        "ColoredSVHN",
        "house numbers in red or green; label 1 is a digit below 5, with 5% of labels flipped",
        "for non-commercial use, as the authors of SVHN state",
        "colour, drawn by us given the noisy label; never a measurement of people",
        HOME,
    )

    root: Path | str | None = None
    threshold: int = 5
    label_noise: float = 0.05
    p_majority_given_0: float = 0.3
    p_majority_given_1: float = 0.7
    test_kind: Literal["balanced", "matched"] = "balanced"
    channels: int = 3
    size: int | None = 64
    seed: int = 0
    compat: bool = False

    def __post_init__(self) -> None:
        check_construction(self)
        check_choice("threshold", str(self.threshold), tuple("123456789"))

    @property
    def normalisation(self) -> Normalisation | None:
        """None is taken off: the study's classifiers see pixels in [0, 1]."""
        return (0.0,) * self.channels, (1.0,) * self.channels

    def load(self) -> GroupedData:
        """Rows in the order train, validation, test (each in file order)."""
        planes, digits, splits = [], [], []
        for part in ("train", "test"):
            rgb, digit = _read(self, self.root, part)
            planes.append(resampled(luma(rgb), self.size))
            digits.append(digit)
            late = np.arange(len(digit)) >= TRAIN_ROWS
            splits.append(np.full(len(digit), 2) if part == "test" else late.astype(np.int64))
        digit, split = np.concatenate(digits), np.concatenate(splits)
        rng = Rng.of(self.seed).at(self.name)
        label, group = coloured_labels(self, digit, split, "low", rng)
        image = Painted(torch.cat(planes), torch.from_numpy(group), self.channels)
        return with_splits(image, label, group, digit, split)
