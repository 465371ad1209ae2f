"""One file per published system; each holds one loop, a dataclass named like the file."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from evenloop.words import nearest

__all__ = ["find", "names"]


def names() -> list[str]:
    """The verbs: one per file of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def find(verb: str) -> type[Any]:
    """The loop's dataclass, `Relabel` for "relabel".

    Raises:
        ValueError: there is no such verb.
    """
    if verb not in names():
        raise ValueError(f"unknown loop {verb!r}; {nearest(verb, names())}")
    return getattr(import_module(f"{__name__}.{verb}"), verb.capitalize())  # type: ignore[no-any-return]
