"""The small transformer: what it is taught, and what its costs are made of."""

from __future__ import annotations

import pytest
import torch

from evenloop.models import build
from evenloop.models.language import SmallLM, joined
from evenloop.objectives.continuation import ContinuationLoss
from evenloop.seams import ReadsLabels, Writes
from text_kit import SIZE, padded_by, prompts, rows_of, sharp_lm


def test_it_reads_labels_and_writes() -> None:
    net = sharp_lm()
    assert isinstance(net, ReadsLabels)
    assert isinstance(net, Writes)


def test_a_continuation_follows_its_prompt_without_a_gap() -> None:
    tokens, lengths = joined(rows_of([[1, 2, 3], [4]]), rows_of([[5], [6, 7]]))
    assert tokens.tolist() == [[1, 2, 3, 5, 0], [4, 6, 7, 0, 0]]
    assert lengths.tolist() == [3, 1]


def test_the_likelihood_is_that_of_the_whole_text_token_by_token() -> None:
    net, x, y = sharp_lm(), rows_of([[3, 4]]), [5, 6, 7]
    total = 0.0
    for i, token in enumerate(y):
        text = torch.tensor([[3, 4, *y[:i]]])
        logits, _ = net.start(text, torch.tensor([2 + i]), 1)
        total += logits[0, 0].log_softmax(0)[token].item()
    made = net(x, rows_of([y]))
    assert made.log_likelihood.item() == pytest.approx(total, rel=1e-5)
    assert made.tokens.tolist() == [3]


def test_padding_changes_neither_likelihood_nor_gradient() -> None:
    net, x, y = sharp_lm(), prompts(6, 5), prompts(6, 4, seed=1)
    made = net(x, y)
    ContinuationLoss().loss(made, y, torch.zeros(6)).backward()
    first = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    more = net(padded_by(x, 3), padded_by(y, 2))
    ContinuationLoss().loss(more, padded_by(y, 2), torch.zeros(6)).backward()
    assert torch.allclose(made.log_likelihood, more.log_likelihood, atol=1e-4)
    for a, p in zip(first, net.parameters(), strict=True):
        assert torch.allclose(a, p.grad, atol=1e-5)


def test_prompt_tokens_are_no_targets() -> None:
    """The loss is that of the continuation's places: a prompt's own tokens are never predicted."""
    net = sharp_lm()
    made = net(rows_of([[3, 4, 5]]), rows_of([[6]]))
    tokens, _ = joined(rows_of([[3, 4, 5]]), rows_of([[6]]))
    assert tokens.shape[1] == 4
    assert made.tokens.tolist() == [1]
    logits, _ = net.start(torch.tensor([[3, 4, 5]]), torch.tensor([3]), 1)
    want = logits[0, 0].log_softmax(0)[6].item()
    assert made.log_likelihood.item() == pytest.approx(want, rel=1e-5)


def test_cost_is_the_likelihood_in_any_batch() -> None:
    net, x, y = sharp_lm(), prompts(50), prompts(50, 8, seed=2)
    nats, tokens = net.cost(x, y)
    made = net(x, y)
    assert torch.allclose(nats, -made.log_likelihood.double(), atol=1e-4)
    assert torch.equal(tokens, made.tokens)


def test_an_empty_continuation_costs_nothing() -> None:
    nats, tokens = sharp_lm().cost(rows_of([[3]]), torch.tensor([[-1, -1]]))
    assert (nats.tolist(), tokens.tolist()) == ([0.0], [0])


def test_a_text_longer_than_the_context_stops_and_padding_beyond_it_passes() -> None:
    net = sharp_lm(context=6)
    net(padded_by(rows_of([[1, 2, 3]]), 9), rows_of([[4, 5, 6]]))
    with pytest.raises(ValueError, match="7 tokens does not fit into context=6"):
        net(rows_of([[1, 2, 3, 4]]), rows_of([[5, 6, 7]]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"width": 0}, "width must be"),
        ({"width": 10, "heads": 3}, "width=10 must be a multiple of heads=3"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_bad_sizes_stop(bad: dict[str, float], message: str) -> None:
    build("small-lm", classes=2, vocabulary=SIZE, width=9, heads=3, dropout=0.5, seed=0)
    with pytest.raises(ValueError, match=message):
        build("small-lm", classes=2, vocabulary=SIZE, seed=0, **bad)


def test_the_registry_builds_it_from_what_a_world_brings() -> None:
    net = build("small-lm", classes=2, features=9, vocabulary=SIZE, end=None, longest=30, seed=0)
    assert isinstance(net, SmallLM)
    assert net.context == 30


def test_a_world_with_longer_texts_than_the_context_stops() -> None:
    with pytest.raises(ValueError, match=r"reads 20 tokens.* room for 30"):
        build("small-lm", classes=2, vocabulary=SIZE, longest=30, context=20)


def test_a_world_without_a_vocabulary_stops() -> None:
    with pytest.raises(ValueError, match="needs vocabulary="):
        build("small-lm", classes=2, features=4)
