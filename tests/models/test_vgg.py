"""VGG-16 by its parameter counts, its weights from a file, and small nets with dropout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from evenloop.models import build, seeded
from evenloop.models.vgg import VGG16, load_convolutions


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(seed: int = 0) -> VGG16:
    return seeded(lambda: VGG16(3, 2, pool=1, hidden=4), seed)


def test_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        net = VGG16(3, 2)
    assert count(net.features) == 14_714_688
    assert count(net.classifier) + count(net.head) == 119_554_050


def test_pooling_to_two_loses_nothing_at_64_pixels() -> None:
    net = small()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = net.features(x)
        assert maps.shape == (2, 512, 2, 2)
        stretched = torch.nn.AdaptiveAvgPool2d(7)(maps)
    for i in range(7):
        for j in range(7):
            rows = maps[:, :, [i * 2 // 7, -(-(i + 1) * 2 // 7) - 1]]
            cell = rows[..., [j * 2 // 7, -(-(j + 1) * 2 // 7) - 1]].mean((2, 3))
            torch.testing.assert_close(stretched[:, :, i, j], cell)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_convolutions_come_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    donor, net = small(1), small(0)
    path = tmp_path / f"vgg{suffix}"
    tensors = {f"features.{n}": t for n, t in donor.features.state_dict().items()}
    tensors["classifier.0.weight"] = torch.zeros(2, 2)
    torch.save(tensors, path) if suffix == ".pt" else save_file(tensors, path)
    head = net.head.weight.clone()
    load_convolutions(net, path)
    assert torch.equal(net.features[0].weight, donor.features[0].weight)
    assert torch.equal(net.head.weight, head)


def test_a_missing_or_other_file_of_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_convolutions(small(), tmp_path / "none.pt")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"features\.0\.weight"):
        load_convolutions(small(), tmp_path / "bad.pt")


def test_options_and_initial_weights_depend_on_the_seed() -> None:
    options = {"pool": 2, "hidden": 4, "channels": 3, "size": 64, "classes": 2}
    a, b, c = (build("vgg16", seed=s, frozen=s == 1, **options) for s in (0, 0, 1))  # type: ignore[arg-type]
    assert torch.equal(a.head.weight, b.head.weight)  # type: ignore[arg-type, union-attr]
    assert not torch.equal(a.head.weight, c.head.weight)  # type: ignore[arg-type, union-attr]
    assert not any(p.requires_grad for p in c.features.parameters())  # type: ignore[union-attr]
    assert a.head.weight.requires_grad  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="size must be at least 32"):
        build("vgg16", channels=3, size=16, classes=2)


@pytest.mark.parametrize("size", [8, 17, 64])
def test_a_small_cnn_takes_images_of_any_size_and_one_row(size: int) -> None:
    net = build("dropout-cnn", channels=3, size=size, classes=4, seed=0)
    assert net.eval()(torch.zeros(1, 3, size, size)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dropout-cnn", {"channels": 3, "size": 32, "dropout": 1.0}, "dropout must be"),
        ("dropout-mlp", {"features": 3, "dropout": -0.1}, "dropout must be"),
        ("dropout-mlp", {"features": 3, "hidden": ()}, "at least one layer"),
        ("dropout-cnn", {"channels": 3, "size": 4}, "at least 8"),
    ],
)
def test_bad_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, classes=2, **options)  # type: ignore[arg-type]


def test_good_options() -> None:
    assert build("dropout-mlp", features=3, classes=2, dropout=0.0, seed=0).body[2].p == 0.0  # type: ignore[index, union-attr]
