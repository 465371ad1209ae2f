"""The folder of a study: what was asked, who may write, and the records of its seeds."""

from __future__ import annotations

import json
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evenloop import __version__
from evenloop.config import RunConfig
from evenloop.digest import source_digest
from evenloop.inputs import ConfigError
from evenloop.record import Record, write_atomically
from evenloop.study.links import unlinked

__all__ = [
    "NotStarted",
    "changes",
    "code",
    "folder_of",
    "goes_on",
    "only_me",
    "open_study",
    "read_config",
    "read_study",
    "warn_of_changes",
]


class NotStarted(ConfigError):
    """The folder cannot be used; nothing in it was changed."""


def folder_of(config: RunConfig, out: Path) -> Path:
    """The study's folder below `out`; its name holds the hash of the configuration."""
    return out / f"{config.name}-{config.digest()}"


def open_study(config: RunConfig, folder: Path) -> None:
    """Note in the folder what was asked: this configuration, its rounds, and seeds to add.

    Raises:
        NotStarted: the folder holds another configuration.
    """
    path = folder / "manifest.json"
    seeds: set[int] = set(config.seeds)
    if path.exists():
        there = _manifest_of(folder)
        if there["config"] != config.identity():
            raise NotStarted(
                f"{folder} holds a run of another configuration; choose another --out or remove it"
            )
        seeds |= set(there["seeds"])
    content = {
        "config": config.identity(),
        "about": config.about.model_dump(),
        "rounds": config.rounds,
        "seeds": sorted(seeds),
    }
    write_atomically(path, json.dumps(content, indent=1).encode())


def _manifest_of(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.exists():
        raise ConfigError(f"{folder} is not a run folder: it holds no manifest.json")
    try:
        there = dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
    if not {"config", "seeds"} <= set(there):
        raise ConfigError(f"{folder} is not a run folder, or one seed's: its manifest has no seeds")
    return there


def read_config(folder: Path) -> RunConfig:
    """What was last asked of a study folder, with all its seeds; reads its manifest only.

    Raises:
        ConfigError: it is not a study folder, or one that this version cannot read.
    """
    there = _manifest_of(folder)
    asked = {key: there[key] for key in ("about", "rounds", "seeds") if key in there}
    try:
        return RunConfig.model_validate(there["config"] | asked)
    except ValueError as error:
        raise ConfigError(f"{folder} cannot be read by evenloop {__version__}: {error}") from None


def read_study(folder: Path) -> tuple[RunConfig, dict[int, Record]]:
    """The configuration of a study folder and the records of its seeds that have a round.

    The rows of a chain are read as its loops wrote them, see `unlinked`.

    Raises:
        ConfigError: it is not a study folder.
        ValueError: a record was changed from outside.
    """
    config = read_config(folder)
    records = {
        seed: Record.read(folder / f"seed-{seed}")
        for seed in config.seeds
        if (folder / f"seed-{seed}" / "rows.jsonl").exists()
    }
    for record in records.values():
        record.rows = unlinked(record.rows)
    return config, {seed: record for seed, record in records.items() if record.rows}


def warn_of_changes(config: RunConfig, folder: Path) -> None:
    """One warning if a run that goes on was begun by other code."""
    for seed in config.seeds:
        place = folder / f"seed-{seed}"
        if not (place / "rows.jsonl").exists():
            continue
        record = Record.read(place)
        changed = changes(record.manifest)
        if changed and goes_on(record, config.rounds):
            what = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())
            warnings.warn(
                f"{place} was begun with other code ({what}): its rounds from {len(record.rows)} "
                "on may differ from those of an uninterrupted run",
                stacklevel=3,
            )
            return


def goes_on(record: Record, rounds: int) -> bool:
    """Whether a run of that many rounds continues what the record holds."""
    return 0 < len(record.rows) < rounds and not record.rows[-1].stop


def code() -> dict[str, Any]:
    """What runs here: versions of everything that numbers depend on."""
    packages = ("torch", "numpy", "scikit-learn")
    return {
        "evenloop": __version__,
        "source": source_digest(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def changes(manifest: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(then, now) of everything that a run was begun with and that is something else by now."""

    def flat(made: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in made.items() if k != "versions"} | dict(made.get("versions", {}))

    then, now = flat(manifest), flat(code())
    return {name: (then.get(name), now[name]) for name in now if then.get(name) != now[name]}


@contextmanager
def only_me(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Holds the folder's lock; the system releases it when the process ends, however it ends.

    Waits up to `patience` seconds for it.

    Raises:
        NotStarted: another process holds it; names that process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience
    with (folder / ".lock").open("a+") as file:
        while not _lock(file):
            if time.monotonic() >= until:
                file.seek(0)
                who = f" ({holder})" if (holder := file.read()) else ""
                raise NotStarted(
                    f"{folder} is in use by another evenloop process{who}; wait or stop it"
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield
        file.truncate(0)


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
