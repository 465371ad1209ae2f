"""The append-only record of one run: one line per round, and the state to go on from.

A round is committed in three steps: its state is written under new names, its line is appended to
`rows.jsonl`, and `state/current.json` is replaced, naming the state and the length of `rows.jsonl`.
Whatever is interrupted, the last committed round is whole and anything after it is cut away.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evenloop.counts import Counts, Moments
from evenloop.data import GroupedData
from evenloop.disk import FolderKeep, Watch, load, save, write_atomically
from evenloop.known import OF_THE_WORLD, KnownRows

__all__ = ["Kept", "Record", "Row", "Watch", "kept_models", "write_atomically"]

MOST_CHUNKS = 64


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
    _world: KnownRows | None = None
    _whose: dict[str, str] = field(default_factory=dict)
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
    def keep(self) -> FolderKeep:
        """Where a long fit of this run keeps its progress.

        Raises:
            ValueError: the record was read for looking only.
        """
        self._check_ours()
        return FolderKeep(self.folder and self.folder / "state", self.watch)

    def begin(self, world: GroupedData, whose: Mapping[str, str]) -> None:
        """Say whose rounds follow, and which rows they draw from.

        Args:
            world: rows that need not be written again, being known by their identity.
            whose: what may not change from round to round (the seed, the loop's fields), by name.

        Raises:
            ValueError: the record was read for looking only, or holds rounds of another run.
        """
        self._check_ours()
        self._world = KnownRows(world)
        seed = {"seed": str(self.manifest["seed"])} if "seed" in self.manifest else {}
        there = seed | (self._whose if self.rows else {})
        for name in there:
            if name in whose and whose[name] != there[name]:
                place = "in memory" if self.folder is None else f"in {self.folder}"
                raise ValueError(
                    f"the record {place} is of a run with {name}={there[name]}, and this one has "
                    f"{name}={whose[name]}; give this run a record of its own, or continue that "
                    "one with what it was begun with"
                )
        self._whose = dict(whose)

    def append(
        self,
        row: Row,
        data: GroupedData,
        models: Mapping[str, nn.Module],
        extra: Mapping[str, Any],
        samples: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit a round: its row, the state after it and a few of its rows to show.

        Of rows of the world that `begin` was told of, only what differs from it is written.

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
        save(state / models_file, {"models": weights, "extra": dict(extra)})
        if samples:
            (self.folder / "samples").mkdir(exist_ok=True)
            plain = {name: _taken(value) for name, value in samples.items()}
            save(self.folder / "samples" / f"{row.round:05d}.pt", plain)
        with (self.folder / "rows.jsonl").open("ab") as file:
            file.write(row.to_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        current = {
            "round": row.round,
            "bytes": size,
            "chunks": chunks,
            "models": models_file,
            "whose": self._whose,
        }
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
            kept = {n: c.clone() for n, c in columns.items() if n not in OF_THE_WORLD}
            for known in OF_THE_WORLD:
                as_there = self._world is not None and self._world.holds(known, columns)
                kept[known] = columns[known][made] if as_there else _taken(columns[known])
            save(state / name, kept)
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
        mark = json.loads(current.read_text())
        self._chunks, self._whose = mark["chunks"], dict(mark.get("whose", {}))

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
        parts = [load(state / name) for name in mark["chunks"]]
        data = KnownRows(world).restored(parts)
        self._saved = data
        kept = load(state / mark["models"])
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


def _taken(value: Any) -> Any:
    """All rows of a tensor, an ordinary one: some columns are made only when rows are taken."""
    return value[torch.arange(len(value))] if isinstance(value, Tensor) else value
