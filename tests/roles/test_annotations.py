"""Annotated frames as codes and back, and one frame of several annotators'."""

from __future__ import annotations

from collections import Counter

import pytest

from evenloop.rng import Rng
from evenloop.roles.annotations import collapse, decode, encode, sentence, vocabulary

BAKE = {
    "verb": "baking",
    "frames": [
        {"agent": "woman", "item": "bread"},
        {"agent": "man", "item": ""},
        {"agent": "woman", "item": "cake"},
    ],
}
RUN = {"verb": "running", "frames": [{"agent": "man"}]}


def test_vocabulary_holds_every_role_and_its_own_nouns() -> None:
    layout = vocabulary([RUN, BAKE])
    assert layout.verbs == ("baking", "running")
    assert layout.roles == (("agent", "item"), ("agent",))
    assert layout.nouns == ((("woman", "man"), ("bread", "", "cake")), (("man",),))


def test_vocabulary_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="verbs is empty"):
        vocabulary([])


def test_codes_are_local_and_absent_things_are_minus_one() -> None:
    layout = vocabulary([BAKE, RUN])
    y = encode([BAKE, RUN], layout, references=3)
    assert y.tolist() == [[0, 0, 0, 1, 1, 0, 2], [1, 0, -1, -1, -1, -1, -1]]
    assert decode(y, layout) == [BAKE, RUN]


def test_a_role_left_out_by_an_annotator_is_unknown() -> None:
    layout = vocabulary([BAKE])
    y = encode([{"verb": "baking", "frames": [{"item": "cake"}]}], layout, references=1)
    assert y.tolist() == [[0, -1, 2]]


@pytest.mark.parametrize(
    ("situation", "message"),
    [
        ({"verb": "flying", "frames": []}, "no verb 'flying'"),
        ({"verb": "running", "frames": [{"agent": "dog"}]}, "no agent='dog' for verb 'running'"),
        ({"verb": "running", "frames": [{"place": "man"}]}, "no place='man' for verb 'running'"),
        ({"verb": "running", "frames": [{}, {}]}, "has 2 frames and references=1"),
    ],
)
def test_what_the_layout_does_not_have_is_refused(
    situation: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode([situation], vocabulary([BAKE, RUN]), references=1)


def test_a_sentence_shows_the_first_frame_in_words() -> None:
    assert sentence(BAKE, {"woman": "a woman"}) == "baking: agent=a woman, item=bread"
    assert sentence({"verb": "raining", "frames": []}) == "raining"


def test_collapse_takes_what_two_agree_on() -> None:
    frames = [{"agent": "man"}, {"agent": "woman"}, {"agent": "woman"}]
    assert collapse(frames, Rng.of(0)) == {"agent": "woman"}


def test_collapse_leaves_out_blanks_unless_all_are_blank() -> None:
    frames = [{"agent": "", "place": ""}, {"agent": " ", "place": ""}, {"agent": "man"}]
    assert collapse(frames, Rng.of(0)) == {"agent": "man", "place": ""}


def test_collapse_draws_where_nobody_agrees() -> None:
    frames = [{"agent": "a"}, {"agent": "b"}, {"agent": "c"}]
    got = Counter(collapse(frames, Rng.of(seed))["agent"] for seed in range(300))
    assert set(got) == {"a", "b", "c"}
    assert min(got.values()) > 70
    assert collapse(frames, Rng.of(1)) == collapse(frames, Rng.of(1))
