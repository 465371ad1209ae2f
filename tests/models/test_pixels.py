"""Bytes and floats give the same normalised numbers, in the net's own precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evenloop.models import Pixels, build

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def expected(bytes_: torch.Tensor) -> torch.Tensor:
    """The textbook: to [0, 1], minus the mean, over the deviation."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    return (bytes_.double() / 255 - mean) / std


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)


def test_bytes_and_floats_agree_with_the_textbook(photo: torch.Tensor) -> None:
    layer = Pixels(nn.Identity(), MEAN, STD)
    assert layer(photo).dtype == torch.float32
    torch.testing.assert_close(layer(photo).double(), expected(photo), atol=2e-6, rtol=0)
    torch.testing.assert_close(layer(photo.float() / 255), layer(photo))


def test_double_precision_needs_only_double(photo: torch.Tensor) -> None:
    out = Pixels(nn.Identity(), MEAN, STD).double()(photo)
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, expected(photo), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_given_pixels_are_not_changed(photo: torch.Tensor, dtype: torch.dtype) -> None:
    given = photo.to(dtype)
    Pixels(nn.Identity(), MEAN, STD)(given)
    assert torch.equal(given, photo.to(dtype))


def test_the_state_holds_the_normalisation_and_the_head_is_that_of_the_net() -> None:
    net = build("small-cnn", channels=1, size=8, classes=2, seed=0)
    layer = Pixels(net, [0.1], [0.3])
    assert layer.head is net.head
    other = Pixels(build("small-cnn", channels=1, size=8, classes=2, seed=1), [0.5], [0.5])
    other.load_state_dict(layer.state_dict())
    x = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(other.eval()(x), layer.eval()(x))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.5, 0.5], "one number per channel each, got 1 and 2"),
        ([], [], "one number per channel each, got 0 and 0"),
        ([0.5, 0.5], [0.5, 0.0], r"std must be positive, got \[0\.5, 0\.0\]"),
        ([0.5], [float("nan")], "std must be positive"),
    ],
)
def test_bad_statistics_are_refused(mean: list[float], std: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pixels(nn.Identity(), mean, std)
    Pixels(nn.Identity(), [0.5, 0.5], [0.5, 0.5])


def test_other_integers_and_other_channels_are_refused() -> None:
    layer = Pixels(nn.Identity(), [0.0], [1.0])
    with pytest.raises(TypeError, match=r"must be uint8 or floating in \[0, 1\], got torch.int64"):
        layer(torch.ones(1, 1, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"pixels must be \(N, 1, H, W\), got \(1, 3, 2, 2\)"):
        layer(torch.ones(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"pixels must be \(N, 1, H, W\), got \(2, 2\)"):
        layer(torch.ones(2, 2))
    assert layer(torch.ones(1, 1, 2, 2)).shape == (1, 1, 2, 2)
