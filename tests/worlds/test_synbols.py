"""The study's pickle files: read as data, refused as programs."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenloop.worlds.synbols import Synbols, UntrustedPickleError, load_restricted


def split(colours: list[str], letters: str, seed: int = 0, *, pair: bool = False) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (len(colours), 8, 8, 3), dtype=np.uint8)
    rows = [
        {
            "char": letter,
            "color": colour,
            "rotation": float(i) - 1,
            "rotation_attr": np.int64(i % 2),
            "foreground": {"type": "solid", "rgb": np.zeros(3)},
        }
        for i, (letter, colour) in enumerate(zip(letters, colours, strict=True))
    ]
    return (x, rows) if pair else (x, None, rows)


def written(path: Path, *dumps: Any, protocol: int = 4) -> Path:
    with path.open("wb") as file:
        for dump in dumps:
            pickle.dump(dump, file, protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_three_dumps_share_the_codes_of_train(tmp_path: Path, protocol: int) -> None:
    train, test = split(["blue", "green", "red"], "ada"), split(["red", "pink"], "da", 1)
    path = written(tmp_path / "d.pkl", train, test, split(["red"], "d", 2), protocol=protocol)
    data = Synbols(root=path, allow_pickle=True, sensitive=("color", "rotation")).load()
    assert data.schema.classes == ("a", "d")
    assert data.schema.attributes[0].values == ("blue", "green", "red", "pink")
    assert data.attribute("color").tolist() == [0, 1, 2, 2, 3, 2]
    assert data.attribute("rotation").tolist() == [0, 1, 1, 0, 1, 0]
    assert data.attribute("split").tolist() == [0, 0, 0, 1, 1, 2]
    assert torch.equal(data.x[0], torch.from_numpy(train[0][0].transpose(2, 0, 1).copy()))


def test_two_dumps_of_pairs(tmp_path: Path) -> None:
    path = written(
        tmp_path / "d.pkl", split(["blue"], "a", pair=True), split(["red"], "d", pair=True)
    )
    data = Synbols(root=path, allow_pickle=True).load()
    assert data.schema.attributes[-1].values == ("train", "test")
    assert data.schema.attributes[0].values == ("blue", "red")


class _Runs:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_a_program_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "d.pkl", _Runs())
    with pytest.raises(UntrustedPickleError, match="not run"):
        Synbols(root=path, allow_pickle=True).load()
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("value", [print, np.load, _Runs, torch.device("cpu")])
def test_nothing_but_plain_data_is_rebuilt(value: Any) -> None:
    with pytest.raises(UntrustedPickleError):
        load_restricted(io.BytesIO(pickle.dumps(value)))


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, "x", None, b"y"]}, np.arange(6).reshape(2, 3), np.float64(2), ("a",)]
)
def test_plain_data_is_rebuilt(value: Any) -> None:
    assert str(load_restricted(io.BytesIO(pickle.dumps(value)))) == str(value)


def test_without_the_flag_it_is_not_opened(tmp_path: Path) -> None:
    path = written(tmp_path / "d.pkl", _Runs())
    with pytest.raises(ValueError, match="allow_pickle=true"):
        Synbols(root=path).load()


@pytest.mark.parametrize(
    ("dumps", "message"),
    [
        ((), "empty"),
        (([1],), "tuple of 2 or 3"),
        (((np.zeros((2, 8, 8), np.uint8), None, []),), "uint8"),
        (((np.zeros((2, 8, 8, 3), np.uint8), None, [{}]),), "one dict"),
    ],
)
def test_other_structures_are_told(tmp_path: Path, dumps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Synbols(root=written(tmp_path / "d.pkl", *dumps), allow_pickle=True).load()


def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    path = tmp_path / "d.pkl"
    path.write_bytes(b"\x89PNG and so on")
    with pytest.raises(ValueError, match="not a pickle"):
        Synbols(root=path, allow_pickle=True).load()


def test_an_unknown_attribute_names_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path / "d.pkl", split(["blue", "red"], "ad"))
    with pytest.raises(ValueError, match="did you mean 'color'"):
        Synbols(root=path, allow_pickle=True, sensitive=("colour",)).load()
