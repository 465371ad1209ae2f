"""Columns of a table to codes, group bins and features. Everything read from a table goes here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenloop.data import UNKNOWN
from evenloop.words import nearest
from evenloop.worlds.base import check_choice

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MISSING",
    "SCALES",
    "Coded",
    "Features",
    "check_codes",
    "code",
    "code_labels",
    "encode",
    "group_column",
    "is_numeric",
    "need_columns",
    "read_table",
]

MISSING = ("", "NA", "NaN", "nan", "null")
"""Cells of a CSV file that are read as missing."""
SCALES = ("standard", "minmax", "none")
_MOST_CODES = 20  # distinct numbers beyond which a group column is taken to want bins
_NESTED = (dict, list, tuple, set, np.ndarray)
_MOST_ODD = 0.1  # share of texts up to which a column of numbers is taken to have a slip
_MOST_CATEGORIES = 200  # distinct texts beyond which a feature is taken to be a name or a date


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A column as codes (N,) int64 into `names`."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Feature columns as `x` (N, F) float32, and in words how each of the F was made."""

    x: NDArray[np.float32]
    names: tuple[str, ...]


def read_table(path: Path | str) -> pd.DataFrame:
    """A CSV (.csv, .tsv), JSON lines (.jsonl) or Parquet file as a frame, rows in file order.

    Text files may be compressed (.gz). In JSON lines, texts stay texts and numbers numbers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the ending is another one, or the file cannot be parsed.
    """
    import pandas as pd

    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"table {path} does not exist")
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    try:
        if kind in (".parquet", ".pq"):
            return pd.read_parquet(path)
        if kind in (".csv", ".csv.gz", ".tsv", ".tsv.gz"):
            return pd.read_csv(
                path,
                sep="\t" if kind.startswith(".tsv") else ",",
                keep_default_na=False,
                na_values=list(MISSING),
                skipinitialspace=True,
                low_memory=False,
            )
        if kind in (".jsonl", ".jsonl.gz", ".ndjson"):
            read = pd.read_json(path, lines=True, dtype=False)
            return read.replace(dict.fromkeys(MISSING, np.nan))
    except (ValueError, EOFError, OSError) as error:  # parsers and Arrow raise kinds of ValueError
        raise ValueError(f"table {path} cannot be read: {error}") from error
    raise ValueError(f"table {path} must end in .csv, .tsv, .jsonl (also .gz) or .parquet")


def need_columns(frame: pd.DataFrame, names: Sequence[str], where: str) -> None:
    """Whether every one of `names` is a column, and no column is there twice.

    Raises:
        ValueError: naming the first that is not, and the nearest that is.
    """
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{where} has more than one column {twice[0]!r}; rename or drop one")
    for name in names:
        if name not in frame.columns:
            raise ValueError(f"{where} has no column {name!r}; {nearest(name, map(str, frame))}")


def is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers (booleans are categories)."""
    from pandas.api import types

    return bool(types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype))


def code(column: pd.Series, name: str, edges: Sequence[float] = ()) -> Coded:
    """A group column as codes: bins of a number, or its sorted distinct values.

    Missing cells are the group "unknown", which comes last and only where it occurs.

    Args:
        column: (N,) values.
        name: what to call it in an error.
        edges: ascending numbers; code i holds values in [edges[i-1], edges[i]).

    >>> import pandas as pd
    >>> coded = code(pd.Series([17, 40, None]), "age", edges=(18, 65))
    >>> coded.codes.tolist(), coded.names
    ([0, 1, 3], ('<18', '[18, 65)', '>=65', 'unknown'))

    Raises:
        ValueError: edges on a column that is not numeric, a number with so many distinct values
            that edges are needed, or cells that are lists or records.
    """
    missing = column.isna().to_numpy()
    if edges:
        if not is_numeric(column):
            _check_odd(column, name, "")
            raise ValueError(f"bins are given for {name!r}, which is not numeric")
        values = column.to_numpy(np.float64, na_value=np.nan)
        codes = np.searchsorted(np.asarray(edges, np.float64), values, side="right")
        names = _bin_names(edges)
    else:
        codes, names = _distinct(column, missing, name)
    if missing.any():
        if UNKNOWN not in names:
            names = (*names, UNKNOWN)
        codes[missing] = names.index(UNKNOWN)
    return Coded(codes.astype(np.int64), names)


def _bin_names(edges: Sequence[float]) -> tuple[str, ...]:
    inner = (f"[{a:g}, {b:g})" for a, b in pairwise(edges))
    return (f"<{edges[0]:g}", *inner, f">={edges[-1]:g}")


def _distinct(
    column: pd.Series, missing: NDArray[np.bool_], name: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    import pandas as pd

    present = column[~missing]
    if is_numeric(present):
        numbers = present.to_numpy(np.float64)
        values, inverse = np.unique(numbers, return_inverse=True)
        if len(values) > _MOST_CODES:
            raise ValueError(
                f"{name!r} has {len(values)} distinct numbers; give bins, for example "
                f"'{name}:{np.median(values):g}'"
            )
        names = tuple(f"{v:g}" for v in values)
    else:
        _check_plain(present, name)
        inverse, texts = pd.factorize(present.astype(str).to_numpy(object), sort=True)
        names = tuple(str(t) for t in texts)
    codes = np.full(len(column), -1, np.int64)
    codes[~missing] = inverse
    return codes, names


def _check_plain(column: pd.Series, name: str) -> None:
    """Raise `ValueError` where a cell is a list or a record: as a text it would be a category."""
    if column.dtype != object:
        return
    nested = column.map(lambda cell: isinstance(cell, _NESTED)).to_numpy(bool)
    if nested.any():
        row = _first_row(column, nested)
        raise ValueError(
            f"column {name!r} holds {type(column.iloc[int(nested.argmax())]).__name__}s, first in "
            f"row {row}; give texts or numbers, or leave the column out"
        )


def _check_odd(column: pd.Series, name: str, unless: str) -> None:
    """Raise `ValueError` where a column holds numbers but for a few cells; `unless` says who may.

    Few distinct numbers beside texts are taken for the codes of a category.
    """
    import pandas as pd

    given = column[column.notna()]
    numbers = pd.to_numeric(given.astype(str), errors="coerce")
    odd = numbers.isna().to_numpy()
    if not odd.any() or odd.mean() > _MOST_ODD or numbers.nunique() <= _MOST_CODES:
        return
    cell = str(given.iloc[int(odd.argmax())])
    raise ValueError(
        f"{name!r} holds numbers but for {odd.sum()} of {len(given)} cells, first {cell!r} in row "
        f"{_first_row(given, odd)}; mend or empty them{unless}"
    )


def _first_row(column: pd.Series, flags: NDArray[np.bool_]) -> object:
    """What the frame calls the first flagged row: its number in the file, unless renamed."""
    return column.index.tolist()[int(flags.argmax())]


def group_column(frame: pd.DataFrame, spec: str, where: str) -> tuple[str, Coded]:
    """Name and codes of a group column given as "sex", or as "age:25,45" for bins.

    >>> import pandas as pd
    >>> group_column(pd.DataFrame({"age": [20, 50]}), "age:25,45", "the table")[1].names
    ('<25', '[25, 45)', '>=45')

    Raises:
        ValueError: no such column, or edges that are not ascending numbers.
    """
    if spec in frame.columns or ":" not in spec:
        need_columns(frame, [spec], where)
        return spec, code(frame[spec], spec)
    name, _, listed = spec.rpartition(":")
    need_columns(frame, [name], where)
    try:
        edges = tuple(float(e) for e in listed.split(","))
    except ValueError as error:
        raise ValueError(f"bins of {spec!r} must be numbers, as in 'age:25,45'") from error
    if not np.isfinite(edges).all() or any(b <= a for a, b in pairwise(edges)):
        raise ValueError(f"bins of {spec!r} must be finite and ascending")
    return name, code(frame[name], name, edges)


def check_codes(codes: NDArray[Any], names: tuple[str, ...], path: Path) -> Coded:
    """Label codes read from `path`, a file of fixed classes.

    Raises:
        ValueError: a code is outside [0, len(names)); names the first.
    """
    outside = (codes < 0) | (codes >= len(names))
    if outside.any():
        raise ValueError(
            f"{path} holds the label {codes[outside][0]} in row {outside.argmax()}; the classes "
            f"are 0..{len(names) - 1}. The file is damaged or of another data set"
        )
    return Coded(codes.astype(np.int64), names)


def code_labels(column: pd.Series, name: str, classes: Sequence[str] = ()) -> Coded:
    """A label column as codes.

    Args:
        column: (N,) labels. With `classes`, a column of integers holds codes into it and a column
            of texts holds its names; without, the sorted distinct values are the classes.
        name: what to call it in an error.
        classes: the names of all classes in the order of their codes, also of absent ones.

    Raises:
        ValueError: a label is missing, is not one of `classes`, or is a number that is not whole.
    """
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"label {name!r} is missing in {missing.sum()} of {len(column)} rows, first in row "
            f"{_first_row(column, missing)}; drop those rows (missing=drop in a table) or name "
            "their class"
        )
    if is_numeric(column):
        return _code_numbers(column, name, classes)
    distinct, names = _distinct(column, missing, name)
    if not classes:
        return Coded(distinct, names)
    place = {c: i for i, c in enumerate(classes)}
    for unknown in (n for n in names if n not in place):
        row = _first_row(column, distinct == names.index(unknown))
        raise ValueError(f"label {unknown!r} in row {row} is no class; {nearest(unknown, classes)}")
    return Coded(np.asarray([place[n] for n in names], np.int64)[distinct], tuple(classes))


def _code_numbers(column: pd.Series, name: str, classes: Sequence[str]) -> Coded:
    numbers = column.to_numpy(np.float64)
    whole = numbers == np.floor(numbers)
    if not whole.all():
        raise ValueError(
            f"label {name!r} is {numbers[~whole][0]:g} in row {_first_row(column, ~whole)}; labels "
            "are classes, so give whole numbers or texts"
        )
    if not classes:
        values, codes = np.unique(numbers, return_inverse=True)
        return Coded(codes.astype(np.int64), tuple(f"{v:.0f}" for v in values))
    outside = (numbers < 0) | (numbers >= len(classes))
    if outside.any():
        raise ValueError(
            f"label {name!r} is {numbers[outside][0]:g} in row {_first_row(column, outside)}, but "
            f"the {len(classes)} classes are 0..{len(classes) - 1}"
        )
    return Coded(numbers.astype(np.int64), tuple(classes))


def encode(frame: pd.DataFrame, columns: Sequence[str], scale: str = "standard") -> Features:
    """Feature columns: a number stays one column, a category becomes one 0/1 column per value.

    Centre and spread are those of the whole source, labels unseen; "none" leaves numbers as they
    are. A category's missing cells are its value "unknown". A constant number becomes 0.

    Args:
        frame: N rows.
        columns: its feature columns, in order.
        scale: for numbers, "standard" (mean 0, deviation 1), "minmax" ([0, 1]) or "none".

    >>> import pandas as pd
    >>> features = encode(pd.DataFrame({"hours": [1, 3], "sex": ["f", "m"]}), ["hours", "sex"])
    >>> features.x.tolist(), features.names
    ([[-1.0, 1.0, 0.0], [1.0, 0.0, 1.0]], ('hours (minus 2, over 1)', 'sex=f', 'sex=m'))

    Raises:
        ValueError: a number is missing or infinite, a column of numbers holds a few texts, a
            category has too many values, or there is no column.
    """
    check_choice("scale", scale, SCALES)
    if not columns:
        raise ValueError("there is no feature column")
    blocks, names = [], []
    for name in columns:
        block, made = _feature(frame[name], name, scale)
        blocks.append(block)
        names.extend(made)
    return Features(np.concatenate(blocks, 1, dtype=np.float32), tuple(names))


def _feature(column: pd.Series, name: str, scale: str) -> tuple[NDArray[np.float64], list[str]]:
    if not is_numeric(column):
        _check_odd(column, name, ", leave the column out, or write a category's codes in words")
        coded = code(column, name)
        if len(coded.names) > _MOST_CATEGORIES:
            raise ValueError(
                f"feature {name!r} has {len(coded.names)} distinct texts; leave it out or group "
                "its values first"
            )
        return np.eye(len(coded.names))[coded.codes], [f"{name}={v}" for v in coded.names]
    values = column.to_numpy(np.float64, na_value=np.nan)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"feature {name!r} is missing or infinite in {bad.sum()} of {len(values)} rows, first "
            f"in row {_first_row(column, bad)}; give missing=drop, fill it in, or leave the column "
            "out"
        )
    centre, spread = {
        "standard": (values.mean(), values.std()),
        "minmax": (values.min(), np.ptp(values)),
        "none": (0.0, 1.0),
    }[scale]
    scaled = (values - centre) / (spread if spread > 0 else 1.0)
    how = "" if scale == "none" else f" (minus {centre:.6g}, over {spread:.6g})"
    return scaled[:, None], [name + how]
