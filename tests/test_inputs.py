"""Plain values that become dataclasses: mistakes that many people make are told how to mend."""

from __future__ import annotations

import pytest

from evenloop.config import RunConfig, load
from evenloop.inputs import ConfigError, construct
from evenloop.worlds.tabular import Table


@pytest.mark.parametrize("name", ["sex", "age:25,45"])
def test_one_name_where_several_go_is_told_how_to_write_it(name: str) -> None:
    fields = {"path": "t.csv", "groups": name}
    with pytest.raises(ConfigError) as error:
        construct(Table, fields, "world table")
    said = f"world table.groups = {name!r}: several values go in brackets, one alone too: write "
    assert str(error.value) == f"{said}[{name}]"
    assert construct(Table, fields | {"groups": [name]}, "world table").groups == (name,)


def test_a_key_of_the_whole_is_told_in_the_same_words() -> None:
    with pytest.raises(ConfigError, match=r"^by = 'sex': several values go in .* write \[sex\]$"):
        load("demo", ["by=sex"])
    assert load("demo", ["by=[sex]"]).by == ("sex",)


def test_another_wrong_value_keeps_its_own_words() -> None:
    with pytest.raises(ConfigError, match=r"^by = 5: Input should be a valid tuple"):
        load("demo", ["by=5"])
    assert isinstance(load("demo"), RunConfig)
