"""Who is asked: quotas, orders, draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evenloop.groups import GroupIndex
from evenloop.heuristics.balanced import balanced_selection, group_quotas
from evenloop.heuristics.stochastic import (
    acquisition_probabilities,
    random_order_top,
    stochastic_selection,
)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def taken(asked: Tensor, group: Tensor) -> list[int]:
    return torch.bincount(group[asked], minlength=int(group.max()) + 1).tolist()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((50, 50), [5, 5]),
        ((97, 3), [7, 3]),
        ((30, 30, 30), [4, 3, 3]),
        ((40, 0, 40), [5, 0, 5]),
        ((1, 2, 90), [1, 2, 7]),
        ((20,), [10]),
    ],
)
def test_quotas_are_equal_and_pass_on_what_a_group_cannot_fill(
    sizes: tuple[int, ...], expected: list[int]
) -> None:
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    asked = balanced_selection(torch.rand(len(group), generator=gen()), 10, group)
    assert taken(asked, group) == expected
    assert len(set(asked.tolist())) == 10


def test_a_group_keeps_the_order_of_its_scores() -> None:
    score, group = torch.rand(60, generator=gen(1)), torch.arange(60) % 3
    asked = balanced_selection(score, 21, group)
    for g in range(3):
        own = asked[group[asked] == g]
        best = (group == g).nonzero().flatten()[score[group == g].argsort(descending=True)]
        assert torch.equal(own, best[: len(own)])


def test_one_group_is_the_plain_ranking() -> None:
    score = torch.rand(30, generator=gen(2))
    asked = balanced_selection(score, 30, torch.zeros(30).long())
    assert torch.equal(asked, score.argsort(descending=True))


def test_a_pool_without_group_one_and_a_pool_of_one_item() -> None:
    groups = GroupIndex(torch.tensor([0, 2, 2, 0]), ("a", "b", "c"))
    assert sorted(balanced_selection(torch.arange(4.0), 4, groups).tolist()) == [0, 1, 2, 3]
    alone = GroupIndex(torch.tensor([2]), ("a", "b", "c"))
    assert balanced_selection(torch.ones(1), 1, alone).tolist() == [0]
    assert balanced_selection(torch.ones(0), 0, alone.take(torch.zeros(0).long())).tolist() == []


def test_more_items_than_the_pool_holds_are_all_of_it_and_told() -> None:
    groups = GroupIndex(torch.tensor([0, 2, 2, 0]), ("a", "b", "c"))
    with pytest.warns(UserWarning, match="k=9 items are wanted and the pool holds 4: all of them"):
        assert sorted(balanced_selection(torch.arange(4.0), 9, groups).tolist()) == [0, 1, 2, 3]


def test_the_remainder_goes_to_the_groups_with_the_fewest_labels() -> None:
    held = torch.tensor([9, 3, 5])
    assert group_quotas(11, torch.tensor([50, 50, 50]), labelled_counts=held).tolist() == [3, 4, 4]


def test_target_shares_are_met() -> None:
    share = torch.tensor([0.7, 0.2, 0.1])
    assert group_quotas(10, torch.tensor([50, 50, 50]), share=share).tolist() == [7, 2, 1]
    assert group_quotas(10, torch.tensor([2, 50, 50]), share=share).tolist() == [2, 5, 3]


def test_the_unknown_group_only_fills_up() -> None:
    groups = GroupIndex(torch.tensor([0] * 3 + [1] * 3 + [2] * 50), ("f", "m", "unknown"))
    asked = balanced_selection(torch.rand(56, generator=gen()), 4, groups)
    assert taken(asked, groups.cell) == [2, 2, 0]
    more = balanced_selection(torch.rand(56, generator=gen()), 10, groups)
    assert taken(more, groups.cell) == [3, 3, 4]


def test_every_quota_adds_up_for_random_sizes() -> None:
    for seed in range(200):
        sizes = torch.randint(0, 40, (1 + seed % 7,), generator=gen(seed))
        k = int(torch.randint(0, 120, (1,), generator=gen(seed + 1)))
        quota = group_quotas(k, sizes)
        assert int(quota.sum()) == min(k, int(sizes.sum()))
        assert (quota <= sizes).all()
        # no group gets two more than one that could still give
        open_ = quota < sizes
        if open_.any():
            assert int(quota.max()) <= int(quota[open_].min()) + 1


def test_permuting_the_pool_permutes_the_result() -> None:
    score, group = torch.rand(40, generator=gen(3)), torch.arange(40) % 4
    order = torch.randperm(40, generator=gen(4))
    asked = balanced_selection(score[order], 10, group[order])
    assert order[asked].tolist() == balanced_selection(score, 10, group).tolist()


def test_ties_are_broken_by_the_generator_not_by_position() -> None:
    score, group = torch.ones(50), torch.zeros(50).long()
    picks = {
        tuple(balanced_selection(score, 3, group, generator=gen(s)).tolist()) for s in range(5)
    }
    assert len(picks) == 5
    picks = {tuple(random_order_top(score, 3, generator=gen(s)).tolist()) for s in range(5)}
    assert len(picks) == 5


def test_the_top_is_the_top_in_order_with_ties_at_the_edge_drawn() -> None:
    score = torch.tensor([1.0, 5.0, 2.0, 2.0, 4.0])
    edge = {tuple(random_order_top(score, 3, generator=gen(s)).tolist()) for s in range(20)}
    assert edge == {(1, 4, 2), (1, 4, 3)}
    assert random_order_top(score, 9, generator=gen())[:2].tolist() == [1, 4]
    assert random_order_top(score, 0, generator=gen()).tolist() == []


def test_random_scores_reach_the_whole_pool_evenly() -> None:
    n, k, trials = 17, 5, 4000
    count = torch.zeros(n)
    for seed in range(trials):
        count[random_order_top(torch.zeros(n), k, generator=gen(seed))] += 1
    expected = trials * k / n
    chi2 = float(((count - expected) ** 2 / expected).sum())
    assert chi2 < 39.3  # 0.1 % of chi-square with 16 degrees; draws without replacement vary less


@pytest.mark.parametrize("rule", ["power", "softmax", "rank"])
def test_a_low_temperature_is_the_top_k(rule: str) -> None:
    score = torch.tensor([0.1, 0.9, 0.5, 0.7])
    asked = stochastic_selection(score, 2, rule, temperature=1e-4, generator=gen())  # type: ignore[arg-type]
    assert asked.tolist() == [1, 3]


@pytest.mark.parametrize("rule", ["power", "softmax", "rank"])
def test_the_first_draw_has_the_probabilities_told(rule: str) -> None:
    score, trials = torch.tensor([0.2, 1.0, 0.6]), 6000
    told = acquisition_probabilities(score, rule)  # type: ignore[arg-type]
    generator, count = gen(7), torch.zeros(3, dtype=torch.float64)
    for _ in range(trials):
        count[stochastic_selection(score, 1, rule, generator=generator)] += 1  # type: ignore[arg-type]
    assert float(((count - trials * told) ** 2 / (trials * told)).sum()) < 13.8  # 0.1 %, 2 degrees


def test_equal_scores_are_uniform() -> None:
    for rule in ("power", "softmax", "rank"):
        told = acquisition_probabilities(torch.full((5,), 0.3), rule)  # type: ignore[arg-type]
        torch.testing.assert_close(told, torch.full((5,), 0.2, dtype=torch.float64))
    assert acquisition_probabilities(torch.zeros(4), "power").tolist() == [0.25] * 4


def test_power_takes_items_of_score_zero_only_when_others_are_gone() -> None:
    score = torch.tensor([0.0, 0.4, 0.0, 0.2, 0.0])
    firsts, fills = set(), set()
    for seed in range(40):
        asked = stochastic_selection(score, 3, "power", generator=gen(seed)).tolist()
        firsts |= set(asked[:2])
        fills.add(asked[2])
    assert firsts == {1, 3}
    assert fills == {0, 2, 4}


@pytest.mark.parametrize(
    ("score", "rule", "temperature", "message"),
    [
        ([-0.1, 1.0], "power", 1.0, "at least 0"),
        ([0.1, 1.0], "power", 0.0, "temperature"),
        ([0.1, float("nan")], "rank", 1.0, "NaN"),
        ([0.1, 1.0], "sqrt", 1.0, "rule"),
    ],
)
def test_bad_stochastic_input(
    score: list[float], rule: str, temperature: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        acquisition_probabilities(torch.tensor(score), rule, temperature=temperature)  # type: ignore[arg-type]


def test_good_stochastic_input() -> None:
    assert acquisition_probabilities(torch.tensor([-0.1, 1.0]), "softmax").sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balanced_selection(torch.ones(3), 1, torch.zeros(2).long()), "3 items, groups 2"),
        (lambda: balanced_selection(torch.tensor([torch.nan]), 1, torch.zeros(1).long()), "NaN"),
        (lambda: balanced_selection(torch.zeros(2), 1, torch.tensor([0.5, 1])), "integer codes"),
        (lambda: balanced_selection(torch.zeros(2), 1, torch.tensor([-1, 1])), "codes from 0 on"),
        (lambda: balanced_selection(torch.ones(1), -1, torch.zeros(1).long()), "at least 0"),
        (lambda: group_quotas(2, torch.ones(2), share=torch.tensor([0.5, 0.6])), "sum to one"),
        (lambda: group_quotas(2, torch.ones(2), share=torch.tensor([1.5, -0.5])), "non-negative"),
        (lambda: group_quotas(2, torch.ones(2), share=torch.ones(1)), "shape"),
        (lambda: group_quotas(2, torch.ones(2), labelled_counts=torch.ones(3)), "3 groups"),
        (lambda: stochastic_selection(torch.ones(2), -1, "power", generator=gen()), "at least 0"),
        (lambda: random_order_top(torch.ones(2), -1, generator=gen()), "at least 0"),
        (
            lambda: random_order_top(torch.tensor([1.0, torch.nan]), 1, generator=gen()),
            "NaN, first for item 1",
        ),
    ],
)
def test_bad_selections(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_scores_that_are_known_are_all_bought() -> None:
    scores = torch.tensor([0.0, torch.inf, -torch.inf, 2.0])
    assert random_order_top(scores, 4, generator=gen()).tolist() == [1, 3, 0, 2]
