"""Arrays of the user: in memory, in an .npz, or a folder of .npy files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evenloop.data import GroupedData
from evenloop.words import nearest
from evenloop.worlds.base import Card, Normalisation, check_choice, find_root
from evenloop.worlds.columns import code, code_labels
from evenloop.worlds.frames import assemble

__all__ = ["Arrays", "from_arrays"]

CHANNELS = ("first", "last")


@dataclass(frozen=True, slots=True)
class Arrays:
    """Rows from an .npz file, or from a folder with one .npy file per array.

    Attributes:
        path: the file or folder. A large folder's `x.npy` is mapped into memory, not read.
        x: name of the inputs (N, ...), as `from_arrays` takes them.
        y: name of the labels (N,).
        groups: names of the group arrays (N,).
        classes: class names in the order of their codes; by default those found, sorted.
        channels: "first" for pictures (N, C, H, W), "last" for (N, H, W, C).
        pixel_range: what black and white are in pictures that are not uint8, or None.
    """

    name: ClassVar[str] = "arrays"
    about: ClassVar[Card] = Card(
        "Arrays",
        "inputs, labels and group columns saved by NumPy",
        "yours to state",
        "the arrays you name; say how they were obtained",
        "your own disk",
        people=True,
    )

    path: Path | str
    x: str = "x"
    y: str = "y"
    groups: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    channels: Literal["first", "last"] = "first"
    pixel_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_choice("channels", self.channels, CHANNELS)
        _check_range(self.pixel_range)

    @property
    def normalisation(self) -> Normalisation | None:
        """None: measure it on the rows you train on with `images.pixel_moments`."""
        return None

    def load(self) -> GroupedData:
        """Rows in the arrays' order. Raises what `from_arrays` raises, with the path."""
        path = find_root(self, self.path, "an .npz file or a folder of .npy files", "path")
        found = _read(path, (self.x, self.y, *self.groups))
        try:
            return from_arrays(
                found[self.x],
                found[self.y],
                groups={g: found[g] for g in self.groups},
                classes=self.classes,
                channels=self.channels,
                pixel_range=self.pixel_range,
            )
        except ValueError as error:
            raise ValueError(f"arrays in {path}: {error}") from error


def _read(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The named arrays; pickled objects are refused."""
    try:
        if path.is_file():
            # NumPy leaves a damaged archive open unless it is handed the open file
            with path.open("rb") as file:
                kept = np.load(file, allow_pickle=False)
                if isinstance(kept, np.ndarray):
                    raise ValueError(
                        "it holds one array without a name; put x.npy and y.npy in a folder and "
                        "give its path"
                    )
                _need(names, kept.files)
                return {name: kept[name] for name in names}
        _need(names, [p.stem for p in sorted(path.glob("*.npy"))])
        # copy on write: a tensor over it may be written without touching the file
        return {n: np.load(path / f"{n}.npy", mmap_mode="c", allow_pickle=False) for n in names}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"arrays in {path} cannot be used: {error}") from error


def _need(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"no array {name!r}; {nearest(name, known)}")


def from_arrays(
    x: NDArray[Any] | Tensor,
    y: NDArray[Any] | Tensor | Sequence[Any],
    *,
    groups: Mapping[str, NDArray[Any] | Tensor | Sequence[Any]] | None = None,
    classes: Sequence[str] = (),
    channels: str = "first",
    pixel_range: tuple[float, float] | None = None,
) -> GroupedData:
    """Data from arrays in memory.

    Codes are those of these arrays: give rows to train on and rows to audit together, and `take`
    them apart, or name `classes` for both and let every group occur on both sides.

    Args:
        x: features (N, F) of any number type, gray pictures (N, H, W) or pictures with channels.
            Pictures are uint8, or any number type together with `pixel_range`.
        y: (N,) labels, codes or texts.
        groups: name -> (N,) values, whole numbers or texts; missing ones are "unknown".
        classes: class names in the order of their codes; by default those found, sorted.
        channels: "first" for pictures (N, C, H, W), "last" for (N, H, W, C).
        pixel_range: the values of black and white, mapped to 0..255 and rounded.

    >>> data = from_arrays(np.zeros((2, 8, 8, 3), np.uint8), ["cat", "dog"], channels="last")
    >>> data.x.shape, data.schema.classes
    (torch.Size([2, 3, 8, 8]), ('cat', 'dog'))

    Raises:
        ValueError: shapes, lengths, types or values do not fit what is said above.
    """
    import pandas as pd

    check_choice("channels", channels, CHANNELS)
    _check_range(pixel_range)
    inputs = _numpy(x)
    if not inputs.ndim or not len(inputs):
        raise ValueError(f"x must hold at least one row, got shape {inputs.shape}")
    columns = {"y": y, **(groups or {})}
    series = {}
    for name, values in columns.items():
        column = _numpy(values)
        if column.shape != (len(inputs),):
            raise ValueError(f"{name} must have shape ({len(inputs)},) like x, got {column.shape}")
        series[name] = pd.Series(column)
    label = code_labels(series.pop("y"), "y", classes)
    coded = {name: code(column, name) for name, column in series.items()}
    if inputs.ndim == 2:
        return assemble(np.asarray(inputs, np.float32), label, coded)
    return assemble(_pictures(inputs, channels, pixel_range), label, coded)


def _numpy(values: NDArray[Any] | Tensor | Sequence[Any]) -> NDArray[Any]:
    if isinstance(values, Tensor):
        return np.asarray(values.detach().cpu().numpy())
    return np.asarray(values)


def _check_range(pixel_range: tuple[float, float] | None) -> None:
    if pixel_range is None:
        return
    if not np.isfinite(pixel_range).all() or np.ptp(pixel_range) == 0:
        raise ValueError(f"pixel_range must be (black, white), two numbers, got {pixel_range!r}")


def _pictures(
    x: NDArray[Any], channels: str, pixel_range: tuple[float, float] | None
) -> NDArray[np.uint8]:
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim != 4:
        raise ValueError(f"x must have 2, 3 or 4 axes, got shape {x.shape}")
    elif channels == "last":
        x = x.transpose(0, 3, 1, 2)
    if x.shape[1] not in (1, 3):
        raise ValueError(
            f"pictures must have 1 or 3 channels, got {x.shape[1]} with channels={channels!r}; "
            f"is it channels={'last' if channels == 'first' else 'first'}?"
        )
    if pixel_range is None:
        if x.dtype != np.uint8:
            raise ValueError(
                f"pictures of type {x.dtype} need pixel_range=(black, white), for example (0, 1)"
            )
        return x
    black, white = pixel_range
    scaled = (x.astype(np.float64) - black) * (255 / (white - black))
    bad = ~((scaled >= -1e-6) & (scaled <= 255 + 1e-6)).reshape(len(x), -1).all(1)
    if bad.any():
        raise ValueError(
            f"{bad.sum()} of {len(x)} pictures hold pixels that are NaN or outside pixel_range "
            f"{pixel_range}, first in row {bad.argmax()}"
        )
    return np.rint(scaled).clip(0, 255).astype(np.uint8)
