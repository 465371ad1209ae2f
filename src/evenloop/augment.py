"""Random crops, flips and turns of a whole batch at once, on the batch's device.

One gather moves every pixel of every image, so nothing loops over images and nothing is copied to
the host. Pixels may be bytes or floating; zero padding comes before any normalisation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from evenloop.words import nearest

__all__ = ["augment", "crop_flip", "flip", "flip_turn"]

LEAST_AREA = 0.08
PADDING = 4  # pixels on each side, as usual for 32-pixel images
MOST_TURN = 30.0  # degrees either way, as BaaL's tutorial turns its letters


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of each zero-padded image, mirrored with probability 1/2.

    `images` is (N, C, H, W) of any type; the result has the same shape and type. Both offsets are
    uniform over 0..8, independent of each other, of the flip and between images.

    Raises:
        ValueError: `images` is not four-dimensional.

    >>> batch = torch.ones(2, 3, 32, 32, dtype=torch.uint8)
    >>> crop_flip(batch, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 32, 32])
    """
    _check(images)
    device, count = images.device, len(images)
    offset = torch.randint(
        2 * PADDING + 1, (2, count, 1), generator=generator, device=generator.device
    ).to(device)
    height, width = images.shape[-2:]
    rows = offset[0] + torch.arange(height, device=device)
    columns = offset[1] + _columns(images, generator)
    wide = width + 2 * PADDING
    index = (rows * wide)[:, :, None] + columns[:, None, :]
    return _pick(F.pad(images, (PADDING,) * 4), index)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored with probability 1/2; (N, C, H, W) of any type in and out.

    Raises:
        ValueError: `images` is not four-dimensional.

    >>> flip(torch.tensor([[[[1, 2]]]]), torch.Generator().manual_seed(1)).shape
    torch.Size([1, 1, 1, 2])
    """
    _check(images)
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) * width
    return _pick(images, rows[None, :, None] + _columns(images, generator)[:, None, :])


def flip_turn(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored with probability 1/2, then turned about its centre by up to 30 degrees.

    The angle is uniform; a pixel takes the value of the nearest one, and what comes from outside
    is 0. (N, C, H, W) of any type in and out.

    Raises:
        ValueError: `images` is not four-dimensional.

    >>> flip_turn(torch.ones(2, 3, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    images = flip(images, generator)
    height, width = images.shape[-2:]
    draw = torch.rand(len(images), generator=generator, device=generator.device)
    angle = torch.deg2rad((2 * draw - 1) * MOST_TURN).to(images.device)[:, None, None]
    down = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    right = torch.arange(width, device=images.device)[None, :] - (width - 1) / 2
    row = (angle.cos() * down - angle.sin() * right + (height - 1) / 2).round().long()
    column = (angle.sin() * down + angle.cos() * right + (width - 1) / 2).round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    # one more pixel behind the others, which is 0, stands for all that lies outside
    index = torch.where(inside, row * width + column, height * width)
    flat = F.pad(images.flatten(2), (0, 1))[..., None]
    return _pick(flat, index)


def resized_crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random part of each image, stretched to the whole size, mirrored with probability 1/2.

    The part covers 8 % to 100 % of the area, uniformly, at a ratio of width to height between 3/4
    and 4/3 with a uniform logarithm, as is usual for ImageNet; a side that would not fit is cut to
    the image's. Bilinear; images are (N, C, H, W) of any type, and the result has the same type.

    Raises:
        ValueError: `images` is not four-dimensional.

    >>> resized_crop_flip(torch.ones(2, 3, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    _check(images)
    count, (height, width) = len(images), images.shape[-2:]
    luck = torch.rand(5, count, generator=generator, device=generator.device).to(images.device)
    area = LEAST_AREA + (1 - LEAST_AREA) * luck[0]
    ratio = torch.exp((2 * luck[1] - 1) * math.log(4 / 3)) * height / width
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = images.new_zeros(count, 2, 3, dtype=torch.float32)
    theta[:, 0, 0] = wide * torch.where(luck[4] < 0.5, 1.0, -1.0)
    theta[:, 1, 1] = high
    theta[:, 0, 2] = (2 * luck[2] - 1) * (1 - wide)
    theta[:, 1, 2] = (2 * luck[3] - 1) * (1 - high)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    part = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return part.to(images.dtype) if images.is_floating_point() else part.round().to(images.dtype)


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """`images` after the augmentation `kind`: "none", or one of this module's others by name.

    Raises:
        ValueError: an unknown kind, or images that are not (N, C, H, W).

    >>> augment(torch.zeros(5, 3), "none", torch.Generator()).shape
    torch.Size([5, 3])
    """
    if kind == "none":
        return images
    if kind not in _KINDS:
        raise ValueError(f"augment has no {kind!r}; {nearest(kind, ['none', *_KINDS])}")
    return _KINDS[kind](images, generator)


_KINDS = {
    "flip": flip,
    "crop-flip": crop_flip,
    "flip-turn": flip_turn,
    "resized-crop-flip": resized_crop_flip,
}


def _columns(images: Tensor, generator: torch.Generator) -> Tensor:
    """(N, W) column numbers of each image, half of them backwards."""
    mirrored = torch.randint(2, (len(images), 1), generator=generator, device=generator.device).to(
        images.device
    )
    forwards = torch.arange(images.shape[-1], device=images.device)
    return torch.where(mirrored == 1, forwards.flip(0), forwards)


def _pick(images: Tensor, index: Tensor) -> Tensor:
    """Pixels of `images` at the flat positions `index` (N, H, W), the same in every channel."""
    count, channels = images.shape[:2]
    height, width = index.shape[1:]
    flat = index.flatten(1)[:, None].expand(-1, channels, -1)
    return images.flatten(2).gather(2, flat).view(count, channels, height, width)


def _check(images: Tensor) -> None:
    if images.dim() != 4:
        raise ValueError(
            f"augment needs images (N, C, H, W), got shape {tuple(images.shape)}; "
            "set augment=none for rows of numbers"
        )
