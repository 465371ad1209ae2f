"""Questions as a table for people, and their answers from one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from evenloop.config import RunConfig
from evenloop.inputs import ConfigError
from evenloop.study.questions import Question, Questions
from evenloop.words import nearest

__all__ = ["ask", "label_lines", "tell"]


def ask(folder: Path, config: RunConfig | None) -> tuple[Question, Path]:
    """The open question, also written as `question.csv` (row, label) for people to fill in.

    So that people see what they label, a further column names each picture, written to the folder
    `question`, or further columns hold a table's features as the net is given them.
    """
    asked = Questions.open(folder, config)
    question = asked.ask()
    table = pd.DataFrame({"row": question.open, "label": ""})
    shown = asked.shown(question.open)
    path = folder / "question.csv"
    pd.concat([table, shown], axis=1).to_csv(path, index=False)
    return question, path


def tell(folder: Path, answers: Path) -> Question:
    """Take in the filled rows of a CSV or Parquet file with columns row and label.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: the file cannot be read, a column is missing, a row is no whole number, or
            `Questions.tell` refuses.
    """
    if not answers.exists():
        raise FileNotFoundError(f"no file {answers}; give a table with columns row and label")
    try:
        table = _read(answers)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{answers} cannot be read ({error}); give a CSV or Parquet") from None
    for column in ("row", "label"):
        if column not in table.columns:
            raise ConfigError(f"{answers} has no column {column!r}; {nearest(column, table)}")
    labels = [_text(label) for label in table["label"]]
    filled = [place for place, label in enumerate(labels) if label]
    rows = [_whole(table["row"].iloc[place], answers) for place in filled]
    return Questions.open(folder).tell(rows, [labels[place] for place in filled])


def _read(path: Path) -> pd.DataFrame:
    """The table, a CSV as it is written: a class may be called None or NA."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _text(label: object) -> str:
    """The label as written, "" for none; a whole number that was widened loses its point again."""
    if label is None or label is pd.NA or (isinstance(label, float) and math.isnan(label)):
        return ""
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label).strip()


def _whole(row: object, path: Path) -> int:
    try:
        number = float(str(row))
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise ConfigError(f"{path}: column row must hold whole numbers, got {str(row)!r}")
    return int(number)


def label_lines(
    gap: float, *, rate: float, level: float, power: float, groups: str = ""
) -> Iterator[str]:
    """Labels per group that tell a gap; with "name=labelled,...", what each group still lacks.

    Raises:
        ConfigError: a group is not written name=number, or a number is out of range.

    >>> next(label_lines(0.1, rate=0.5, level=0.05, power=0.8))
    '392 labels in each of two groups tell a gap of 0.1 between their rates'
    """
    import torch

    from evenloop.heuristics.plan import label_plan, labels_per_group

    if not groups:
        need = labels_per_group(gap, rate=rate, level=level, power=power)
        yield f"{need} labels in each of two groups tell a gap of {gap:g} between their rates"
        return
    pairs = [part.partition("=") for part in groups.split(",")]
    if not all(name.strip() and held.strip().isdigit() for name, _, held in pairs):
        raise ConfigError(f"groups={groups!r}: write name=labelled, such as f=20,m=90")
    names = tuple(name.strip() for name, _, _ in pairs)
    have = torch.tensor([int(held) for _, _, held in pairs])
    unlimited = torch.full_like(have, 2**62)
    yield label_plan(gap, names, have, unlimited, rate=rate, level=level, power=power).text()
