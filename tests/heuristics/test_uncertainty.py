"""Scores of draws against slow references, closed forms and bounds."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from evenloop.heuristics.uncertainty import (
    SCORES,
    DrawSums,
    bald,
    certainty,
    margin,
    mean_probs,
    predictive_entropy,
    probabilities,
    variance,
)


def random_probs(n: int, c: int, t: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, c, t, generator=generator, dtype=torch.float64).mul(2).softmax(1)


def slow_bald(draws: Tensor) -> list[float]:
    """One item, one draw and one class at a time."""
    out = []
    for item in draws.tolist():
        by_draw = list(zip(*item, strict=True))
        mean = [sum(row) / len(row) for row in item]

        def entropy(p: list[float]) -> float:
            return -sum(q * log(q) for q in p if q > 0)

        out.append(entropy(mean) - sum(entropy(list(p)) for p in by_draw) / len(by_draw))
    return out


def test_bald_is_the_slow_double_precision_reference_to_1e_12() -> None:
    draws = random_probs(40, 7, 9)
    assert np.abs(bald(draws).numpy() - np.array(slow_bald(draws))).max() < 1e-12


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([[0.3, 0.3], [0.7, 0.7]], 0.0),
        ([[1.0, 0.0], [0.0, 1.0]], log(2)),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], log(3)),
        ([[0.9, 0.1], [0.1, 0.9]], 0.368064),
        ([[0.5, 0.5], [0.5, 0.5]], 0.0),
    ],
)
def test_bald_of_known_draws(draws: list[list[float]], expected: float) -> None:
    assert float(bald(torch.tensor([draws], dtype=torch.float64))) == pytest.approx(
        expected, abs=1e-6
    )


def test_bald_lies_between_its_bounds() -> None:
    draws = random_probs(200, 4, 3)
    scores, entropy = bald(draws), predictive_entropy(draws)
    assert (scores >= 0).all()
    assert (scores <= entropy.clamp_max(min(log(4), log(3))) + 1e-12).all()


def test_bald_does_not_change_under_permutations_and_copies_of_draws() -> None:
    draws = random_probs(20, 5, 6)
    for other in (
        draws[:, :, [3, 1, 0, 5, 4, 2]],
        draws[:, [4, 0, 3, 1, 2]],
        draws.repeat(1, 1, 2),
    ):
        torch.testing.assert_close(bald(other), bald(draws), rtol=0, atol=1e-12)


def test_entropy_is_bald_plus_the_mean_entropy_of_the_draws() -> None:
    draws = random_probs(20, 5, 6)
    aleatoric = torch.special.entr(draws).sum(1).mean(1)
    torch.testing.assert_close(predictive_entropy(draws), bald(draws) + aleatoric)


def test_one_draw_has_no_bald_and_no_variance() -> None:
    draws = random_probs(5, 3, 1)
    assert bald(draws).abs().max() < 1e-15
    assert variance(draws).abs().max() == 0


def test_two_classes_are_ranked_alike_by_entropy_margin_and_certainty() -> None:
    draws = random_probs(60, 2, 5)
    order = [SCORES[n].urgency(draws).argsort() for n in ("entropy", "margin", "certainty")]
    assert torch.equal(order[0], order[1])
    assert torch.equal(order[1], order[2])


@pytest.mark.parametrize("name", SCORES)
def test_a_slice_at_a_time_is_all_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = random_probs(30, 4, 5)
    whole = SCORES[name].of(draws)
    monkeypatch.setattr("evenloop.heuristics.uncertainty._SLICE", 60)
    assert torch.equal(SCORES[name].of(draws), whole)


def test_sums_over_draws_are_the_dense_scores() -> None:
    draws = random_probs(30, 4, 5)
    sums = DrawSums.empty(30, 4)
    for t in range(5):
        sums.add(draws[:, :, t])
    pairs = [
        (sums.bald(), bald(draws)),
        (sums.entropy(), predictive_entropy(draws)),
        (sums.margin(), margin(draws)),
        (sums.certainty(), certainty(draws)),
        (sums.variance(), variance(draws)),
        (sums.mean(), mean_probs(draws)),
    ]
    for got, want in pairs:
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_logits_are_softmaxed_draw_by_draw() -> None:
    logits = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(bald(logits, kind="logits"), bald(logits.softmax(1)))


def test_numpy_and_single_precision_are_taken() -> None:
    draws = random_probs(6, 3, 4)
    assert torch.equal(bald(draws.numpy()), bald(draws))
    torch.testing.assert_close(bald(draws.float()), bald(draws), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0])
def test_extreme_logits_stay_finite(scale: float) -> None:
    logits = torch.tensor([[[-800.0, 800.0], [800.0, -800.0]]]) * scale
    assert bald(logits, kind="logits").isfinite().all()


def test_an_empty_pool_has_no_scores() -> None:
    assert bald(torch.zeros(0, 3, 4)).shape == (0,)


@pytest.mark.parametrize(
    ("draws", "kind", "message"),
    [
        (torch.tensor([[[2.0], [-1.0]]]), "probs", "outside"),
        (torch.tensor([[[0.5], [0.2]]]), "probs", "do not sum to one"),
        (torch.tensor([[[float("nan")], [0.2]]]), "probs", "outside"),
        (torch.tensor([[[float("nan")], [0.2]]]), "logits", "NaN"),
        (torch.tensor([[[0.1], [0.2]], [[float("inf")], [0.2]]]), "logits", "infinite.*item 1"),
        (torch.tensor([[0.5, 0.5]]), "probs", "shape"),
        (torch.tensor([[[0.5], [0.5]]]), "guess", "kind"),
    ],
)
def test_draws_that_are_not_as_declared_are_refused(draws: Tensor, kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bald(draws, kind=kind)  # type: ignore[arg-type]


def test_draws_as_declared_pass() -> None:
    assert probabilities(torch.tensor([[[0.5], [0.5]]])).dtype == torch.float64
    assert probabilities(torch.tensor([[[2.0], [-1.0]]]), kind="logits").shape == (1, 2, 1)


def test_sums_without_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="no draw"):
        DrawSums.empty(2, 2).bald()
