"""Studies: longer, wider, interrupted, failing, refused."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evenloop.cli import app
from evenloop.config import ConfigError, RunConfig, load
from evenloop.study import folder as study_folder
from evenloop.study import seeds as study_seeds
from evenloop.study.folder import NotStarted, only_me, read_config, read_study
from evenloop.study.seeds import run_seeds

NETS: dict[str, dict[str, Any]] = {
    "stacked": {"name": "logistic"},
    "processes": {"name": "small-cnn", "width": 4},
}


def config(how: str = "stacked", **values: Any) -> RunConfig:
    asked: dict[str, Any] = {
        "name": "tiny",
        "world": {"name": "digits8"},
        "loop": [{"relabel": {"n0": 40, "human": 5, "machine": 15}}],
        "net": NETS[how],
        "recipe": {"lr": 0.1, "batch": 16, "epochs": 1},
        "track": "8",
        "test_size": 60,
        "rounds": 2,
        "seeds": (0, 1),
    }
    return RunConfig(**asked | values)


def rows_of(folder: Path, seed: int) -> bytes:
    return (folder / f"seed-{seed}" / "rows.jsonl").read_bytes()


def exit_of(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


# Longer and wider


def test_more_rounds_and_more_seeds_continue_the_study(tmp_path: Path) -> None:
    short, long = config(), config(rounds=4, seeds=(1, 2))
    assert short.digest() == long.digest()
    run_seeds(short, tmp_path / "grown")
    run_seeds(long, tmp_path / "grown")
    assert read_config(tmp_path / "grown").rounds == 4
    assert read_config(tmp_path / "grown").seeds == (0, 1, 2)
    run_seeds(read_config(tmp_path / "grown"), tmp_path / "grown")
    run_seeds(config(rounds=4, seeds=(0, 1, 2)), tmp_path / "straight")
    for seed in range(3):
        assert rows_of(tmp_path / "grown", seed) == rows_of(tmp_path / "straight", seed)
    _, records = read_study(tmp_path / "grown")
    assert [len(record.rows) for record in records.values()] == [4, 4, 4]


def test_fewer_rounds_leave_what_is_there(tmp_path: Path) -> None:
    run_seeds(config(seeds=(0,)), tmp_path / "s")
    before = rows_of(tmp_path / "s", 0)
    run_seeds(config(seeds=(0,), rounds=1), tmp_path / "s")
    assert rows_of(tmp_path / "s", 0) == before


def test_a_seed_left_alone_writes_the_bytes_it_writes_among_others(tmp_path: Path) -> None:
    run_seeds(config(rounds=3, seeds=(0, 1, 2)), tmp_path / "whole")
    run_seeds(config(rounds=1, seeds=(0, 1, 2)), tmp_path / "parts")
    run_seeds(config(rounds=3, seeds=(0, 2)), tmp_path / "parts")
    run_seeds(config(rounds=3, seeds=(1,)), tmp_path / "parts")
    for seed in range(3):
        assert rows_of(tmp_path / "parts", seed) == rows_of(tmp_path / "whole", seed)


def test_another_configuration_and_other_settings_are_refused(tmp_path: Path) -> None:
    run_seeds(config(seeds=(0,), rounds=1), tmp_path / "s")
    other = config(seeds=(0,), test_size=61)
    assert other.digest() != config().digest()
    with pytest.raises(NotStarted, match="another configuration"):
        run_seeds(other, tmp_path / "s")
    run_seeds(config(seeds=(0,), rounds=1), tmp_path / "s")


# What was changed meanwhile


def test_other_code_is_warned_of_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_seeds(config(seeds=(0,), rounds=1), tmp_path / "s")
    timing = tmp_path / "s" / "seed-0" / "timing.jsonl"
    run_seeds(config(seeds=(0,), rounds=2), tmp_path / "s")
    assert "resumed" not in timing.read_text()
    monkeypatch.setattr(study_folder, "source_digest", lambda: "other")
    with pytest.warns(UserWarning, match=r"other code \(source \w+ -> other\): its rounds from 2"):
        run_seeds(config(seeds=(0,), rounds=3), tmp_path / "s")
    noted = [json.loads(line) for line in timing.read_text().splitlines()]
    (resumed,) = [line["resumed"] for line in noted if "resumed" in line]
    assert (resumed["round"], resumed["code"]["source"]) == (2, "other")
    assert b"other" not in rows_of(tmp_path / "s", 0)
    run_seeds(config(seeds=(0,), rounds=3), tmp_path / "s")


# Failing


def fail_on(seed: int, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    finish: Callable[..., None] = study_seeds._finish

    def failing(job: Any, record: Any, progress: Any) -> None:
        if job.seed == seed:
            raise error
        finish(job, record, progress)

    monkeypatch.setattr(study_seeds, "_finish", failing)


@pytest.mark.parametrize("how", ["stacked", "processes"])
def test_a_failing_seed_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    fail_on(0, monkeypatch, FloatingPointError("loss is nan"))
    with pytest.raises(FloatingPointError, match="loss is nan") as failed:
        run_seeds(config(how), tmp_path / "s", processes=1)
    assert failed.value.__notes__ == ["seed 0; 1 of 2 seeds failed"]
    _, records = read_study(tmp_path / "s")
    assert {seed: len(record.rows) for seed, record in records.items()} == {1: 2}


@pytest.mark.slow
def test_a_failing_process_stops_no_other(tmp_path: Path) -> None:
    asked = config("processes", rounds=1)
    run_seeds(config("processes", rounds=1, seeds=(0,)), tmp_path / "s")
    rows = tmp_path / "s" / "seed-0" / "rows.jsonl"
    rows.write_bytes(rows.read_bytes()[:-5])
    manifest = tmp_path / "s" / "seed-0" / "manifest.json"
    rows.rename(tmp_path / "aside")
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 9'))
    with pytest.raises(ConfigError, match="another seed") as failed:
        run_seeds(asked, tmp_path / "s", processes=2)
    assert failed.value.__notes__ == ["seed 0; 1 of 2 seeds failed"]
    assert len(rows_of(tmp_path / "s", 1).splitlines()) == 1
    assert multiprocessing.active_children() == []


# The command line


def written(tmp_path: Path, how: str = "stacked", **values: Any) -> Path:
    """The file of a configuration; JSON is YAML."""
    path = tmp_path / "tiny.yaml"
    path.write_text(config(how, **values).model_dump_json(exclude={"about"}))
    return path


def test_exit_codes_of_folders_that_cannot_be_used(tmp_path: Path) -> None:
    run_seeds(config(seeds=(0,), rounds=1), tmp_path / "s")
    assert exit_of("resume", str(tmp_path / "s"), "-q")[0] == 0
    with only_me(tmp_path / "s"):
        code, said = exit_of("resume", str(tmp_path / "s"), "-q")
    assert (code, f"in use by another evenloop process ({os.getpid()} on" in said) == (2, True)
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"test_size": 60', '"test_size": 61'))
    source = str(written(tmp_path))
    folder = study_folder.folder_of(load(source), tmp_path)
    (tmp_path / "s").rename(folder)
    code, said = exit_of("run", source, "-q", "-o", str(tmp_path))
    assert (code, "another configuration" in said) == (2, True)
    manifest = folder / "manifest.json"
    manifest.write_text("{")
    assert exit_of("resume", str(folder))[0] == 2
    assert exit_of("resume", str(tmp_path))[0] == 2
    (tmp_path / "file").write_text("")
    code, said = exit_of("run", source, "-q", "-o", str(tmp_path / "file"))
    assert (code, "choose another place with --out" in said) == (2, True)


def test_a_full_disk_is_told_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, left, sync = written(tmp_path, rounds=3), [30], os.fsync
    run_seeds(config(rounds=3), tmp_path / "whole")

    def fsync(file: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        for writes in (0, 12):
            left[0] = writes
            code, said = exit_of("run", str(source), "-q", "-o", str(tmp_path / "runs"))
            assert (code, "the disk is full; finished rounds are kept" in said) == (1, True)
    (folder,) = (tmp_path / "runs").iterdir()
    _, records = read_study(folder)
    assert 0 < sum(len(record.rows) for record in records.values()) < 6
    assert exit_of("resume", str(folder), "-q")[0] == 0
    for seed in (0, 1):
        assert rows_of(folder, seed) == rows_of(tmp_path / "whole", seed)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("[0, 0]", "seed 0 is named twice"),
        ("[true]", "give a count"),
        ("[-1]", "give a count"),
        (f"[{2**63}]", r"2\*\*63 - 1"),
        ("[]", "seeds"),
    ],
)
def test_seeds_that_cannot_be(seeds: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("demo", [f"seeds={seeds}"])


def test_seeds_that_can_be() -> None:
    assert load("demo", [f"seeds=[3, {2**63 - 1}]"]).seeds == (3, 2**63 - 1)
    assert load("demo", ["seeds=2..4"]).seeds == (2, 3, 4)
    with pytest.raises(ValueError, match="seed 1 is named twice"):
        config(seeds=(1, 1))
    with pytest.raises(ValueError, match="seeds"):
        config(seeds=(True,))


@pytest.mark.parametrize("name", ["../../escaped", "a/b", "..", "", "a b", "-q", "a" * 101])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    text = written(tmp_path).read_text().replace('"tiny"', json.dumps(name), 1)
    (tmp_path / "n.yaml").write_text(text)
    with pytest.raises(ConfigError, match="name"):
        load(str(tmp_path / "n.yaml"))
    (tmp_path / "n.yaml").write_text(text.replace(json.dumps(name), '"A.1_b-c"', 1))
    assert load(str(tmp_path / "n.yaml")).name == "A.1_b-c"


def rows_there(folder: Path) -> list[int]:
    return [len(path.read_bytes().splitlines()) for path in folder.glob("*/seed-*/rows.jsonl")]


def gone(group: int) -> bool:
    """Whether the last process of the group has ended, half a minute from now at the latest."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*begun with other code")  # an edit while this runs is no fault
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process group")
@pytest.mark.parametrize("how", ["stacked", "processes"])
def test_ctrl_c_ends_everything_and_a_resume_goes_on(tmp_path: Path, how: str) -> None:
    """What a terminal does: the signal goes to the parent and to every worker."""
    source = written(tmp_path, how, rounds=2000, seeds=(0, 1))
    evenloop = [sys.executable, "-c", "from evenloop.cli import main; main()"]
    command = [*evenloop, "run", str(source), "-q", "-j", "2", "-o", str(tmp_path / "runs")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    started = time.monotonic()
    while not rows_there(tmp_path / "runs") and time.monotonic() - started < 200:
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "stopped; finished rounds are kept" in said
    assert "Traceback" not in said
    assert gone(running.pid)
    (folder,) = (tmp_path / "runs").iterdir()
    # A seed may have been stopped before its first round was committed.
    begun = [seed for seed in (0, 1) if (folder / f"seed-{seed}" / "rows.jsonl").exists()]
    before = {seed: rows_of(folder, seed) for seed in begun}
    _, records = read_study(folder)
    longest = max(len(record.rows) for record in records.values())
    run_seeds(config(how, rounds=longest + 1), folder, processes=1)
    for seed in (0, 1):
        now = rows_of(folder, seed)
        assert now.startswith(before.get(seed, type(now)()))
        rounds = [json.loads(line)["round"] for line in now.splitlines()]
        assert rounds == list(range(longest + 1))
