"""The commands that put questions to people; light, since every command line imports this file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["ask", "plan_labels", "register", "tell"]


def register(
    app: typer.Typer, plan: typer.Typer, border: Callable[[], AbstractContextManager[None]]
) -> None:
    """Add `ask` and `tell` to `app` and `labels` to `plan`; `border` turns errors into exit 2."""

    def guarded(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def inside(*args: Any, **values: Any) -> None:
            with border():
                command(*args, **values)

        return inside

    plan.command("labels")(guarded(plan_labels))
    app.command()(guarded(ask))
    app.command()(guarded(tell))


def plan_labels(
    gap: Annotated[float, typer.Option(help="Difference of two groups' rates that matters.")],
    rate: Annotated[float, typer.Option(help="Mean of the two rates; 0.5 needs most.")] = 0.5,
    level: Annotated[float, typer.Option(help="Two-sided error where there is no gap.")] = 0.05,
    power: Annotated[float, typer.Option(help="Chance to see the gap.")] = 0.8,
    groups: Annotated[str, typer.Option(help="name=labelled, comma-separated.")] = "",
) -> None:
    """How many labels of each group tell a gap between groups of this size."""
    from evenloop.commands.questions import label_lines

    for line in label_lines(gap, rate=rate, level=level, power=power, groups=groups):
        typer.echo(line)


def ask(
    folder: Annotated[Path, typer.Argument(help="Where the session is kept; made if needed.")],
    source: Annotated[str, typer.Argument(help="A preset or FILE.yaml, to begin one.")] = "",
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings as key=value, e.g. query=20.")
    ] = None,
) -> None:
    """Write the rows that people should label next to question.csv; again until answered."""
    from evenloop.commands.questions import ask as asked
    from evenloop.config import load

    question, path = asked(folder, load(source, settings or []) if source else None)
    for alarm in question.alarms:
        typer.echo(f"note: {alarm}", err=True)
    typer.echo(f"round {question.round}: {len(question.open)} of {len(question.rows)} rows open")
    typer.echo(f"fill in the labels and run: evenloop tell {folder} {path}")


def tell(
    folder: Annotated[Path, typer.Argument(help="The session's folder.")],
    answers: Annotated[Path, typer.Argument(help="A CSV or Parquet file: row, label.")],
) -> None:
    """Take in the labels that people gave; rows left empty stay open."""
    from evenloop.commands.questions import tell as told

    question = told(folder, answers)
    typer.echo(f"round {question.round}: {len(question.open)} of {len(question.rows)} rows open")
