"""The ring of every group against a deque per group."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from evenloop.objectives.ring import GroupAverage, GroupRing


def test_a_batch_without_group_1_leaves_it_alone() -> None:
    ring = GroupRing(torch.tensor([2, 2, 2]))
    ring.push(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1, 1, 0]))
    ring.push(torch.tensor([0.0, 0.0]), torch.tensor([0, 2]))
    assert [row.tolist() for row in ring.contents()] == [[1, 0], [1, 1], [0]]
    assert ring.full.tolist() == [True, True, False]
    assert ring.mean().tolist() == [0.5, 1, 0]


def test_a_batch_of_one_row() -> None:
    ring = GroupRing(torch.tensor([1, 1]))
    ring.push(torch.tensor([0.5]), torch.tensor([1]))
    assert ring.mean().tolist() == [0, 0.5]


@pytest.mark.parametrize("groups", [1, 3, 50])
def test_it_holds_the_newest_of_each_group_for_any_cuts(groups: int) -> None:
    gen = torch.Generator().manual_seed(groups)
    capacity = torch.randint(1, 7, (groups,), generator=gen)
    ring = GroupRing(capacity)
    plain = [deque[float](maxlen=k) for k in capacity.tolist()]
    for size in (1, 40, 3, 17, 90, 2, 5):
        values = torch.rand(size, generator=gen)
        cell = torch.randint(groups, (size,), generator=gen)
        ring.push(values, cell)
        for value, g in zip(values.tolist(), cell.tolist(), strict=True):
            plain[g].append(value)
        assert [row.tolist() for row in ring.contents()] == [list(d) for d in plain]
        want = [sum(d) / d.maxlen if len(d) == d.maxlen else 0.0 for d in plain if d.maxlen]
        assert torch.allclose(ring.mean(), torch.tensor(want), atol=1e-6)


def test_several_attributes_push_a_row_once_each() -> None:
    ring = GroupRing(torch.tensor([2, 2, 2]))
    ring.push(torch.tensor([1.0, 2.0]), torch.tensor([[0, 2], [1, 2]]))
    assert [row.tolist() for row in ring.contents()] == [[1], [2], [1, 2]]


def test_order_within_a_short_batch_does_not_matter_for_the_means() -> None:
    values, cell = torch.tensor([1.0, 0, 0, 1]), torch.tensor([0, 1, 0, 1])
    a, b = GroupRing(torch.tensor([2, 2])), GroupRing(torch.tensor([2, 2]))
    order = torch.tensor([3, 1, 2, 0])
    a.push(values, cell)
    b.push(values[order], cell[order])
    assert torch.equal(a.mean(), b.mean())


@pytest.mark.parametrize("groups", [1, 10])
def test_a_nan_leaves_when_its_value_does(groups: int) -> None:
    ring = GroupRing(torch.full((groups,), 2))
    ring.push(torch.tensor([float("nan")]), torch.tensor([0]))
    ring.push(torch.tensor([1.0, 0.0]), torch.tensor([0, 0]))
    assert ring.mean()[0] == 0.5


def test_state_continues_bit_for_bit() -> None:
    gen = torch.Generator().manual_seed(0)
    batches = [
        (torch.rand(9, generator=gen), torch.randint(4, (9,), generator=gen)) for _ in "abcd"
    ]
    whole = GroupRing(torch.tensor([3, 4, 5, 6]))
    first = GroupRing(torch.tensor([3, 4, 5, 6]))
    for batch in batches:
        whole.push(*batch)
    for batch in batches[:2]:
        first.push(*batch)
    second = GroupRing(torch.tensor([3, 4, 5, 6]))
    second.load_state_dict(first.state_dict())
    for batch in batches[2:]:
        second.push(*batch)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_capacity_of_zero_is_refused() -> None:
    assert GroupRing(torch.tensor([1])).width == 1
    with pytest.raises(ValueError, match=r"at least 1 for every group, got \[2, 0\]"):
        GroupRing(torch.tensor([2, 0]))


def test_the_average_forgets_at_the_pace_of_each_group_s_items() -> None:
    gen = torch.Generator().manual_seed(0)
    capacity = torch.tensor([5, 20])
    average = GroupAverage(capacity)
    weights: list[list[float]] = [[], []]
    values: list[list[float]] = [[], []]
    for _ in range(30):
        value, cell = torch.rand(1, generator=gen), torch.randint(2, (1,), generator=gen)
        average.push(value, cell)
        g = int(cell)
        fall = 1 - 1 / int(capacity[g])
        weights[g] = [w * fall for w in weights[g]] + [1.0]
        values[g].append(float(value))
    for g in range(2):
        total = sum(w * v for w, v in zip(weights[g], values[g], strict=True))
        want = total / sum(weights[g]) if len(values[g]) >= int(capacity[g]) else 0.0
        assert float(average.mean()[g]) == pytest.approx(want, rel=1e-5)
    assert average.full.tolist() == [len(v) >= k for v, k in zip(values, [5, 20], strict=True)]


def test_the_average_is_of_about_twice_as_many_items_as_its_capacity() -> None:
    gen = torch.Generator().manual_seed(0)
    average, found = GroupAverage(torch.tensor([50])), []
    for _ in range(4000):
        average.push((torch.rand(8, generator=gen) < 0.8).float(), torch.zeros(8).long())
        found.append(average.mean())
    late = torch.stack(found[100:])
    assert float(late.mean()) == pytest.approx(0.8, abs=0.01)
    assert float(average.error()) == pytest.approx((0.8 * 0.2 / 99) ** 0.5, rel=0.15)
    assert float(late.std()) == pytest.approx((0.8 * 0.2 / 99) ** 0.5, rel=0.15)


def test_the_average_without_an_item_of_group_1_leaves_it_alone() -> None:
    average = GroupAverage(torch.tensor([1, 1]))
    average.push(torch.tensor([1.0]), torch.tensor([0]))
    assert average.mean().tolist() == [1, 0]
    assert average.full.tolist() == [True, False]
    assert average.error().tolist() == [0, 0]
    with pytest.raises(ValueError, match="at least 1 for every group"):
        GroupAverage(torch.tensor([0]))
