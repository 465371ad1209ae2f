"""The append-only record of one run: one line per round, and the state to go on from.

A round is committed in three steps: its state is written under new names, its line is appended to
`rows.jsonl`, and `state/current.json` is replaced, naming the state and the length of `rows.jsonl`.
Whatever is interrupted, the last committed round is whole and anything after it is cut away.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evenloop.counts import Counts, Moments
from evenloop.data import COLUMNS, GroupedData

__all__ = ["Kept", "Record", "Row", "Watch", "kept_models", "write_atomically"]

MOST_CHUNKS = 64
Watch = Callable[[str, int, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What one round left: sizes, tables, numbers, alarms; everything a measure is computed from.

    `counts["audit"]` is truth against prediction on the audit split, `counts["train"]` truth
    against label in the training rows; `sizes` counts training rows in all and by origin.
    """

    round: int
    sizes: Mapping[str, int]
    counts: Mapping[str, Counts]
    moments: Mapping[str, Moments] = field(default_factory=dict)
    values: Mapping[str, float | int | str] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    stop: str | None = None

    def to_json(self) -> str:
        """One line of JSON without a timestamp: equal rows are equal bytes."""
        return json.dumps(
            {
                "round": self.round,
                "sizes": dict(self.sizes),
                "counts": {name: c.plain() for name, c in self.counts.items()},
                "moments": {
                    name: {"groups": m.groups, "table": m.table.tolist()}
                    for name, m in self.moments.items()
                },
                "values": dict(self.values),
                "alarms": self.alarms,
                "stop": self.stop,
            },
            separators=(",", ":"),
        )

    @staticmethod
    def from_json(line: str) -> Row:
        """The row a line was written from."""
        raw = json.loads(line)
        return Row(
            raw["round"],
            raw["sizes"],
            {name: Counts.from_plain(c) for name, c in raw["counts"].items()},
            {
                name: Moments(np.asarray(m["table"], np.float64).reshape(-1, 3), tuple(m["groups"]))
                for name, m in raw["moments"].items()
            },
            raw["values"],
            tuple(raw["alarms"]),
            raw["stop"],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A state read back: the data, the weights of every model by name, and the extra values."""

    data: GroupedData
    models: Mapping[str, dict[str, Any]]
    extra: Mapping[str, Any]


@dataclass(slots=True)
class Record:
    """Rows of one run; with a `folder`, also on disk. Open an existing folder to continue it.

    >>> record = Record()
    >>> len(record.rows), record.folder is None
    (0, True)
    """

    folder: Path | None = None
    rows: list[Row] = field(default_factory=list)
    watch: Watch | None = None
    _chunks: list[str] = field(default_factory=list)
    _saved: GroupedData | None = None
    _memory: Kept | None = None
    _only_to_look: bool = False

    @staticmethod
    def open(
        folder: Path | str, manifest: Mapping[str, Any], *, watch: Watch | None = None
    ) -> Record:
        """The record in `folder`, new or continued.

        Args:
            folder: made if it does not exist.
            manifest: what the run is; its "config" and "seed" must equal those already there.
            watch: told (name, epoch, epochs, rows) at the end of every training epoch.

        Raises:
            ValueError: the folder holds a run of another configuration or seed, or its files were
                changed from outside so that it cannot be continued.
        """
        folder = Path(folder)
        path = folder / "manifest.json"
        if path.exists():
            there = json.loads(path.read_text())
            wanted = json.loads(json.dumps(dict(manifest)))
            differing = [k for k in ("config", "seed") if there.get(k) != wanted.get(k)]
            if differing:
                raise ValueError(
                    f"run folder {folder} holds a run of another {' and '.join(differing)}; "
                    "choose another folder (--out) or remove it"
                )
        else:
            (folder / "state").mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(dict(manifest), indent=1).encode())
        record = Record(folder, watch=watch)
        record._recover()
        return record

    @staticmethod
    def read(folder: Path | str) -> Record:
        """The committed rounds of a run folder, for looking only; `append` refuses it.

        What an interruption left after the last committed round is passed over. A folder whose
        `state/` was removed to save room is read whole.

        Raises:
            FileNotFoundError: the folder holds no `rows.jsonl`.
        """
        path = Path(folder) / "rows.jsonl"
        if not path.exists():
            raise FileNotFoundError(f"{folder} is not a run folder: it holds no rows.jsonl")
        lines = _committed(Path(folder)).splitlines()
        rows = [Row.from_json(line.decode()) for line in lines]
        return Record(Path(folder), rows, _only_to_look=True)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run is; empty for a record in memory."""
        if self.folder is None:
            return {}
        return dict(json.loads((self.folder / "manifest.json").read_text()))

    @property
    def keep(self) -> _FolderKeep:
        """Where a long fit of this run keeps its progress.

        Raises:
            ValueError: the record was read for looking only.
        """
        self._check_ours()
        return _FolderKeep(self.folder and self.folder / "state", self.watch)

    def append(
        self,
        row: Row,
        data: GroupedData,
        models: Mapping[str, nn.Module],
        extra: Mapping[str, Any],
        samples: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit a round: its row, the state after it and a few of its rows to show.

        Raises:
            ValueError: the record was read for looking only.
        """
        self._check_ours()
        if self.folder is None:
            # A loop may go on training these very modules, so the state is a copy.
            now = {name: copy.deepcopy(model.state_dict()) for name, model in models.items()}
            self._memory = Kept(data, now, copy.deepcopy(dict(extra)))
            self.rows.append(row)
            return
        state = self.folder / "state"
        chunks = self._write_rows(state, data, row.round)
        models_file = f"models-{row.round}.pt"
        weights = {name: model.state_dict() for name, model in models.items()}
        _save(state / models_file, {"models": weights, "extra": dict(extra)})
        if samples:
            (self.folder / "samples").mkdir(exist_ok=True)
            plain = {name: _taken(value) for name, value in samples.items()}
            _save(self.folder / "samples" / f"{row.round:05d}.pt", plain)
        with (self.folder / "rows.jsonl").open("ab") as file:
            file.write(row.to_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        current = {"round": row.round, "bytes": size, "chunks": chunks, "models": models_file}
        write_atomically(state / "current.json", json.dumps(current).encode())
        self._chunks, self._saved = chunks, data
        self.rows.append(row)
        self._tidy(state, {*chunks, models_file, "current.json"})

    def _check_ours(self) -> None:
        if self._only_to_look:
            raise ValueError(
                f"the record of {self.folder} was read for looking only; continue it with "
                "Record.open"
            )

    def _write_rows(self, state: Path, data: GroupedData, round: int) -> list[str]:
        """Only the rows that were not written before; a round costs what it added."""
        start = 0
        chunks: list[str] = []
        full = len(self._chunks) >= MOST_CHUNKS
        if self._saved is not None and data.extends(self._saved) and not full:
            start, chunks = len(self._saved), list(self._chunks)
        if start < len(data) or not chunks:
            name = f"rows-{round}.pt"
            columns = data.columns(start)
            made = columns["row"] < 0
            world_knows = ("x", "truth", "attributes")
            kept = {n: c[made] if n in world_knows else c.clone() for n, c in columns.items()}
            _save(state / name, kept)
            chunks.append(name)
        return chunks

    def _tidy(self, state: Path, wanted: set[str]) -> None:
        for path in state.iterdir():
            stale = path.name not in wanted and path.suffix in (".pt", ".part")
            if stale:
                path.unlink()

    def _recover(self) -> None:
        assert self.folder is not None
        rows, current = self.folder / "rows.jsonl", self.folder / "state" / "current.json"
        content = _committed(self.folder)
        if rows.exists() and not current.parent.exists():
            raise ValueError(
                f"{self.folder} can be read but not continued: its state/ was removed; begin anew "
                "with another --out"
            )
        current.parent.mkdir(exist_ok=True)
        if not current.exists():
            rows.unlink(missing_ok=True)
            return
        with rows.open("r+b") as file:
            file.truncate(len(content))
        self.rows = [Row.from_json(line.decode()) for line in content.splitlines()]
        self._chunks = json.loads(current.read_text())["chunks"]

    def load_state(self, world: GroupedData) -> Kept | None:
        """The state after the last committed round, or None before the first.

        Args:
            world: the rows the run draws from; world rows are read from it by identity.

        Raises:
            ValueError: the state names a row that the world does not have.
        """
        if self.folder is None or not self.rows:
            return self._memory
        state = self.folder / "state"
        mark = json.loads((state / "current.json").read_text())
        parts = [_load(state / name) for name in mark["chunks"]]
        columns = {name: torch.cat([part[name] for part in parts]) for name in COLUMNS}
        data = _with_world_columns(columns, world)
        self._saved = data
        kept = _load(state / mark["models"])
        return Kept(data, kept["models"], kept["extra"])


def kept_models(folder: Path) -> Path:
    """The file of the models after the record's last round; FileNotFoundError if there is none."""
    current = folder / "state" / "current.json"
    if not current.exists():
        raise FileNotFoundError(f"{folder} holds no models: it has no finished round")
    return current.parent / str(json.loads(current.read_text())["models"])


def _committed(folder: Path) -> bytes:
    """The lines of `rows.jsonl` that belong to committed rounds."""
    rows, current = folder / "rows.jsonl", folder / "state" / "current.json"
    if not current.parent.exists():
        return rows.read_bytes() if rows.exists() else b""
    if not current.exists():
        return b""
    size = int(json.loads(current.read_text())["bytes"])
    content = rows.read_bytes()[:size] if rows.exists() else b""
    if len(content) < size:
        raise ValueError(
            f"{rows} holds {len(content)} of the {size} bytes that were written; it was changed "
            "from outside: put it back, or remove the run folder"
        )
    return content


def _with_world_columns(columns: dict[str, Tensor], world: GroupedData) -> GroupedData:
    row = columns["row"]
    known, made = row >= 0, row < 0
    place = torch.full((int(world.row.max()) + 1,), -1)
    place[world.row.cpu()] = torch.arange(len(world))
    if bool((row >= len(place)).any()) or bool((place[row[known]] < 0).any()):
        raise ValueError("the state holds rows this world does not have; is the data the same?")
    for name in ("x", "truth", "attributes"):
        source = world.columns()[name]
        if bool(known.all()):
            columns[name] = source.index_select(0, place[row].to(source.device))
            continue
        full = source.new_empty((len(row), *source.shape[1:]))
        full[known] = source[place[row[known]]]
        full[made] = columns[name].to(full.dtype)
        columns[name] = full
    return GroupedData.from_columns(world.schema, columns)


@dataclass(frozen=True, slots=True)
class _FolderKeep:
    """Progress of long fits as files; without a folder only the watcher is told."""

    folder: Path | None
    watch: Watch | None

    def _path(self, name: str) -> Path | None:
        digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        return self.folder / f"fit-{digest}.pt" if self.folder else None

    def load(self, name: str) -> dict[str, Any] | None:
        path = self._path(name)
        return _load(path) if path and path.exists() else None

    def save(self, name: str, progress: dict[str, Any]) -> None:
        if path := self._path(name):
            _save(path, progress)

    def epoch(self, name: str, epoch: int, epochs: int, rows: int) -> None:
        if self.watch:
            self.watch(name, epoch, epochs, rows)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace `path` by `content`; a reader sees the old bytes or the new ones, never a part.

    It is on the disk when this returns. If it cannot be written, nothing is left behind.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _save(path: Path, value: dict[str, Any]) -> None:
    # Through memory: torch's own writer tells of a full disk as an internal assertion.
    content = io.BytesIO()
    torch.save(value, content)
    # Released at once, also where the disk is full: a buffer that is exported cannot be freed.
    with content.getbuffer() as view:
        write_atomically(path, view)


def _taken(value: Any) -> Any:
    """All rows of a tensor, an ordinary one: some columns are made only when rows are taken."""
    return value[torch.arange(len(value))] if isinstance(value, Tensor) else value


def _load(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))
