"""CIFAR-5m: archives read in pieces."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenloop.worlds import cifar5m
from evenloop.worlds.cifar5m import CIFAR5m
from worlds.layouts import pixels, write_cifar5m


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cache", [False, True])
def test_parts_are_joined_in_order(tmp_path: Path, packed: bool, cache: bool) -> None:
    images, labels = write_cifar5m(tmp_path, packed=packed)
    source = CIFAR5m(tmp_path, cache=tmp_path / "cache" if cache else None)
    for _ in range(2):
        data = source.load()
        assert data.x.dtype is torch.uint8
        assert np.array_equal(data.x.numpy(), images.transpose(0, 3, 1, 2))
        assert data.truth.tolist() == labels.tolist()


def test_pieces_smaller_than_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar5m, "_ROWS", 2)
    images, _ = write_cifar5m(tmp_path, parts=2)
    assert np.array_equal(CIFAR5m(tmp_path, 2).load().x.numpy(), images.transpose(0, 3, 1, 2))


def test_only_the_first_parts_are_read(tmp_path: Path) -> None:
    write_cifar5m(tmp_path, parts=3)
    assert len(CIFAR5m(tmp_path, parts=1).load()) == 5


def test_the_mapped_file_is_used_and_never_written(tmp_path: Path) -> None:
    images, _ = write_cifar5m(tmp_path, parts=1)
    source = CIFAR5m(tmp_path, 1, cache=tmp_path / "cache")
    source.load().x.zero_()
    (kept,) = (tmp_path / "cache").iterdir()
    assert np.array_equal(np.load(kept), images.transpose(0, 3, 1, 2))
    stamp = kept.stat().st_mtime_ns
    source.load()
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("parts", [0, 7, 1.5, True])
def test_parts_out_of_range(parts: Any) -> None:
    assert CIFAR5m(parts=6).parts == 6
    with pytest.raises(ValueError, match=r"parts must be in 1\.\.6"):
        CIFAR5m(parts=parts)


def test_a_missing_part(tmp_path: Path) -> None:
    write_cifar5m(tmp_path, parts=2)
    with pytest.raises(FileNotFoundError, match=r"part2\.npz not found .* data get cifar5m"):
        CIFAR5m(tmp_path).load()


X, Y = pixels(3, 32, 32, 3), np.array([0, 1, 9])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X}, "holds no array 'Y'"),
        ({"Y": Y}, "holds no array 'X'"),
        ({"X": X[:2], "Y": Y}, r"X must be uint8 \(3, 32, 32, 3\)"),
        ({"X": X.astype(np.float32), "Y": Y}, "X must be uint8"),
        ({"X": X.transpose(0, 3, 1, 2), "Y": Y}, "X must be uint8"),
        ({"X": X, "Y": Y.astype(float)}, "Y must be whole numbers"),
        ({"X": X, "Y": Y[:, None]}, "Y must be whole numbers"),
        ({"X": X, "Y": Y + 1}, "holds the label 10 in row 2"),
        ({"X": X, "Y": Y - 1}, "holds the label -1 in row 0"),
        ({"X": X, "Y": np.array([{}, 1, 2], dtype=object)}, "plain array"),
        ({"X": np.asfortranarray(X), "Y": Y}, "plain array in C order"),
        ({"X": X, "Y": np.int64(3)}, "plain array"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "part0.npz", **arrays)
    with pytest.raises(ValueError, match=rf"part0\.npz.*{message}"):
        CIFAR5m(tmp_path, 1).load()


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_archive(tmp_path: Path, packed: bool) -> None:
    write_cifar5m(tmp_path, parts=1, packed=packed)
    path = tmp_path / "part0.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"part0\.npz is truncated or damaged"):
        CIFAR5m(tmp_path, 1).load()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(ValueError, match=r"part0\.npz is truncated or damaged"):
        CIFAR5m(tmp_path, 1).load()


def test_an_array_that_ends_early(tmp_path: Path) -> None:
    write_cifar5m(tmp_path, parts=1)
    path = tmp_path / "part0.npz"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["X.npy"] = members["X.npy"][:-1]
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    with pytest.raises(ValueError, match="X ends early; the file is truncated"):
        CIFAR5m(tmp_path, 1, cache=tmp_path / "cache").load()
    assert not list((tmp_path / "cache").iterdir())
