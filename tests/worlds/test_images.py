"""Decoding image files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evenloop.worlds.images import decode, pixel_moments
from worlds.layouts import encoded, pixels, write_image


def saved(image: Image.Image, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_bytes_and_files_keep_every_pixel(tmp_path: Path) -> None:
    images = pixels(3, 5, 7, 3)
    path = write_image(tmp_path / "a.png", images[0])
    out = decode([path, encoded(images[1]), encoded(images[2])], ["a", "b", "c"])
    assert out.dtype == np.uint8
    assert out.flags["C_CONTIGUOUS"]
    assert np.array_equal(out, images.transpose(0, 3, 1, 2))


def test_order_is_kept_over_many_tasks() -> None:
    images = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 2, 2))
    out = decode([encoded(i) for i in images], [str(i) for i in range(200)], gray=True)
    assert np.array_equal(out[:, 0], images)


def test_gray_and_colour_are_converted() -> None:
    gray = encoded(np.full((2, 2), 7, np.uint8))
    assert decode([gray], ["g"]).tolist() == [[[[7, 7], [7, 7]]] * 3]
    red = encoded(np.full((1, 1, 3), (255, 0, 0), np.uint8))
    assert decode([red], ["r"], gray=True).tolist() == [[[[76]]]]  # 0.299 of 255


def test_palette_with_transparency_becomes_its_colours() -> None:
    picture = Image.new("P", (2, 2), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    buffer = io.BytesIO()
    picture.save(buffer, "png", transparency=b"\xff\x00")
    assert decode([buffer.getvalue()], ["p"])[0, :, 0, 0].tolist() == [10, 20, 30]


def test_resize_brings_mixed_sizes_to_one() -> None:
    out = decode([encoded(pixels(1, 4, 6, 3)[0]), encoded(pixels(1, 9, 3, 3)[0])], "ab", resize=5)
    assert out.shape == (2, 3, 5, 5)
    flat = encoded(np.full((8, 8, 3), 99, np.uint8))
    assert (decode([flat], ["f"], resize=3) == 99).all()


def test_a_crop_keeps_the_middle_square_and_all_of_the_shorter_side() -> None:
    ramp = np.broadcast_to(np.arange(6, dtype=np.uint8)[None, :], (2, 6))
    wide, high = encoded(ramp), encoded(ramp.T)
    out = decode([wide, high], ["wide", "high"], resize=2, gray=True, crop=True)
    assert out[0, 0].tolist() == [[2, 3], [2, 3]]
    assert out[1, 0].tolist() == [[2, 2], [3, 3]]
    assert decode([wide], ["wide"], resize=2, gray=True).shape == (1, 1, 2, 2)


def test_mixed_sizes_name_two_files_their_sizes_and_the_fix() -> None:
    items = [encoded(pixels(1, 4, 6, 3)[0]), encoded(pixels(1, 9, 3, 3)[0])]
    with pytest.raises(ValueError, match=r"one\.png is 4 x 6 and two\.png is 9 x 3 .* resize="):
        decode(items, ["one.png", "two.png"])


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "gif", "webp", "tiff", "ppm"])
def test_a_truncated_file_is_named(kind: str) -> None:
    whole = encoded(pixels(1, 32, 32, 3)[0], kind)
    assert decode([whole], ["whole"]).shape == (1, 3, 32, 32)
    for share in (0.0, 0.1, 0.3, 0.6):
        with pytest.raises(ValueError, match=r"image x\.file cannot be read"):
            decode([whole[: int(len(whole) * share)]], ["x.file"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image file .*no\.png does not exist"):
        decode([tmp_path / "no.png"], [str(tmp_path / "no.png")])


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_is_refused(mode: str) -> None:
    deep = saved(Image.new(mode, (2, 2)), "tiff")
    with pytest.raises(ValueError, match="image deep has more than 8 bits"):
        decode([deep], ["deep"])


def test_a_picture_far_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match="image bomb cannot be read"):
        decode([encoded(pixels(1, 8, 8, 3)[0])], ["bomb"])


def test_no_picture_is_an_error() -> None:
    with pytest.raises(ValueError, match="no image"):
        decode([], [])


def test_pixel_moments_are_exact() -> None:
    x = torch.from_numpy(pixels(50, 3, 8, 8))
    mean, deviation = pixel_moments(x)
    scaled = x.double() / 255
    assert mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert deviation == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist(), abs=1e-12)


@pytest.mark.parametrize("x", [torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, dtype=torch.uint8),
                               torch.zeros(0, 3, 4, 4, dtype=torch.uint8)])  # fmt: skip
def test_pixel_moments_want_uint8_images(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="x must be uint8 images"):
        pixel_moments(x)
