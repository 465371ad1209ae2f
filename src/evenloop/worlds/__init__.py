"""Data sources by name. One file per family; a class with `name`, `about` and `load` is found."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from dataclasses import MISSING, fields
from importlib import import_module
from inspect import isclass
from typing import Any

from evenloop.data import GroupedData
from evenloop.groups import TRUTH, GroupIndex
from evenloop.words import nearest
from evenloop.worlds.arrays import from_arrays
from evenloop.worlds.base import Card, Normalisation, Source
from evenloop.worlds.download import REMOTE, data_folder, get
from evenloop.worlds.frames import images_from_frame, table_from_frame
from evenloop.worlds.hub import from_hugging_face
from evenloop.worlds.images import pixel_moments
from evenloop.worlds.prepare import (
    Selection,
    holdout,
    imbalanced,
    with_counts,
    with_shares,
    with_shares_given,
)

__all__ = [
    "REMOTE",
    "WORLDS",
    "Card",
    "Normalisation",
    "Selection",
    "Source",
    "build",
    "card",
    "data_folder",
    "find",
    "from_arrays",
    "from_hugging_face",
    "get",
    "holdout",
    "images_from_frame",
    "imbalanced",
    "names",
    "pixel_moments",
    "summary",
    "table_from_frame",
    "with_counts",
    "with_shares",
    "with_shares_given",
]


def _is_source(value: object) -> bool:
    return isclass(value) and {"name", "about"} <= set(vars(value)) and hasattr(value, "load")


def _discovered() -> Iterator[tuple[str, type[Source]]]:
    for found in pkgutil.iter_modules(__path__):
        module: Any = import_module(f"{__name__}.{found.name}")
        public: list[Any] = [getattr(module, name) for name in module.__all__]
        yield from ((value.name, value) for value in public if _is_source(value))


WORLDS: dict[str, type[Source]] = dict(sorted(_discovered()))
"""Every source by its name."""


def names() -> list[str]:
    """The names of all sources, sorted.

    >>> "digits8" in names() and "cifar10" in names()
    True
    """
    return list(WORLDS)


def find(name: str) -> type[Source]:
    """The source's dataclass, `CIFAR10` for "cifar10".

    Raises:
        ValueError: there is none of that name; says the nearest.
    """
    if name not in WORLDS:
        raise ValueError(f"no world {name!r}; {nearest(name, WORLDS)}")
    return WORLDS[name]


def build(name: str, /, **parameters: Any) -> Source:
    """The source called `name` with these parameters; a list is taken for a tuple.

    >>> build("digits8", form="pca", components=5).components
    5

    Raises:
        ValueError: unknown name or parameter (with the nearest known one), a required parameter is
            missing, or a value is out of range.
    """
    kind: Any = find(name)
    known = {f.name: f for f in fields(kind)}
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(f"world {name!r} has no {parameter!r}; {nearest(parameter, known)}")
    for field in known.values():
        if field.default is MISSING and field.name not in parameters:
            raise ValueError(f"world {name!r} needs {field.name}=")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}
    source: Source = kind(**values)
    return source


def card(name: str) -> str:
    """What a source is, its licence and how its groups were obtained.

    Raises:
        ValueError: unknown name, with the nearest known one.
    """
    return f"{name}: {find(name).about.text()}"


def summary(data: GroupedData) -> str:
    """Rows, shape, and the count of every class and of every value of every attribute.

    >>> print(summary(build("digits8", form="pca").load()).splitlines()[0])
    1797 rows, x float32 (5)
    """
    shape = " x ".join(map(str, data.x.shape[1:]))
    lines = [f"{len(data)} rows, x {str(data.x.dtype).removeprefix('torch.')} ({shape})"]
    structure = data.schema.structure
    if structure is not None:
        lines.append(f"labels: {structure.length} places, {structure.codes} codes")
    classes = (TRUTH,) if structure is None else ()
    for column in (*classes, *(a.name for a in data.schema.attributes)):
        groups = GroupIndex.of(data, [column])
        counts = zip(groups.names, groups.count().tolist(), strict=True)
        lines.append(f"{column}: " + ", ".join(f"{name} {count}" for name, count in counts))
    return "\n".join(lines)
