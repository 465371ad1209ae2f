"""The command line: parse, call, print. Nothing heavy is imported before a command needs it.

Exit codes: 0 done, 1 failed while running, 2 wrong input and nothing was started.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    name="evenloop",
    help="Run the whole life of a model, round by round, and see what happens to every group.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Source = Annotated[str, typer.Argument(help="A preset (NAME or NAME:small) or a FILE.yaml.")]
Settings = Annotated[
    list[str] | None, typer.Argument(help="Settings as key=value, e.g. rounds=5 human=100.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder that run folders are made in.")]
Folder = Annotated[Path, typer.Argument(help="A run folder, as printed by `evenloop run`.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Plain lines instead of a live view.")]
Processes = Annotated[
    int | None, typer.Option("--processes", "-j", min=1, help="Most processes; default: cores.")
]


def main() -> None:
    """Entry point of the `evenloop` command."""
    app()


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"evenloop: {message}", err=True)
    raise typer.Exit(code)


@contextmanager
def _input() -> Iterator[None]:
    """What goes wrong inside is the user's input: one line, exit 2, nothing was started."""
    try:
        yield
    except (
        ValueError,
        KeyError,
        FileNotFoundError,
        IsADirectoryError,
        NotADirectoryError,
    ) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        _fail(str(text), 2)
    except PermissionError as error:
        _fail(f"no permission for {error.filename}; choose another place with --out", 2)
    except ImportError as error:
        _fail(str(error), 2)


@contextmanager
def _work(folder: Path) -> Iterator[None]:
    """What goes wrong inside happened later: one line, exit 1, finished rounds are kept."""
    kept = f"finished rounds are kept in {folder}; continue with: evenloop resume {folder}"
    try:
        yield
    except KeyboardInterrupt:
        _fail(f"stopped; {kept}", 1)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cause = "the disk is full" if full else str(error)
        _fail(f"{cause}; {kept}", 1)
    except (FloatingPointError, ValueError, RuntimeError) as error:
        _fail(f"{error}; {kept}", 1)


@app.command()
def run(
    source: Source,
    settings: Settings = None,
    out: Out = Path("runs"),
    quiet: Quiet = False,
    processes: Processes = None,
) -> None:
    """Run a preset or a file; an identical run is found and continued, or shown if finished."""
    with _input():
        from evenloop.config import load

        config = load(source, settings or [])
    _execute(config, out, quiet, processes)


@app.command()
def resume(folder: Folder, quiet: Quiet = False, processes: Processes = None) -> None:
    """Continue a run after its last finished round, or inside a long training."""
    with _input():
        from evenloop.study.seeds import read_study

        config, _ = read_study(folder)
    _execute(config, folder.parent, quiet, processes, folder)


def _execute(
    config: Any, out: Path, quiet: bool, processes: int | None, folder: Path | None = None
) -> None:
    with _input():
        from evenloop.build import check
        from evenloop.study.seeds import folder_of, open_study, run_seeds

        check(config)
        folder = folder or folder_of(config, out)
        open_study(config, folder)
    with _work(folder), _view(config, quiet) as progress:
        run_seeds(config, folder, progress=progress, processes=processes)
    _show(folder)


def _show(folder: Path) -> None:
    from evenloop.report.page import write_report

    with _work(folder):
        page = write_report(folder)
    for line in page.summary:
        typer.echo(line)
    typer.echo(f"run folder: {folder}")
    typer.echo(f"report: {page.path}")


@contextmanager
def _view(config: Any, quiet: bool) -> Iterator[Callable[[int, str, int, int], None]]:
    from evenloop.progress import lines, live

    view = lines if quiet or not sys.stderr.isatty() else live
    with view(config.name, config.seeds, config.rounds) as progress:
        yield progress


@app.command()
def report(folder: Folder) -> None:
    """Write report.html and metrics.parquet of a run folder again from what was counted."""
    with _input():
        from evenloop.study.seeds import read_study

        read_study(folder)
    _show(folder)


@app.command()
def presets(
    small: Annotated[bool, typer.Option(help="Only what a laptop can run.")] = False,
) -> None:
    """List the presets with paper, figure and expected cost."""
    from evenloop.config import load, preset_names

    for name in preset_names():
        about = load(name).about
        typer.echo(f"{name}")
        typer.echo(f"    {about.paper}; {about.figure}")
        if not small:
            typer.echo(f"    cost: {about.cost}")
        if about.small_cost:
            typer.echo(f"    {name}:small  cost: {about.small_cost}")


@app.command()
def bound(
    n0: Annotated[int, typer.Option(help="Human-labelled items of the first round.")],
    human: Annotated[int, typer.Option(help="Human-labelled items added per round.")],
    machine: Annotated[int, typer.Option(help="Model-labelled items added per round.")],
    delta: Annotated[float, typer.Option(help="Signed bias measured at round 0.")],
    rounds: Annotated[int, typer.Option(help="Last round.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """The feedback bound at rounds 0..ROUNDS: how far a bias can drift (Theorem 1)."""
    with _input():
        from evenloop.bound import feedback_bound

        values = feedback_bound(n0=n0, human=human, model=machine, delta=delta, rounds=rounds)
    if as_json:
        typer.echo(json.dumps(values.tolist()))
        return
    typer.echo("round  labelled  model-labelled  bound")
    for t, value in enumerate(values):
        n = n0 + t * (human + machine)
        typer.echo(f"{t:>5}  {n:>8}  {t * machine / n:>13.1%}  {value:+.6f}")
    if human:
        typer.echo(f"limit for ever more rounds: {delta * (human + machine) / human:+.6f}")
    elif machine:
        typer.echo("no limit: without human labels the bound grows like the logarithm of n")


@app.command()
def demo(out: Out = Path("runs"), quiet: Quiet = False, processes: Processes = None) -> None:
    """Label feedback on real handwritten digits, several rounds and seeds, with a report."""
    with _input():
        from evenloop.config import load

        config = load("demo")
    typer.echo("Label feedback on 5,000 real digits: a net labels part of its successor's data.")
    _execute(config, out, quiet, processes)
