"""Weights on an eight-bit grid."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from evenloop.models import seeded
from evenloop.surgery.int8 import Int8Weights, dynamic_int8, round_rows, round_to_int8


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


def test_rows_are_rounded_as_torch_rounds_each_by_itself() -> None:
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    x[1], x[2], x[3] = x[1].abs(), -x[2].abs(), 0
    rounded = round_rows(x)
    for before, after in zip(x, rounded, strict=True):
        low, high = min(0.0, float(before.min())), max(0.0, float(before.max()))
        scale = max((high - low) / 255, 1e-30)
        theirs = torch.fake_quantize_per_tensor_affine(before, scale, round(-low / scale), 0, 255)
        assert torch.allclose(after, theirs, atol=1e-6)
    assert torch.equal(round_rows(x[1:2]), rounded[1:2])
    assert (rounded[3] == 0).all()


def test_inputs_are_rounded_in_evaluation_alone() -> None:
    plain = seeded(lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), 0)
    rounds = dynamic_int8(dynamic_int8(copy.deepcopy(plain)))
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(rounds.train()(x), plain.train()(x))
    hidden = plain[0](round_rows(x)).relu()  # type: ignore[index]
    expected = plain[2](round_rows(hidden))  # type: ignore[index]
    for net in (rounds, copy.deepcopy(rounds)):
        assert torch.equal(net.eval()(x), expected)
    assert not torch.equal(expected, plain(x))
    assert list(rounds.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("inputs", [False, True])
def test_the_surgery_rounds_inputs_if_asked(inputs: bool) -> None:
    net = seeded(lambda: nn.Sequential(nn.Linear(6, 4)), 0).eval()
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    surgery = Int8Weights(inputs)
    surgery.finish(net)
    weight, bias = net[0].weight, net[0].bias  # type: ignore[index]
    assert torch.equal(net(x), nn.functional.linear(round_rows(x) if inputs else x, weight, bias))
