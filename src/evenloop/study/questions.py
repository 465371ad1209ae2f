"""Labels that come from outside: questions wait in a folder until people have answered them.

Everything is derived from three files, so a restart between a question and its answers, or a kill
at any moment, loses nothing: `session.json` (what is run), `question.json` (the open question,
replaced as a whole) and `answers.jsonl` (one line per label, flushed as it is told). Whoever
changes one of them holds the folder's lock: of two programs at once one waits for the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evenloop.build import Job, assemble
from evenloop.config import RunConfig
from evenloop.data import GroupedData
from evenloop.inputs import ConfigError, construct
from evenloop.loop import State
from evenloop.loops import find
from evenloop.loops.acquire import Acquire
from evenloop.record import write_atomically
from evenloop.rng import Rng
from evenloop.study.folder import only_me
from evenloop.words import nearest
from evenloop.worlds import WORLDS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Question", "Questions"]

MOST_SHOWN = 50
PATIENCE = 10.0  # seconds that answers wait for others to be taken in


@dataclass(frozen=True, slots=True)
class Question:
    """The rows of one round that people are asked about: `rows` of the source, `open` ones left.

    `alarms` are sentences about how they were chosen.
    """

    round: int
    rows: tuple[int, ...]
    open: tuple[int, ...]
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Questions:
    """A folder in which the questions of an `acquire` loop wait for answers.

    The labels of the world are never read but for the rows of the audit split; what is told is
    what is trained on. A row is named by its place in the source (`GroupedData.row`).
    """

    folder: Path
    config: RunConfig

    @staticmethod
    def open(folder: Path | str, config: RunConfig | None = None) -> Questions:
        """The session in `folder`, new (with `config`) or continued.

        Raises:
            ConfigError: there is no session and no config, another config than the one that is
                there, or one whose loop is not a single `acquire`.
        """
        folder = Path(folder)
        path = folder / "session.json"
        if path.exists():
            there = json.loads(path.read_text())
            kept = RunConfig.model_validate(there["config"] | {"seeds": [there["seed"]]})
            if config is not None and config.identity() != kept.identity():
                raise ConfigError(f"{folder} holds a session of another configuration")
            return Questions(folder, kept)
        if config is None:
            raise ConfigError(f"{folder} holds no session; name a preset or file to begin one")
        verbs = [verb for entry in config.loop for verb in entry]
        if len(verbs) != 1 or find(verbs[0]) is not Acquire:
            raise ConfigError("questions need a loop that is one `acquire`")
        _check_fields(config.loop[0][verbs[0]] or {})
        asked = config.identity() | {"rounds": config.rounds}
        content = {"config": asked, "seed": config.seeds[0]}
        with only_me(folder, PATIENCE):
            if not path.exists():
                write_atomically(path, json.dumps(content, indent=1).encode())
        return Questions.open(folder, config)

    def answers(self) -> dict[int, str]:
        """Every label told so far, by row, in the order told."""
        path = self.folder / "answers.jsonl"
        if not path.exists():
            return {}
        told = [json.loads(line) for line in path.read_text().splitlines()]
        return {int(a["row"]): str(a["label"]) for a in told}

    def question(self) -> Question | None:
        """The last question asked, or None before the first."""
        path = self.folder / "question.json"
        if not path.exists():
            return None
        kept, told = json.loads(path.read_text()), self.answers()
        rows = tuple(kept["rows"])
        left = tuple(r for r in rows if r not in told)
        return Question(kept["round"], rows, left, tuple(kept.get("alarms", ())))

    def ask(self) -> Question:
        """The open question if any of it is unanswered, else the next one, chosen by the loop.

        Trains on all answers before choosing; the same answers give the same question.

        Raises:
            ConfigError: the pool is empty.
            NotStarted: another process asks or tells in this folder; names it.
        """
        with only_me(self.folder, PATIENCE):
            last = self.question()
            return last if last is not None and last.open else self._asked(last)

    def _asked(self, last: Question | None) -> Question:
        job = assemble(self.config, self.config.seeds[0])
        number = 0 if last is None else last.round + 1
        rows, alarms = (self._first(job), ()) if last is None else self._next(job, number)
        if not len(rows):
            raise ConfigError("the pool is empty: every row has been asked about")
        chosen = {"round": number, "rows": rows.tolist(), "alarms": list(alarms)}
        write_atomically(self.folder / "question.json", json.dumps(chosen).encode())
        found = self.question()
        assert found is not None
        return found

    def tell(self, rows: Sequence[int], labels: Sequence[str]) -> Question:
        """Take in labels of rows of the open question; all of them or, if one is wrong, none.

        Args:
            rows: which rows, any part of what is open, in any order.
            labels: a class name for each.

        Raises:
            ConfigError: no question is open, lengths differ, a row was not asked about or was
                told before (also twice in this call), or a label is not a class.
            NotStarted: another process asks or tells in this folder; names it.
        """
        classes = _classes(self.config)  # reads the data: too long to keep others waiting
        with only_me(self.folder, PATIENCE):
            return self._told(rows, labels, classes)

    def _told(self, rows: Sequence[int], labels: Sequence[str], classes: Sequence[str]) -> Question:
        question, told = self.question(), self.answers()
        if question is None:
            raise ConfigError(f"nothing has been asked in {self.folder} yet; ask first")
        if len(rows) != len(labels):
            raise ConfigError(f"{len(rows)} rows and {len(labels)} labels; give one label a row")
        for place, (row, label) in enumerate(zip(rows, labels, strict=True)):
            if row in told or row in rows[:place]:
                raise ConfigError(f"row {row} was told before; a label is taken once")
            if row not in question.open:
                raise ConfigError(
                    f"row {row} was not asked about; {nearest(str(row), question.open)}"
                )
            if label not in classes:
                raise ConfigError(f"label {label!r} of row {row}: {nearest(label, classes)}")
        lines = [
            json.dumps({"round": question.round, "row": int(r), "label": label})
            for r, label in zip(rows, labels, strict=True)
        ]
        path = self.folder / "answers.jsonl"
        before = path.read_bytes() if path.exists() else b""
        # whole or not at all, also when the machine stops in the middle of it
        write_atomically(path, before + "".join(line + "\n" for line in lines).encode())
        found = self.question()
        assert found is not None
        return found

    def shown(self, rows: Sequence[int]) -> pd.DataFrame:
        """What people may look at to label `rows`: one line each, in their order.

        Pictures are written as PNG files to the folder `question`, emptied before, and the column
        `picture` names them; tables of at most 50 features give a column for each. Anything else
        gives no column.
        """
        import pandas as pd

        data = assemble(self.config, self.config.seeds[0]).world.data
        place = {int(row): i for i, row in enumerate(data.row.tolist())}
        x = data.take([place[row] for row in rows]).x
        if x.ndim == 4:
            with only_me(self.folder, PATIENCE):
                return pd.DataFrame({"picture": _pictures(self.folder / "question", rows, x)})
        if x.ndim == 2 and x.shape[1] <= MOST_SHOWN:
            names = _feature_names(self.config, x.shape[1])
            return pd.DataFrame(x.numpy(), columns=pd.Index(names))
        return pd.DataFrame(index=range(len(rows)))

    def labelled(self, job: Job) -> GroupedData:
        """The rows told so far with the labels people gave."""
        told, data = self.answers(), job.world.data
        place = {int(row): i for i, row in enumerate(data.row.tolist())}
        rows = data.take([place[row] for row in told])
        y = torch.tensor([data.schema.klass(label) for label in told.values()])
        return GroupedData.from_columns(data.schema, rows.columns() | {"y": y})

    def _first(self, job: Job) -> Tensor:
        state = job.loop.init(job.world, None, self._rng("init"))
        return state.data.row

    def _next(self, job: Job, number: int) -> tuple[Tensor, tuple[str, ...]]:
        loop = job.loop
        assert isinstance(loop, Acquire)
        rng = self._rng("round", number)
        start = {"start": self._rng("init", "start").seed}
        blind = _without_truth(job)
        state = loop.train(blind.world, State(self.labelled(blind), {}, start), rng)
        asked, _, _, alarms = loop.propose(blind.world, state, rng)
        return blind.world.data.row[asked], alarms

    def _rng(self, *path: str | int) -> Rng:
        return Rng.of(self.config.seeds[0]).at(*path)


def _check_fields(fields: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a field of the loop would mean nothing in a session."""
    for name in ("stop_rows", "stop_below", "budget", "spend"):
        if fields.get(name):
            raise ConfigError(
                f"{name}={fields[name]} is for runs that stop by themselves; a session ends when "
                f"nobody asks any more: set {name}=0"
            )
    for name in ("noise", "delay"):
        if fields.get(name):
            raise ConfigError(
                f"{name}={fields[name]} describes simulated annotators; a session has real ones: "
                f"leave {name} out"
            )
    if fields.get("reset") in ("warm", "shrink-perturb"):
        raise ConfigError(
            f"reset={fields['reset']!r} goes on from the last round's model, which a session does "
            "not keep; use 'snapshot' or 'rebuild'"
        )
    if fields.get("balance") == "cell":
        raise ConfigError(
            "balance='cell' reads the true class of items nobody has labelled; use 'predicted-cell'"
        )


def _pictures(folder: Path, rows: Sequence[int], x: Tensor) -> list[str]:
    """Files of the images (N, C, H, W), uint8 or in [0, 1], named by row; the folder is emptied."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    pixels = x if x.dtype == torch.uint8 else (x * 255).round().clamp(0, 255).to(torch.uint8)
    names = []
    for row, picture in zip(rows, pixels.permute(0, 2, 3, 1).numpy(), strict=True):
        shade = picture[:, :, 0] if picture.shape[2] < 3 else picture[:, :, :3]
        Image.fromarray(shade).save(folder / f"{row}.png")
        names.append(f"{folder.name}/{row}.png")
    return names


def _feature_names(config: RunConfig, count: int) -> list[str]:
    """How each feature is made, where the world says so, else x0, x1, ..."""
    values = dict(config.world)
    source: Any = construct(WORLDS[values.pop("name")], values, "world")
    names = [*source.encoding()] if hasattr(source, "encoding") and config.embed is None else []
    return names if len(names) == count else [f"x{i}" for i in range(count)]


def _without_truth(job: Job) -> Job:
    """The job with no label of the world in it, so that nothing can lean on one."""
    from dataclasses import replace

    data = job.world.data
    blank = torch.zeros_like(data.truth)
    columns: dict[str, Any] = data.columns() | {"truth": blank, "y": blank}
    hidden = GroupedData.from_columns(data.schema, columns)
    return replace(job, world=replace(job.world, data=hidden))


def _classes(config: RunConfig) -> tuple[str, ...]:
    return assemble(config, config.seeds[0]).world.data.schema.classes
