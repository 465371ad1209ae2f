"""The command that makes generated pictures; light, since every command line imports this file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(data: typer.Typer, border: Callable[[], AbstractContextManager[None]]) -> None:
    """Add `make` to `data`; `border` turns wrong input into exit 2."""

    @data.command("make")
    def make(
        source: Annotated[str, typer.Argument(help="A preset of mix with generator=vae, or FILE.")],
        settings: Annotated[
            list[str] | None, typer.Argument(help="Settings as key=value, e.g. seeds=3.")
        ] = None,
        out: Annotated[
            Path, typer.Option("--out", "-o", help="Folder of the new pictures.")
        ] = Path("generated"),
    ) -> None:
        """Make pictures from a mixing run's train side: one folder with a manifest a seed."""
        with border():
            from evenloop.commands.make import make_generated
            from evenloop.config import load

            for path in make_generated(load(source, settings or []), out):
                typer.echo(str(path))
