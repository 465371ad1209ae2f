"""One file per published system; each holds one loop, a dataclass named like the file.

`self_train.py` holds `SelfTrain`. A file whose name begins with "_" is no loop but a part of one.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from evenloop.words import nearest

__all__ = ["class_name", "find", "names"]


def names() -> list[str]:
    """The verbs: one per file of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def class_name(verb: str) -> str:
    """What the loop of a verb is called.

    >>> class_name("relabel"), class_name("self_train")
    ('Relabel', 'SelfTrain')
    """
    return "".join(word.capitalize() for word in verb.split("_"))


def find(verb: str) -> type[Any]:
    """The loop's dataclass, `Relabel` for "relabel".

    Raises:
        ValueError: there is no such verb.
        TypeError: its file holds no class of that name.
    """
    if verb not in names():
        raise ValueError(f"unknown loop {verb!r}; {nearest(verb, names())}")
    found = getattr(import_module(f"{__name__}.{verb}"), class_name(verb), None)
    if not isinstance(found, type):
        raise TypeError(f"loops/{verb}.py must hold a class {class_name(verb)}, and holds none")
    return found
