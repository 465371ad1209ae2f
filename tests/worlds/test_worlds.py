"""Every world in the folder, by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, is_dataclass
from inspect import isabstract
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from evenloop import worlds
from evenloop.worlds.base import Card

SIMPLE = {str, int, float, bool, tuple, Path, type(None), Ellipsis}


def plain(hint: Any) -> bool:
    """Whether a type is one that a configuration file can hold."""
    parts = get_args(hint)
    if not parts:
        return hint in SIMPLE or isinstance(hint, str)  # a member of a Literal is a text
    if get_origin(hint) is Mapping:
        return parts[0] is str  # YAML reads the values as they are
    return all(plain(part) for part in parts)


@pytest.mark.parametrize("name", worlds.names())
def test_a_world_is_a_final_frozen_value_with_plain_fields(name: str) -> None:
    kind: Any = worlds.find(name)
    assert is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(kind)
    assert all(base is object or isabstract(base) for base in kind.__bases__)
    assert not any(issubclass(worlds.find(n), kind) for n in worlds.names() if n != name)
    hints = get_type_hints(kind)
    for field in fields(kind):
        assert plain(hints[field.name]), f"{field.name}: {hints[field.name]}"


@pytest.mark.parametrize("name", worlds.names())
def test_a_world_has_a_full_card(name: str) -> None:
    about = worlds.find(name).about
    assert isinstance(about, Card)
    assert all(getattr(about, f.name).strip() for f in fields(about) if f.name != "people")
    assert isinstance(about.people, bool)
    text = worlds.card(name)
    assert text.startswith(f"{name}: {about.title}")
    assert about.licence in text
    assert about.groups in text


@pytest.mark.parametrize("name", worlds.names())
def test_a_world_lives_in_the_folder_under_its_own_name(name: str) -> None:
    kind = worlds.find(name)
    assert kind.name == name
    assert kind.__module__.startswith("evenloop.worlds.")


def test_a_parameter_cannot_be_changed() -> None:
    source: Any = worlds.build("digits8")
    with pytest.raises(FrozenInstanceError):
        source.form = "pca"


def test_build_takes_lists_for_tuples() -> None:
    source: Any = worlds.build("table", path="t.csv", groups=["sex", "race"])
    assert source.groups == ("sex", "race")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("cifar", {}, r"no world 'cifar'; did you mean '.*cifar10"),
        ("digits8", {"frm": "pca"}, r"world 'digits8' has no 'frm'; did you mean 'form'"),
        ("manifest", {}, r"world 'manifest' needs path="),
        ("digits8", {"form": "pictures"}, r"form is 'pictures'; there are: images, pca, pixels"),
    ],
)
def test_a_wrong_build_is_one_clear_error(
    name: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        worlds.build(name, **parameters)


def test_an_unknown_card_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'german'"):
        worlds.card("germann")


def test_a_summary_counts_absent_values_too() -> None:
    data = worlds.from_arrays([[0.0], [1.0]], [0, 2], classes=("a", "b", "c"))
    assert worlds.summary(data) == "2 rows, x float32 (1)\ntruth: a 1, b 0, c 1"


def test_looking_at_embedded_worlds_loads_no_plotting_or_table_library() -> None:
    code = (
        "import sys\nfrom evenloop.worlds.digits import Digits8, MNIST5k\n"
        "Digits8().load(); MNIST5k().load()\n"
        "print([m for m in ('matplotlib', 'pandas', 'pyarrow', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
