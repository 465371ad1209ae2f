"""CIFAR-10, CIFAR-100 and CINIC-10 in their official layouts."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from evenloop.worlds.batches import read_binary_batch, read_python_batch
from evenloop.worlds.natural import CIFAR10, CIFAR100, CINIC10
from evenloop.worlds.vocabulary import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_SUPERCLASSES
from worlds.layouts import (
    CINIC_FOLDERS,
    encoded,
    pixels,
    write_cifar10,
    write_cifar100,
    write_cinic,
    write_image,
)


def test_the_vocabularies_are_whole() -> None:
    assert len(CIFAR10_CLASSES) == len(set(CIFAR10_CLASSES)) == 10
    assert len(CIFAR100_CLASSES) == len(set(CIFAR100_CLASSES)) == 100
    assert len(CIFAR100_SUPERCLASSES) == len(set(CIFAR100_SUPERCLASSES)) == 20
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)
    assert list(CIFAR100_SUPERCLASSES) == sorted(CIFAR100_SUPERCLASSES)


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_cifar10_from_official_batches(tmp_path: Path, kind: str) -> None:
    images, labels = write_cifar10(tmp_path, kind)
    source = CIFAR10(tmp_path, allow_pickle=kind == "python")
    data = source.load()
    assert data.x.dtype is torch.uint8
    assert np.array_equal(data.x.numpy(), images)
    assert data.truth.tolist() == labels.tolist()
    assert data.schema.classes == CIFAR10_CLASSES
    assert data.attribute("split").tolist() == [0] * 15 + [1] * 3
    inside = next(tmp_path.iterdir())
    assert len(CIFAR10(inside, split="train", allow_pickle=True).load()) == 15
    assert len(CIFAR10(inside, split="test", allow_pickle=True).load()) == 3


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_cifar100_from_official_files(tmp_path: Path, kind: str) -> None:
    images, coarse, fine = write_cifar100(tmp_path, kind)
    data = CIFAR100(tmp_path, allow_pickle=kind == "python").load()
    assert np.array_equal(data.x.numpy(), images)
    assert data.truth.tolist() == fine.tolist()
    assert data.attribute("superclass").tolist() == coarse.tolist()
    assert [a.name for a in data.schema.attributes] == ["superclass", "split"]
    assert len(CIFAR100(tmp_path, "test", allow_pickle=True).load()) == 4


def test_binary_batches_are_preferred_to_pickles(tmp_path: Path) -> None:
    images, _ = write_cifar10(tmp_path, "binary")
    write_cifar10(tmp_path, "python", rows=1)
    assert np.array_equal(CIFAR10(tmp_path).load().x.numpy(), images)


@pytest.mark.parametrize(("kind", "write"), [(CIFAR10, write_cifar10), (CIFAR100, write_cifar100)])
def test_pickles_need_a_flag(tmp_path: Path, kind: Any, write: Any) -> None:
    write(tmp_path, "python")
    with pytest.raises(ValueError, match=r"Python pickles\. Give allow_pickle=true .* binary"):
        kind(tmp_path).load()


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path, "binary")
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_4\.bin not found .* data get cifar10"):
        CIFAR10(tmp_path).load()
    assert len(CIFAR10(tmp_path, "test").load()) == 3


def test_an_empty_folder_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin or data_batch_1 not found"):
        CIFAR10(tmp_path).load()
    with pytest.raises(FileNotFoundError, match=r"train\.bin or train not found"):
        CIFAR100(tmp_path).load()


def test_a_truncated_binary_batch(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(bytes(3073 * 2))
    assert len(read_binary_batch(path, 1).images) == 2
    for size in (0, 3072, 3073 * 2 - 1):
        path.write_bytes(bytes(size))
        with pytest.raises(ValueError, match=rf"b\.bin has {size} bytes, .* records of 3073"):
            read_binary_batch(path, 1)


def test_a_label_out_of_range(tmp_path: Path) -> None:
    write_cifar10(tmp_path, "binary")
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"holds the label 10 in row 0; the classes are 0\.\.9"):
        CIFAR10(tmp_path).load()


class Attack:
    """What must never run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def batch(**changes: Any) -> dict[bytes, Any]:
    whole = {b"data": pixels(2, 3072), b"labels": [1, 2]}
    return whole | {k.encode(): v for k, v in changes.items()}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_python_batch_of_any_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "b"
    path.write_bytes(pickle.dumps(batch(), protocol=protocol))
    found = read_python_batch(path, ("labels",))
    assert np.array_equal(found.images.reshape(2, -1), pixels(2, 3072))
    assert found.labels[0].tolist() == [1, 2]


def test_a_python_batch_in_fortran_order(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_bytes(pickle.dumps(batch(data=np.asfortranarray(pixels(2, 3072))), protocol=2))
    assert np.array_equal(
        read_python_batch(path, ("labels",)).images.reshape(2, -1), pixels(2, 3072)
    )


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    path, sign = tmp_path / "b", tmp_path / "ran"
    path.write_bytes(pickle.dumps(batch(more=Attack(sign)), protocol=2))
    with pytest.raises(ValueError, match=r"read safely: it asks for \w+\.mkdir, which is refused"):
        read_python_batch(path, ("labels",))
    assert not sign.exists()
    pickle.loads(path.read_bytes())  # noqa: S301  (the attack is real: here it does run)
    assert sign.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(batch(), protocol=2)[:-5], "read safely"),
        (b"", "read safely"),
        (b"not a pickle", "read safely"),
        (pickle.dumps([1, 2]), "holds a list, not a dict"),
        (pickle.dumps({b"data": pixels(2, 3072)}, protocol=2), "no entry 'labels'; it has: data"),
        (pickle.dumps(batch(data=[1]), protocol=2), "'data' is a list"),
        (pickle.dumps(batch(data=pixels(2, 3071)), protocol=2), r"of shape \(N, 3072\)"),
        (pickle.dumps(batch(data=pixels(2, 3072).astype(np.int16)), protocol=2), "unsigned bytes"),
        (pickle.dumps(batch(data=pixels(0, 3072)), protocol=2), "read safely"),
        (pickle.dumps(batch(data=np.array([{}])), protocol=2), "whole images"),
        (pickle.dumps(batch(labels=[1]), protocol=2), "'labels' must be a list of 2 whole"),
        (pickle.dumps(batch(labels=[1, 2.5]), protocol=2), "'labels' must be a list"),
        (pickle.dumps(batch(labels=np.array([1, 2])), protocol=2), "'labels' must be a list"),
    ],
)
def test_a_python_batch_that_holds_something_else(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_python_batch(tmp_path / "b", ("labels",))


def table(tmp_path: Path, **columns: Any) -> Path:
    images = [{"bytes": encoded(i)} for i in pixels(4, 32, 32, 3)]
    frame = {"image": images, "label": [3, 0, 9, 1], "split": ["test", "train", "train", "test"]}
    frame |= columns
    path = tmp_path / "cifar10.parquet"
    pd.DataFrame({k: v for k, v in frame.items() if v is not None}).to_parquet(path)
    return path


def test_cifar10_from_a_table(tmp_path: Path) -> None:
    path = table(tmp_path)
    data = CIFAR10(path).load()
    assert np.array_equal(data.x.numpy(), pixels(4, 32, 32, 3).transpose(0, 3, 1, 2))
    assert data.truth.tolist() == [3, 0, 9, 1]
    assert data.attribute("split").tolist() == [1, 0, 0, 1]
    test = CIFAR10(path, split="test").load()
    assert test.truth.tolist() == [3, 1]
    assert test.schema == data.schema
    assert CIFAR10(table(tmp_path, split=None)).load().schema.attributes == ()


def test_a_table_is_decoded_once_with_a_cache(tmp_path: Path) -> None:
    path = table(tmp_path)
    source = CIFAR10(path, cache=tmp_path / "cache")
    first = source.load()
    assert torch.equal(source.load().x, first.x)
    CIFAR10(path, split="test", cache=tmp_path / "cache").load()
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("columns", "split", "message"),
    [
        ({"label": [3, 0, 10, 1]}, "all", "is 10 in row 2, but the 10 classes are 0..9"),
        ({"split": None}, "test", "has no column 'split'"),
        ({"split": ["train"] * 4}, "test", "has no row whose split is 'test'"),
        ({"split": ["dev"] * 4}, "all", "label 'dev' in row 0"),
        ({"image": [b"no"] * 4}, "all", "image row 0 of .* cannot be read"),
        ({"image": [encoded(i) for i in pixels(4, 8, 8, 3)]}, "all", "are 8 x 8, not 32 x 32"),
    ],
)
def test_a_table_that_does_not_fit(
    tmp_path: Path, columns: dict[str, Any], split: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CIFAR10(table(tmp_path, **columns), split=split).load()


def test_cinic_joins_its_splits_in_their_order(tmp_path: Path) -> None:
    write_cinic(tmp_path)
    data = CINIC10(tmp_path).load()
    assert data.x.shape == (30, 3, 32, 32)
    assert data.truth.tolist() == list(range(10)) * 3
    assert data.attribute("split").tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert data.schema.classes == CIFAR10_CLASSES
    assert np.array_equal(data.x[14].numpy(), pixels(1, 32, 32, 3, seed=14)[0].transpose(2, 0, 1))
    valid = CINIC10(tmp_path, split="valid").load()
    assert torch.equal(valid.x, data.x[10:20])
    assert valid.schema == data.schema


def test_cinic_below_its_own_folder_and_from_the_cache(tmp_path: Path) -> None:
    write_cinic(tmp_path / "CINIC-10")
    source = CINIC10(tmp_path, cache=tmp_path / "cache")
    first = source.load()
    again = source.load()
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.attributes, again.attributes)


def slow_cast_twice(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The fault as it happened: normalise in floats, times 255, as 8-bit integers."""
    mean = np.float32([0.47889522, 0.47227842, 0.43047404]).reshape(3, 1, 1)
    deviation = np.float32([0.24205776, 0.23828046, 0.25874835]).reshape(3, 1, 1)
    stored = torch.from_numpy((x.astype(np.float32) / 255 - mean) / deviation)
    return stored.mul(255).to(torch.int32).remainder(256).to(torch.uint8).numpy()


def test_compat_repeats_the_double_normalisation(tmp_path: Path) -> None:
    write_cinic(tmp_path)
    right = CINIC10(tmp_path).load()
    wrong = CINIC10(tmp_path, compat=True).load()
    assert np.array_equal(wrong.x.numpy(), slow_cast_twice(right.x.numpy()))
    assert CINIC10(tmp_path, compat=True).normalisation == CINIC10(tmp_path).normalisation
    both = np.stack([right.x.numpy().ravel(), wrong.x.numpy().ravel()]).astype(float)
    assert 0.05 < np.corrcoef(both)[0, 1] < 0.12  # .085 on noise


def test_compat_turns_a_ramp_into_a_saw_tooth(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], (32, 32, 3))
    for split in ("train", "valid", "test"):
        for name in CINIC_FOLDERS:
            write_image(tmp_path / split / name / "a.png", ramp)
    row = CINIC10(tmp_path, compat=True).load().x[0, 0, 0].int()
    assert int((row.diff() < 0).sum()) >= 3


def test_cinic_wants_all_splits_and_the_ten_classes(tmp_path: Path) -> None:
    write_cinic(tmp_path)
    os.rename(tmp_path / "valid", tmp_path / "val")
    with pytest.raises(FileNotFoundError, match="has no folder 'valid'"):
        CINIC10(tmp_path).load()
    os.rename(tmp_path / "val", tmp_path / "valid")
    os.rename(tmp_path / "valid" / "dog", tmp_path / "valid" / "hound")
    with pytest.raises(ValueError, match=r"it holds .* hound.* world 'folder'"):
        CINIC10(tmp_path).load()


def test_cinic_pictures_have_one_size(tmp_path: Path) -> None:
    write_cinic(tmp_path)
    for split in ("train", "valid", "test"):
        for name in CINIC_FOLDERS:
            for old in (tmp_path / split / name).iterdir():
                write_image(old, pixels(1, 16, 16, 3)[0])
    with pytest.raises(ValueError, match="are 16 x 16, not 32 x 32"):
        CINIC10(tmp_path).load()
