"""MobileNetV2: shapes, widths, borders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from evenloop.models import build


@pytest.mark.parametrize(("width", "size"), [(1.0, 64), (0.35, 32), (0.5, 48)])
def test_logits_have_the_shape_of_the_classes(width: float, size: int) -> None:
    net = build("mobilenet-v2", channels=3, size=size, classes=7, width=width, seed=0).eval()
    x = torch.zeros(2, 3, size, size)
    assert net(x).shape == (2, 7)


def test_channels_are_multiples_of_eight() -> None:
    net = build("mobilenet-v2", channels=1, size=32, classes=2, width=0.35, seed=0)
    outputs = [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(n % 8 == 0 for n in outputs)
    assert len(outputs) == 52


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0.0}, "width must be finite and positive"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"size": 16}, "at least 32 pixels"),
        ({"size": None}, "reads images"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    shape: dict[str, Any] = {"channels": 3, "size": 32, "classes": 2, "seed": 0}
    with pytest.raises(ValueError, match=message):
        build("mobilenet-v2", **(shape | wrong))
