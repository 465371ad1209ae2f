"""Questions as a table for people, and their answers from one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from evenloop.config import ConfigError, RunConfig
from evenloop.study.questions import Question, Questions
from evenloop.words import nearest

__all__ = ["ask", "label_lines", "tell"]


def ask(folder: Path, config: RunConfig | None) -> tuple[Question, Path]:
    """The open question, also written as `question.csv` (row, label) for people to fill in."""
    question = Questions.open(folder, config).ask()
    path = folder / "question.csv"
    pd.DataFrame({"row": question.open, "label": ""}).to_csv(path, index=False)
    return question, path


def tell(folder: Path, answers: Path) -> Question:
    """Take in the filled rows of a CSV or Parquet file with columns row and label.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: a column is missing, a row is no number, or `Questions.tell` refuses.
    """
    if not answers.exists():
        raise FileNotFoundError(f"no file {answers}; give a table with columns row and label")
    read = pd.read_parquet if answers.suffix == ".parquet" else pd.read_csv
    table = read(answers)
    for column in ("row", "label"):
        if column not in table.columns:
            raise ConfigError(f"{answers} has no column {column!r}; {nearest(column, table)}")
    filled = table[table["label"].notna() & (table["label"].astype(str).str.strip() != "")]
    try:
        rows = [int(row) for row in filled["row"]]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{answers}: column row must hold whole numbers ({error})") from None
    labels = [_text(label) for label in filled["label"]]
    return Questions.open(folder).tell(rows, labels)


def _text(label: object) -> str:
    """The label as written; a whole number that pandas widened loses its point again."""
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label).strip()


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
