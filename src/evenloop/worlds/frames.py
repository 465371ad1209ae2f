"""Rows of a frame to `GroupedData`: pictures by path or bytes, or feature columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.worlds.base import check_choice
from evenloop.worlds.columns import (
    Coded,
    code_labels,
    encode,
    group_column,
    need_columns,
)
from evenloop.worlds.dropped import Dropped, Split
from evenloop.worlds.images import decode

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "POLICIES",
    "assemble",
    "dropped",
    "feature_columns",
    "group_columns",
    "images_from_frame",
    "picture",
    "table_from_frame",
    "usable",
]

POLICIES = ("error", "drop")
"""What to do with rows that lack a feature or a label."""


def assemble(x: Any, label: Coded, groups: Mapping[str, Coded]) -> GroupedData:
    """Data from inputs, coded labels and coded group columns; inputs are not copied if writable."""
    if isinstance(x, np.ndarray):
        x = np.require(x, requirements="W")  # what a tensor views must be writable
    attributes = tuple(Attribute(name, coded.names) for name, coded in groups.items())
    codes = {name: np.require(coded.codes, requirements="W") for name, coded in groups.items()}
    truth = np.require(label.codes, requirements="W")
    return GroupedData.of(x, truth, codes, Schema(label.names, attributes))


def group_columns(
    frame: pd.DataFrame,
    groups: Sequence[str],
    where: str,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Coded]:
    """Codes of every group column, in order.

    Args:
        frame: N rows.
        groups: columns, "age:25,45" for a number in bins.
        where: what to call the frame in an error.
        vocabulary: column -> all its values in the order of their codes, also absent ones.

    Raises:
        ValueError: a column is missing or named twice.
    """
    found: dict[str, Coded] = {}
    for spec in groups:
        if vocabulary and spec in vocabulary:
            name, coded = spec, code_labels(frame[spec], spec, vocabulary[spec])
        else:
            name, coded = group_column(frame, spec, where)
        if name in found:
            raise ValueError(f"group column {name!r} is named twice in groups={tuple(groups)}")
        found[name] = coded
    return found


def picture(cell: object, base: Path, row: int) -> bytes | Path:
    """An image cell as encoded bytes, or as the path of a file (relative ones below `base`).

    Raises:
        ValueError: it is neither text, bytes nor a record of bytes and path.
    """
    if isinstance(cell, Mapping):
        cell = cell["bytes"] if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, str) and cell:
        return base / cell
    raise ValueError(f"the image in row {row} is {cell!r}; it must be a path or encoded bytes")


def images_from_frame(
    frame: pd.DataFrame,
    *,
    target: str,
    image: str = "image",
    groups: Sequence[str] = (),
    classes: Sequence[str] = (),
    base: Path | str = ".",
    resize: int | None = None,
    gray: bool = False,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
    where: str = "the frame",
) -> GroupedData:
    """Rows with a picture each: x uint8 (N, C, H, W).

    Args:
        frame: N rows.
        target: the label column.
        image: the column of paths, of encoded bytes, or of records with "bytes" or "path".
        groups: group columns, "age:25,45" for a number in bins.
        classes: names of all classes in the order of their codes; by default those that occur.
        base: folder that relative paths start from.
        resize: side of the square every picture is stretched to.
        gray: one channel instead of three.
        vocabulary: group column -> all its values in the order of their codes, also absent ones.
        where: what to call the frame in an error.

    Raises:
        ValueError: a column is missing, a label is unknown, or a picture cannot be used.
    """
    need_columns(frame, [image, target], where)
    label = code_labels(frame[target], target, classes)
    coded = group_columns(frame, groups, where, vocabulary)
    items = [picture(cell, Path(base), i) for i, cell in enumerate(frame[image].tolist())]
    names = [f"row {i}" if isinstance(p, bytes) else str(p) for i, p in enumerate(items)]
    return assemble(decode(items, names, resize=resize, gray=gray), label, coded)


def feature_columns(
    frame: pd.DataFrame,
    target: str,
    features: Sequence[str],
    leave_out: Sequence[str],
    where: str = "the table",
) -> list[str]:
    """The feature columns: those listed, or else all but the target; never those left out.

    Raises:
        ValueError: a name is no column, or the target is listed as a feature.
    """
    need_columns(frame, [target, *features, *leave_out], where)
    if target in features:
        raise ValueError(f"the target {target!r} is listed as a feature")
    chosen = features or [c for c in map(str, frame.columns) if c != target]
    return [c for c in chosen if c not in leave_out]


def _present(frame: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.bool_]:
    """(N, F) whether a row has the number of each column of numbers; texts may be missing."""
    numbers = frame[list(columns)].select_dtypes("number")
    there: NDArray[np.bool_] = np.isfinite(numbers.to_numpy(np.float64, na_value=np.nan))
    return there


def _whole(
    frame: pd.DataFrame, target: str, columns: Sequence[str], missing: str
) -> NDArray[np.bool_]:
    """(N,) whether a row is used: all are, or with missing="drop" those that lack nothing."""
    check_choice("missing", missing, POLICIES)
    if missing == "error":
        return np.ones(len(frame), bool)
    return _present(frame, columns).all(axis=1) & frame[target].notna().to_numpy()


def usable(frame: pd.DataFrame, target: str, columns: Sequence[str], missing: str) -> pd.DataFrame:
    """The rows to use: all, or with missing="drop" those with a label and every number there.

    Raises:
        ValueError: `missing` is another word, or no row is left.
    """
    whole = _whole(frame, target, columns, missing)
    if len(frame) and not whole.any():
        raise ValueError(f"missing=drop leaves none of {len(frame)} rows; leave a column out")
    kept: pd.DataFrame = frame[whole]
    return kept


def dropped(
    frame: pd.DataFrame,
    *,
    target: str,
    columns: Sequence[str],
    groups: Sequence[str] = (),
    classes: Sequence[str] = (),
    missing: str = "drop",
    where: str = "the table",
) -> Dropped:
    """Whom `missing` leaves out: rows kept and dropped of every group and class.

    Args:
        frame: N rows.
        target: the label column; rows without a label are of no class.
        columns: the feature columns.
        groups, classes, missing, where: as for `table_from_frame`.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"n": [1, None, 3], "sex": ["f", "f", "m"], "paid": ["a", "b", "b"]})
    >>> dropped(frame, target="paid", columns=["n"], groups=["sex"]).notes()[1]
    'left out by sex: f 1 of 2 (50.0%), m 0 of 1 (0.0%)'
    """
    whole = _whole(frame, target, columns, missing)
    numbers = frame[list(columns)].select_dtypes("number").columns
    short = dict(zip(map(str, numbers), (~_present(frame, columns)).sum(0).tolist(), strict=True))
    lacking = {**short, target: int(frame[target].isna().sum())}
    label = _labels(frame, target, classes, missing)
    parts = {**group_columns(frame, groups, where), target: label}
    return Dropped(
        int(whole.sum()),
        int((~whole).sum()),
        {name: n for name, n in lacking.items() if n},
        {name: Split.of(coded.codes, coded.names, whole) for name, coded in parts.items()},
    )


def _labels(frame: pd.DataFrame, target: str, classes: Sequence[str], missing: str) -> Coded:
    """The label column as codes; -1 where it is missing and such rows are dropped."""
    column = frame[target]
    if missing == "error":
        return code_labels(column, target, classes)
    given = column.notna().to_numpy()
    coded = code_labels(column[given], target, classes)
    codes = np.full(len(column), -1, np.int64)
    codes[given] = coded.codes
    return Coded(codes, coded.names)


def table_from_frame(
    frame: pd.DataFrame,
    *,
    target: str,
    groups: Sequence[str] = (),
    classes: Sequence[str] = (),
    features: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    scale: str = "standard",
    missing: str = "error",
    vocabulary: Mapping[str, Sequence[str]] | None = None,
    where: str = "the table",
) -> GroupedData:
    """Rows of features: x float32 (N, F), encoded as `columns.encode` says.

    Codes, centres and spreads are those of this frame. Two files, one to train on and one to audit,
    are therefore encoded as one, and their rows taken apart afterwards:

    >>> import pandas as pd
    >>> a = pd.DataFrame({"hours": [1, 2], "paid": ["no", "yes"]})
    >>> b = pd.DataFrame({"hours": [3], "paid": ["no"]})
    >>> both = table_from_frame(pd.concat([a, b], ignore_index=True), target="paid")
    >>> train, audit = both.take(range(len(a))), both.take(range(len(a), len(both)))
    >>> train.schema == audit.schema, len(train), len(audit)
    (True, 2, 1)

    Args:
        frame: N rows.
        target: the label column.
        groups: group columns, "age:25,45" for a number in bins; they may be features, too.
        classes: names of all classes in the order of their codes; by default those that occur.
        features: feature columns; by default every column but the target.
        leave_out: columns that are no features.
        scale: "standard", "minmax" or "none".
        missing: "error", or "drop" rows that lack a number or a label; `dropped` says whose. A
            group or class that loses all its rows stays in the schema, without a row.
        vocabulary: group column -> all its values in the order of their codes, also absent ones.
        where: what to call the frame in an error.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"age": [20, 60], "sex": ["f", "m"], "paid": ["no", "yes"]})
    >>> data = table_from_frame(frame, target="paid", groups=["sex", "age:30"], leave_out=["sex"])
    >>> data.x.tolist(), data.truth.tolist(), [a.name for a in data.schema.attributes]
    ([[-1.0], [1.0]], [0, 1], ['sex', 'age'])

    Raises:
        ValueError: there is no row, a column is missing or there twice, or a value cannot be used.
    """
    columns = feature_columns(frame, target, features, leave_out, where)
    if not len(frame):
        raise ValueError(f"{where} has no rows, only the columns {', '.join(map(str, frame))}")
    kept, whole = usable(frame, target, columns, missing), _whole(frame, target, columns, missing)
    label = _labels(frame, target, classes, missing)
    coded = group_columns(frame, groups, where, vocabulary)
    x = encode(kept, columns, scale).x
    return assemble(x, _rows(label, whole), {name: _rows(c, whole) for name, c in coded.items()})


def _rows(coded: Coded, keep: NDArray[np.bool_]) -> Coded:
    return Coded(coded.codes[keep], coded.names)
