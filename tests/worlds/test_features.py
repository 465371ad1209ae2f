"""Frozen features: computed once, kept by weights and rows, everything else as it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.models import seeded
from evenloop.worlds.features import efficientnet_lite0, embedded


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


def test_features_replace_inputs_and_nothing_else(tmp_path: Path) -> None:
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


def test_real_weights(real_data) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch")
    (path,) = Path(real_data("effnet")).glob("*.pth")
    made = efficientnet_lite0(path)(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert made.shape == (2, 1280)
