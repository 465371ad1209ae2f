"""Whole channels: masked while training, removed without a change of output."""

from __future__ import annotations

import copy
import importlib.util
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from evenloop.models import build
from evenloop.surgery.schedule import Cubic
from evenloop.surgery.structured import ChannelPruning, shrink, tied_channels

EXAMPLE = torch.zeros(1, 3, 32, 32)
needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("torch_pruning") is None, reason="torch-pruning is not installed"
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def net(name: str = "resnet20") -> nn.Module:
    options = {"width": 0.35, "dropout": 0.0} if name == "mobilenet-v2" else {}
    return build(name, channels=3, size=32, classes=4, seed=0, **options)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 32, 32, generator=gen), torch.randint(4, (8,), generator=gen)


@needs_extra
@pytest.mark.parametrize("name", ["resnet56-conv", "mobilenet-v2", "small-cnn"])
def test_the_smaller_net_computes_the_same_with_half_the_channels(name: str) -> None:
    model, (x, y) = net(name), batch()
    surgery = ChannelPruning(EXAMPLE, Cubic(0.5, 0, 0, initial=0.5))
    surgery.begin(model, 0)
    sgd = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    for _ in range(2):
        sgd.zero_grad()
        cross_entropy(model(x), y).backward()
        sgd.step()
        surgery.apply(model)
    smaller = shrink(model.eval(), EXAMPLE)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, smaller))
    assert after < 0.35 * before
    assert torch.allclose(model(x), smaller(x), atol=1e-4)


@needs_extra
def test_channels_are_nested_and_the_smallest_go() -> None:
    model = net("small-cnn")
    surgery = ChannelPruning(EXAMPLE, Cubic(0.6, 0, 3))
    before: dict[str, torch.Tensor] = {}
    for epoch in range(4):
        surgery.begin(model, epoch)
        for name, kept in surgery.kept.items():
            assert (kept <= before.get(name, torch.ones_like(kept))).all()
            before[name] = kept.clone()
        for parameter in model.parameters():
            parameter.data.add_(0.01)
        surgery.apply(model)
    assert all(0.3 < density <= 0.5 for density in surgery.densities().values())


@needs_extra
def test_layers_to_be_kept_dense_keep_their_channels_and_those_tied_to_them() -> None:
    model = net()
    surgery = ChannelPruning(EXAMPLE, Cubic(0.5, 0, 0, initial=0.5), ("first_conv", "last_linear"))
    surgery.begin(model, 0)
    names = {name for tied in surgery._tied for name in tied.layers}
    assert not names & {"conv1", "stages.0.0.conv2", "head"}
    assert {"stages.0.0.conv1", "stages.2.0.conv1"} <= names
    assert bool(model.get_submodule("conv1").weight.flatten(1).any(1).all())  # type: ignore[operator]


@needs_extra
def test_nothing_left_to_prune_is_said() -> None:
    model = net("small-cnn")
    with pytest.raises(ValueError, match=r"keep_dense .* leaves no"):
        ChannelPruning(EXAMPLE, Cubic(0.5), ("*",)).begin(model, 0)
    convs = tuple(n for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    ChannelPruning(EXAMPLE, Cubic(0.5), convs[1:]).begin(model, 0)


@needs_extra
def test_one_channel_is_always_left() -> None:
    model = net("small-cnn")
    surgery = ChannelPruning(EXAMPLE, Cubic(0.999, 0, 0, initial=0.999))
    surgery.begin(model, 0)
    assert {int(kept.sum()) for kept in surgery.kept.values()} == {1}


@needs_extra
def test_a_dense_net_is_copied_as_it_is() -> None:
    model = net("small-cnn")
    same = shrink(model, EXAMPLE)
    assert [p.shape for p in same.parameters()] == [p.shape for p in model.parameters()]


@needs_extra
def test_kept_channels_cross_a_checkpoint() -> None:
    model = net("small-cnn")
    first = ChannelPruning(EXAMPLE, Cubic(0.5, 0, 2))
    first.begin(model, 1)
    second = ChannelPruning(EXAMPLE, Cubic(0.5, 0, 2))
    second.load_state_dict(first.state_dict())
    other = copy.deepcopy(model)
    second.begin(other, 9)
    assert second.densities() == first.densities()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@needs_extra
def test_a_residual_sum_ties_its_summands() -> None:
    tied = tied_channels(net("resnet20"), EXAMPLE)
    stem = next(t for t in tied if "conv1" in t.layers)
    assert {"stages.0.0.conv2", "stages.0.1.conv2", "stages.0.2.conv2"} <= set(stem.layers)
    assert not any("head" in t.layers for t in tied)


def test_without_the_extra_it_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r"evenloop\[structured\]"):
        tied_channels(net("small-cnn"), EXAMPLE)
