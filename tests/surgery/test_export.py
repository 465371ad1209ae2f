"""Weights in files, and compressed rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from evenloop.models import Pixels, build, seeded
from evenloop.surgery import export
from evenloop.surgery.export import CompressedRows, compress_rows, load_weights, save_weights
from evenloop.surgery.magnitude import GradualMagnitudePruning
from evenloop.surgery.schedule import Cubic

NETS = ("resnet32", "resnet20")  # all that the second has, the first has in the same shape


def pruned() -> nn.Module:
    model = build("mlp", features=64, classes=4, hidden=(256, 256), seed=0)
    GradualMagnitudePruning(model, Cubic(0.95, 0, 0, initial=0.95)).update(0)
    return model


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_file_holds_the_plain_weights(tmp_path: Path, ending: str) -> None:
    model, path = pruned(), tmp_path / f"net.{ending}"
    save_weights(model, path)
    state = load_file(path) if ending == "safetensors" else torch.load(path, weights_only=True)
    assert set(state) == set(model.state_dict())
    fresh = build("mlp", features=64, classes=4, hidden=(256, 256), seed=1)
    fresh.load_state_dict(state)
    x = torch.ones(2, 64)
    assert torch.equal(fresh(x), model(x))


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.safetensors or \.pt"):
        save_weights(pruned(), tmp_path / "net.bin")


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_compressed_rows_compute_the_same(kind: str) -> None:
    gen = torch.Generator().manual_seed(0)
    layer: nn.Linear | nn.Conv2d
    if kind == "linear":
        layer = seeded(lambda: nn.Linear(6, 5), 0)  # type: ignore[assignment]
        x = torch.randn(3, 6, generator=gen)
    else:
        layer = seeded(lambda: nn.Conv2d(6, 5, 1, bias=False), 0)  # type: ignore[assignment]
        x = torch.randn(3, 6, 4, 2, generator=gen)
    layer.weight.data[:, ::2] = 0
    assert torch.allclose(CompressedRows(layer)(x), layer(x), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("quick", [CompressedRows, nn.Linear])
def test_only_sparse_layers_are_tried_and_the_quicker_form_is_kept(
    monkeypatch: pytest.MonkeyPatch, quick: type[nn.Module]
) -> None:
    def timed(module: nn.Module, x: torch.Tensor, calls: int) -> float:
        return 1.0 if isinstance(module, quick) else 2.0

    monkeypatch.setattr(export, "_fastest", timed)
    model, x = pruned(), torch.ones(8, 64)
    faster, measured = compress_rows(model, x)
    assert [layer.name for layer in measured] == ["body.0", "body.2"]
    assert all(layer.density == pytest.approx(0.05, abs=1e-3) for layer in measured)
    assert all(isinstance(faster.get_submodule(layer.name), quick) for layer in measured)
    assert torch.allclose(faster(x), model.eval()(x), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_layers_are_timed_on_what_they_receive() -> None:
    _, measured = compress_rows(pruned(), torch.ones(8, 64), calls=2)
    assert all(layer.dense_ms > 0 and layer.compressed_ms > 0 for layer in measured)


def test_weights_saved_without_the_pixels_layer_fit_behind_it(tmp_path: Path) -> None:
    bare = build("small-cnn", channels=3, size=8, classes=2, seed=1)
    save_weights(bare, tmp_path / "net.pt")
    inside = build("small-cnn", channels=3, size=8, classes=2, seed=2)
    whole = load_weights(Pixels(inside, [0.5] * 3, [0.2] * 3), tmp_path / "net.pt")
    assert torch.equal(next(whole.parameters()), next(bare.parameters()))
    assert float(whole.scale[0]) == pytest.approx(5.0)  # type: ignore[index]


@pytest.mark.parametrize("names", [("classifier", "reference"), ("classifier",)])
def test_the_state_of_a_run_gives_its_dense_net(tmp_path: Path, names: tuple[str, ...]) -> None:
    nets = {
        n: build("mlp", features=8, classes=2, hidden=(4,), seed=i) for i, n in enumerate(names)
    }
    states = {name: net.state_dict() for name, net in nets.items()}
    torch.save({"models": states, "extra": {}}, tmp_path / "models-0.pt")
    fresh = build("mlp", features=8, classes=2, hidden=(4,), seed=9)
    load_weights(fresh, tmp_path / "models-0.pt")
    assert torch.equal(next(fresh.parameters()), next(nets[names[-1]].parameters()))


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_file_of_a_deeper_net_is_refused(tmp_path: Path, ending: str) -> None:
    deep, shallow = (build(n, channels=3, size=32, classes=2, seed=0) for n in NETS)
    shared = set(shallow.state_dict())
    assert shared < set(deep.state_dict())
    save_weights(deep, tmp_path / f"deep.{ending}")
    with pytest.raises(ValueError, match=r"another architecture: stages\.0\.3\.\S+ and \d+ more"):
        load_weights(shallow, tmp_path / f"deep.{ending}")
    load_weights(
        build(NETS[0], channels=3, size=32, classes=2, seed=1), tmp_path / f"deep.{ending}"
    )
