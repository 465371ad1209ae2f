"""Two of every four weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evenloop.models import build
from evenloop.surgery.magnitude import GradualMagnitudePruning
from evenloop.surgery.schedule import Cubic
from evenloop.surgery.semi_structured import is_two_of_four, two_of_four


def slow(weight: Tensor) -> Tensor:
    """The pattern by hand, for a linear layer."""
    mask = torch.ones_like(weight)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], 4):
            block = weight[row, start : start + 4].abs()
            mask[row, start + block.argsort(stable=True)[:2]] = 0
    return mask.bool()


def test_it_is_the_pattern_by_hand() -> None:
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    mask = two_of_four(weight.abs(), 0.5)
    assert torch.equal(mask, slow(weight))
    assert is_two_of_four(weight * mask)
    assert not is_two_of_four(weight)


def test_a_convolution_counts_along_its_input_channels() -> None:
    weight = torch.randn(3, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = two_of_four(weight.abs(), 0.5)
    assert mask.shape == weight.shape
    for place in range(9):
        plain = weight.flatten(2)[:, :, place]
        assert torch.equal(mask.flatten(2)[:, :, place], slow(plain))


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (8, 1, 3, 3), (4, 6), (4,)])
def test_inputs_that_are_no_multiple_of_four_are_left_whole(shape: tuple[int, ...]) -> None:
    weight = torch.ones(shape)
    assert bool(two_of_four(weight, 0.5).all())
    assert not is_two_of_four(weight)


def test_on_the_schedule_masks_are_nested_and_end_in_the_pattern() -> None:
    net = build("mlp", features=16, classes=3, hidden=(32, 8), seed=0)
    surgery = GradualMagnitudePruning(net, Cubic(0.5, 0, 4), scope="2:4")
    gen = torch.Generator().manual_seed(1)
    before = {name: mask.clone() for name, mask in surgery.masks.items()}
    for epoch in range(5):
        density = surgery.update(epoch)
        for name, mask in surgery.masks.items():
            assert bool((mask <= before[name]).all())
            want = 1 - surgery.schedule.sparsity(epoch)
            assert density[name] == pytest.approx(want, abs=1 / mask.numel())
            before[name] = mask.clone()
        with torch.no_grad():  # the survivors move, as in training
            for weight in net.parameters():
                weight.add_(torch.randn(weight.shape, generator=gen) * 0.1)
            surgery.apply(net)
    assert set(surgery.masks) == {"body.0", "body.2"}
    assert all(is_two_of_four(net.get_submodule(name).weight) for name in surgery.masks)  # type: ignore[arg-type]


@pytest.mark.parametrize("sparsity", [0.51, -0.1])
def test_more_than_half_is_refused(sparsity: float) -> None:
    with pytest.raises(ValueError, match="at most half"):
        two_of_four(torch.ones(2, 4), sparsity)


def test_a_schedule_beyond_half_is_refused() -> None:
    with pytest.raises(ValueError, match=r"use 0\.5, or another scope"):
        GradualMagnitudePruning(None, Cubic(0.9), scope="2:4")
