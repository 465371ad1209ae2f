"""What a list of rows may say beside label and groups: the split, source and weight of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from evenloop.data import NOTHING, Attribute, GroupedData, Origin, Schema
from evenloop.samplers.cells import SPLIT, WEIGHT
from evenloop.words import nearest
from evenloop.worlds.columns import Coded, need_columns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SPLITS", "listed", "with_attribute", "with_source"]

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test",),
}
"""Name of a split -> how a list may write it."""
SOURCES: Mapping[str, tuple[str, ...]] = {
    "real": ("real",),
    "generated": ("generated", "synthetic", "fake"),
}
_DIGITS = 3  # of a weight: more would make every row's weight a value of its own


def listed(
    data: GroupedData,
    frame: pd.DataFrame,
    where: str,
    *,
    split: str = "",
    source: str = "",
    weight: str = "",
) -> GroupedData:
    """`data`, whose rows are those of `frame`, with what these columns say; "" names none.

    Args:
        data: N rows.
        frame: the same N rows as they were read.
        where: what to call the frame in an error.
        split: column of words, see `SPLITS`; becomes the attribute "split".
        source: column of words, see `SOURCES`; generated rows get that origin and identity -1.
        weight: column of positive numbers, of three digits; becomes the attribute "weight", by
            which rows of one cell are drawn.

    >>> import pandas as pd
    >>> data = GroupedData.of(torch.eye(2), [0, 1], {}, Schema(("no", "yes")))
    >>> frame = pd.DataFrame({"kind": ["real", "generated"], "w": [2, 0.5]})
    >>> data = listed(data, frame, "the table", source="kind", weight="w")
    >>> data.origin.tolist(), data.row.tolist(), data.schema.attributes[0].values
    ([0, 2], [0, -1], ('0.5', '2'))

    Raises:
        ValueError: a column is missing, a word is unknown (named with its row and the nearest), or
            a weight is not a positive number.
    """
    named = [name for name in (split, source, weight) if name]
    need_columns(frame, named, where)
    if split and SPLIT not in (a.name for a in data.schema.attributes):
        data = with_attribute(data, SPLIT, _words(frame[split], split, SPLITS, where))
    if weight:
        data = with_attribute(data, WEIGHT, _weights(frame[weight], weight, where))
    if source:
        data = with_source(data, _words(frame[source], source, SOURCES, where).codes)
    return data


def with_attribute(data: GroupedData, name: str, coded: Coded) -> GroupedData:
    """The rows with one more attribute, the last of the schema."""
    attributes = (*data.schema.attributes, Attribute(name, coded.names))
    schema = Schema(data.schema.classes, attributes, data.schema.structure)
    codes = torch.tensor(coded.codes).to(data.attributes)
    columns = data.columns()
    columns["attributes"] = torch.cat([columns["attributes"], codes[:, None]], 1)
    return GroupedData.from_columns(schema, columns)


def with_source(data: GroupedData, generated: np.ndarray) -> GroupedData:
    """The rows with those flagged in (N,) `generated` marked as made by a generator."""
    made = torch.from_numpy(generated.astype(bool))
    columns = data.columns()
    columns["origin"] = columns["origin"].masked_fill(made, int(Origin.GENERATED))
    columns["row"] = columns["row"].masked_fill(made, NOTHING)
    return GroupedData.from_columns(data.schema, columns)


def _words(column: pd.Series, name: str, known: Mapping[str, tuple[str, ...]], where: str) -> Coded:
    codes = {word: code for code, words in enumerate(known.values()) for word in words}
    said = column.astype(object).map(lambda word: codes.get(str(word).lower()))
    unknown = said.isna().to_numpy()
    if unknown.any():
        row = int(unknown.argmax())
        word = str(column.iloc[row])
        raise ValueError(
            f"{where}, row {row}: {name} is {word!r}; {nearest(word, codes)}; if the column means "
            f"something else, leave it unread with {name}=''"
        )
    return Coded(said.to_numpy(np.int64), tuple(known))


def _weights(column: pd.Series, name: str, where: str) -> Coded:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~(np.isfinite(numbers) & (numbers > 0))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"{where}, row {row}: {name} is {str(column.iloc[row])!r}; a weight is a positive "
            "number. Leave out rows that must not be drawn"
        )
    short = np.char.mod(f"%.{_DIGITS}g", numbers).astype(float)
    values, codes = np.unique(short, return_inverse=True)
    return Coded(codes.astype(np.int64), tuple(f"{value:g}" for value in values))
