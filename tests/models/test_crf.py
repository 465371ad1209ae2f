"""The net that writes frames: its backbones, its rules, and what it leaves alone."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from evenloop.models import build, seeded
from evenloop.models.crf import CRF, crf
from evenloop.models.resnet import FACTORIES
from evenloop.rng import Rng
from evenloop.roles.potentials import log_any
from evenloop.seams import LabelRule, Writes
from roles_kit import SMALL

X = torch.randint(256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def small(**options: object) -> CRF:
    chosen = {"backbone": "small-cnn", "hidden": 16} | options
    net = seeded(lambda: crf(layout=SMALL, channels=3, size=16, **chosen), 1)
    assert isinstance(net, CRF)
    return net


def large(**options: object) -> CRF:
    net = seeded(partial(crf, layout=SMALL, channels=3, size=64, **options), 1)
    assert isinstance(net, CRF)
    return net


def test_it_writes_and_says_what_labels_cost() -> None:
    net = small()
    assert isinstance(net, Writes)
    y = net.write(X, LabelRule(), Rng.of(0))
    assert y.shape == (6, 4)
    spent, units = net.cost(X, y)
    with torch.no_grad():
        want = -log_any(net.eval()(X), y, net.slots)
    torch.testing.assert_close(spent, want)
    assert units.tolist() == [1.0] * 6


@pytest.mark.parametrize("kind", ["argmax", "marginal", "sample"])
def test_a_row_does_not_depend_on_its_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = small()
    rule = LabelRule(kind)  # type: ignore[arg-type]
    whole = net.write(X, rule, Rng.of(3))
    monkeypatch.setattr("evenloop.models.crf._HELD", 2 * len(net.empty))
    assert net.write(X, rule, Rng.of(3)).tolist() == whole.tolist()
    assert net.write(X[:2], rule, Rng.of(3)).tolist() == whole[:2].tolist()


def test_no_rows_give_no_frames() -> None:
    assert small().write(X[:0], LabelRule(), Rng.of(0)).shape == (0, 4)


def test_writing_leaves_training_mode_and_the_global_generator() -> None:
    net = small().train()
    before = torch.get_rng_state()
    net.write(X, LabelRule("sample"), Rng.of(0))
    assert net.training
    assert torch.equal(before, torch.get_rng_state())


def test_samples_depend_on_the_stream_alone() -> None:
    net, rule = small(), LabelRule("sample")
    first = net.write(X, rule, Rng.of(0))
    assert net.write(X, rule, Rng.of(0)).tolist() == first.tolist()
    assert any(net.write(X, rule, Rng.of(s)).tolist() != first.tolist() for s in range(1, 9))


@pytest.mark.parametrize("kind", ["beam", "nucleus"])
def test_rules_for_texts_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"label_rule='{kind}' writes texts"):
        small().write(X, LabelRule(kind), Rng.of(0))  # type: ignore[arg-type]


def test_frames_for_a_given_verb() -> None:
    net = small()
    y = torch.tensor([[v % 3, -1, -1, -1] for v in range(6)])
    assert net.complete(X, y)[:, 0].tolist() == y[:, 0].tolist()
    best = net.write(X, LabelRule(), Rng.of(0))
    assert net.complete(X, best).tolist() == best.tolist()


def test_heads_start_as_published() -> None:
    net = small()
    limit = 2 / math.sqrt(16 + 3)
    assert float(net.verb.weight.detach().abs().max()) <= limit
    assert float(net.verb.weight.detach().abs().max()) > 0.8 * limit


def test_pixels_are_normalised() -> None:
    moments = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    plain, scaled = small(), small(pixels=moments)
    scaled.load_state_dict(
        {
            **plain.state_dict(),
            **{k: v for k, v in scaled.state_dict().items() if k in ("trunk.scale", "trunk.shift")},
        }
    )
    float_x = X.float() / 255
    a = plain.eval()((float_x - 0.5) / 0.25)
    torch.testing.assert_close(scaled.eval()(X).verb, a.verb)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_residual_backbones_read_the_last_maps(backbone: str) -> None:
    net = large(backbone=backbone, hidden=8)
    x = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert net.write(x, LabelRule(), Rng.of(0)).shape == (1, 4)
    wide = 512 if backbone == "resnet18" else 2048
    assert net.trunk.net[3].in_features == wide * 2 * 2


def test_a_backbone_of_101_layers_has_its_blocks() -> None:
    net = build("imagenet-resnet101", channels=3, size=64, classes=1000, seed=0)
    assert sum(p.numel() for p in net.parameters()) == 44_549_160  # as torchvision's


def test_weights_come_from_a_file_or_the_weights_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"channels": 3, "size": 64}
    make = FACTORIES["imagenet-resnet18"]
    donor = seeded(partial(make, **shape, classes=1000, features=None), 9)
    folder = tmp_path / "weights" / "imagenet-resnet18"
    folder.mkdir(parents=True)
    torch.save(donor.state_dict(), folder / "model.pth")
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    for given in (folder / "model.pth", "imagenet"):
        net = large(hidden=4, weights=given)
        assert torch.equal(net.trunk.net[0].net.conv1.weight, donor.conv1.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg16"}, "crf has no backbone 'vgg16'"),
        ({"weights": "x.pth"}, "weights='x.pth' needs a residual backbone"),
        ({"dropout": 1.0}, r"dropout is a share in \[0, 1\), got 1.0"),
        ({"hidden": 0}, "hidden"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_missing_weights_say_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Nothing is downloaded: put the files there"):
        large(weights="imagenet")
    with pytest.raises(FileNotFoundError, match="no file at"):
        large(weights=tmp_path / "none.pth")
