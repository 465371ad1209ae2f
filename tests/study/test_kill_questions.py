"""A session whose program is killed at random moments asks what one left alone asks."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evenloop.study.questions import Questions
from program_kit import ready, started

CONFIG = """
world: {name: letters, train: 120, test: 20, size: 16}
audit: test
test_size: 20
by: [color]
loop: [{acquire: {initial: 20, query: 10, draws: 4}}]
net: {name: dropout-cnn, width: 4, hidden: 16}
recipe: {optimizer: adam, lr: 0.001, batch: 8, epochs: 6}
rounds: 1
seeds: 1
"""
# What `evenloop ask` and `tell` do, each once; people answer by a rule.
PROGRAM = """
import sys
from pathlib import Path
from evenloop.config import load
from evenloop.study.questions import Questions
print("ready", flush=True)
session = Questions.open(Path(sys.argv[2]), load(sys.argv[1]))
for _ in range(3):
    question = session.ask()
    session.tell(question.open, ["ad"[row % 2] for row in question.open])
    print(question.round, flush=True)
"""


def start(tmp_path: Path, folder: str) -> subprocess.Popen[str]:
    """The program, as soon as it has loaded everything."""
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG)
    return ready(started(PROGRAM, str(config), str(tmp_path / folder)))


def rounds_of(folder: Path) -> list[list[int]]:
    """The rows of every question that was answered, in order."""
    asked: dict[int, list[int]] = {}
    for line in (folder / "answers.jsonl").read_text().splitlines():
        answer = json.loads(line)
        asked.setdefault(answer["round"], []).append(answer["row"])
    return [asked[n] for n in sorted(asked)]


@pytest.mark.slow
def test_kills_change_no_question(tmp_path: Path) -> None:
    process = start(tmp_path, "whole")
    begun = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    length = time.monotonic() - begun
    luck = random.Random(0)
    for _ in range(4):
        process = start(tmp_path, "killed")
        time.sleep(luck.uniform(0.05, 0.5) * length)
        process.kill()
        process.communicate()
    whole = rounds_of(tmp_path / "whole")
    assert [len(rows) for rows in whole] == [20, 10, 10]
    session = Questions.open(tmp_path / "killed") if (tmp_path / "killed").exists() else None
    done = len(rounds_of(tmp_path / "killed")) if session and session.answers() else 0
    while done < 3:
        start(tmp_path, "killed").communicate()
        done = len(rounds_of(tmp_path / "killed"))
    assert rounds_of(tmp_path / "killed")[:3] == whole


def test_answers_are_on_the_disk_whole_or_not_at_all(tmp_path: Path) -> None:
    """A program that dies while it writes leaves the answers that were there."""
    program = tmp_path / "program.py"
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG)
    program.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from evenloop.config import load\n"
        "from evenloop.study.questions import Questions\n"
        "session = Questions.open(Path(sys.argv[2]), load(sys.argv[1]))\n"
        "rows = session.ask().open\n"
        "session.tell(rows[:5], ['a'] * 5)\n"
        "real = os.replace\n"
        "os.replace = lambda a, b: os.kill(os.getpid(), signal.SIGKILL)\n"
        "session.tell(rows[5:], ['d'] * (len(rows) - 5))\n"
    )
    killed = subprocess.run([sys.executable, str(program), str(config), str(tmp_path / "s")])
    assert killed.returncode == -9
    session = Questions.open(tmp_path / "s")
    question = session.question()
    assert question is not None
    assert len(session.answers()) == 5
    assert len(question.open) == 15
    assert session.tell(question.open, ["d"] * 15).open == ()
