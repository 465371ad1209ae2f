"""Rates and gaps of predictions in a file of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from evenloop.rates import group_gaps, group_rates
from evenloop.words import nearest

__all__ = ["Audited", "audit_file"]


@dataclass(frozen=True, slots=True, eq=False)
class Audited:
    """The rates of every group with counts, and the gaps between groups."""

    rates: pd.DataFrame
    gaps: pd.DataFrame


def audit_file(
    path: Path, *, truth: str, predicted: str, by: Sequence[str], min_support: int
) -> Audited:
    """Rates and gaps of the predictions in a CSV or Parquet file.

    Args:
        path: the file.
        truth, predicted: its columns of true and predicted labels.
        by: its group columns; each and their intersection.
        min_support: fewest items behind a rate that is shown.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a table, a column it does not have, or a value that cannot be counted.
    """
    table = _read(path)
    for column in (truth, predicted, *by):
        if column not in table.columns:
            raise ValueError(f"{path} has no column {column!r}; {nearest(column, table.columns)}")
    features = {name: table[name] for name in by}
    judged = (table[truth], table[predicted], features)
    rates = group_rates(*judged, min_support=min_support)
    return Audited(rates, group_gaps(*judged, min_support=min_support))


def _read(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise FileNotFoundError(f"no file {path}; give a CSV or Parquet file of predictions")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a table: {error}") from None
