"""Updates of a batch taken in parts: the exact order and the published one."""

from __future__ import annotations

import pytest

from evenloop.accumulation import planned_updates, update_events


@pytest.mark.parametrize(("batches", "each"), [(10, 1), (10, 2), (11, 4), (3, 5)])
def test_exact_order_uses_every_micro_batch_once_at_full_weight(batches: int, each: int) -> None:
    made = update_events(batches, each, epochs=2)
    assert len(made) == planned_updates(batches, each, epochs=2)
    for epoch in range(2):
        taken = [i for u in made if u.epoch == epoch for i in u.micro_batches]
        assert taken == list(range(batches))
    assert all(u.weight == 1 and u.lr > 0 for u in made)


def test_published_order_starts_an_epoch_with_one_micro_batch() -> None:
    made = update_events(12, 4, order="published")
    assert [u.micro_batches for u in made] == [(0,), (1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11)]
    assert [u.weight for u in made] == [0.25, 1, 1, 0.75]
    assert made[-1].lr == 0  # one more than planned: its micro-batches teach nothing


def test_without_accumulation_both_orders_are_one() -> None:
    assert update_events(7, 1, epochs=2) == update_events(7, 1, epochs=2, order="published")


@pytest.mark.parametrize("field", ["micro_batches", "accumulation", "epochs"])
def test_counts_start_at_one(field: str) -> None:
    counts = {"micro_batches": 1, "accumulation": 1, "epochs": 1}
    assert len(update_events(**counts)) == 1
    with pytest.raises(ValueError, match=f"{field} must be a whole number from 1 on, got 0"):
        update_events(**counts | {field: 0})


def test_order_is_known() -> None:
    with pytest.raises(ValueError, match="order has no 'both'"):
        update_events(1, 1, order="both")  # type: ignore[arg-type]
