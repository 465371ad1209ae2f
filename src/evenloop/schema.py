"""What columns are called: the classes, the groups, the codes of structured labels.

Codes are checked here against their names, once, where arrays enter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "NOTHING",
    "UNKNOWN",
    "Attribute",
    "Codes",
    "Schema",
    "Structure",
    "check_attribute",
    "check_columns",
    "check_finite",
    "check_truth",
    "codes",
]

UNKNOWN = "unknown"
NOTHING = -1
Codes = Tensor | np.ndarray | Sequence[int]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A group column: its name and the names of its codes 0, 1, ...

    Raises:
        ValueError: two of its codes have one name.
    """

    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_distinct(f"values of attribute {self.name!r}", self.values)


@dataclass(frozen=True, slots=True)
class Structure:
    """A label of several codes, such as the tokens of a text or the nouns of a frame.

    Each of its `length` places holds a code in [0, `codes`) or `NOTHING` (padding, a blank).
    """

    length: int
    codes: int


@dataclass(frozen=True, slots=True)
class Schema:
    """Names of the classes and of every group column, in column order.

    Where labels have a `structure`, the classes are those that an audit reads from them.

    Raises:
        ValueError: two classes or two attributes have one name.
    """

    classes: tuple[str, ...]
    attributes: tuple[Attribute, ...] = ()
    structure: Structure | None = None

    def __post_init__(self) -> None:
        _check_distinct("classes", self.classes)
        _check_distinct("attributes", tuple(a.name for a in self.attributes))

    def column(self, name: str) -> int:
        """Position of the attribute called `name`.

        Raises:
            KeyError: if there is none, naming those there are.
        """
        for i, attribute in enumerate(self.attributes):
            if attribute.name == name:
                return i
        known = ", ".join(a.name for a in self.attributes) or "none"
        raise KeyError(f"no attribute {name!r}; this data has: {known}")

    def klass(self, name: str | int) -> int:
        """Code of a class given by name or code.

        Raises:
            ValueError: if it does not occur, naming the classes.
        """
        if isinstance(name, int) and 0 <= name < len(self.classes):
            return name
        if str(name) in self.classes:
            return self.classes.index(str(name))
        raise ValueError(f"no class {name!r}; the classes are: {', '.join(self.classes)}")

    def difference(self, other: Schema) -> str | None:
        """The first thing in which codes of this schema mean something else than `other`'s.

        >>> Schema(("no", "yes")).difference(Schema(("yes", "no")))
        "classes are ('no', 'yes') and ('yes', 'no')"
        """
        if self.classes != other.classes:
            return f"classes are {self.classes} and {other.classes}"
        mine, theirs = (tuple(a.name for a in s.attributes) for s in (self, other))
        if mine != theirs:
            return f"attributes are {mine} and {theirs}"
        for a, b in zip(self.attributes, other.attributes, strict=True):
            if a.values != b.values:
                return f"values of attribute {a.name!r} are {a.values} and {b.values}"
        if self.structure != other.structure:
            return f"structures of labels are {self.structure} and {other.structure}"
        return None


def _check_distinct(what: str, names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{what} hold {twice!r} twice, got {names}; give each a name of its own")


def codes(name: str, values: Codes) -> Tensor:
    """`values` as int64 codes on the CPU.

    Raises:
        ValueError: a value is missing, is a text or is not a whole number; names the first row.
    """
    found = values.cpu() if isinstance(values, Tensor) else _numbers(name, values)
    if not found.is_floating_point():
        return found.long()
    whole = torch.isfinite(found) & (found == found.round())
    if not bool(whole.all()):
        place = [int(i) for i in (~whole).nonzero()[0]]
        value, row = float(found[tuple(place)]), place[0]
        if value != value:
            raise ValueError(
                f"{name} is missing (nan) in row {row}; drop that row, or give missing values a "
                f"code of their own, named {UNKNOWN!r} in the schema"
            )
        raise ValueError(f"{name} must hold whole codes, got {value:g} in row {row}")
    return found.long()


def _numbers(name: str, values: np.ndarray | Sequence[int]) -> Tensor:
    found = np.asarray(values)
    if found.dtype.kind not in "biuf":
        shown = ", ".join(map(repr, found.reshape(-1)[:3].tolist()))
        raise ValueError(
            f"{name} must hold whole codes, got {found.dtype} such as {shown}; "
            "evenloop.worlds.from_arrays takes labels and groups by their names"
        )
    return torch.as_tensor(found)


def _check_labels(name: str, y: Tensor, n: int, classes: int) -> None:
    if y.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {tuple(y.shape)}")
    if n and not (int(y.min()) >= 0 and int(y.max()) < classes):
        bad = int(y.min()) if int(y.min()) < 0 else int(y.max())
        raise ValueError(f"{name} holds {bad}, but the classes are 0..{classes - 1}")


def check_truth(name: str, y: Tensor, n: int, schema: Schema) -> None:
    """Whether `y` holds labels of `n` rows.

    Raises:
        ValueError: the shape is another, or a code is out of range.
    """
    structure = schema.structure
    if structure is None:
        return _check_labels(name, y, n, len(schema.classes))
    if y.shape != (n, structure.length):
        raise ValueError(
            f"{name} must have shape ({n}, {structure.length}), a structured label a row, got "
            f"{tuple(y.shape)}"
        )
    if y.numel() and not NOTHING <= int(y.min()) <= int(y.max()) < structure.codes:
        raise ValueError(
            f"{name} holds {int(y.min())}..{int(y.max())}, but its codes are "
            f"0..{structure.codes - 1}, and {NOTHING} where there is nothing"
        )


def check_attribute(attribute: Attribute, values: Codes, n: int) -> Tensor:
    """(n,) int64 codes of one attribute.

    Raises:
        ValueError: not one whole code a row, or one out of range.
    """
    name = f"attribute {attribute.name!r}"
    found = codes(name, values)
    _check_labels(name, found, n, len(attribute.values))
    return found


def check_finite(x: Tensor) -> None:
    """Whether inputs are numbers.

    Raises:
        ValueError: `x` holds NaN or infinity; names the first row.
    """
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x.flatten(1))).any(1).nonzero()[0])
        raise ValueError(f"x holds NaN or infinity, first in row {bad}; clean or drop that row")


def check_columns(
    x: Tensor, truth: Tensor, attributes: Mapping[str, Codes], schema: Schema
) -> dict[str, Tensor]:
    """(N,) int64 codes of every attribute, for rows whose labels and inputs fit the schema.

    Raises:
        ValueError: lengths differ, a code is out of range, or `x` holds NaN or infinity.
    """
    check_truth("truth", truth, len(x), schema)
    check_finite(x)
    wanted = {a.name for a in schema.attributes}
    if set(attributes) != wanted:
        raise ValueError(f"attributes are {sorted(attributes)}, the schema has {sorted(wanted)}")
    return {a.name: check_attribute(a, attributes[a.name], len(x)) for a in schema.attributes}
