"""The loaders on the real files, where EVENLOOP_TEST_DATA names a folder that holds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from evenloop.worlds import pixel_moments
from evenloop.worlds.digits import MNIST, FashionMNIST, MNIST5k
from evenloop.worlds.faces import UTKFace
from evenloop.worlds.folder import ImageFolder
from evenloop.worlds.natural import CIFAR10
from evenloop.worlds.tabular import Adult, Compas, GermanCredit

Find = Callable[[str], Path]


def test_mnist(real_data: Find) -> None:
    data = MNIST(real_data("mnist")).load()
    assert data.attribute("split").bincount().tolist() == [60_000, 10_000]
    train = data.x[:60_000]
    assert np.allclose(MNIST().normalisation, pixel_moments(train), atol=1e-4)
    assert data.truth[60_000:].bincount()[:3].tolist() == [980, 1135, 1032]


def test_the_embedded_digits_are_mnist_pictures(real_data: Find) -> None:
    whole = MNIST(real_data("mnist"), split="train").load()
    known = {row.tobytes(): int(y) for row, y in zip(whole.x.numpy(), whole.truth, strict=True)}
    part = MNIST5k().load()
    for row, y in zip(part.x.numpy()[::50], part.truth[::50], strict=True):
        assert known[row.tobytes()] == int(y)


def test_fashion(real_data: Find) -> None:
    data = FashionMNIST(real_data("fashion")).load()
    assert data.truth.bincount().tolist() == [7_000] * 10
    assert np.allclose(FashionMNIST().normalisation, pixel_moments(data.x[:60_000]), atol=1e-4)


def test_cifar10(real_data: Find) -> None:
    data = CIFAR10(real_data("cifar10.parquet"), split="test").load()
    assert data.x.shape == (10_000, 3, 32, 32)
    assert data.truth.bincount().tolist() == [1_000] * 10
    assert np.allclose(CIFAR10().normalisation, pixel_moments(data.x), atol=0.01)


def test_utkface(real_data: Find) -> None:
    data = UTKFace(real_data("utkface.parquet"), resize=32).load()
    assert data.truth.bincount().tolist() == [5265, 405, 1553, 1452, 1103]
    assert data.attribute("gender").bincount().tolist() == [4372, 5406]


def test_portraits_in_folders(real_data: Find) -> None:
    data = ImageFolder(real_data("faces158"), resize=32).load()
    assert data.schema.classes == ("men", "women")
    assert data.x.shape == (158, 3, 32, 32)


def test_adult(real_data: Find) -> None:
    data = Adult(real_data("adult") / "adult").load()
    assert data.truth.bincount().tolist() == [37_155, 11_687]
    assert data.attribute("split").bincount().tolist() == [32_561, 16_281]
    assert data.attribute("sex").bincount().tolist() == [16_192, 32_650]


def test_compas(real_data: Find) -> None:
    data = Compas(real_data("adult") / "compas").load()
    assert data.truth.bincount().tolist() == [3_363, 2_809]
    assert len(Compas(real_data("adult") / "compas", filtered=False).load()) == 7_214


def test_german_credit(real_data: Find) -> None:
    data = GermanCredit(real_data("adult") / "german").load()
    assert data.truth.bincount().tolist() == [700, 300]
    assert data.attribute("sex").bincount().tolist() == [310, 690]
