"""Anyone's arrays as counts: labels and groups to codes, one `bincount`, every margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from evenloop.counts import Counts
from evenloop.data import UNKNOWN

__all__ = ["OVERALL", "group_counts"]

Ints = NDArray[np.int64]
OVERALL = "overall"
MOST_CELLS = 20_000_000


def group_counts(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: ArrayLike | Mapping[str, ArrayLike],
    *,
    classes: Sequence[Any] | None = None,
) -> dict[str, Counts]:
    """Counts of truth against prediction by each attribute: "overall", each, and all crossed.

    One pass over the rows and one `bincount`; the arguments and errors are those of `group_rates`.

    >>> counts = group_counts([0, 1, 1], [0, 1, 0], {"sex": ["f", "m", None], "old": [1, 1, 0]})
    >>> list(counts), counts["sex"].groups, counts["sex"].support.tolist()
    (['overall', 'sex', 'old', 'sex & old'], ('f', 'm', 'unknown'), [1, 1, 1])
    """
    truth, predicted, names = _labels(y_true, y_pred, classes)
    attributes = {
        name: _groups(name, values, len(truth))
        for name, values in _columns(sensitive_features).items()
    }
    sizes = [len(groups) for _, groups in attributes.values()]
    shape = (*sizes, len(names), len(names))
    if prod(shape) > MOST_CELLS:
        raise ValueError(
            f"sensitive_features cross to {prod(sizes):,} groups of {len(names)} classes, "
            "too many to table; pass fewer attributes or bin their values"
        )
    codes = (*(code for code, _ in attributes.values()), truth, predicted)
    cell = codes[0]
    for code, size in zip(codes[1:], shape[1:], strict=True):
        cell = cell * size + code
    table = np.bincount(cell, minlength=prod(shape)).reshape(shape)
    return _margins(table, {name: groups for name, (_, groups) in attributes.items()}, names)


def _margins(
    table: Ints, attributes: Mapping[str, tuple[str, ...]], classes: tuple[str, ...]
) -> dict[str, Counts]:
    axes = range(len(attributes))
    found = {OVERALL: Counts(table.sum(tuple(axes))[None], (OVERALL,), classes)}
    for axis, (name, groups) in enumerate(attributes.items()):
        others = tuple(other for other in axes if other != axis)
        found[name] = Counts(table.sum(others), groups, classes)
    if len(attributes) > 1:
        crossed = product(*attributes.values())
        groups = tuple(" ".join(parts) for parts in crossed)
        flat = table.reshape(-1, *table.shape[-2:])
        found[" & ".join(attributes)] = Counts(flat, groups, classes)
    return found


def _columns(features: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, Any]:
    """Attribute columns by name; one unnamed array is called "group"."""
    columns: dict[str, Any]
    if isinstance(features, (Mapping, pd.DataFrame)):
        columns = {str(name): column for name, column in features.items()}
    else:
        name = getattr(features, "name", None)
        columns = {"group" if name is None else str(name): features}
    if not columns:
        raise ValueError("sensitive_features names no attribute; pass one array or {name: array}")
    if OVERALL in columns:
        raise ValueError(f"sensitive_features may not name an attribute {OVERALL!r}; rename it")
    return columns


def _vector(name: str, values: Any) -> Any:
    """`values` as a 1-D NumPy array, or as a pandas one if that knows missing values or categories.

    A list with strings is kept as objects: NumPy would turn its None and nan into text.
    """
    if isinstance(values, (pd.Series, pd.Index)):
        values = values.array
    if isinstance(values, pd.api.extensions.ExtensionArray):
        plain = isinstance(values, pd.arrays.NumpyExtensionArray)
        return values.to_numpy() if plain else values
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind == "U" and not isinstance(values, np.ndarray):
        array = np.array(values, dtype=object)
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional, got shape {array.shape}; pass one label per row"
        )
    return array


def _factorize(values: Any) -> tuple[Ints, list[Any]]:
    """Codes (N,), -1 where missing, and the sorted distinct values; small integers by counting."""
    if isinstance(values, pd.Categorical):
        return np.asarray(values.codes, np.int64), list(values.categories)
    if isinstance(values, np.ndarray) and values.dtype.kind in "bui" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low <= 4 * len(values) + 1000:
            shifted = values.astype(np.int64) - low
            present = np.bincount(shifted, minlength=high - low + 1) > 0
            kind = bool if values.dtype.kind == "b" else int
            labels = [kind(label) for label in np.flatnonzero(present) + low]
            return (shifted if present.all() else (np.cumsum(present) - 1)[shifted]), labels
    codes, found = pd.factorize(values)
    labels = list(found)
    try:
        order = sorted(range(len(labels)), key=labels.__getitem__)
    except TypeError:  # labels of several kinds have no order of their own
        order = sorted(range(len(labels)), key=lambda i: str(labels[i]))
    rank = np.empty(len(order) + 1, np.int64)
    rank[order], rank[-1] = np.arange(len(order)), -1
    return rank[codes], [labels[i] for i in order]


def _name(value: Any) -> str:
    """The label as text; a whole number reads the same as integer, float or boolean."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _groups(name: str, values: Any, rows: int) -> tuple[Ints, tuple[str, ...]]:
    column = _vector(f"sensitive feature {name!r}", values)
    if len(column) != rows:
        raise ValueError(f"sensitive feature {name!r} has {len(column)} rows, y_true {rows}")
    codes, found = _factorize(column)
    names = [_name(value) for value in found]
    if (codes < 0).any():
        if UNKNOWN not in names:
            names.append(UNKNOWN)
        codes = np.where(codes < 0, names.index(UNKNOWN), codes)
    return codes, tuple(names)


def _labels(
    y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[Any] | None
) -> tuple[Ints, Ints, tuple[str, ...]]:
    sides = [_vector(name, y) for name, y in (("y_true", y_true), ("y_pred", y_pred))]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"y_true has {len(sides[0])} rows, y_pred {len(sides[1])}")
    if not len(sides[0]):
        raise ValueError("y_true has no rows; there is nothing to count")
    coded = [_factorize(side) for side in sides]
    for name, (codes, found) in zip(("y_true", "y_pred"), coded, strict=True):
        if (codes < 0).any():
            first = int(np.argmax(codes < 0))
            raise ValueError(f"{name} is missing in row {first}; drop the row or fill in a label")
        scores = [
            v for v in found if isinstance(v, (float, np.floating)) and not float(v).is_integer()
        ]
        if scores:
            raise ValueError(f"{name} holds {scores[0]:.4g}, a score; pass labels: threshold first")
    order = _class_order([found for _, found in coded], classes)
    place = {label: code for code, label in enumerate(order)}
    sides = []
    for codes, found in coded:
        table = np.array([place[label] for label in found], np.int64)
        in_place = (table == np.arange(len(table))).all()
        sides.append(codes if in_place else table[codes])
    return sides[0], sides[1], tuple(_name(label) for label in order)


def _class_order(found: list[list[Any]], classes: Sequence[Any] | None) -> list[Any]:
    """The class labels in order: those given, else 0/1 or -1/1 if they fit, else those found."""
    labels = set(found[0]) | set(found[1])
    if classes is not None:
        if unlisted := labels - set(classes):
            raise ValueError(f"label {min(map(str, unlisted))!r} is not among classes {classes}")
        return list(dict.fromkeys(classes))
    for pair in ((0, 1), (-1, 1)):
        if labels <= set(pair):
            return list(pair)
    try:
        return sorted(labels)
    except TypeError as mixed:
        kinds = " and ".join(sorted({type(label).__name__ for label in labels}))
        raise ValueError(f"y_true and y_pred mix {kinds}; use one kind of label") from mixed
