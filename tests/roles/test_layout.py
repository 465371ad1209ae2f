"""Layouts, and the places of their potentials."""

from __future__ import annotations

import pytest
import torch

from evenloop.roles import Layout, Slots
from evenloop.roles.layout import BLOCKS
from roles_kit import SMALL, random_layout


def test_sizes() -> None:
    assert (SMALL.max_roles, SMALL.codes, SMALL.entries) == (3, 4, 15)
    assert SMALL.position(2, "item") == 2
    assert SMALL.position(1, "item") == -1
    assert SMALL.widths().tolist() == [[3, 2, 0], [2, 0, 0], [1, 4, 3]]


def test_every_noun_has_a_slot_of_its_own() -> None:
    for layout in (SMALL, random_layout(40, 0, most=60)):
        slots = Slots.of(layout)
        taken = [
            int(slots.start[v, r]) + u
            for v, nouns in enumerate(layout.nouns)
            for r, listed in enumerate(nouns)
            for u in range(len(listed))
        ]
        assert len(set(taken)) == layout.entries
        full = torch.zeros(len(slots.empty), dtype=torch.bool)
        full[taken] = True
        assert torch.equal(full, ~slots.empty)
        assert len(slots.blocks) <= BLOCKS
        assert sum(n * w for n, w in slots.blocks) == len(slots.empty)


def test_few_widths_leave_no_empty_slot() -> None:
    assert not Slots.of(SMALL).empty.any()


def test_many_widths_waste_little() -> None:
    slots = Slots.of(random_layout(300, 1, most=340))
    assert float(slots.empty.double().mean()) < 0.05


def test_equal_layouts_share_their_slots() -> None:
    assert Slots.of(random_layout(3, 5)) is Slots.of(random_layout(3, 5))


@pytest.mark.parametrize(
    ("verbs", "roles", "nouns", "message"),
    [
        ((), (), (), "verbs is empty"),
        (("a",), ((),), ((),), "at least one role"),
        (("a", "b"), (("r",),), (((("x",)),),), "give one entry of each for every verb"),
        (("a", "a"), (("r",), ("r",)), ((("x",),), (("x",),)), "verb 'a' occurs twice"),
        (("a",), (("r", "r"),), ((("x",), ("x",)),), "role 'r' occurs twice in verb 'a'"),
        (("a",), (("r", "s"),), ((("x",),),), "2 roles and nouns for 1"),
        (("a",), (("r",),), (((),),), "role 'r' of verb 'a' has no nouns"),
        (("a",), (("r",),), ((("x", "x"),),), "noun 'x' occurs twice"),
    ],
)
def test_a_wrong_layout_is_refused(
    verbs: tuple[str, ...],
    roles: tuple[tuple[str, ...], ...],
    nouns: tuple[tuple[tuple[str, ...], ...], ...],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        Layout(verbs, roles, nouns)


def test_a_verb_without_roles_is_allowed_beside_others() -> None:
    layout = Layout(("rain", "run"), ((), ("agent",)), ((), (("man", "woman"),)))
    assert Slots.of(layout).width.tolist() == [[0], [2]]
