"""The published nets: parameter counts, forwards, and weights from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evenloop.models import build
from evenloop.models.resnet import load_weights
from evenloop.models.small_cnn import halved

COUNTS = [
    ("baidunet9", 3, 32, 10, 2_440_256),
    ("resnet18", 3, 32, 10, 11_173_962),
    ("resnet20", 3, 32, 2, 269_202),
    ("resnet32", 3, 32, 2, 463_634),
    ("resnet44", 3, 32, 2, 658_066),
    ("resnet56", 3, 32, 2, 852_498),
    ("resnet110", 3, 32, 2, 1_727_442),
    ("resnet56-conv", 3, 32, 100, 861_620),
    ("imagenet-resnet18", 3, 224, 1000, 11_689_512),
    ("imagenet-resnet34", 3, 224, 7, 21_288_263),
    ("imagenet-resnet50", 3, 224, 1000, 25_557_032),
    ("simple-cnn", 3, 28, 2, 44_046),
    ("lenet", 3, 32, 2, 61_326),
    ("small-cnn", 1, 28, 10, 11_074),
    ("mlp", 1, 28, 10, 50_890),
    ("logistic", 1, 28, 10, 7_850),
]


@pytest.mark.parametrize(("name", "channels", "size", "classes", "count"), COUNTS)
def test_parameter_count(name: str, channels: int, size: int, classes: int, count: int) -> None:
    with torch.device("meta"):  # counting needs no memory and no random number
        net = build(name, channels=channels, size=size, classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count


def test_baidunet_is_a_fifth_of_its_head_and_nonnegative_before_it() -> None:
    net = build("baidunet9", channels=3, size=32, classes=10, seed=0).eval()
    given: list[torch.Tensor] = []
    made: list[torch.Tensor] = []

    def note(layer: nn.Module, x: tuple[torch.Tensor], out: torch.Tensor) -> None:
        given.append(x[0])
        made.append(out)

    net.head.register_forward_hook(note)
    logits = net(torch.ones(2, 3, 32, 32))
    torch.testing.assert_close(logits, made[0] * 0.2)
    assert net.head.bias is None
    assert given[0].min() >= 0


def test_option_a_subsamples_and_pads_on_both_sides() -> None:
    block = build("resnet20", channels=3, size=8, classes=2, seed=0).stages[1][0]
    x = torch.arange(16 * 4 * 4, dtype=torch.float32).view(1, 16, 4, 4)
    short = block.shortcut(x)
    assert short.shape == (1, 32, 2, 2)
    assert torch.equal(short[:, 8:24], x[:, :, ::2, ::2])
    assert not short[:, :8].any()
    assert not short[:, 24:].any()


def test_the_cifar_family_starts_kaiming_normal() -> None:
    net = build("resnet20", channels=3, size=32, classes=2, seed=0)
    weight = net.stages[2][1].conv1.weight.detach()
    assert abs(float(weight.std(correction=0)) / (2 / (64 * 9)) ** 0.5 - 1) < 0.02
    assert abs(float(net.head.weight.detach().std(correction=0)) / (2 / 64) ** 0.5 - 1) < 0.2


def test_channels_last_gives_the_same_numbers() -> None:
    net = build("resnet20", channels=3, size=16, classes=2, seed=0).eval()
    x = torch.linspace(-1, 1, 2 * 3 * 256).view(2, 3, 16, 16)
    with torch.inference_mode():
        plain = net(x)
        last = net.to(memory_format=torch.channels_last)(x)
    torch.testing.assert_close(last, plain)


def imagenet(classes: int, seed: int) -> nn.Module:
    return build("imagenet-resnet18", channels=3, size=64, classes=classes, seed=seed)


def common_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names as torchvision writes them."""
    out = {}
    for name, value in state.items():
        for stage in range(4):
            name = name.replace(f"stages.{stage}.", f"layer{stage + 1}.")
        out[name.replace("shortcut", "downsample").replace("head", "fc")] = value
    return out


@pytest.mark.parametrize("form", ["torch", "safetensors", "own names", "no counters"])
def test_weights_come_from_the_users_file(tmp_path: Path, form: str) -> None:
    donor = imagenet(5, seed=1)
    state = donor.state_dict() if form == "own names" else common_names(donor.state_dict())
    if form == "no counters":
        state = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    net = build("imagenet-resnet18", channels=3, size=64, classes=5, weights=path, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), donor.parameters(), strict=True))


def test_a_head_for_other_classes_is_left_as_it_was(tmp_path: Path) -> None:
    donor, net, before = imagenet(5, seed=1), imagenet(3, seed=2), imagenet(3, seed=2)
    torch.save(common_names(donor.state_dict()), tmp_path / "w.pth")
    load_weights(net, tmp_path / "w.pth")
    assert torch.equal(net.head.weight, before.head.weight)
    assert torch.equal(net.conv1.weight, donor.conv1.weight)


def test_a_file_of_another_net_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    small = build("resnet20", channels=3, size=32, classes=5, seed=0)
    torch.save(small.state_dict(), path)
    with pytest.raises(ValueError, match=r"does not fit: conv1\.weight should have shape \(64, 3"):
        load_weights(imagenet(5, seed=0), path)
    torch.save(imagenet(5, seed=0).state_dict() | {"spare": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="does not fit: the net has no spare"):
        load_weights(imagenet(5, seed=0), path)
    torch.save({}, path)
    with pytest.raises(ValueError, match=r"conv1\.weight should .* the file has nothing"):
        load_weights(imagenet(5, seed=0), path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file at .*none\.pth"):
        load_weights(imagenet(5, seed=0), tmp_path / "none.pth")


def test_halving_without_gradient_is_max_pooling() -> None:
    x = torch.randn(3, 5, 9, 12, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, 1] = float("nan")
    want = torch.nn.functional.max_pool2d(x, 2)
    assert want.isnan().sum() == 1
    torch.testing.assert_close(halved(x), want, rtol=0, atol=0, equal_nan=True)
    taught = halved(x.clone().requires_grad_())
    torch.testing.assert_close(taught.detach(), want, rtol=0, atol=0, equal_nan=True)
