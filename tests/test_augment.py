"""Batched crop and flip against a loop over images, and the law of its draws."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evenloop.augment import (
    LEAST_AREA,
    MOST_TURN,
    PADDING,
    augment,
    crop_flip,
    flip,
    flip_turn,
    resized_crop_flip,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marked(count: int, channels: int = 3, height: int = 6, width: int = 5) -> Tensor:
    """Images whose pixels are all different and none zero."""
    numbers = torch.arange(1, count * channels * height * width + 1)
    return numbers.view(count, channels, height, width)


def every_crop(image: Tensor, padding: int) -> dict[tuple[int, int, bool], Tensor]:
    """Slow and obvious: all crops of one padded image, plain and mirrored."""
    height, width = image.shape[1:]
    wide = F.pad(image, (padding,) * 4)
    crops = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = wide[:, top : top + height, left : left + width]
            crops[top, left, False], crops[top, left, True] = crop, crop.flip(2)
    return crops


def found(out: Tensor, image: Tensor, padding: int) -> tuple[int, int, bool]:
    crops = every_crop(image, padding)
    return next(key for key, crop in crops.items() if torch.equal(crop, out))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_each_image_becomes_one_of_its_crops(dtype: torch.dtype) -> None:
    images = (marked(40, channels=2, height=6, width=5) % 251 + 1).to(dtype)
    before = images.clone()
    out = crop_flip(images, generator())
    assert out.dtype == dtype
    assert out.shape == images.shape
    assert torch.equal(images, before)
    keys = [found(new, old, PADDING) for new, old in zip(out, images, strict=True)]
    assert len(set(keys)) > 30


def test_flip_mirrors_whole_images_and_moves_nothing_else() -> None:
    images = marked(40)
    out = flip(images, generator())
    mirrored = [found(new, old, 0)[2] for new, old in zip(out, images, strict=True)]
    assert 10 < sum(mirrored) < 30


def test_offsets_and_flips_are_uniform_and_independent() -> None:
    ramp = torch.arange(1, 10).view(1, 1, 3, 3).repeat(20_000, 1, 1, 1)
    images = F.pad(ramp, (PADDING,) * 4)  # no crop loses the ramp: its middle tells the offset
    out = crop_flip(images, generator(3))
    place = (out[:, 0] == 5).flatten(1).int().argmax(1)
    top = place // 11 - 1
    left = place % 11 - 1
    rows = torch.arange(len(out))
    mirrored = out[rows, 0, top + 1, left] == 6
    cell = (top * 9 + left) * 2 + mirrored
    counts = torch.bincount(cell, minlength=162).double()
    expected = 20_000 / 162
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 220, chi_square  # 161 degrees of freedom: the 99.9% point is 221


def test_the_generator_alone_decides() -> None:
    images = marked(8)
    before = torch.get_rng_state()
    first, again, other = (crop_flip(images, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("move", [crop_flip, flip])
def test_one_image_and_none(move: object, count: int) -> None:
    images = marked(count)
    assert callable(move)
    assert move(images, generator()).shape == images.shape


def test_memory_layout_does_not_matter() -> None:
    images = marked(6)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(crop_flip(last, generator()), crop_flip(images, generator()))
    assert torch.equal(flip(images[::2], generator()), flip(images[::2].clone(), generator()))


def test_kinds_by_name() -> None:
    images = marked(8)
    assert augment(images, "none", generator()) is images
    assert torch.equal(augment(images, "flip", generator()), flip(images, generator()))
    assert torch.equal(augment(images, "crop-flip", generator()), crop_flip(images, generator()))
    with pytest.raises(ValueError, match=r"augment has no 'flipp'; did you mean 'flip'\?"):
        augment(images, "flipp", generator())
    with pytest.raises(
        ValueError, match="augment has no 'zzz'; there are: crop-flip, flip, flip-turn"
    ):
        augment(images, "zzz", generator())


@pytest.mark.parametrize("kind", ["flip", "crop-flip", "flip-turn", "resized-crop-flip"])
def test_rows_of_numbers_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"augment needs images \(N, C, H, W\), got shape \(4, 3"):
        augment(torch.ones(4, 3), kind, generator())
    assert augment(torch.ones(4, 3, 1, 1), kind, generator()).shape == (4, 3, 1, 1)


def turned(image: Tensor, degrees: float) -> Tensor:
    """Slow and obvious: every pixel looks up the one it comes from."""
    height, width = image.shape[1:]
    out = torch.zeros_like(image)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for i in range(height):
        for j in range(width):
            down, right = i - (height - 1) / 2, j - (width - 1) / 2
            row = round(c * down - s * right + (height - 1) / 2)
            column = round(s * down + c * right + (width - 1) / 2)
            if 0 <= row < height and 0 <= column < width:
                out[:, i, j] = image[:, row, column]
    return out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_turn_is_the_nearest_pixel_of_a_flipped_image(dtype: torch.dtype) -> None:
    images = (marked(30, channels=2, height=9, width=7) % 251 + 1).to(dtype)
    out, source = flip_turn(images, generator(3)), generator(3)
    flipped = flip(images, source)
    angles = (2 * torch.rand(30, generator=source) - 1) * MOST_TURN
    assert out.dtype == dtype
    for new, old, angle in zip(out, flipped, angles.tolist(), strict=True):
        assert torch.equal(new, turned(old, angle))


def test_turns_are_uniform_up_to_30_degrees() -> None:
    """A bright patch 16 pixels right or left of the centre moves up or down with the turn."""
    images = torch.zeros(4000, 1, 41, 41)
    images[:, 0, 19:22, [3, 4, 5, 35, 36, 37]] = 1
    right = flip_turn(images, generator())[:, 0, :, 24:]
    weight = right.sum(2)
    height = (weight * torch.arange(41)).sum(1) / weight.sum(1) - 20
    angle = (height / 16).clamp(-1, 1).arcsin().rad2deg()
    assert 28 < angle.abs().max() < 32
    assert abs(float(angle.mean())) < 1.5
    for part in (0.25, 0.5, 0.75):
        assert abs(float((angle.abs() <= 30 * part).float().mean()) - part) < 0.05


def test_a_resized_crop_is_a_part_of_the_image() -> None:
    """On a ramp, the values of a crop span as much of it as the part covers of the side."""
    ramp = torch.linspace(0, 1, 64).expand(400, 1, 64, 64)
    seen = resized_crop_flip(ramp, generator())[:, 0, 32]
    wide = (seen.amax(1) - seen.amin(1)).clamp(max=1)
    assert float(wide.min()) > (LEAST_AREA * 3 / 4) ** 0.5 - 0.05
    assert float(wide.max()) > 0.95
    assert 0.4 < float((seen[:, -1] > seen[:, 0]).double().mean()) < 0.6
    centre = (seen.amax(1) + seen.amin(1)) / 2
    assert (centre - wide / 2 > -1e-4).all()
    assert (centre + wide / 2 < 1 + 1e-4).all()


def test_the_area_of_a_resized_crop_is_uniform() -> None:
    rows = torch.linspace(0, 1, 64)[:, None].expand(2000, 1, 64, 64)
    high = resized_crop_flip(rows, generator())[:, 0]
    high = high.amax((1, 2)) - high.amin((1, 2))
    wide = resized_crop_flip(rows.transpose(2, 3), generator())[:, 0]
    wide = wide.amax((1, 2)) - wide.amin((1, 2))
    area = high * wide  # the same draws for both
    assert abs(float(area.mean()) - (1 + LEAST_AREA) / 2) < 0.05
    assert float(area.min()) > LEAST_AREA - 0.03


def test_a_resized_crop_of_bytes_stays_bytes() -> None:
    images = torch.full((3, 3, 9, 7), 200, dtype=torch.uint8)
    cropped = resized_crop_flip(images, generator())
    assert cropped.dtype == torch.uint8
    assert (cropped == 200).all()
