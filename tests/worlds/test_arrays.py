"""Arrays in memory and in NumPy's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenloop.worlds.arrays import Arrays, from_arrays
from worlds.layouts import pixels


def test_features_become_float32() -> None:
    data = from_arrays(np.arange(6).reshape(3, 2), ["b", "a", "b"], groups={"sex": ["f", "m", "f"]})
    assert data.x.dtype is torch.float32
    assert data.x.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert data.truth.tolist() == [1, 0, 1]
    assert data.attribute("sex").tolist() == [0, 1, 0]


def test_pictures_in_every_shape() -> None:
    x = pixels(2, 4, 5, 3)
    first = from_arrays(torch.from_numpy(x).permute(0, 3, 1, 2), torch.tensor([0, 1]))
    last = from_arrays(x, np.array([0, 1]), channels="last")
    assert torch.equal(first.x, last.x)
    assert np.array_equal(last.x.numpy(), x.transpose(0, 3, 1, 2))
    assert from_arrays(x[..., 0], [0, 1]).x.shape == (2, 1, 4, 5)


def test_other_number_types_need_their_range() -> None:
    x = np.array([[[[0.0, 0.5, 1.0]]]])
    assert from_arrays(x, [0], pixel_range=(0, 1)).x.tolist() == [[[[0, 128, 255]]]]
    assert from_arrays(x, [0], pixel_range=(1, 0)).x.tolist() == [[[[255, 128, 0]]]]
    signed = np.array([[[-1.0, 1.0]]])
    assert from_arrays(signed, [0], pixel_range=(-1, 1)).x.tolist() == [[[[0, 255]]]]
    assert from_arrays(np.array([[[7]]]), [0], pixel_range=(0, 255)).x.tolist() == [[[[7]]]]


def test_missing_group_values_are_unknown() -> None:
    groups = {"age": np.array([1.0, np.nan, 2.0])}
    data = from_arrays(np.zeros((3, 1)), [0, 0, 0], groups=groups)
    assert data.schema.attributes[0].values == ("1", "2", "unknown")
    assert data.attribute("age").tolist() == [0, 2, 1]


def test_one_row_and_named_classes() -> None:
    data = from_arrays(np.zeros((1, 2)), [2], classes=("a", "b", "c"))
    assert data.truth.tolist() == [2]
    assert data.schema.classes == ("a", "b", "c")


def test_read_only_arrays_are_taken() -> None:
    x = np.broadcast_to(np.uint8(3), (2, 1, 2, 2))
    assert from_arrays(x, [0, 1]).x.unique().tolist() == [3]


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((2, 3, 4, 4)), {}, "float64 need pixel_range"),
        (np.zeros((2, 4, 4), np.int64), {}, "int64 need pixel_range"),
        (pixels(2, 4, 4, 3), {}, "got 4 with channels='first'; is it channels=last"),
        (pixels(2, 3, 4, 4), {"channels": "last"}, "is it channels=first"),
        (np.full((2, 1, 1, 1), 2.0), {"pixel_range": (0, 1)}, "2 of 2 pictures .* first in row 0"),
        (np.array([[[0.0]], [[np.nan]]]), {"pixel_range": (0, 1)}, "NaN .* first in row 1"),
        (np.array([[1.0], [np.inf]]), {}, "x holds NaN or infinity, first in row 1"),
        (np.zeros(2), {}, "x must have 2, 3 or 4 axes"),
        (np.zeros((2, 1)), {"pixel_range": (1, 1)}, "pixel_range must be"),
        (np.zeros((2, 1)), {"pixel_range": (0, np.inf)}, "pixel_range must be"),
        (np.zeros((2, 1)), {"channels": "middle"}, "channels is 'middle'"),
        (np.zeros((2, 1)), {"groups": {"sex": [1]}}, r"sex must have shape \(2,\) like x"),
        (np.zeros((3, 1)), {}, r"y must have shape \(3,\)"),
        (np.zeros((2, 1)), {"classes": ("a",)}, r"is 1 in row 1, but the 1 classes are 0\.\.0"),
    ],
)
def test_arrays_that_do_not_fit(x: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_arrays(x, [0, 1], **options)


@pytest.mark.parametrize("folder", [False, True])
def test_saved_arrays(tmp_path: Path, folder: bool) -> None:
    arrays = {"pics": pixels(3, 2, 2, 3), "kind": np.array(["b", "a", "b"]), "sex": [0, 1, 1]}
    path = tmp_path / "saved"
    if folder:
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    else:
        path = path.with_suffix(".npz")
        np.savez(path, **arrays)
    source = Arrays(path, x="pics", y="kind", groups=("sex",), channels="last")
    data = source.load()
    assert data.x.shape == (3, 3, 2, 2)
    assert data.truth.tolist() == [1, 0, 1]
    assert data.attribute("sex").tolist() == [0, 1, 1]
    data.x.zero_()
    assert int(source.load().x.max()) > 0  # the file is never written


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": pixels(2, 3)}, "no array 'y'; there are: x"),
        (
            {"x": pixels(2, 3), "y": np.array([{}, 1], dtype=object)},
            "Object arrays",
        ),
    ],
)
def test_an_archive_that_does_not_fit(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz cannot be used: .*{message}"):
        Arrays(tmp_path / "a.npz").load()


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels(2, 3))
    with pytest.raises(ValueError, match=r"one array without a name; put x\.npy and y\.npy"):
        Arrays(tmp_path / "a.npy").load()
    np.savez(tmp_path / "b.npz", x=pixels(2, 3), y=[0, 1])
    whole = (tmp_path / "b.npz").read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"b\.npz cannot be used"):
            Arrays(tmp_path / "b.npz").load()
    with pytest.raises(FileNotFoundError, match=r"arrays: an \.npz file.*Pass path= with"):
        Arrays(tmp_path / "no.npz").load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no array 'x'; there are: none"):
        Arrays(tmp_path / "empty").load()


def test_parameters_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="channels is 'middle'"):
        Arrays("a.npz", channels="middle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pixel_range must be"):
        Arrays("a.npz", pixel_range=(2, 2))


def test_what_is_wrong_with_arrays_is_told_with_their_path(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((3, 2)), y=np.zeros(2, int))
    with pytest.raises(ValueError, match=r"arrays in .*a\.npz: y must have shape \(3,\) like x"):
        Arrays(path).load()
    np.savez(path, x=np.zeros((3, 2)), y=np.array([0, 1, 0]))
    assert len(Arrays(path).load()) == 3


@pytest.mark.parametrize("shape", [(), (0, 2)])
def test_arrays_without_a_row_are_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="x must hold at least one row, got shape"):
        from_arrays(np.zeros(shape), [])
