"""Whom a frame's agent is, the noun sets, bins of verbs, and the two baselines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evenloop.roles import Layout
from evenloop.roles.annotations import encode, vocabulary
from evenloop.roles.gender import (
    NOUN_SETS,
    VERB_BINS,
    FrameReading,
    NounSets,
    noun_sets,
    verb_bins,
)

SETS = NounSets(frozenset({"man"}), frozenset({"woman"}))


def situation(verb: str, *agents: str | None) -> dict[str, object]:
    """One frame for each agent; None for a frame without that role."""
    return {"verb": verb, "frames": [{"item": "x"} | ({"agent": a} if a else {}) for a in agents]}


ROWS = [
    situation("baking", "woman", "woman", "dog"),
    situation("baking", "man", "woman", "woman"),
    situation("baking", "dog", "dog", "dog"),
    situation("running", "man", "man", "man"),
    situation("running", None, "man", None),
    situation("raining", None, None, None),
]
LAYOUT = vocabulary([*ROWS, situation("running", "woman")])
Y = encode(ROWS, LAYOUT, references=3)


def test_whom_rows_name() -> None:
    reading = FrameReading(LAYOUT, SETS)
    names = [reading.classes[code] for code in reading.read(Y, Y).tolist()]
    assert names == ["woman", "other", "other", "man", "man", "other"]


def test_a_verb_without_the_role_is_other() -> None:
    no_agent = Layout(("a", "b"), (("agent",), ("item",)), ((("man",),), (("man",),)))
    y = torch.tensor([[0, 0], [1, 0]])
    assert FrameReading(no_agent, SETS).read(y, y).tolist() == [1, 0]


def test_statistics_are_shares_of_women() -> None:
    reading = FrameReading(LAYOUT, SETS, watched=("baking", "flying"))
    found = {name: f(Y, Y) for name, f in reading.statistics().items()}
    assert set(found) == {"women", "women.single", "women.baking"}
    assert found["women"].nan_to_num(9).tolist() == [1, 9, 9, 0, 0, 9]
    assert found["women.single"].nan_to_num(9).tolist() == [1, 0, 9, 0, 9, 9]
    assert found["women.baking"].nan_to_num(9).tolist() == [1, 9, 9, 9, 9, 9]


def test_one_frame_a_row_needs_no_statistic_of_the_first() -> None:
    assert set(FrameReading(LAYOUT, SETS, single=False).statistics()) == {"women"}


def test_bins_limit_the_verbs() -> None:
    bins = (frozenset({"running"}), frozenset({"skipping"}))
    found = FrameReading(LAYOUT, SETS, bins=bins).statistics()
    assert found["women"](Y, Y).nan_to_num(9).tolist() == [9, 9, 9, 0, 0, 9]
    assert found["women.bin0"](Y, Y).nan_to_num(9).tolist() == [9, 9, 9, 0, 0, 9]
    assert found["women.bin1"](Y, Y).isnan().all()


def test_bins_from_the_labels_of_people() -> None:
    rows = [situation("a", g) for g in ("man", "man", "man", "man", "woman")]
    rows += [situation("b", "woman"), situation("c", "dog"), situation("d", "man")]
    layout = vocabulary(rows)
    reading = FrameReading(layout, SETS)
    bins = verb_bins(encode(rows, layout, references=1), reading)
    assert [sorted(b) for b in bins] == [["d"], ["a"], [], [], ["b"]]


def test_bins_need_somebody() -> None:
    rows = [situation("c", "dog")]
    reading = FrameReading(vocabulary([*rows, situation("c", "man")]), SETS)
    with pytest.raises(ValueError, match="no row names a man or a woman"):
        verb_bins(encode(rows, reading.layout, references=1), reading)


def test_three_annotators_and_one_give_different_baselines() -> None:
    """Independent annotators, man .25 and woman .5: .788 from three frames, .667 from one."""
    layout = vocabulary([situation("a", noun) for noun in ("man", "woman", "dog")])
    n = 200_000
    luck = torch.rand(n, 3, generator=torch.Generator().manual_seed(0))
    agents = (luck > 0.25).long() + (luck > 0.75).long()  # man, woman, dog
    y = torch.zeros(n, 7, dtype=torch.long)
    y[:, 1 + layout.position(0, "agent") :: 2] = agents
    found = FrameReading(layout, SETS).statistics()
    three, one = found["women"](y, y), found["women.single"](y, y)
    woman, man = (1 - 0.25) ** 3 - 0.25**3, (1 - 0.5) ** 3 - 0.25**3
    assert woman / (woman + man) == pytest.approx(0.788, abs=5e-4)
    assert float(three.nanmean()) == pytest.approx(woman / (woman + man), abs=0.004)
    assert float(one.nanmean()) == pytest.approx(2 / 3, abs=0.004)


def test_the_original_sets_and_the_cleaned_one() -> None:
    original, persons = NOUN_SETS["original"], noun_sets("persons")
    assert (len(original.male), len(original.female)) == (122, 29)
    for scarecrow, man_hour in (("n04143712", "n15230482"),):
        assert {scarecrow, man_hour} <= original.male
        assert not {scarecrow, man_hour} & (persons.male | persons.female)
    boy, father, man = "n10285313", "n10080869", "n10287213"
    assert {boy, father, man} <= persons.male
    assert {boy, father} & original.male == set()
    girl, woman, woman_chaser, misogynist = "n10129825", "n10787470", "n10787197", "n10322648"
    assert {girl, woman} <= persons.female
    assert {woman_chaser, misogynist} <= original.female
    assert not {woman_chaser, misogynist} & persons.female


def test_the_original_bins() -> None:
    assert [len(b) for b in VERB_BINS] == [78, 142, 129, 65, 18]
    assert "cooking" in VERB_BINS[3]


def test_a_set_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "sets.json"
    path.write_text(json.dumps({"male": ["m"], "female": ["f"]}))
    assert noun_sets(path) == NounSets(frozenset("m"), frozenset("f"))


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"male": ["m"]}', '{"male": ["m"], "female": ["m"]}', '{"male": [], "female": 3}'],
)
def test_a_wrong_set_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sets.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"gender_sets: .* must hold"):
        noun_sets(path)


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(ValueError, match="neither of original, persons nor a JSON file"):
        noun_sets("everybody")


def test_somebody_must_act() -> None:
    layout = Layout(("raining",), (("item",),), ((("x",),),))
    with pytest.raises(ValueError, match="no verb has a role 'agent'"):
        FrameReading(layout, SETS)


def test_comparisons_come_by_image_and_by_verb() -> None:
    reading = FrameReading(LAYOUT, SETS)
    written = Y[:, : 1 + LAYOUT.max_roles]
    found = reading.compare(Y, written, Y, None)  # type: ignore[arg-type]
    assert set(found) == {
        f"{score}{by}" for score in ("verb", "value", "value-all") for by in ("", ", mean of verbs")
    }
    assert (found["verb"][0] == 1).all()
    starred = reading.compare_given(Y, written, Y)
    assert set(starred) == {
        f"{score}{by}" for score in ("value*", "value-all*") for by in ("", ", mean of verbs")
    }
    assert starred["value*"][0].tolist() == [1] * 6


def test_rows_are_shown_in_words_and_none_is_hidden() -> None:
    reading = FrameReading(LAYOUT, SETS, words={"woman": "a woman"})
    assert reading.show(Y, Y)[0] == "baking: item=x, agent=a woman"
    assert not reading.hidden(Y, Y).any()
