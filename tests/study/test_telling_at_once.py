"""Several programs that tell at once in one session: nothing is lost, and who waits is told why."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evenloop.config import RunConfig
from evenloop.study import questions
from evenloop.study.folder import NotStarted
from evenloop.study.questions import Questions
from program_kit import ready, started

# Says that it is ready, waits for a line, and tells one row; without a lock the last one wins.
TELLER = """
import sys, time
from pathlib import Path
from evenloop.study import questions
write = questions.write_atomically
questions.write_atomically = lambda *what: (time.sleep(0.3), write(*what))  # so that they meet
session = questions.Questions.open(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
session.tell([int(sys.argv[2])], ["a"])
"""
HOLDER = """
import sys
from pathlib import Path
from evenloop.study.folder import only_me
with only_me(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def session(tmp_path: Path) -> Questions:
    table = tmp_path / "people.csv"
    people = {"age": range(40), "sex": ["f", "m"] * 20, "label": ["a", "d"] * 20}
    pd.DataFrame(people).to_csv(table, index=False)
    config = RunConfig(
        world={"name": "table", "path": str(table), "features": ["age"], "groups": ["sex"]},
        loop=[{"acquire": {"initial": 8, "query": 4, "heuristic": "random"}}],
        net={"name": "logistic"},
        recipe={"base": "logistic"},
        test_size=10,
        by=("sex",),
        rounds=1,
        seeds=(0,),
    )
    return Questions.open(tmp_path / "s", config)


def test_what_several_tell_at_once_is_all_there(session: Questions) -> None:
    rows = session.ask().rows[:3]
    tellers = [started(TELLER, str(session.folder), str(row)) for row in rows]
    for teller in [ready(teller) for teller in tellers]:  # all are ready: now they go, together
        assert teller.stdin is not None
        teller.stdin.write("go\n")
        teller.stdin.flush()
    for teller in tellers:
        teller.communicate()
    assert [teller.returncode for teller in tellers] == [0, 0, 0]
    assert set(session.answers()) == set(rows)
    assert len((session.folder / "answers.jsonl").read_text().splitlines()) == 3


def test_who_holds_the_session_is_named(
    session: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "PATIENCE", 0.1)
    row = session.ask().rows[0]
    holder = ready(started(HOLDER, str(session.folder)))
    for use in (session.ask, lambda: session.tell([row], ["a"])):
        with pytest.raises(NotStarted, match=rf"evenloop process \({holder.pid} on .*wait"):
            use()
    assert session.answers() == {}
    holder.communicate("\n")
    assert session.tell([row], ["a"]).open == session.ask().open


def test_a_process_that_was_killed_holds_nothing(session: Questions) -> None:
    row = session.ask().rows[0]
    holder = ready(started(HOLDER, str(session.folder)))
    holder.kill()
    holder.communicate()
    session.tell([row], ["a"])
    assert session.answers() == {row: "a"}
