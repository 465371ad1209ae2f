"""A record: what is committed is whole whatever was interrupted, in memory as on disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from evenloop.audit import Audit
from evenloop.data import GroupedData, Schema
from evenloop.loop import World, run
from evenloop.loops.relabel import Relabel
from evenloop.models import build
from evenloop.recipe import Recipe
from evenloop.record import Record, Row
from evenloop.rng import Rng
from evenloop.worlds.painted import Painted

MANIFEST = {"config": {"a": 1}, "seed": 0}
ROUNDS = 3


def rows(seed: int, n: int) -> GroupedData:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return GroupedData.of(x, (x[:, 0] > 0).long(), {}, Schema(("no", "yes")))


def live(record: Record, rounds: int = ROUNDS) -> Record:
    def net(rng: Rng) -> torch.nn.Module:
        return build("logistic", features=4, classes=2, seed=rng.seed)

    recipe = Recipe(lr=0.5, batch=8, epochs=1)
    world = World(rows(0, 90), ("truth",), net, recipe)
    loop = Relabel(n0=20, human=2, machine=8)
    return run(loop, world, Audit(rows(1, 30), ("truth",)), rounds=rounds, record=record)


def lines(record: Record) -> list[str]:
    return [row.to_json() for row in record.rows]


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The file of the run that was left alone."""
    live(Record.open(tmp_path / "whole", MANIFEST))
    return (tmp_path / "whole" / "rows.jsonl").read_bytes()


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    record = live(Record.open(tmp_path / "r", MANIFEST))
    assert lines(Record.read(tmp_path / "r")) == lines(record)
    assert len(record.rows) == ROUNDS


@pytest.mark.parametrize("rest", [b"{", b'{"round":3', b'{"round":2}\n{"ro', b"\n", b"\xff\x00"])
def test_a_torn_line_is_passed_over_and_cut_away(tmp_path: Path, whole: bytes, rest: bytes) -> None:
    live(Record.open(tmp_path / "r", MANIFEST), 2)
    path = tmp_path / "r" / "rows.jsonl"
    with path.open("ab") as file:
        file.write(rest)
    assert [row.round for row in Record.read(tmp_path / "r").rows] == [0, 1]
    live(Record.open(tmp_path / "r", MANIFEST))
    assert path.read_bytes() == whole


def test_an_end_before_the_first_commit_leaves_nothing(tmp_path: Path, whole: bytes) -> None:
    live(Record.open(tmp_path / "r", MANIFEST), 1)
    (tmp_path / "r" / "state" / "current.json").unlink()
    assert Record.read(tmp_path / "r").rows == []
    live(Record.open(tmp_path / "r", MANIFEST))
    assert (tmp_path / "r" / "rows.jsonl").read_bytes() == whole


def test_rows_taken_away_from_outside_are_told(tmp_path: Path) -> None:
    live(Record.open(tmp_path / "r", MANIFEST))
    path = tmp_path / "r" / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-9])

    def reopened() -> Record:
        return Record.open(tmp_path / "r", MANIFEST)

    for look in (lambda: Record.read(tmp_path / "r"), reopened):
        with pytest.raises(ValueError, match="changed from outside"):
            look()


def test_without_its_state_a_run_is_read_but_not_continued(tmp_path: Path) -> None:
    live(Record.open(tmp_path / "r", MANIFEST))
    for path in (tmp_path / "r" / "state").iterdir():
        path.unlink()
    (tmp_path / "r" / "state").rmdir()
    assert len(Record.read(tmp_path / "r").rows) == ROUNDS
    with pytest.raises(ValueError, match="its state/ was removed"):
        Record.open(tmp_path / "r", MANIFEST)
    assert len(Record.read(tmp_path / "r").rows) == ROUNDS


def test_another_run_is_refused(tmp_path: Path) -> None:
    Record.open(tmp_path / "r", MANIFEST)
    Record.open(tmp_path / "r", MANIFEST)
    with pytest.raises(ValueError, match="another seed"):
        Record.open(tmp_path / "r", {**MANIFEST, "seed": 1})
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        Record.read(tmp_path / "nothing")


def test_a_record_read_for_looking_is_not_continued(tmp_path: Path) -> None:
    live(Record.open(tmp_path / "r", MANIFEST), 2)
    before = (tmp_path / "r" / "rows.jsonl").read_bytes()
    looked = Record.read(tmp_path / "r")
    with pytest.raises(ValueError, match=r"continue it with Record\.open"):
        live(looked)
    row = looked.rows[0]
    with pytest.raises(ValueError, match=r"continue it with Record\.open"):
        looked.append(row, rows(0, 9), {}, {})
    assert (tmp_path / "r" / "rows.jsonl").read_bytes() == before


def test_in_memory_it_goes_on_where_it_was(whole: bytes) -> None:
    record = Record()
    for rounds in range(1, ROUNDS + 1):
        live(record, rounds)
    assert "".join(line + "\n" for line in lines(record)).encode() == whole


def test_what_a_loop_does_to_its_models_later_is_not_in_the_state() -> None:
    record, model = Record(), build("logistic", features=1, classes=2, seed=0)
    row = live(Record(), 1).rows[0]
    with torch.no_grad():
        model.head.bias.fill_(1.0)  # type: ignore[union-attr, operator]
        record.append(row, rows(0, 9), {"classifier": model}, {"n": [1]})
        model.head.bias.fill_(2.0)  # type: ignore[union-attr, operator]
    kept = record.load_state(rows(0, 9))
    assert kept is not None
    assert kept.models["classifier"]["head.bias"].tolist() == [1.0, 1.0]


def full_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes so many more writes to the end."""
    left, sync = [writes], os.fsync

    def fsync(file: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_at_any_moment_costs_at_most_the_round(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, codes = [], set()
    for writes in range(1, 20):
        folder = tmp_path / f"full-{writes}"
        with monkeypatch.context() as patch:
            full_after(writes, patch)
            try:
                live(Record.open(folder, MANIFEST))
                break
            except OSError as error:
                codes.add(error.errno)
        assert not list((folder / "state").glob("*.part"))
        if (folder / "rows.jsonl").exists():
            finished.append(len(Record.read(folder).rows))
        live(Record.open(folder, MANIFEST))
        assert (folder / "rows.jsonl").read_bytes() == whole
    assert set(finished) == {0, 1, 2}
    assert codes == {errno.ENOSPC}


def test_rows_to_show_are_ordinary_tensors_also_of_pictures_painted_later(tmp_path: Path) -> None:
    painted = Painted(torch.tensor([[[7]], [[9]]], dtype=torch.uint8), torch.tensor([1, 0]), 2)
    schema = Schema(("no", "yes"))
    data = GroupedData.of(painted, [0, 1], {}, schema)
    record = Record.open(tmp_path, {"config": {}, "seed": 0})
    record.append(Row(0, {"train": 2}, {}), data, {}, {}, {"x": data.x, "shown": ["a", "b"]})
    kept = torch.load(tmp_path / "samples" / "00000.pt", weights_only=True)
    assert kept["x"].tolist() == [[[[7]], [[0]]], [[[0]], [[9]]]]
    assert kept["shown"] == ["a", "b"]


def moves(n: int = 5) -> GroupedData:
    """Rows of `rows(0, 90)`, the first n of them moved."""
    data = rows(0, 90)
    x = data.x.clone()
    x[:n] += 1
    return data.with_x(x)


def chunk(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (folder / "state").glob("rows-*.pt")
    return dict(torch.load(path, weights_only=True))


@pytest.mark.parametrize(("data", "x"), [(rows(0, 90), 0), (moves(), 90)])
def test_of_the_worlds_rows_only_what_differs_is_written(
    tmp_path: Path, data: GroupedData, x: int
) -> None:
    record = Record.open(tmp_path, MANIFEST)
    record.begin(rows(0, 90), {})
    record.append(Row(0, {"train": 90}, {}), data, {}, {})
    assert {n: len(c) for n, c in chunk(tmp_path).items()} == {
        "x": x, "truth": 0, "attributes": 0, "y": 90, "origin": 90, "born": 90, "row": 90
    }  # fmt: skip
    kept = Record.open(tmp_path, MANIFEST).load_state(rows(0, 90))
    assert kept is not None
    assert torch.equal(kept.data.x, data.x)


def test_without_a_world_to_read_from_all_is_written(tmp_path: Path) -> None:
    record = Record.open(tmp_path, MANIFEST)
    record.append(Row(0, {"train": 90}, {}), moves(), {}, {})
    assert len(chunk(tmp_path)["x"]) == 90


def test_rows_that_changed_after_they_were_written_are_written_again(tmp_path: Path) -> None:
    record = Record.open(tmp_path, MANIFEST)
    record.begin(rows(0, 90), {})
    still = rows(0, 90).take(range(40))
    for round, data in enumerate((still, still.append(rows(0, 90).take(range(40, 90))), moves())):
        record.append(Row(round, {"train": len(data)}, {}), data, {}, {})
        kept = Record.open(tmp_path, MANIFEST).load_state(rows(0, 90))
        assert kept is not None
        assert torch.equal(kept.data.x, data.x)


def test_a_record_of_an_older_version_is_continued(tmp_path: Path, whole: bytes) -> None:
    live(Record.open(tmp_path / "r", MANIFEST), 1)
    path = tmp_path / "r" / "state" / "current.json"
    mark = json.loads(path.read_text())
    assert mark.pop("whose")["loop.n0"] == "20"
    path.write_text(json.dumps(mark))
    live(Record.open(tmp_path / "r", MANIFEST))
    assert (tmp_path / "r" / "rows.jsonl").read_bytes() == whole


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": "1"}, r"a run with seed=0, and this one has seed=1"),
        ({"loop.n0": "61"}, r"a run with loop\.n0=20, and this one has loop\.n0=61"),
        ({"loop": "Prune"}, r"a run with loop=Relabel, and this one has loop=Prune"),
    ],
)
def test_rounds_of_another_run_are_not_continued(
    tmp_path: Path, changed: dict[str, str], message: str, on_disk: bool
) -> None:
    whose = {"seed": "0", "loop": "Relabel", "loop.n0": "20"}
    record = Record.open(tmp_path, {"config": {}}) if on_disk else Record()
    record.begin(rows(0, 90), whose | changed)
    record.begin(rows(0, 90), whose)  # nothing is committed yet
    record.append(Row(0, {"train": 9}, {}), rows(0, 9), {}, {})
    record = Record.open(tmp_path, {"config": {}}) if on_disk else record
    with pytest.raises(ValueError, match=message):
        record.begin(rows(0, 90), whose | changed)
    record.begin(rows(0, 90), whose | {"loop.of a later version": "1"})


def test_the_manifests_seed_is_the_runs_from_the_first_round_on(tmp_path: Path) -> None:
    record = Record.open(tmp_path / "r", {"config": {"a": 1}, "seed": 3})
    with pytest.raises(ValueError, match="seed=3, and this one has seed=0"):
        live(record)
    assert record.rows == []
