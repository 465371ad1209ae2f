"""What a person gave, checked: plain values become dataclasses, and every mistake is one sentence.

It knows no part of the library, so that whatever reads settings may stand on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from evenloop.words import nearest

__all__ = ["ConfigError", "construct", "first_error", "known"]

T = TypeVar("T")


class ConfigError(ValueError):
    """Wrong input, found before any work was started."""


def known(name: str, names: Iterable[str], what: str) -> None:
    """Raise `ConfigError` with the nearest of `names` unless `name` is one; `what` is its key."""
    names = list(names)
    if name not in names:
        raise ConfigError(f"{what}={name!r} is not known; {nearest(name, names)}")


def construct(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from plain values, types checked and unknown keys refused with near misses.

    Raises:
        ConfigError: naming the first wrong field.
    """
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(f"{where} has no field {key!r}; {nearest(key, known)}")
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise ConfigError(first_error(error, where)) from None


def first_error(error: ValidationError, where: str) -> str:
    """The first of the errors in one sentence; `where` is the part that its path is within."""
    first = error.errors()[0]
    path = ".".join(str(p) for p in (where, *first["loc"]) if p not in ("", "function-after"))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{where}: {message}"
    if first["type"] in ("tuple_type", "list_type") and isinstance(first["input"], str):
        message = f"several values go in brackets, one alone too: write [{first['input']}]"
    return f"{path} = {first['input']!r}: {message}"
