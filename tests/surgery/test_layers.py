"""Which layers may be pruned, which batch norms follow them, and skipped channels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from evenloop.models import build
from evenloop.surgery.layers import followers, masked_batch_norm, prunable


def net(name: str, **options: int) -> nn.Module:
    return build(name, channels=3, size=64, seed=0, **options)


@pytest.mark.parametrize(
    ("name", "classes", "total", "maskable", "layers", "smallest"),
    [
        ("imagenet-resnet34", 7, 21_288_263, 21_258_240, 35, 8192),
        ("mobilenet-v2", 5, 2_230_277, 2_188_896, 51, 288),
        ("resnet56-conv", 100, 861_620, 850_432, 56, 512),
    ],
)
def test_counts_of_the_papers_nets(
    name: str, classes: int, total: int, maskable: int, layers: int, smallest: int
) -> None:
    model = net(name, classes=classes)
    found = prunable(model)
    sizes = [layer.weight.numel() for layer in found.values()]
    assert sum(p.numel() for p in model.parameters()) == total
    assert (sum(sizes), len(sizes), min(sizes)) == (maskable, layers, smallest)
    assert set(found) <= set(followers(model))


def test_patterns_keep_layers_dense() -> None:
    model = net("resnet56-conv", classes=10)
    assert not any(n.startswith("stages.0") for n in prunable(model, ("stages.0.*",)))
    assert len(prunable(model, ())) == 58


def test_a_pattern_without_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'stem\.\*' matches no layer"):
        prunable(net("mobilenet-v2", classes=2), ("stem.*",))


def test_nothing_to_prune_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no layer"):
        prunable(net("logistic", classes=2))


def test_a_batch_norm_that_reads_a_sum_is_left_alone() -> None:
    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False)
            self.bn2, self.conv2 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False)

    with torch.random.fork_rng():
        two = nn.Sequential(PreActivation(), PreActivation())
    assert list(followers(two)) == ["0.conv1", "1.conv1"]


@pytest.mark.parametrize("training", [True, False])
def test_skipped_channels_equal_batch_norm_times_the_mask(training: bool) -> None:
    gen = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm2d(3).train(training)
    norm.bias.data.normal_(generator=gen)
    plain = copy.deepcopy(norm)
    x, active = torch.randn(5, 3, 2, 2, generator=gen), torch.tensor([1.0, 0.0, 1.0])
    got = masked_batch_norm(x, norm, active)
    assert torch.equal(got, plain(x) * active.view(1, 3, 1, 1))
    assert norm.running_mean is not None
    assert plain.running_mean is not None
    assert torch.equal(norm.running_mean, plain.running_mean * active)


def test_batch_norm_without_running_statistics_is_skipped_too() -> None:
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    out = masked_batch_norm(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), norm, torch.tensor([0.0, 1.0]))
    assert out[:, 0].tolist() == [0, 0]
