"""Coloured digits, house numbers and CelebA: construction, splits, official layouts."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.worlds.celeba_attributes import CelebAAttributes
from evenloop.worlds.coloured import (
    ColoredMNIST,
    assign,
    assign_like_the_study,
    luma,
    paint,
    shares,
)
from evenloop.worlds.svhn import SVHN, ColoredSVHN


def test_exactly_one_channel_is_painted_and_the_sum_is_the_grey_image():
    grey = torch.randint(0, 256, (50, 7, 7), generator=torch.Generator().manual_seed(0))
    group = torch.arange(50) % 2
    image = paint(grey, group)
    assert image.sum(1).equal(grey)
    assert not image[:, 2].any()
    assert not image[group == 1, 1].any()
    assert not image[group == 0, 0].any()
    assert paint(grey, group, 2).equal(image[:, :2])


def test_paint_of_one_row_and_of_a_batch_without_group_one():
    assert paint(torch.full((1, 1, 2, 2), 3), torch.tensor([0]))[0, 1].tolist() == [[3, 3], [3, 3]]
    assert not paint(torch.ones(4, 2, 2), torch.zeros(4).long())[:, 0].any()


def test_paint_needs_two_or_three_channels():
    with pytest.raises(ValueError, match="2 or 3"):
        paint(torch.zeros(1, 2, 2), torch.tensor([0]), 1)


def test_luma_is_pillows_rule():
    rgb = np.random.Generator(np.random.Philox(1)).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    want = np.asarray(Image.fromarray(rgb).convert("L"))
    got = luma(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0]
    assert got.tolist() == want.tolist()


def test_shares_are_those_of_the_construction():
    digit = np.random.Generator(np.random.Philox(2)).integers(0, 10, 200_000)
    label, group = assign(digit, rng=Rng.of(3))
    want = shares((digit >= 5).mean())
    got = [label.mean(), label[group == 0].mean(), label[group == 1].mean()]
    assert got == pytest.approx(want, abs=0.004)
    assert (label != (digit >= 5)).mean() == pytest.approx(0.05, abs=0.003)


def test_digits_below_the_threshold_can_be_the_positive_class():
    label, _ = assign(np.arange(10), positive="low", noise=0.0, rng=Rng.of(0))
    assert label.tolist() == [1] * 5 + [0] * 5


def test_the_studys_draws_are_two_numbers_per_image():
    legacy = np.random.RandomState(4)
    label, group = [], []
    for digit in (3, 7, 5, 0, 9):
        y = int(digit >= 5) ^ int(legacy.random_sample() < 0.05)
        label.append(y)
        group.append(0 if legacy.random_sample() < (0.3, 0.7)[y] else 1)
    got = assign_like_the_study(np.array([3, 7, 5, 0, 9]), legacy_seed=4)
    assert [a.tolist() for a in got] == [label, group]


@pytest.mark.parametrize("kind", ["balanced", "matched"])
def test_colour_of_the_test_rows(kind):
    data = ColoredMNIST(test_kind=kind).load()
    for split, biased in (("train", True), ("test", kind == "matched")):
        code = ("train", "validation", "test").index(split)
        rows = data.take((data.attribute("split") == code).nonzero().flatten())
        groups = GroupIndex.of(rows, ["color"])
        green, red = groups.mean(rows.truth.double()).tolist()
        assert green - red == pytest.approx(0.4 if biased else 0.0, abs=0.07)
    assert torch.bincount(data.attribute("split")).tolist() == [3000, 1000, 1000]


def test_seed_and_parameters_change_the_rows_and_nothing_else_does():
    a, b, c = (ColoredMNIST(base="digits8", seed=s).load() for s in (0, 0, 1))
    assert a.x.equal(b.x)
    assert not a.truth.equal(c.truth)
    wide = ColoredMNIST(base="digits8", size=16, channels=2).load()
    assert wide.x.shape[1:] == (2, 16, 16)
    assert wide.truth.equal(a.truth)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"base": "nist"}, "base is 'nist'"),
        ({"threshold": 0}, "threshold must be in 1..9"),
        ({"label_noise": 1.5}, "label_noise must be a probability"),
        ({"p_majority_given_1": -0.1}, "p_majority_given_1 must be"),
        ({"test_kind": "other"}, "test_kind is 'other'"),
        ({"channels": 1}, "channels must be 2 or 3"),
        ({"size": 0}, "size must be a positive"),
    ],
)
def test_bad_fields_are_named(change, match):
    with pytest.raises(ValueError, match=match):
        ColoredMNIST(**change)
    assert ColoredMNIST(threshold=9, label_noise=1.0, size=16).channels == 3


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes(), 1))


def test_official_mnist_files_split_after_fifty_thousand(tmp_path):
    for part, n in (("train", 60_000), ("t10k", 30)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", np.zeros((n, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(n) % 10)
    data = ColoredMNIST(base="mnist", root=tmp_path, channels=2).load()
    assert torch.bincount(data.attribute("split")).tolist() == [50_000, 10_000, 30]
    compat = ColoredMNIST(base="mnist", root=tmp_path, channels=2, compat=True).load()
    assert torch.bincount(compat.attribute("split")).tolist() == [50_001, 9_999, 30]


def test_real_mnist_stays_below_200_mb(real_data):
    data = ColoredMNIST(base="mnist", root=real_data("mnist")).load()
    resident = sum(c.numel() * c.element_size() for c in data.columns().values())
    assert len(data) == 70_000
    assert resident < 200e6


def write_svhn(folder: Path, n: int = 12) -> np.ndarray:
    from scipy.io import savemat

    pixels = np.random.Generator(np.random.Philox(0)).integers(0, 256, (32, 32, 3, n))
    for part in ("train", "test"):
        y = (np.arange(n) % 10 + 1)[:, None]
        savemat(folder / f"{part}_32x32.mat", {"X": pixels.astype(np.uint8), "y": y})
    return pixels


def test_svhn_official_layout(tmp_path):
    pixels = write_svhn(tmp_path)
    data = SVHN(tmp_path).load()
    assert data.x.shape == (24, 3, 32, 32)
    assert data.truth[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert data.x[3, 2, 5, 7] == pixels[5, 7, 2, 3]
    coloured = ColoredSVHN(tmp_path, label_noise=0.0).load()
    assert coloured.x.shape == (24, 3, 64, 64)
    assert coloured.truth[:10].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]
    assert torch.bincount(coloured.attribute("split"), minlength=3).tolist() == [12, 0, 12]


def test_svhn_refuses_other_files(tmp_path):
    from scipy.io import savemat

    with pytest.raises(FileNotFoundError, match=r"train_32x32\.mat"):
        SVHN(tmp_path).load()
    savemat(tmp_path / "train_32x32.mat", {"X": np.zeros((32, 32, 3, 2), np.uint8)})
    with pytest.raises(ValueError, match="no variable"):
        SVHN(tmp_path).load()
    (tmp_path / "train_32x32.mat").write_bytes(b"not a file of this kind" * 20)
    with pytest.raises(ValueError, match="no MATLAB file"):
        SVHN(tmp_path).load()
    savemat(tmp_path / "train_32x32.mat", {"X": np.zeros((32, 32, 2)), "y": np.ones((2, 1))})
    with pytest.raises(ValueError, match=r"uint8 \(32, 32, 3, 2\) is wanted"):
        SVHN(tmp_path).load()
    savemat(
        tmp_path / "train_32x32.mat",
        {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [11]])},
    )
    with pytest.raises(ValueError, match=r"y must be 1\.\.10"):
        SVHN(tmp_path).load()


def write_celeba(folder: Path) -> None:
    (folder / "img_align_celeba").mkdir()
    names = [f"{i:06d}.jpg" for i in range(1, 7)]
    for i, name in enumerate(names):
        shade = np.full((218, 178, 3), 40 * i, np.uint8)
        Image.fromarray(shade).save(folder / "img_align_celeba" / name)
    rows = [f"{n} {1 if i % 2 else -1} {1 if i > 2 else -1} -1" for i, n in enumerate(names)]
    text = "\n".join(["6", "Attractive Male Young", *rows])
    (folder / "list_attr_celeba.txt").write_text(text + "\n")
    parts = "\n".join(f"{n} {i // 2}" for i, n in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(parts + "\n")


def test_celeba_official_layout(tmp_path):
    write_celeba(tmp_path)
    data = CelebAAttributes(tmp_path, size=16).load()
    assert data.x.shape == (6, 3, 16, 16)
    assert data.truth.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.attribute("Male").tolist() == [0, 0, 0, 1, 1, 1]
    assert data.attribute("split").tolist() == [0, 0, 1, 1, 2, 2]
    test = CelebAAttributes(
        tmp_path, size=16, split="test", groups=("Male", "Young"), limit=1
    ).load()
    assert len(test) == 1
    assert int(test.x.float().mean()) == 160


def test_celeba_says_what_is_wrong(tmp_path):
    write_celeba(tmp_path)
    with pytest.raises(ValueError, match="did you mean 'Attractive'"):
        CelebAAttributes(tmp_path, target="Atractive").load()
    with pytest.raises(ValueError, match="must all be different"):
        CelebAAttributes(tmp_path, target="Male")
    with pytest.raises(ValueError, match="limit must be at least 1"):
        CelebAAttributes(tmp_path, limit=0)
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(ValueError, match=r"does not name 5 pictures, first 000002\.jpg"):
        CelebAAttributes(tmp_path).load()
