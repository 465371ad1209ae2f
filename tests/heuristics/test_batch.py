"""Batch rules against enumeration, and what they need of their draws."""

from __future__ import annotations

from itertools import combinations, product
from math import log

import pytest
import torch
from torch import Tensor

from evenloop.heuristics.batch import badge, batch_bald, core_set, epig, joint_information
from evenloop.heuristics.uncertainty import bald


def random_probs(n: int, c: int, t: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, c, t, generator=generator, dtype=torch.float64).mul(2).softmax(1)


def slow_information(draws: Tensor) -> float:
    """Every combination of labels, one at a time."""
    n, c, t = draws.shape
    joint = 0.0
    for labels in product(range(c), repeat=n):
        p = sum(
            float(torch.stack([draws[i, y, k] for i, y in enumerate(labels)]).prod())
            for k in range(t)
        )
        joint -= p / t * log(p / t) if p else 0.0
    alone = float(torch.special.entr(draws).sum(1).mean(1).sum())
    return joint - alone


def test_joint_information_is_the_enumeration() -> None:
    draws = random_probs(3, 3, 4)
    assert joint_information(draws) == pytest.approx(slow_information(draws), abs=1e-12)
    assert joint_information(draws[:1]) == pytest.approx(float(bald(draws[:1])), abs=1e-12)


def test_batch_bald_is_greedy_on_the_joint_information() -> None:
    draws = random_probs(7, 2, 5, seed=3)
    chosen: list[int] = []
    for _ in range(4):
        rest = [i for i in range(7) if i not in chosen]
        chosen.append(max(rest, key=lambda i: joint_information(draws[[*chosen, i]])))
    assert batch_bald(draws, 4).tolist() == chosen


def test_sampled_combinations_choose_as_enumerated_ones_do() -> None:
    draws = random_probs(6, 2, 8, seed=5)
    exact = batch_bald(draws, 5, samples=4096).tolist()
    sampled = batch_bald(draws, 5, samples=16, generator=torch.Generator().manual_seed(0)).tolist()
    assert sampled[:4] == exact[:4]  # up to 16 combinations both enumerate
    assert len(set(sampled)) == 5
    large = batch_bald(random_probs(30, 3, 8, seed=6), 8, samples=2000)
    best = joint_information(
        random_probs(30, 3, 8, seed=6)[batch_bald(random_probs(30, 3, 8, seed=6), 8, samples=6561)]
    )
    got = joint_information(random_probs(30, 3, 8, seed=6)[large])
    assert got > best - 0.02


def test_batch_bald_avoids_copies_that_the_top_of_bald_takes() -> None:
    twin = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    other = torch.tensor([[0.95, 0.9, 0.1, 0.1], [0.05, 0.1, 0.9, 0.9]])
    draws = torch.stack([twin, twin, other])
    assert bald(draws).topk(2).indices.sort().values.tolist() == [0, 1]
    assert batch_bald(draws, 2).tolist() == [0, 2]


def test_batch_bald_of_a_small_pool_and_of_nothing() -> None:
    assert sorted(batch_bald(random_probs(3, 2, 4), 9).tolist()) == [0, 1, 2]
    assert batch_bald(random_probs(3, 2, 4), 0).tolist() == []


def test_epig_is_the_mean_pairwise_information() -> None:
    pool, target = random_probs(4, 3, 6, seed=1), random_probs(5, 3, 6, seed=2)
    for i in range(4):
        slow = 0.0
        for other in target:
            both = slow_information(torch.stack([pool[i], other]))
            # I(y; y*) = I(y; w) + I(y*; w) - I(y, y*; w)
            apart = slow_information(pool[i : i + 1]) + slow_information(other[None])
            slow += (apart - both) / len(target)
        assert float(epig(pool, target)[i]) == pytest.approx(slow, abs=1e-12)


def test_epig_a_slice_at_a_time_is_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, target = random_probs(9, 3, 6, seed=1), random_probs(5, 3, 6, seed=2)
    whole = epig(pool, target)
    monkeypatch.setattr("evenloop.heuristics.batch._SLICE", 50)
    torch.testing.assert_close(epig(pool, target), whole, rtol=0, atol=1e-14)


def test_badge_takes_distinct_items_as_its_slow_form_does() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(25, 3, generator=generator).softmax(1).double()
    features = torch.randn(25, 4, generator=generator).double()
    asked = badge(probs, features, 6, generator=torch.Generator().manual_seed(1)).tolist()
    assert len(set(asked)) == 6
    residual = probs - torch.nn.functional.one_hot(probs.argmax(1), 3)
    gradient = torch.einsum("nc,nf->ncf", residual, features).flatten(1)
    assert asked[0] == int(gradient.norm(dim=1).argmax())
    slow = torch.Generator().manual_seed(1)
    chosen = [asked[0]]
    for _ in range(5):
        distance = torch.cdist(gradient, gradient[chosen]).amin(1) ** 2
        distance[chosen] = 0
        at = torch.rand((), generator=slow, dtype=torch.float64)
        total = distance.cumsum(0)
        chosen.append(int(torch.searchsorted(total, at * total[-1], right=True)))
    assert asked == chosen


def test_badge_of_identical_items_still_takes_distinct_ones() -> None:
    probs, features = torch.full((5, 2), 0.5), torch.ones(5, 3)
    asked = badge(probs, features, 5, generator=torch.Generator().manual_seed(1))
    assert sorted(asked.tolist()) == [0, 1, 2, 3, 4]


def test_core_set_is_within_twice_the_best_cover() -> None:
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(2)).double()
    start = x[:1]

    def radius(centres: Tensor) -> float:
        return float(torch.cdist(x, torch.cat([start, centres])).amin(1).max())

    best = min(radius(x[list(c)]) for c in combinations(range(12), 3))
    asked = core_set(x, start, 3)
    assert len(set(asked.tolist())) == 3
    assert radius(x[asked]) <= 2 * best + 1e-12


def test_core_set_without_labels_and_with_everything() -> None:
    x = torch.tensor([[0.0], [1.0], [10.0]])
    assert core_set(x, x[:0], 1).tolist() == [2]
    assert sorted(core_set(x, x[:0], 5).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: joint_information(random_probs(30, 3, 2)), "too many"),
        (lambda: batch_bald(random_probs(3, 2, 4), -1), "at least 0"),
        (lambda: batch_bald(random_probs(3, 2, 8), 2, samples=4), "at least the 8 draws"),
        (lambda: epig(random_probs(3, 2, 4), random_probs(3, 2, 5)), "targets must have shape"),
        (lambda: epig(random_probs(3, 2, 4), random_probs(0, 2, 4)), "at least 1"),
        (
            lambda: badge(torch.ones(2, 2), torch.ones(3, 1), 1, generator=torch.Generator()),
            "2 items, features 3",
        ),
        (
            lambda: badge(torch.ones(2, 2), torch.ones(2, 1), 1, generator=torch.Generator()),
            "probabilities that sum to one",
        ),
        (
            lambda: badge(
                torch.ones(2, 2) / 2,
                torch.tensor([[1.0], [torch.nan]]),
                1,
                generator=torch.Generator(),
            ),
            "features of item 1 are not finite",
        ),
        (
            lambda: core_set(torch.tensor([[torch.inf]]), torch.zeros(0, 1), 1),
            "features of item 0 are not finite",
        ),
    ],
)
def test_bad_input(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
