"""The commands that list, fetch and check data sets; light, as every command line imports it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

__all__ = ["register"]

Border = Callable[[], AbstractContextManager[None]]
Settings = Annotated[list[str] | None, typer.Argument(help="Its settings, as key=value.")]
Root = Annotated[Path | None, typer.Option(help="Where to; default: cache.")]


def register(data: typer.Typer, border: Border, fail: Callable[[str, int], NoReturn]) -> None:
    """Add the commands to `data`; `border` turns wrong input into exit 2, `fail` ends the run."""

    @data.command("list")
    def listed() -> None:
        """Every data set by name, with what it is."""
        from evenloop import worlds

        for name in worlds.names():
            typer.echo(f"{name:<16} {worlds.WORLDS[name].about.what}")

    @data.command()
    def card(name: str) -> None:
        """What a data set is, its licence, and how its groups were obtained."""
        with border():
            from evenloop import worlds

            typer.echo(worlds.card(name))

    @data.command()
    def get(name: str, root: Root = None) -> None:
        """Fetch a data set that has a public download; an interrupted one is continued."""
        from evenloop import worlds

        if name not in worlds.REMOTE:
            known = ", ".join(sorted(worlds.REMOTE))
            fail(
                f"{name!r} has no public download; pass root= with your copy. With one: {known}", 2
            )
        try:
            place = worlds.get(name, root)
        except (OSError, ValueError) as error:
            fail(f"{name} was not fetched: {error}", 1)
        typer.echo(str(place))

    @data.command()
    def check(name: str, settings: Settings = None) -> None:
        """Read a data set whole and show its size, classes and groups."""
        with border():
            from evenloop import worlds
            from evenloop.overrides import pairs

            typer.echo(worlds.summary(worlds.build(name, **pairs(settings or [])).load()))
