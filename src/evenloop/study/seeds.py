"""All the seeds of one configuration: stacked, one process each, or here and now.

Small linear nets are stacked in this process; any other net gets one process per seed with one
thread each, as many at a time as there are cores. Which of them is written in the manifest, so
that a resumed run continues the way it began.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from evenloop import __version__
from evenloop.build import Job, assemble
from evenloop.config import ConfigError, RunConfig
from evenloop.digest import source_digest
from evenloop.loop import run
from evenloop.record import Record, write_atomically
from evenloop.rng import Rng
from evenloop.study.stack import Together, stackable

__all__ = ["How", "Progress", "folder_of", "open_study", "read_study", "run_seeds"]

How = Literal["stacked", "processes", "here"]
Progress = Callable[[int, str, int, int], None]
"""Told (seed, what, done, of): `what` is "round", or the name of a fit whose epochs are counted."""


def folder_of(config: RunConfig, out: Path) -> Path:
    """The study's folder below `out`; its name holds the hash of the configuration."""
    return out / f"{config.name}-{config.digest()}"


def open_study(config: RunConfig, folder: Path) -> None:
    """Make the folder, or check that it holds this configuration, and note the seeds.

    Raises:
        ConfigError: the folder holds another configuration.
    """
    path = folder / "manifest.json"
    seeds: set[int] = set(config.seeds)
    if path.exists():
        there = json.loads(path.read_text())
        if there["config"] != config.identity():
            raise ConfigError(
                f"{folder} holds a run of another configuration; choose another out= or remove it"
            )
        seeds |= set(there["seeds"])
    folder.mkdir(parents=True, exist_ok=True)
    about = config.about.model_dump()
    content = {"config": config.identity(), "about": about, "seeds": sorted(seeds)}
    write_atomically(path, json.dumps(content, indent=1).encode())


def read_study(folder: Path) -> tuple[RunConfig, dict[int, Record]]:
    """The configuration of a study folder and the records of its seeds so far.

    Raises:
        ConfigError: it is not a study folder.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise ConfigError(f"{folder} is not a run folder: it holds no manifest.json")
    there = json.loads(path.read_text())
    config = RunConfig.model_validate(
        {**there["config"], "about": there["about"], "seeds": there["seeds"]}
    )
    records = {
        seed: Record.read(folder / f"seed-{seed}")
        for seed in there["seeds"]
        if (folder / f"seed-{seed}" / "rows.jsonl").exists()
    }
    return config, records


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
        ConfigError: the folder holds another configuration, or is in use by another process.
    """
    open_study(config, folder)
    how = _how(config, processes)
    with _only_me(folder):
        if how == "processes":
            _in_processes(config, folder, progress, processes or os.cpu_count() or 1)
        else:
            _in_this_process(config, folder, how, progress)


def _how(config: RunConfig, processes: int | None) -> How:
    if len(config.seeds) == 1:
        return "here"
    job = assemble(config, config.seeds[0])
    if stackable(job.world.net(Rng.of(0)), job.world.recipe):
        return "stacked"
    return "here" if processes == 1 else "processes"


def _manifest(config: RunConfig, seed: int, how: How) -> dict[str, Any]:
    packages = ("torch", "numpy", "scikit-learn")
    return {
        "config": config.identity(),
        "seed": seed,
        "trainer": "stacked" if how == "stacked" else "plain",
        "evenloop": __version__,
        "source": source_digest(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "threads": torch.get_num_threads(),
    }


def _open(
    config: RunConfig, folder: Path, seed: int, how: How, progress: Progress | None
) -> Record:
    def watch(name: str, epoch: int, epochs: int, rows: int) -> None:
        if progress:
            progress(seed, name, epoch, epochs)

    manifest = _manifest(config, seed, how)
    try:
        return Record.open(folder / f"seed-{seed}", manifest, watch=watch)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _finish(job: Job, record: Record, progress: Progress | None) -> None:
    def told(round: int) -> None:
        if progress:
            progress(job.seed, "round", round, job.rounds)

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
    assert record.folder is not None
    spent = {
        "rounds": len(record.rows) - done,
        "seconds": round(time.perf_counter() - started[0], 3),
        "cpu_seconds": round(time.process_time() - started[1], 3),
    }
    with (record.folder / "timing.jsonl").open("a") as file:
        file.write(json.dumps(spent) + "\n")


def _in_this_process(config: RunConfig, folder: Path, how: How, progress: Progress | None) -> None:
    torch.set_num_threads(assemble(config, config.seeds[0]).world.recipe.threads)
    together = Together()
    jobs = []
    for seed in config.seeds:
        job, record = assemble(config, seed), _open(config, folder, seed, how, progress)
        if record.manifest.get("trainer") == "stacked":
            job = replace(job, world=replace(job.world, trainer=together.trainer))
        jobs.append((job, record))
    together.map([partial(_finish, job, record, progress) for job, record in jobs])


def _in_processes(
    config: RunConfig, folder: Path, progress: Progress | None, processes: int
) -> None:
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    with (
        ProcessPoolExecutor(
            min(processes, len(config.seeds)),
            mp_context=context,
            initializer=_enter,
            initargs=(events, os.getpid()),
        ) as pool,
        _relayed(events, progress),
    ):
        text = config.model_dump_json()
        runs = {pool.submit(_one, text, str(folder), seed): seed for seed in config.seeds}
        for finished in as_completed(runs):
            finished.result()


_EVENTS: Any = None


def _enter(events: Any, parent: int) -> None:
    """In a worker: one thread, and an end when the parent has ended."""
    global _EVENTS
    _EVENTS = events
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _one(text: str, folder: str, seed: int) -> None:
    config = RunConfig.model_validate_json(text)
    job = assemble(config, seed)
    torch.set_num_threads(job.world.recipe.threads)

    def progress(seed: int, what: str, done: int, of: int) -> None:
        _EVENTS.put((seed, what, done, of))

    record = _open(config, Path(folder), seed, "processes", progress)
    _finish(job, record, progress)


@contextmanager
def _relayed(events: Any, progress: Progress | None) -> Iterator[None]:
    """Hands the workers' events on until the block ends."""

    def relay() -> None:
        while (event := events.get()) is not None:
            if progress:
                progress(*event)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        events.put(None)
        thread.join()


@contextmanager
def _only_me(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the system releases it when the process ends, however it ends."""
    with (folder / ".lock").open("a+") as file:
        if not _lock(file):
            raise ConfigError(f"{folder} is in use by another evenloop process; wait or stop it")
        yield


def _lock(file: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # not a POSIX system: no advisory lock to take
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def seeds_of(config: RunConfig, seeds: Sequence[int]) -> RunConfig:
    """The same configuration for other seeds."""
    return config.model_copy(update={"seeds": tuple(seeds)})
