"""Cards, files that are not there, and the cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.worlds.base import (
    Card,
    Normalisation,
    cached,
    check_choice,
    check_size,
    find_file,
    find_root,
    key_of,
    whole_file,
)


@dataclass(frozen=True, slots=True)
class Toy:
    """A source with one parameter."""

    name: ClassVar[str] = "toy"
    about: ClassVar[Card] = Card("Toy", "rows", "CC0", "none", "the toy shop")

    size: int = 3
    cache: Path | str | None = None

    @property
    def normalisation(self) -> Normalisation | None:
        return None

    def load(self) -> GroupedData:
        schema = Schema(("a", "b"), (Attribute("sex", ("f", "m")),))
        x = torch.arange(self.size * 4, dtype=torch.uint8).reshape(self.size, 1, 2, 2)
        return GroupedData.of(x, [0] * self.size, {"sex": [1] * self.size}, schema)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A source that `evenloop data get` knows."""

    name: ClassVar[str] = "mnist"
    about: ClassVar[Card] = Card("M", "rows", "CC0", "none", "its home page")

    @property
    def normalisation(self) -> Normalisation | None:
        return None

    def load(self) -> GroupedData:
        return Toy().load()


def test_a_root_that_exists_is_found(tmp_path: Path) -> None:
    assert find_root(Toy(), tmp_path, "files") == tmp_path


def test_without_root_the_folder_of_the_downloads_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    (tmp_path / "toy").mkdir()
    assert find_root(Toy(), None, "files") == tmp_path / "toy"


def test_a_missing_root_says_what_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        find_root(Toy(), tmp_path / "no", "two files")
    text = str(missing.value)
    assert "toy: two files not found at" in text
    assert str(tmp_path / "no") in text
    assert "Pass root=" in text
    assert "the toy shop" in text
    assert "data get" not in text


def test_a_missing_root_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Run `evenloop data get mnist`, or pass root="):
        find_root(Fetched(), tmp_path / "no", "files")


def test_the_first_file_that_exists_is_found(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    assert find_file(Toy(), tmp_path, "a", "b") == tmp_path / "b"
    with pytest.raises(FileNotFoundError, match="c or d not found"):
        find_file(Toy(), tmp_path, "c", "d")


def test_choices_and_sizes() -> None:
    check_choice("split", "train", ("train", "test"))
    check_size("resize", None)
    check_size("resize", 1)
    with pytest.raises(ValueError, match="split is 'trian'; did you mean 'train'"):
        check_choice("split", "trian", ("train", "test"))
    for bad in (0, -3, True, 1.5):
        with pytest.raises(ValueError, match="resize must be a positive number"):
            check_size("resize", bad)  # type: ignore[arg-type]


def test_the_cache_keeps_every_column_and_is_read_the_second_time(tmp_path: Path) -> None:
    made = []

    def make() -> GroupedData:
        made.append(1)
        return Toy().load()

    first = cached(Toy(), tmp_path / "deep", [], make)
    second = cached(Toy(), tmp_path / "deep", [], make)
    assert len(made) == 1
    assert second.schema == first.schema
    for name, column in first.columns().items():
        assert torch.equal(column, second.columns()[name]), name
        assert column.dtype is second.columns()[name].dtype
    assert [p.suffix for p in (tmp_path / "deep").iterdir()] == [".npz"]


def test_without_a_cache_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cached(Toy(), None, [], Toy().load)
    assert list(tmp_path.iterdir()) == []


def test_the_key_holds_parameters_and_file_stamps_but_not_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"12")
    os.utime(file, ns=(1, 1))
    key = key_of(Toy(), [file])
    assert key == key_of(Toy(cache="elsewhere"), [file])
    assert key != key_of(Toy(size=4), [file])
    assert key != key_of(Toy(), [])
    os.utime(file, ns=(1, 2))
    assert key != key_of(Toy(), [file])
    file.write_bytes(b"123")
    os.utime(file, ns=(1, 1))
    assert key != key_of(Toy(), [file])


def test_a_damaged_cache_names_its_file(tmp_path: Path) -> None:
    cached(Toy(), tmp_path, [], Toy().load)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=rf"{path.name} is damaged .*; delete it"):
        cached(Toy(), tmp_path, [], Toy().load)


def test_a_file_half_written_leaves_no_trace(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_file(tmp_path / "a.bin") as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with whole_file(tmp_path / "a.bin") as file:
        file.write(b"whole")
    assert (tmp_path / "a.bin").read_bytes() == b"whole"


def test_pickled_objects_are_refused_in_a_cache(tmp_path: Path) -> None:
    cached(Toy(), tmp_path, [], Toy().load)
    (path,) = tmp_path.iterdir()
    np.savez(path, x=np.array([{}], dtype=object), truth=0, attributes=0, schema=0)
    with pytest.raises(ValueError, match="damaged"):
        cached(Toy(), tmp_path, [], Toy().load)
