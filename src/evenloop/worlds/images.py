"""Image files to one uint8 array, once, when a world is loaded."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenloop.worlds.base import Normalisation

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["SUFFIXES", "decode", "pixel_moments"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".webp"})

_CHUNK = 64  # images per task: small images cost less than the task around them
_THREADS = 8


def decode(
    items: Sequence[bytes | Path],
    names: Sequence[str],
    *,
    resize: int | None = None,
    gray: bool = False,
    crop: bool = False,
) -> NDArray[np.uint8]:
    """All images as uint8 (N, C, H, W), C = 1 if `gray` else 3.

    Transparency is dropped and a rotation noted in a photo's metadata is not applied.

    Args:
        items: encoded images, or paths of their files.
        names: what to call each in an error.
        resize: side of the square every image is stretched to (bilinear, antialiased), or None.
        gray: one channel by ITU-R 601 luma instead of red, green and blue.
        crop: bring the shorter side to `resize` and keep the square in the middle, not stretch.

    Raises:
        ValueError: there is no image, one cannot be read or has more than 8 bits a channel, or two
            sizes differ and `resize` is None.
    """
    if not items:
        raise ValueError("there is no image to read")
    first = _one(items[0], names[0], resize, gray, crop)
    out = np.empty((len(items), *first.shape), np.uint8)

    def fill(start: int) -> None:
        for i in range(start, min(start + _CHUNK, len(items))):
            pixels = _one(items[i], names[i], resize, gray, crop)
            if pixels.shape != first.shape:
                raise ValueError(
                    f"images differ in size: {names[0]} is {_size(first)} and {names[i]} is "
                    f"{_size(pixels)} (height x width); give resize= to bring all to one size"
                )
            out[i] = pixels

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(0, len(items), _CHUNK)):
            pass
    return out


def _size(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[2]}"


def _one(
    item: bytes | Path, name: str, resize: int | None, gray: bool, crop: bool
) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
            image.load()
            pixels = _pixels(image, name, resize, gray, crop)
    except FileNotFoundError as error:
        raise ValueError(f"image file {name} does not exist") from error
    except (OSError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"image {name} cannot be read: {error}") from error
    return pixels.transpose(2, 0, 1)


def _pixels(
    image: Picture, name: str, resize: int | None, gray: bool, crop: bool
) -> NDArray[np.uint8]:
    """The picture as (H, W, C)."""
    from PIL.Image import Resampling

    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(
            f"image {name} has more than 8 bits a channel (mode {image.mode}); convert it first"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert("L" if gray else "RGB")
    if resize is not None and crop:
        image = _middle(image, resize)
    elif resize is not None and image.size != (resize, resize):
        image = image.resize((resize, resize), Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[:, :, None] if gray else pixels


def _middle(image: Picture, side: int) -> Picture:
    """The square in the middle of the picture whose shorter side was brought to `side`."""
    from PIL.Image import Resampling

    short = min(image.size)
    wide, high = (side if s == short else int(side * s / short) for s in image.size)
    if (wide, high) != image.size:
        image = image.resize((wide, high), Resampling.BILINEAR)
    left, top = round((wide - side) / 2), round((high - side) / 2)
    return image.crop((left, top, left + side, top + side))


def pixel_moments(x: Tensor) -> Normalisation:
    """Mean and standard deviation of every channel of uint8 images (N, C, H, W), in [0, 1].

    Take them from the rows that are trained on, never from the audit split.

    >>> pixel_moments(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    ((0.5,), (0.5,))

    Raises:
        ValueError: `x` is not uint8 with four axes, or is empty.
    """
    if x.dtype is not torch.uint8 or x.ndim != 4 or x.numel() == 0:
        raise ValueError(
            f"x must be uint8 images (N, C, H, W), N > 0; got {x.dtype} {tuple(x.shape)}"
        )
    level = torch.arange(256, dtype=torch.float64, device=x.device) / 255
    means, deviations = [], []
    for channel in x.unbind(1):  # exact: 256 integer counts instead of a sum of rounded pixels
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = (share * level).sum()
        means.append(float(mean))
        deviations.append(float((share * (level - mean) ** 2).sum().sqrt()))
    return tuple(means), tuple(deviations)
