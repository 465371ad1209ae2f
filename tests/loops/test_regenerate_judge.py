"""The judge of groups: it changes nothing, learns what it says it does, sees what A_S does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.loop import Notes, State, World, run
from evenloop.loops._regenerate import KEY
from evenloop.loops.regenerate import Regenerate
from evenloop.metrics import of_record
from evenloop.recipe import Recipe
from evenloop.record import Record
from evenloop.rng import Rng
from regenerate_kit import SMALL, image_world

MEASURED = {"judged_population", "group_agreement", "group_judge"}


def generations(loop: Regenerate, rounds: int = 2) -> list[tuple[State, Notes]]:
    world, _ = image_world()
    state, root, found = loop.init(world, None, Rng.of(0)), Rng.of(0), []
    for g in range(rounds):
        state, notes = loop.step(world, state, g, root.at("round", g))
        found.append((state, notes))
    return found


def flat(kept: dict[str, Tensor]) -> Tensor:
    return torch.cat([v.flatten().double() for v in kept.values()])


def without_judge(notes: Notes) -> str:
    """Everything else that was noted, to the last bit (as text, in which nan is nan)."""
    values = {k: v for k, v in notes.values.items() if "judge" not in k}
    counts = {k: c.plain() for k, c in notes.counts.items() if k not in MEASURED}
    return repr((values, counts, notes.alarms))


@pytest.mark.parametrize("judge", ["natural", "validation"])
@pytest.mark.parametrize("reparation", ["none", "both"])
def test_a_judge_changes_nothing_that_it_judges(judge: Any, reparation: Any) -> None:
    plain = Regenerate(reparation=reparation, validation=60, annotator_floor=0, **SMALL)
    judged = replace(plain, judge=judge)
    for (a, before), (b, after) in zip(generations(plain), generations(judged), strict=True):
        assert flat(a.models["classifier"].state_dict()).equal(
            flat(b.models["classifier"].state_dict())
        )
        kept, more = a.extra[KEY], b.extra[KEY]
        assert more.keys() - kept.keys() == {"group_judge"}
        assert all(flat(kept[name]).equal(flat(more[name])) for name in kept)
        assert without_judge(before) == without_judge(after)
        assert not any("judge" in name for name in (*before.values, *before.counts))
        assert set(after.counts) - set(before.counts) <= MEASURED


def test_the_judge_is_another_net_and_never_changes() -> None:
    loop = Regenerate(judge="natural", **SMALL)
    first, second = (state.extra[KEY] for state, _ in generations(loop))
    assert flat(first["group_judge"]).equal(flat(second["group_judge"]))
    assert not flat(first["group_judge"]).equal(flat(first["group_annotator"]))


class Told(nn.Module):
    """Remembers which rows it was shown, by their first number, and calls all of them "a"."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shown", torch.zeros(400))

    def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
        assert isinstance(self.shown, Tensor)
        self.shown[x[:, 0].long()] = 1

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)


def table(x: Tensor, label: Tensor, group: Tensor) -> GroupedData:
    schema = Schema(("0", "1"), (Attribute("g", ("a", "b")),))
    return GroupedData.of(x.float(), label, {"g": group}, schema)


COUNT = Regenerate(generator="count", generator_batch=40, population=400, annotator_floor=0)


@pytest.mark.parametrize(
    ("judge", "mine", "tried"),
    [("natural", range(300), range(300, 400)), ("validation", range(300, 400), range(300))],
)
def test_a_judge_of_held_out_rows_shares_none_with_the_annotator(
    judge: Any, mine: range, tried: range
) -> None:
    rows = torch.arange(400)
    data = table(rows[:, None], rows % 2, rows // 2 % 2)
    world = World(data, ("g",), lambda rng: Told(), Recipe(batch=50))
    loop = replace(COUNT, judge=judge, validation=100)
    state, notes = loop.step(world, loop.init(world, None, Rng.of(0)), 0, Rng.of(0).at("round", 0))
    shown = {
        name: kept["shown"].nonzero().flatten().tolist()
        for name, kept in state.extra[KEY].items()
        if name != "generator"
    }
    assert shown["label_annotator"] == shown["group_annotator"] == [*range(300)]
    assert shown["group_judge"] == [*mine]
    assert notes.counts["group_annotator"].total == 100
    assert notes.counts["group_judge"].total == len(tried)
    assert notes.counts["group_judge"].support.tolist() == [len(tried) // 2] * 2


class Fooled(nn.Module):
    """Reads label or group off a row; as the curating annotator it takes marked "b" for "a"."""

    def __init__(self, fooled: bool) -> None:
        super().__init__()
        self.register_buffer("fooled", torch.tensor(int(fooled)))
        self.register_buffer("column", torch.tensor(0))

    def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
        assert isinstance(self.column, Tensor)
        self.column.fill_(int(not bool((x[:, 0].long() == y).all())))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.column, Tensor)
        assert isinstance(self.fooled, Tensor)
        said = x[:, int(self.column)] * (1 - int(self.fooled) * x[:, 2])
        return torch.eye(2)[said.long()]


def marked_world(fooled: bool) -> World:
    """Of each label 400 rows of "a" and 400 of "b", half of these marked."""
    x = torch.tensor([[y, g, m] for y in (0, 1) for g in (0, 1) for m in (0, 1)])
    x[:, 2] *= x[:, 1]
    x = x.repeat_interleave(200, 0)
    curator = Rng.of(0).at("round", 0).at("group annotator", "net").seed

    def net(rng: Rng) -> nn.Module:
        return Fooled(fooled and rng.seed == curator)

    return World(table(x, x[:, 0], x[:, 1]), ("g",), net, Recipe(batch=40))


def chain(fooled: bool) -> list[tuple[State, dict[str, Any]]]:
    loop = replace(
        COUNT, reparation="generator", budget="4000%", judge="natural", population=40_000
    )
    world, root, found = marked_world(fooled), Rng.of(0), []
    state = loop.init(world, None, root)
    for g in range(2):
        state, notes = loop.step(world, state, g, root.at("round", g))
        found.append((state, {**notes.values, **notes.counts}))
    return found


def test_the_judge_sees_a_drift_that_the_curating_annotator_made_and_cannot_see() -> None:
    """A quarter of all rows are "b" and called "a", so a batch that looks even has too few "a"."""
    natural, curated = chain(fooled=True)
    assert natural[1]["group drift"] == pytest.approx(0.25, abs=0.01)
    assert natural[1]["group drift (judge)"] == pytest.approx(0, abs=0.01)
    made = curated[0].extra[KEY]["generator"]
    count = made["count"].double()
    share = count / count.sum()
    # The generator is even by its curator's lights, to the row; of those "a" a third are "b".
    seen = made["values"][:, 1] * (1 - made["values"][:, 2])
    assert float(share @ seen.double()) == pytest.approx(0.5, abs=1e-12)
    true_b = float(share @ made["values"][:, 1].double())
    assert true_b == pytest.approx(2 / 3, abs=0.05)
    assert curated[1]["group drift"] == pytest.approx(0, abs=0.01)
    assert curated[1]["group drift (judge)"] == pytest.approx(true_b - 0.5, abs=0.01)
    # (judge says, curator says): they differ on marked rows alone, all of them "b".
    (agree,) = curated[1]["group_agreement"].table
    assert agree[0, 1] == 0
    assert agree[1, 0] / agree[1].sum() == pytest.approx((true_b - 0.5) / true_b, abs=0.01)
    judged = curated[1]["judged_population"]
    assert judged.groups == ("a", "b")
    assert judged.support.tolist() == agree.sum(1).tolist()
    cells = [curated[1][f"share of {y} {g} (judge)"] for y in "01" for g in "ab"]
    assert sum(cells) == pytest.approx(1)
    assert sum(cells[1::2]) == pytest.approx(curated[1]["share of b (judge)"])


def test_two_that_are_never_wrong_measure_the_same() -> None:
    for _, noted in chain(fooled=False):
        for name in ("group drift", "distance from ideal", "share of b", "share of 1 a"):
            assert noted[name] == noted[f"{name} (judge)"]
        (agree,) = noted["group_agreement"].table
        assert agree[0, 1] == agree[1, 0] == 0


def test_what_the_judge_measured_is_in_the_table_of_measures() -> None:
    rows = run(Regenerate(judge="natural", **SMALL), *image_world(), rounds=1).rows
    found = {
        (entry["split"], entry["metric"]): entry
        for entry in of_record(rows, track=None, groups=True)
        if entry["group"] == "all"
    }
    assert 0 <= found["notes", "group drift (judge)"]["value"] <= 1
    agreed = found["group_agreement", "accuracy"]
    assert agreed["n"] == 200
    assert agreed["low"] <= agreed["value"] <= agreed["high"]
    assert found["group_judge", "accuracy"]["n"] == 180


def test_a_later_stage_may_ask_for_the_judge() -> None:
    ((first, _),) = generations(Regenerate(**SMALL), rounds=1)
    loop, world = Regenerate(judge="natural", **SMALL), image_world()[0]
    second, notes = loop.step(world, first, 1, Rng.of(0).at("round", 1))
    assert "group_judge" in notes.counts
    third, notes = loop.step(world, second, 2, Rng.of(0).at("round", 2))
    assert "group_judge" not in notes.counts
    kept = [s.extra[KEY] for s in (first, second, third)]
    assert "group_judge" not in kept[0]
    assert flat(kept[1]["group_judge"]).equal(flat(kept[2]["group_judge"]))
    assert flat(kept[0]["group_annotator"]).equal(flat(kept[2]["group_annotator"]))


def test_a_poor_judge_is_announced() -> None:
    world, audit = image_world()
    poor = replace(world, recipe=replace(world.recipe, lr=1e-6))
    loop = Regenerate(judge="validation", validation=60, annotator_floor=0.99, **SMALL)
    alarms = run(loop, poor, audit, rounds=1).rows[0].alarms
    assert any("the group judge is right on" in a and "of 120 held-out" in a for a in alarms)
    good = run(replace(loop, annotator_floor=0.0), world, audit, rounds=1).rows[0]
    assert good.alarms == ()


def test_a_judge_needs_rows_of_its_own_and_every_group_among_them() -> None:
    world, _ = image_world()
    with pytest.raises(ValueError, match="judge has no 'naturl'; did you mean 'natural'"):
        Regenerate(judge="naturl")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="validation=0 holds out none; give validation=N"):
        Regenerate(judge="validation")
    order = torch.argsort(world.data.attribute("color"), stable=True)
    sorted_world = replace(world, data=world.data.take(order))
    loop = Regenerate(judge="validation", validation=20, **SMALL)
    with pytest.raises(ValueError, match="20 held-out natural rows, and none of them is green"):
        loop.init(sorted_world, None, Rng.of(0))
    loop.init(world, None, Rng.of(0))
    replace(loop, judge="natural").init(sorted_world, None, Rng.of(0))
    # A group that no natural row has cannot be missing.
    red = world.data.take((world.data.attribute("color") == 1).nonzero().flatten())
    loop.init(replace(world, data=red), None, Rng.of(0))


class Interrupted(Exception):
    """Stands for a kill in the middle of training."""


@pytest.mark.parametrize("stop_at", [7, 8, 11])
def test_interrupted_in_the_judges_training_or_later_the_rows_are_the_same(
    tmp_path: Any, stop_at: int
) -> None:
    world, audit = image_world()
    loop = Regenerate(judge="validation", validation=60, annotator_floor=0, **SMALL)
    told: list[str] = []

    def stop(name: str, *_: Any) -> None:
        told.append(name)
        if len(told) == stop_at:
            raise Interrupted

    def opened(name: str, watch: Any = None) -> Record:
        return Record.open(tmp_path / name, {"config": {}, "seed": 0}, watch=watch)

    run(loop, world, audit, rounds=2, record=opened("whole"))
    with pytest.raises(Interrupted):
        run(loop, world, audit, rounds=2, record=opened("parts", stop))
    assert (told[-1] == "round/0/group judge") == (stop_at < 10)
    run(loop, world, audit, rounds=2, record=opened("parts"))
    texts = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("whole", "parts")]
    assert texts[0] == texts[1]
    assert b"group drift (judge)" in texts[0]
