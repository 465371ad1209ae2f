"""Labels from outside: asked, told in parts, refused when wrong, and safe over a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from acquire_kit import letters
from evenloop.build import assemble
from evenloop.cli import app
from evenloop.commands.questions import ask, label_lines, tell
from evenloop.config import ConfigError, RunConfig, load
from evenloop.study.questions import Question, Questions


def config(**acquire: Any) -> RunConfig:
    return letters(60, 10, rounds=1, seeds=(3,), **{"initial": 8, "query": 4, **acquire})


def answer(session: Questions, question: Question) -> Question:
    """People who answer everything that is open, by a rule of their own."""
    labels = ["ad"[row % 2] for row in question.open]
    return session.tell(question.open, labels)


def test_a_session_asks_first_at_random_then_by_its_answers(tmp_path: Path) -> None:
    session = Questions.open(tmp_path / "s", config())
    seen: list[int] = []
    for round, size in enumerate((8, 4, 4)):
        question = session.ask()
        assert (question.round, len(question.rows)) == (round, size)
        assert answer(session, question).open == ()
        seen += question.rows
    assert len(set(seen)) == 16
    assert list(session.answers()) == seen


def test_a_restart_between_ask_and_tell_changes_nothing(tmp_path: Path) -> None:
    def through(folder: Path, restart: bool) -> list[tuple[int, ...]]:
        session, asked = Questions.open(folder, config()), []
        for _ in range(3):
            question = session.ask()
            if restart:
                session = Questions.open(folder)
                assert session.question() == question
                assert session.ask() == question
                session.tell(question.open[:2], ["a", "d"])
                session = Questions.open(folder)
                assert session.ask().open == question.open[2:]
            else:
                session.tell(question.open[:2], ["a", "d"])
            asked.append(session.ask().rows)
            answer(session, session.ask())
        return asked

    assert through(tmp_path / "a", restart=False) == through(tmp_path / "b", restart=True)


def test_other_answers_lead_to_other_questions(tmp_path: Path) -> None:
    rows = []
    for name, label in (("a", "a"), ("d", "d")):
        session = Questions.open(tmp_path / name, config(heuristic="entropy"))
        first = session.ask()
        half = len(first.open) // 2
        other = {"a": "d", "d": "a"}[label]
        session.tell(first.open, [label] * half + [other] * half)
        rows.append(session.ask().rows)
    assert rows[0] != rows[1]


def test_labels_of_the_world_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every label of the source turned round, the same answers give the same questions."""
    from dataclasses import replace

    from evenloop.data import GroupedData
    from evenloop.study import questions

    def turned(config: RunConfig, seed: int) -> Any:
        job = assemble(config, seed)
        data = job.world.data
        wrong = data.columns() | {"y": 1 - data.y, "truth": 1 - data.truth}
        data = GroupedData.from_columns(data.schema, wrong)
        return replace(job, world=replace(job.world, data=data))

    asked = []
    for name in ("plain", "turned"):
        session = Questions.open(tmp_path / name, config())
        answer(session, session.ask())
        asked.append(session.ask().rows)
        monkeypatch.setattr(questions, "assemble", turned)
    assert asked[0] == asked[1]


def test_wrong_answers_are_refused_whole(tmp_path: Path) -> None:
    session = Questions.open(tmp_path / "s", config())
    with pytest.raises(ConfigError, match="ask first"):
        session.tell([1], ["a"])
    rows = session.ask().rows
    other = next(r for r in range(60) if r not in rows)
    bad: list[tuple[list[int], list[str], str]] = [
        ([rows[0], other], ["a", "a"], f"row {other} was not asked about"),
        ([rows[0], rows[0]], ["a", "d"], f"row {rows[0]} was told before"),
        ([rows[0], 9999], ["a", "a"], "row 9999 was not asked about"),
        ([rows[0], rows[1]], ["a", "b"], "label 'b' of row"),
        ([rows[0]], ["a", "d"], "1 rows and 2 labels"),
    ]
    for told, labels, message in bad:
        with pytest.raises(ConfigError, match=message):
            session.tell(told, labels)
    assert session.answers() == {}
    session.tell(rows[:1], ["a"])
    with pytest.raises(ConfigError, match="told before"):
        session.tell(rows[:1], ["a"])
    assert session.answers() == {rows[0]: "a"}


def test_the_end_of_the_pool_is_told(tmp_path: Path) -> None:
    session = Questions.open(tmp_path / "s", config(initial=30, query=30, heuristic="random"))
    for _ in range(2):
        answer(session, session.ask())
    with pytest.raises(ConfigError, match="pool is empty"):
        session.ask()


def test_sessions_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no session"):
        Questions.open(tmp_path / "none")
    with pytest.raises(ConfigError, match="predicted-cell"):
        Questions.open(tmp_path / "cell", config(balance="cell"))
    for name, value in {"stop_rows": 10, "stop_below": 0.1, "budget": 50, "spend": 9.0}.items():
        with pytest.raises(ConfigError, match=f"set {name}=0"):
            Questions.open(tmp_path / name, config(**{name: value}))
        Questions.open(tmp_path / f"{name} off", config(**{name: 0}))
    for name, by_group in {"noise": {"blue": 0.1}, "delay": {"blue": 1}}.items():
        with pytest.raises(ConfigError, match=f"leave {name} out"):
            Questions.open(tmp_path / name, config(**{name: by_group}))
        Questions.open(tmp_path / f"{name} off", config(**{name: {}}))
    for reset in ("warm", "shrink-perturb"):
        with pytest.raises(ConfigError, match=f"reset='{reset}'.* use 'snapshot'"):
            Questions.open(tmp_path / reset, config(reset=reset))
    Questions.open(tmp_path / "rebuild", config(reset="rebuild"))
    relabels = config().model_copy(update={"loop": [{"relabel": {}}]})
    with pytest.raises(ConfigError, match="one `acquire`"):
        Questions.open(tmp_path / "other", relabels)
    Questions.open(tmp_path / "s", config())
    with pytest.raises(ConfigError, match="another configuration"):
        Questions.open(tmp_path / "s", config(query=5))
    assert Questions.open(tmp_path / "s", config()).config == config()


def test_tables_for_people_and_from_them(tmp_path: Path) -> None:
    question, path = ask(tmp_path / "s", config())
    table = pd.read_csv(path, dtype={"label": str})
    assert table["row"].tolist() == list(question.rows)
    with Image.open(tmp_path / "s" / table["picture"].iloc[-1]) as picture:
        shown = np.array(picture.convert("RGB"))
    data = assemble(config(), 3).world.data
    x = data.x[int((data.row == question.rows[-1]).nonzero())]
    assert np.array_equal(shown.transpose(2, 0, 1), x.expand(3, -1, -1).numpy())
    table["label"] = table["label"].astype(object)
    table.loc[:2, "label"] = "a"
    table.to_csv(path, index=False)
    assert tell(tmp_path / "s", path).open == question.rows[3:]
    rest = pd.DataFrame({"row": question.rows[3:], "label": "d"})
    rest.to_parquet(tmp_path / "rest.parquet")
    assert tell(tmp_path / "s", tmp_path / "rest.parquet").open == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,lable\n1,a\n", "no column 'label'"),
        ("row,label\nx,a\n", "whole numbers, got 'x'"),
        ("row,label\n{row}.5,a\n", "whole numbers, got"),
        ("row,label\ninf,a\n", "whole numbers, got 'inf'"),
        ("row,label\n{row},None\n", "label 'None' of row"),
        ("", "t.csv cannot be read"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    question, _ = ask(tmp_path / "s", config())
    (tmp_path / "t.csv").write_text(text.replace("{row}", str(question.rows[0])))
    with pytest.raises(ConfigError, match=message):
        tell(tmp_path / "s", tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError, match="row and label"):
        tell(tmp_path / "s", tmp_path / "no.csv")


def test_a_table_s_features_stand_beside_its_rows_and_whole_numbers_pass(tmp_path: Path) -> None:
    csv = tmp_path / "people.csv"
    people = pd.DataFrame({"age": range(60), "town": ["x", "y"] * 30, "sex": ["f", "m"] * 30})
    people.assign(label=["no", "b"] * 30).to_csv(csv, index=False)
    fields = {"path": str(csv), "groups": ["sex"], "features": ["age", "town"], "scale": "none"}
    plain = {"world": {"name": "table", **fields, "classes": ["no", "b"]}, "by": ("sex",)}
    asked = config().model_copy(update={**plain, "audit": "random"})
    question, path = ask(tmp_path / "s", asked)
    table = pd.read_csv(path)
    assert table["age"].tolist() == list(question.rows)
    assert [c for c in table if "town" in c]
    answers = pd.DataFrame({"row": [f"{r}.0" for r in question.rows], "label": "no"})
    answers.to_csv(tmp_path / "t.csv", index=False)
    assert tell(tmp_path / "s", tmp_path / "t.csv").open == ()


def test_the_command_line_asks_and_takes_answers(tmp_path: Path) -> None:
    session = tmp_path / "s"
    small = ["world.train=60", "world.test=300", "world.size=16", "initial=8", "query=4"]
    runner = CliRunner()
    asked = runner.invoke(app, ["ask", str(session), "acquire-cpu:small", *small])
    assert asked.exit_code == 0, asked.output
    assert "8 of 8 rows open" in asked.output
    table = pd.read_csv(session / "question.csv").assign(label="a")
    table.to_csv(tmp_path / "t.csv", index=False)
    told = runner.invoke(app, ["tell", str(session), str(tmp_path / "t.csv")])
    assert told.exit_code == 0, told.output
    assert "0 of 8 rows open" in told.output
    again = runner.invoke(app, ["tell", str(session), str(tmp_path / "t.csv")])
    assert again.exit_code == 2
    assert "told before" in again.output
    planned = runner.invoke(app, ["plan", "labels", "--gap", "0.1"])
    assert planned.output.startswith("392 labels")


def test_plans_in_lines() -> None:
    (text,) = label_lines(0.2, rate=0.5, level=0.05, power=0.8, groups="f=20, m=200")
    assert "f: 20 labelled, 77 to go" in text
    with pytest.raises(ConfigError, match="name=labelled"):
        next(label_lines(0.2, rate=0.5, level=0.05, power=0.8, groups="f20"))
    assert load("acquire-cpu").loop[0]["acquire"]["query"] == 60


def test_a_net_whose_draws_are_all_equal_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    certain = config().model_copy(update={"net": {"name": "mlp", "hidden": [8]}})
    with pytest.raises(ValueError, match="heuristic='bald' with posterior='dropout' needs a net"):
        Questions.open(tmp_path / "s", certain).ask()
    assert not (tmp_path / "s" / "question.json").exists()
    able = config(posterior="ensemble").model_copy(update={"net": certain.net})
    assert len(Questions.open(tmp_path / "t", able).ask().rows) == 8


@pytest.mark.filterwarnings("ignore:the model has no active dropout layer")
def test_scores_that_tie_are_told_with_the_question(tmp_path: Path) -> None:
    """The eight nearest of eight labels are the same for every item."""
    plain = config(heuristic="margin")
    same = plain.model_copy(update={"net": {"name": "sklearn-knn", "n_neighbors": 8}})
    for name, told, asks in (("tie", same, True), ("apart", plain, False)):
        session = Questions.open(tmp_path / name, told)
        first = session.ask()
        assert first.alarms == ()
        answer(session, first)
        again = session.ask()
        assert bool(again.alarms) is asks
        assert session.ask() == again
    assert (
        "margin cannot tell the items of this query apart"
        in Questions.open(tmp_path / "tie").ask().alarms[0]
    )
