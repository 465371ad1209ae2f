"""The command that checks a run without starting it; light, as every command line imports it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer, border: Callable[[], AbstractContextManager[None]]) -> None:
    """Add `check` to `app`; `border` turns wrong input into exit 2."""

    @app.command()
    def check(
        source: Annotated[
            str, typer.Argument(help="A preset (NAME or NAME:small) or a FILE.yaml.")
        ],
        settings: Annotated[
            list[str] | None, typer.Argument(help="Settings as key=value, as for `run`.")
        ] = None,
    ) -> None:
        """Try everything that could stop a run, and say what its data lacks; nothing is trained."""
        with border():
            from evenloop.build import check
            from evenloop.config import load

            config = load(source, settings or [])
            notes = check(config)
        for note in notes:
            typer.echo(f"note: {note}")
        typer.echo(f"{config.name}: nothing stops this run (seed {config.seeds[0]} was tried)")
