"""The decoder against slow, obvious versions: whole sequences, one prompt at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evenloop.models.decoding import draw, generate, like_lengths, prompt_lengths, without_end
from evenloop.models.language import SmallLM
from evenloop.rng import Rng
from evenloop.seams import LabelRule
from text_kit import SIZE, listed, padded_by, prompts, rows_of, sharp_lm

KINDS = ("argmax", "sample", "nucleus", "beam")
RNG = Rng.of(3)


def log_probs(net: SmallLM, text: list[int]) -> Tensor:
    """(V,) log-probabilities of the next token, read from the whole text at once."""
    with torch.inference_mode():
        logits, _ = net.start(torch.tensor([text]), torch.tensor([len(text)]), 1)
    return logits[0, 0].double().log_softmax(0)


def greedy(net: SmallLM, prompt: list[int], places: int) -> list[int]:
    text: list[int] = []
    for _ in range(places):
        text.append(int(log_probs(net, prompt + text).argmax()))
        if text[-1] == net.end:
            break
    return [i for i in text if i != net.end]


def best_of_all(net: SmallLM, prompt: list[int], places: int, penalty: float) -> list[int]:
    """The best hypothesis by enumeration of every text: what a wide enough beam finds."""
    best, found = -float("inf"), []
    ends: list[tuple[list[int], float]] = [([], 0.0)]
    for length in range(1, places + 1):
        longer = []
        for text, score in ends:
            for token, nats in enumerate(log_probs(net, prompt + text).tolist()):
                total, whole = score + nats, [*text, token]
                over = token == net.end or length == places
                if over and total / length**penalty > best:
                    best, found = total / length**penalty, whole
                if token != net.end:
                    longer.append((whole, total))
        ends = longer
    return [i for i in found if i != net.end]


@pytest.mark.parametrize("end", [None, 7])
def test_greedy_is_the_likeliest_token_of_whole_sequences(end: int | None) -> None:
    net, x = sharp_lm(end=end), prompts()
    written = net.write(x, LabelRule("argmax", max_new_tokens=8), RNG)
    assert listed(written) == [greedy(net, prompt, 8) for prompt in listed(x)]


@pytest.mark.parametrize("end", [None, 7])
def test_a_beam_of_one_is_greedy(end: int | None) -> None:
    net, x = sharp_lm(end=end), prompts()
    rules = (LabelRule("beam", beams=1), LabelRule("argmax"))
    one, other = (net.write(x, rule, RNG) for rule in rules)
    assert torch.equal(one, other)


def test_a_nucleus_of_nothing_is_greedy() -> None:
    net, x = sharp_lm(end=7), prompts()
    rules = (LabelRule("nucleus", top_p=1e-9), LabelRule("argmax"))
    one, other = (net.write(x, rule, RNG) for rule in rules)
    assert torch.equal(one, other)


def test_a_low_temperature_is_greedy() -> None:
    net, x = sharp_lm(), prompts()
    rules = (LabelRule("sample", temperature=1e-6), LabelRule("argmax"))
    one, other = (net.write(x, rule, RNG) for rule in rules)
    assert torch.equal(one, other)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("end", [None, 7])
def test_a_wide_beam_finds_the_best_text(end: int | None, penalty: float) -> None:
    net, x = sharp_lm(end=end, seed=4), prompts(3, 4, seed=1)
    rule = LabelRule("beam", beams=SIZE - 1, length_penalty=penalty, max_new_tokens=2)
    want = [best_of_all(net, prompt, 2, penalty) for prompt in listed(x)]
    assert listed(net.write(x, rule, RNG)) == want


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [None, 7])
def test_a_text_depends_neither_on_padding_nor_on_its_batch(kind: str, end: int | None) -> None:
    net, x = sharp_lm(end=end), prompts()
    rule = LabelRule(kind, beams=4, max_new_tokens=8)  # type: ignore[arg-type]
    whole = generate(net, x, rule, RNG)
    assert torch.equal(generate(net, padded_by(x, 5), rule, RNG), whole)
    assert torch.equal(generate(net, x, rule, RNG, rows=1), whole)
    assert torch.equal(generate(net, x, rule, RNG, rows=5), whole)


@pytest.mark.parametrize("kind", ["argmax", "beam"])
def test_a_text_without_luck_does_not_depend_on_the_order(kind: str) -> None:
    net, x = sharp_lm(end=7), prompts()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    rule = LabelRule(kind, beams=4, max_new_tokens=8)  # type: ignore[arg-type]
    assert torch.equal(generate(net, x[order], rule, RNG), generate(net, x, rule, RNG)[order])


def test_the_first_prompts_share_their_luck_with_a_longer_list() -> None:
    net, x = sharp_lm(), prompts()
    rule = LabelRule("sample", max_new_tokens=8)
    assert torch.equal(generate(net, x[:5], rule, RNG), generate(net, x, rule, RNG)[:5])


def test_a_draw_has_the_probabilities_of_its_rule() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(3000, 3)
    luck = torch.rand(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for rule, want in (
        (LabelRule("sample"), (0.5, 0.3, 0.2)),
        (LabelRule("nucleus", top_p=0.7), (0.625, 0.375, 0.0)),
        (LabelRule("nucleus", top_p=0.5), (1.0, 0.0, 0.0)),
        (LabelRule("sample", temperature=0.5), (25 / 38, 9 / 38, 4 / 38)),
    ):
        share = torch.bincount(draw(logits, rule, luck), minlength=3) / 3000
        assert share.tolist() == pytest.approx(want, abs=0.03)
        assert want[2] > 0 or share[2] == 0


def test_a_flat_nucleus_holds_more_tokens_than_are_sorted_first() -> None:
    logits = torch.zeros(500, 1000)
    luck = (torch.arange(500) / 500).double()
    drawn = draw(logits, LabelRule("nucleus", top_p=0.9), luck)
    assert len(drawn.unique()) > 400


@pytest.mark.parametrize("kind", ["sample", "nucleus"])
def test_luck_just_below_one_stays_inside_the_kept_tokens(kind: str) -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf]])
    rule = LabelRule(kind, top_p=0.99)  # type: ignore[arg-type]
    assert int(draw(logits, rule, torch.tensor([1 - 1e-16], dtype=torch.float64))) in (0, 1)


def test_the_end_is_taken_out_wherever_it_stands_and_an_empty_text_stays() -> None:
    raw = torch.tensor([[9, 7, 9, 8], [9, 9, 9, 9]])
    assert without_end(raw, 9).tolist() == [[7, 8, -1, -1], [-1, -1, -1, -1]]
    assert torch.equal(without_end(raw, None), raw)


def test_batches_hold_every_prompt_once_and_like_lengths() -> None:
    lengths = (prompts(200, 60) >= 0).sum(1)
    batches = list(like_lengths(lengths, rows=16))
    assert torch.cat(batches).sort().values.tolist() == list(range(200))
    for batch in batches:
        assert len(batch) <= 16
        assert lengths[batch].min() >= 0.75 * lengths[batch].max() - 4


def test_empty_prompts_stop_and_others_pass() -> None:
    assert prompt_lengths(rows_of([[3], [4, 5]]), None).tolist() == [1, 2]
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        prompt_lengths(torch.tensor([[3], [-1]]), None)


def test_prompts_padded_on_the_left_stop() -> None:
    with pytest.raises(ValueError, match="padded on the right"):
        prompt_lengths(torch.tensor([[-1, 3]]), None)


def test_a_prompt_longer_than_the_context_stops_and_one_that_fits_passes() -> None:
    net, rule = sharp_lm(context=10), LabelRule("argmax", max_new_tokens=4)
    assert net.write(prompts(4, 6), rule, RNG).shape == (4, 4)
    with pytest.raises(ValueError, match=r"7 tokens and 4 more are to follow.* reads 10"):
        net.write(torch.arange(7)[None], rule, RNG)


def test_a_rule_of_frames_stops() -> None:
    with pytest.raises(ValueError, match="marginal is for frames"):
        sharp_lm().write(prompts(), LabelRule("marginal"), RNG)


def test_as_many_beams_as_tokens_stop_and_one_fewer_pass() -> None:
    net, x = sharp_lm(), prompts(2)
    net.write(x, LabelRule("beam", beams=SIZE - 1, max_new_tokens=2), RNG)
    with pytest.raises(ValueError, match="beams=40 must be fewer than the 40 tokens"):
        net.write(x, LabelRule("beam", beams=SIZE, max_new_tokens=2), RNG)


def test_no_prompts_give_no_texts() -> None:
    assert sharp_lm().write(prompts()[:0], LabelRule(max_new_tokens=4), RNG).shape == (0, 4)
