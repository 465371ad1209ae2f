"""All the seeds of one configuration: stacked, one process each, or here and now.

Small linear nets are stacked in this process; any other net gets one process per seed with one
thread each, as many at a time as there are cores. Which of them is written in the manifest, so
that a resumed run continues the way it began.

A seed that fails does not stop the others. Ctrl-C stops all of them before it comes out of
`run_seeds`, and only then is the folder free for another process. Both the study's folder and each
seed's are locked, so that a worker that has not yet noticed the end of its parent is waited for.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any, Literal

import torch

from evenloop.build import Job, assemble
from evenloop.config import RunConfig
from evenloop.inputs import ConfigError
from evenloop.loop import run
from evenloop.record import Record
from evenloop.rng import Rng
from evenloop.study.folder import (
    NotStarted,
    changes,
    code,
    folder_of,
    goes_on,
    only_me,
    open_study,
    read_config,
    read_study,
    warn_of_changes,
)
from evenloop.study.stack import Together, stackable

__all__ = [
    "How",
    "NotStarted",
    "Progress",
    "folder_of",
    "open_study",
    "read_config",
    "read_study",
    "run_seeds",
]

# How long a seed's folder may still be held by a worker whose parent was killed.
PATIENCE = 10.0
How = Literal["stacked", "processes", "here"]
Progress = Callable[[int, str, int, int], None]
"""Told (seed, what, done, of): `what` is "round", or the name of a fit whose epochs are counted."""


def run_seeds(
    config: RunConfig,
    folder: Path,
    *,
    progress: Progress | None = None,
    processes: int | None = None,
) -> None:
    """Run or resume every seed of `config` in the study folder `folder`.

    Args:
        config: what to run; its seeds are added to those already there.
        folder: the study's, see `folder_of`; made if needed.
        progress: told of rounds and epochs.
        processes: most processes at a time; as many as cores by default.

    Raises:
        NotStarted: the folder cannot be made, holds another configuration, or is in use by another
            process.
        Exception: what the first of the failed seeds failed with, when all seeds have ended; a
            note names the seed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotStarted(f"{folder}: {error.strerror}; choose another place with --out") from None
    with only_me(folder):
        open_study(config, folder)
        warn_of_changes(config, folder)
        how = _how(config, processes)
        if how == "processes":
            outcomes = _in_processes(config, folder, progress, processes or os.cpu_count() or 1)
        else:
            outcomes = _in_this_process(config, folder, how, progress)
    failed = {seed: error for seed, error in outcomes.items() if error is not None}
    for seed in sorted(failed):
        rest = f"; {len(failed)} of {len(outcomes)} seeds failed" if len(outcomes) > 1 else ""
        failed[seed].add_note(f"seed {seed}{rest}")
        raise failed[seed]


def _how(config: RunConfig, processes: int | None) -> How:
    if len(config.seeds) == 1:
        return "here"
    job = assemble(config, config.seeds[0])
    if stackable(job.world.net(Rng.of(0)), job.world.recipe):
        return "stacked"
    return "here" if processes == 1 else "processes"


def _manifest(config: RunConfig, job: Job, how: How) -> dict[str, Any]:
    return {
        "config": config.identity(),
        "seed": job.seed,
        "notes": list(job.notes),
        **({"alarms": list(job.alarms)} if job.alarms else {}),
        "trainer": "stacked" if how == "stacked" else "plain",
        **code(),
        "threads": torch.get_num_threads(),
    }


def _open(config: RunConfig, folder: Path, job: Job, how: How, progress: Progress | None) -> Record:
    def watch(name: str, epoch: int, epochs: int, rows: int) -> None:
        if progress:
            progress(job.seed, name, epoch, epochs)

    manifest = _manifest(config, job, how)
    try:
        return Record.open(folder / f"seed-{job.seed}", manifest, watch=watch)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _finish(job: Job, record: Record, progress: Progress | None) -> None:
    def told(round: int) -> None:
        if progress:
            progress(job.seed, "round", round, job.rounds)

    changed = changes(record.manifest) if goes_on(record, job.rounds) else {}
    if changed:
        _note(record, {"resumed": {"round": len(record.rows), "code": code()}})

    started = time.perf_counter(), time.process_time()
    done = len(record.rows)
    run(
        job.loop,
        job.world,
        job.audit,
        rounds=job.rounds,
        seed=job.seed,
        record=record,
        claims=job.claims,
        tell=told,
    )
    spent = {
        "rounds": len(record.rows) - done,
        "seconds": round(time.perf_counter() - started[0], 3),
        "cpu_seconds": round(time.process_time() - started[1], 3),
    }
    _note(record, spent)


def _note(record: Record, line: Mapping[str, Any]) -> None:
    """A line beside the rows, which stay free of everything that is not the experiment."""
    assert record.folder is not None
    with (record.folder / "timing.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def _in_this_process(
    config: RunConfig, folder: Path, how: How, progress: Progress | None
) -> dict[int, Exception | None]:
    torch.set_num_threads(assemble(config, config.seeds[0]).world.recipe.threads)
    together = Together()

    def watched(seed: int, what: str, done: int, of: int) -> None:
        together.check()
        if progress:
            progress(seed, what, done, of)

    stacked: dict[int, Callable[[], None]] = {}
    plain: dict[int, Callable[[], None]] = {}
    with ExitStack() as held:
        for seed in config.seeds:
            held.enter_context(only_me(folder / f"seed-{seed}", PATIENCE))
            job = assemble(config, seed)
            record = _open(config, folder, job, how, watched)
            if record.manifest.get("trainer") == "stacked":
                job = replace(job, world=replace(job.world, trainer=together.trainer))
                stacked[seed] = partial(_finish, job, record, watched)
            else:
                plain[seed] = partial(_finish, job, record, watched)
        outcomes = dict(zip(stacked, together.map([*stacked.values()]), strict=True))
        # One after the other and without threads: Ctrl-C comes out of the run itself.
        for seed, finish in plain.items():
            outcomes[seed] = together.map([finish])[0]
    return outcomes


def _in_processes(
    config: RunConfig, folder: Path, progress: Progress | None, processes: int
) -> dict[int, Exception | None]:
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    # Nothing is ever sent: workers end when this end is closed, be it by the end of the process.
    there, lifeline = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(processes, len(config.seeds)),
        mp_context=context,
        initializer=_enter,
        initargs=(events, there),
    )
    text = config.model_dump_json()
    try:
        with _relayed(events, progress):
            with _sigint_blocked():
                runs = {pool.submit(_one, text, str(folder), seed): seed for seed in config.seeds}
            outcomes = {runs[done]: _error_of(done.exception()) for done in as_completed(runs)}
        pool.shutdown()
    finally:
        # After the shutdown above nobody listens; after Ctrl-C every worker leaves at once.
        lifeline.close()
        there.close()
        pool.shutdown(cancel_futures=True)
    return outcomes


def _error_of(error: BaseException | None) -> Exception | None:
    if error is not None and not isinstance(error, Exception):
        raise error
    return error


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes begun inside are deaf to Ctrl-C from their first instruction on."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows: `_enter` makes them deaf a little later
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_EVENTS: Any = None


def _enter(events: Any, lifeline: Any) -> None:
    """In a worker: Ctrl-C is the parent's business, and the parent's end is the worker's."""
    global _EVENTS
    _EVENTS = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(lifeline,), daemon=True).start()


def _leave_with(lifeline: Any) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    # A record survives an end at any moment, so there is nothing to tidy up.
    os._exit(1)


def _one(text: str, folder: str, seed: int) -> None:
    config = RunConfig.model_validate_json(text)
    job = assemble(config, seed)
    torch.set_num_threads(job.world.recipe.threads)

    def progress(seed: int, what: str, done: int, of: int) -> None:
        _EVENTS.put((seed, what, done, of))

    with only_me(Path(folder) / f"seed-{seed}", PATIENCE):
        record = _open(config, Path(folder), job, "processes", progress)
        _finish(job, record, progress)


@contextmanager
def _relayed(events: Any, progress: Progress | None) -> Iterator[None]:
    """Hands the workers' events on until the block ends."""
    ended = threading.Event()

    def relay() -> None:
        # Not ended by a message: a worker killed while it wrote may have left the queue locked.
        while True:
            try:
                event = events.get(timeout=0.1)
            except Empty:
                if ended.is_set():
                    return
                continue
            if progress:
                progress(*event)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5.0)
