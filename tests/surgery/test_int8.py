"""Weights on an eight-bit grid."""

from __future__ import annotations

import torch
from torch import nn

from evenloop.models import seeded
from evenloop.surgery.int8 import Int8Weights, round_to_int8


def test_each_channel_has_at_most_255_values_and_keeps_its_largest_and_its_zeros() -> None:
    weight = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
    weight[:, ::7] = 0
    rounded = round_to_int8(weight)
    for before, after in zip(weight, rounded, strict=True):
        assert len(after.unique()) <= 255
        assert torch.allclose(after.abs().max(), before.abs().max())
        assert float((after - before).abs().max()) <= float(before.abs().max()) / 254 + 1e-6
    assert (rounded[:, ::7] == 0).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    assert round_to_int8(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


def test_training_is_left_alone_until_the_end() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), 0)
    before = [p.clone() for p in model.parameters()]
    surgery = Int8Weights()
    surgery.begin(model, 0)
    surgery.apply(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    surgery.finish(model)
    assert torch.equal(model[2].weight, round_to_int8(before[2]))  # type: ignore[index]
    assert torch.equal(model[0].bias, before[1])  # type: ignore[index]
