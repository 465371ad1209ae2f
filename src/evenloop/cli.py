"""The command line: parse, call, print. Nothing heavy is imported before a command needs it.

Exit codes: 0 done, 1 failed while running, 2 wrong input and nothing was started.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from evenloop.commands import asking, checking, data_sets, making

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


def _version(wanted: bool) -> None:
    if wanted:
        from evenloop import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    """Run the whole life of a model, round by round, and see what happens to every group."""


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
        _fail(f"{_seed_of(error)}{cause}; {kept}", 1)
    except FloatingPointError as error:
        _fail(
            f"{_seed_of(error)}{error}; resumed, it would end alike: change a setting and run "
            f"again, which makes a folder of its own (finished rounds are kept in {folder})",
            1,
        )
    except (ValueError, RuntimeError) as error:
        from evenloop.study.folder import NotStarted

        if isinstance(error, NotStarted) and not _seed_of(error):
            _fail(str(error), 2)
        _fail(f"{_seed_of(error)}{error}; {kept}", 1)


def _seed_of(error: Exception) -> str:
    """Which seed failed, as `run_seeds` notes it."""
    return "".join(f"{note}: " for note in getattr(error, "__notes__", ()))


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
        from evenloop.study.folder import read_config

        config = read_config(folder)
    _execute(config, folder.parent, quiet, processes, folder)


def _execute(
    config: Any, out: Path, quiet: bool, processes: int | None, folder: Path | None = None
) -> None:
    with _input():
        from evenloop.build import check
        from evenloop.study.seeds import folder_of, run_seeds

        notes = check(config)
        folder = folder or folder_of(config, out)
    _tell(notes)
    with _work(folder), _view(config, quiet) as progress:
        run_seeds(config, folder, progress=progress, processes=processes)
    _show(folder)


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)


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
    from evenloop.commands.presets import preset_lines

    for line in preset_lines(small):
        typer.echo(line)


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
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Run folders; the first is the reference.")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Metrics; default: all shared.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="audit, train, or counts of the loop's own; METRIC@SPLIT names one each."
        ),
    ] = "audit",
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this file.")] = None,
) -> None:
    """Compare finished runs, paired by seed: means, and differences from the first run."""
    with _input():
        from evenloop.commands.tables import comparison_lines
        from evenloop.study.compare import arms_of, compare

        table = compare(arms_of(folders), metric or (), split=split)
    for line in comparison_lines(table, 0.95):
        typer.echo(line)
    if csv:
        table.to_csv(csv, index=False)


@app.command()
def sweep(
    source: Annotated[str, typer.Argument(help="A packaged sweep's name or a FILE.yaml.")],
    settings: Settings = None,
    out: Out = Path("runs"),
    quiet: Quiet = False,
    processes: Processes = None,
) -> None:
    """Run several arms of one experiment with the same seeds and compare them in pairs."""
    with _input():
        from evenloop.build import check
        from evenloop.commands.tables import comparison_lines
        from evenloop.report.arms import write_arms
        from evenloop.study.compare import arms_of, compare
        from evenloop.study.seeds import folder_of, run_seeds
        from evenloop.study.sweep import load_sweep

        plan = load_sweep(source, tuple(settings or ()))
        notes: dict[str, list[str]] = {}
        for name, config in plan.arms.items():
            for note in check(config):
                notes.setdefault(note, []).append(name)
    _tell([f"arm {', '.join(names)}: {note}" for note, names in notes.items()])
    folders = {}
    for name, config in plan.arms.items():
        folders[name] = folder_of(config, out)
        with _work(folders[name]), _view(config, quiet) as progress:
            run_seeds(config, folders[name], progress=progress, processes=processes)
    with _input():
        arms = arms_of([*folders.values()], [*folders])
        table = compare(arms, plan.metrics)
    for line in comparison_lines(table, 0.95):
        typer.echo(line)
    for name, folder in folders.items():
        typer.echo(f"{name}: {folder}")
    with _input():
        page = write_arms(
            out / f"sweep-{plan.name}-{plan.digest()}.html",
            plan.name,
            folders,
            plan.metrics,
            plan.curves,
        )
    typer.echo(f"report: {page.path}")


@app.command()
def audit(
    predictions: Annotated[Path, typer.Argument(help="A CSV or Parquet file, a row per item.")],
    truth: Annotated[str, typer.Option(help="Column of true labels.")] = "y_true",
    predicted: Annotated[str, typer.Option(help="Column of predicted labels.")] = "y_pred",
    by: Annotated[
        list[str] | None, typer.Option("--by", help="Group column; repeat for several.")
    ] = None,
    min_support: Annotated[int, typer.Option(min=1, help="Fewest items behind a rate.")] = 1,
) -> None:
    """Rates of every group in a file of predictions, with counts, and the gaps between groups."""
    with _input():
        if not by:
            _fail("name at least one group column with --by", 2)
        from evenloop.commands.audit import audit_file
        from evenloop.commands.tables import lines

        found = audit_file(
            predictions, truth=truth, predicted=predicted, by=by, min_support=min_support
        )
    for table in (found.rates, found.gaps):
        typer.echo("\n".join(lines(table)))
        typer.echo("")


data_app = typer.Typer(help="Data sets: list, fetch and check them.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.command()
def doctor() -> None:
    """What this machine and installation can do."""
    from evenloop.commands.doctor import findings

    for what, finding in findings():
        typer.echo(f"{what:<18} {finding}")


plan_app = typer.Typer(help="What a choice can and cannot do, before a run.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")


@plan_app.command("reparation")
def plan_reparation(
    share: Annotated[str, typer.Option(help="Share of every stratum, comma-separated.")],
    batch: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 256,
    budget: Annotated[str, typer.Option(help="Rows drawn beyond it: a count or 25%.")] = "25%",
    ideal: Annotated[str, typer.Option(help="Target shares; default: uniform.")] = "",
    fill: Annotated[
        str, typer.Option(help="unfiltered, surplus, reject or repeat.")
    ] = "unfiltered",
    names: Annotated[str, typer.Option(help="Names of the strata, comma-separated.")] = "",
) -> None:
    """STAR: which strata of a skewed source a budget fills, and the mix a batch ends with."""
    with _input():
        from evenloop.commands.plan import reparation_lines

        numbers = [[float(v) for v in text.split(",") if v.strip()] for text in (share, ideal)]
        labels = [name.strip() for name in names.split(",") if name.strip()]
        found = list(
            reparation_lines(
                numbers[0], batch=batch, budget=budget, ideal=numbers[1], fill=fill, names=labels
            )
        )
    for line in found:
        typer.echo(line)


asking.register(app, plan_app, _input)
making.register(data_app, _input)
checking.register(app, _input)
data_sets.register(data_app, _input, _fail)


@app.command()
def demo(out: Out = Path("runs"), quiet: Quiet = False, processes: Processes = None) -> None:
    """Label feedback on real handwritten digits, several rounds and seeds, with a report."""
    with _input():
        from evenloop.config import load

        config = load("demo")
    typer.echo("Label feedback on 5,000 real digits: a net labels part of its successor's data.")
    _execute(config, out, quiet, processes)
