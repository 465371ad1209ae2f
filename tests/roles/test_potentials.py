"""The random field against enumeration of every frame, and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evenloop.objectives.frames import FrameLoss
from evenloop.roles import Layout, Potentials, Slots
from evenloop.roles.potentials import (
    best_frame,
    best_nouns,
    log_any,
    log_likelihood,
    log_partition,
    sample_frame,
    verb_marginals,
    verb_maxima,
)
from roles_kit import SMALL, every_frame, potentials, random_layout, score

LAYOUTS = [SMALL, random_layout(1, 1), random_layout(7, 2), random_layout(5, 3, most=9)]


def scores(given: Potentials, layout: Layout) -> tuple[Tensor, Tensor]:
    """All frames (F, 1 + R) and their scores (B, F)."""
    frames = every_frame(layout)
    return frames, torch.stack([score(given, row, layout) for row in frames.tolist()], 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_log_partition_is_that_of_every_frame(layout: Layout) -> None:
    given = potentials(layout, 3, spread=3.0)
    _, each = scores(given, layout)
    torch.testing.assert_close(log_partition(given, Slots.of(layout)), each.logsumexp(1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_probabilities_of_all_frames_sum_to_one(layout: Layout) -> None:
    given, slots = potentials(layout, 3), Slots.of(layout)
    frames = every_frame(layout)
    total = sum(log_likelihood(given, row.expand(3, -1), slots).exp() for row in frames)
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_best_frame_is_the_best_of_all(layout: Layout) -> None:
    given, slots = potentials(layout, 20), Slots.of(layout)
    frames, each = scores(given, layout)
    assert best_frame(given, slots).tolist() == frames[each.argmax(1)].tolist()
    torch.testing.assert_close(verb_maxima(given, slots).amax(1), each.amax(1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_marginal_decoding_takes_the_verb_whose_frames_weigh_most(layout: Layout) -> None:
    given, slots = potentials(layout, 20), Slots.of(layout)
    frames, each = scores(given, layout)
    weights = torch.stack(
        [each[:, frames[:, 0] == v].logsumexp(1) for v in range(len(layout.verbs))], 1
    )
    torch.testing.assert_close(verb_marginals(given, slots), weights)
    got = best_frame(given, slots, marginal=True)
    assert got[:, 0].tolist() == weights.argmax(1).tolist()
    assert got[:, 1:].tolist() == best_nouns(given, weights.argmax(1), slots).tolist()


def test_the_two_decodings_can_differ() -> None:
    layout = Layout(("one", "two"), (("r",), ("r",)), ((("a",),), (("a", "b"),)))
    slots = Slots.of(layout)
    noun = slots.pack([[[0.5]], [[0.0, 0.0]]])[None]
    given = Potentials(torch.zeros(1, 2, dtype=torch.float64), noun)
    assert best_frame(given, slots).tolist() == [[0, 0]]
    assert best_frame(given, slots, marginal=True).tolist() == [[1, 0]]


def test_nouns_of_a_given_verb() -> None:
    given, slots = potentials(SMALL, 4), Slots.of(SMALL)
    frames, each = scores(given, SMALL)
    for v in range(3):
        of_verb = frames[:, 0] == v
        best = frames[of_verb][each[:, of_verb].argmax(1), 1:]
        assert best_nouns(given, torch.full((4,), v), slots).tolist() == best.tolist()


def test_gradient_of_the_loss() -> None:
    layout = SMALL
    slots = Slots.of(layout)
    y = torch.tensor([[2, 0, 1, 2, 0, 3, 0], [0, 1, 1, -1, -1, -1, -1]])
    given = potentials(layout, 2)
    filled = given.noun.masked_fill(slots.empty, 0.0).requires_grad_()

    def loss(verb: Tensor, noun: Tensor) -> Tensor:
        noun = noun.masked_fill(slots.empty, -torch.inf)
        return FrameLoss(slots).loss(Potentials(verb, noun), y, torch.zeros(2))

    assert torch.autograd.gradcheck(loss, (given.verb.requires_grad_(), filled))


def test_gradient_of_log_partition_is_the_probability_of_each_part() -> None:
    slots = Slots.of(SMALL)
    given = potentials(SMALL, 1)
    verb, noun = given.verb.requires_grad_(), given.noun.requires_grad_()
    log_partition(Potentials(verb, noun), slots).sum().backward()
    frames = every_frame(SMALL)
    with torch.no_grad():
        p = torch.cat([log_likelihood(given, row[None], slots).exp() for row in frames])
        for v in range(3):
            torch.testing.assert_close(verb.grad[0, v], p[frames[:, 0] == v].sum())
        holds = (frames[:, 0] == 2) & (frames[:, 2] == 3)
        torch.testing.assert_close(noun.grad[0, int(slots.start[2, 1]) + 3], p[holds].sum())
        assert not noun.grad[0, slots.empty].any()


def test_three_equal_references() -> None:
    slots = Slots.of(SMALL)
    given = potentials(SMALL, 1)
    frame = torch.tensor([[0, 1, 0, -1]])
    p = log_likelihood(given, frame, slots).exp()
    thrice = torch.cat([frame, frame[:, 1:], frame[:, 1:]], 1)
    torch.testing.assert_close(log_any(given, thrice, slots), torch.log(1 - (1 - p) ** 3))


def test_different_references_and_absent_ones() -> None:
    slots = Slots.of(SMALL)
    given = potentials(SMALL, 2)
    rows = [[2, 0, 0, 1], [2, 0, 3, 2], [2, 0, 2, 0]]
    p = [log_likelihood(given, torch.tensor([r, r]), slots).exp() for r in rows]
    three = torch.tensor([[*rows[0], *rows[1][1:], *rows[2][1:]]] * 2)
    want = torch.log(1 - (1 - p[0]) * (1 - p[1]) * (1 - p[2]))
    torch.testing.assert_close(log_any(given, three, slots), want)
    two = torch.tensor([[*rows[0], -1, -1, -1, *rows[2][1:]]] * 2)
    want = torch.log(1 - (1 - p[0]) * (1 - p[2]))
    torch.testing.assert_close(log_any(given, two, slots), want)


def test_very_unlikely_references_stay_finite() -> None:
    """Probabilities below e^-104 vanish in single precision; their logarithms do not."""
    slots = Slots.of(SMALL)
    given = Potentials(*(200 * part.float() for part in potentials(SMALL, 1)))
    noun = given.noun.clone().requires_grad_()
    y = torch.tensor([[2, 0, 0, 1, 0, 3, 2, 0, 2, 0]])
    found = log_any(Potentials(given.verb, noun), y, slots)
    assert -5000 < float(found.detach()) < -104
    found.sum().backward()
    assert torch.isfinite(noun.grad).all()


def test_an_unknown_noun_is_summed_over() -> None:
    slots = Slots.of(SMALL)
    given = potentials(SMALL, 1)
    known = [log_likelihood(given, torch.tensor([[0, u, 1, -1]]), slots).exp() for u in range(3)]
    got = log_likelihood(given, torch.tensor([[0, -1, 1, -1]]), slots)
    torch.testing.assert_close(got, sum(known).log())


def test_a_blank_is_a_noun_like_any_other() -> None:
    slots = Slots.of(SMALL)
    given = potentials(SMALL, 1)
    frames, each = scores(given, SMALL)
    blank = (frames == torch.tensor([0, 2, 0, -1])).all(1).nonzero()[0]
    want = each[:, blank[0]] - each.logsumexp(1)
    torch.testing.assert_close(log_likelihood(given, frames[blank], slots), want)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_distribution(temperature: float) -> None:
    slots = Slots.of(SMALL)
    given = potentials(SMALL, 1)
    frames, each = scores(given, SMALL)
    p = (each[0] / temperature).softmax(0)
    n = 20_000
    many = Potentials(*(part.expand(n, -1) for part in given))
    luck = torch.rand(n, 4, generator=torch.Generator().manual_seed(0))
    drawn = sample_frame(many, slots, luck, temperature=temperature)
    share = (drawn[:, None] == frames).all(2).double().mean(0)
    assert share.sum() == 1
    assert ((share - p).abs() < 5 * (p * (1 - p) / n).sqrt() + 1e-4).all()


def test_a_sample_needs_a_positive_temperature() -> None:
    given, slots = potentials(SMALL, 1), Slots.of(SMALL)
    with pytest.raises(ValueError, match="temperature must be positive"):
        sample_frame(given, slots, torch.zeros(1, 4), temperature=0.0)


def test_half_precision_is_summed_in_single() -> None:
    slots = Slots.of(SMALL)
    given = potentials(SMALL, 2)
    half = Potentials(*(part.bfloat16() for part in given))
    assert log_partition(half, slots).dtype == torch.float32


def test_loss_of_one_certain_frame_is_zero() -> None:
    layout = Layout(("only",), (("r",),), ((("a",),),))
    slots = Slots.of(layout)
    given = Potentials(torch.tensor([[3.0]]), torch.tensor([[2.0]]))
    y = torch.tensor([[0, 0, 0]])
    assert float(FrameLoss(slots).loss(given, y, torch.zeros(1))) == 0.0
    assert math.isclose(float(log_partition(given, slots)), 5.0, rel_tol=1e-6)


def test_a_graph_that_is_kept_gives_its_gradient_again() -> None:
    slots = Slots.of(SMALL)
    given = potentials(SMALL, 2)
    noun = given.noun.requires_grad_()
    y = torch.tensor([[2, 0, 1, 2], [0, 1, 1, -1]])
    loss = FrameLoss(slots).loss(Potentials(given.verb, noun), y, torch.zeros(2))
    first = torch.autograd.grad(loss, noun, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(loss, noun)[0], first)
