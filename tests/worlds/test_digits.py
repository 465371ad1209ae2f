"""Embedded digits, and MNIST and Fashion-MNIST in their official files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from evenloop.worlds.digits import MNIST, Digits8, FashionMNIST, MNIST5k
from evenloop.worlds.idx import read_idx
from evenloop.worlds.images import pixel_moments
from worlds.layouts import idx, pixels, write_mnist


def test_digits8_agrees_with_scikit_learn() -> None:
    x, y = load_digits(return_X_y=True)
    data = Digits8(form="pixels").load()
    assert np.array_equal(data.x.numpy() * 16, x)
    assert data.truth.tolist() == y.tolist()
    assert data.schema.classes == tuple("0123456789")


def test_digits8_pictures_use_the_whole_range() -> None:
    data = Digits8().load()
    assert data.x.dtype is torch.uint8
    assert data.x.shape == (1797, 1, 8, 8)
    assert (int(data.x.min()), int(data.x.max())) == (0, 255)
    assert data.x.unique().numel() == 17


def test_principal_components_agree_with_scikit_learn_up_to_sign() -> None:
    x, _ = load_digits(return_X_y=True)
    reference = PCA(5, whiten=True).fit_transform(x)
    ours = Digits8(form="pca", components=5).load().x.numpy()
    sign = np.sign((reference * ours).sum(0))
    assert np.allclose(ours, reference * sign, atol=1e-4)
    assert ours.std(0, ddof=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_principal_components_have_one_sign_and_do_not_depend_on_how_many() -> None:
    five = Digits8(form="pca", components=5).load().x
    assert torch.equal(five, Digits8(form="pca", components=5).load().x)
    assert torch.equal(five, Digits8(form="pca", components=61).load().x[:, :5])
    x, _ = load_digits(return_X_y=True)
    loadings = np.linalg.lstsq(five.numpy(), x - x.mean(0), rcond=None)[0]
    assert (loadings[np.arange(5), np.abs(loadings).argmax(1)] > 0).all()


@pytest.mark.parametrize("components", [0, 62, 2.5, True, -1])
def test_components_out_of_range(components: Any) -> None:
    with pytest.raises(ValueError, match=r"components must be in 1\.\.61"):
        Digits8(form="pca", components=components)


@pytest.mark.parametrize("source", [Digits8(), MNIST5k()])
def test_stated_moments_are_those_of_the_pictures(source: Digits8 | MNIST5k) -> None:
    stated: Any = source.normalisation
    found = pixel_moments(source.load().x)
    assert np.allclose(stated, found, atol=0.002)  # MNIST-5k is a sample of MNIST


def test_features_have_no_moments() -> None:
    assert Digits8(form="pca").normalisation is None


def test_mnist5k_is_loaded_once_and_handed_out_as_copies() -> None:
    first = MNIST5k().load()
    first.x.zero_()
    assert int(MNIST5k().load().x.max()) == 255


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_official_files_are_pooled(
    tmp_path: Path, kind: type[MNIST] | type[FashionMNIST], zipped: bool
) -> None:
    write_mnist(tmp_path, train=6, test=4, zipped=zipped)
    data = kind(tmp_path).load()
    assert data.x.shape == (10, 1, 28, 28)
    assert data.x[:, 0, 0, 0].tolist() == [*range(6), *range(4)]
    assert data.truth.tolist() == [*range(6), *range(4)]
    assert data.attribute("split").tolist() == [0] * 6 + [1] * 4
    assert data.schema.attributes[0].values == ("train", "test")
    assert len(kind(tmp_path, "train").load()) == 6
    test = kind(tmp_path, split="test").load()
    assert test.schema == data.schema
    assert test.attribute("split").tolist() == [1] * 4


def test_the_folder_another_library_makes_is_found(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    assert len(MNIST(tmp_path).load()) == 10


def test_one_row_is_enough(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=1, test=1)
    assert len(MNIST(tmp_path, split="test").load()) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert len(MNIST(tmp_path, split="train").load()) == 6
    with pytest.raises(FileNotFoundError, match=r"mnist: t10k-labels-idx1-ubyte or .* not found"):
        MNIST(tmp_path).load()


def test_lengths_must_agree(tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(ValueError, match="train has 5 labels but images 6 x 28 x 28"):
        MNIST(tmp_path).load()


def test_labels_must_be_in_range(tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.full(6, 10, np.uint8)))
    with pytest.raises(ValueError, match=r"holds the label 10 in row 0; the classes are 0\.\.9"):
        MNIST(tmp_path).load()


def test_an_unknown_split() -> None:
    with pytest.raises(ValueError, match="split is 'valid'; there are: all, test, train"):
        MNIST(split="valid")  # type: ignore[arg-type]


WHOLE = idx(pixels(3, 4, 5))


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    for name, raw in (("a", WHOLE), ("b", gzip.compress(WHOLE, mtime=0))):
        (tmp_path / name).write_bytes(raw)
        assert np.array_equal(read_idx(tmp_path / name, 3), pixels(3, 4, 5))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "starts with nothing"),
        (b"\x00\x00\x08\x01" + WHOLE[4:], "starts with 00 00 08 01, but .* 3 axes .* 00 00 08 03"),
        (b"\x00\x00\x0d\x03" + WHOLE[4:], "starts with 00 00 0d 03"),
        (WHOLE[:9], "truncated inside its header"),
        (WHOLE[:-1], r"59 bytes of data, its header says 60 \(3 x 4 x 5\)"),
        (WHOLE + b"x", "61 bytes of data"),
        (gzip.compress(WHOLE, mtime=0)[:-9], "truncated or damaged gzip"),
        (gzip.compress(WHOLE, mtime=0)[:20] + b"\xff" * 30, "truncated or damaged gzip"),
    ],
    ids=["empty", "axes", "type", "header", "short", "long", "cut", "damaged"],
)
def test_a_broken_file_is_named(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "images").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"images .*{message}"):
        read_idx(tmp_path / "images", 3)
