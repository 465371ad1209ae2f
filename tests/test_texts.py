"""Text statistics against hand-made texts and slow counting."""

from __future__ import annotations

import math

import pytest
import torch

from evenloop.texts import (
    batch_losses,
    ngram_hits,
    ngram_overlap,
    perplexity,
    published_perplexity,
    quotes,
    repetition,
    text_statistics,
    words_of,
)
from text_kit import listed, prompts, rows_of


def grams(row: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_hits_are_those_of_counting_gram_by_gram(n: int) -> None:
    new, old = prompts(30, 9, seed=1, size=4), prompts(20, 14, seed=2, size=4)
    seen = {gram for row in listed(old) for gram in grams(row, n)}
    hits, in_all = ngram_hits(new, old, n)
    assert in_all.tolist() == [len(grams(row, n)) for row in listed(new)]
    assert hits.tolist() == [sum(g in seen for g in grams(row, n)) for row in listed(new)]


def test_a_text_holds_all_of_its_own_ngrams() -> None:
    rows = prompts(10, 9)
    assert ngram_overlap(rows, rows, 2) == 1


def test_ten_grams_of_a_large_vocabulary_do_not_collide() -> None:
    row = torch.arange(50_240, 50_256)[None]
    other = row.clone()
    other[0, 8] = 0
    assert ngram_overlap(row, other, 10) == 0
    assert ngram_overlap(row, row, 10) == 1


def test_texts_without_ngrams_have_no_overlap() -> None:
    short = rows_of([[1, 2]])
    assert math.isnan(ngram_overlap(short, short, 3))
    assert ngram_hits(short, short[:0], 2)[0].tolist() == [0]


def test_ngrams_start_at_one() -> None:
    assert ngram_hits(rows_of([[1]]), rows_of([[1]]), 1)[0].tolist() == [1]
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        ngram_hits(rows_of([[1]]), rows_of([[1]]), 0)


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    found = text_statistics(["a\u201d\u201d", "b", "c", "d"], [0.5, 0.51, 0.0, 1.0])
    assert found == {"score": 0.5025, "above": 0.5, "quotes": 0.5, "quoted": 0.25}


@pytest.mark.parametrize(("texts", "scores"), [([], []), (["a"], [0.1, 0.2])])
def test_statistics_need_one_score_a_text(texts: list[str], scores: list[float]) -> None:
    text_statistics(["a"], [0.1])
    with pytest.raises(ValueError, match="scores must have shape"):
        text_statistics(texts, scores)


def test_perplexity_by_tokens_and_by_rows_differ_where_lengths_do() -> None:
    nats, tokens = [2.0, 30.0], [1, 10]
    assert perplexity(nats, tokens) == pytest.approx(math.exp(32 / 11))
    assert published_perplexity([2.0, 3.0], [1, 1]) == pytest.approx(math.exp(2.5))
    assert math.isnan(perplexity([], []))


def test_words_quotes_and_repetition() -> None:
    assert words_of("It's a CAT\u2019s \u2013 a_cat") == ["it's", "a", "cat\u2019s", "a", "cat"]
    assert quotes('\u201cA\u201d, "b" \u201d') == 2
    assert repetition("a b c") == 0
    assert repetition("A a a a") == 0.75
    assert math.isnan(repetition(" ... "))


def test_losses_of_batches_have_the_published_perplexity() -> None:
    nats, tokens = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0]), torch.tensor([3, 1, 1, 10, 2])
    found = batch_losses(nats, tokens, rows=2)
    assert found.tolist() == pytest.approx([1, 1, 7 / 11, 7 / 11, 2])
    want = published_perplexity([1, 7 / 11, 2], [2, 2, 1])
    assert float(found.mean().exp()) == pytest.approx(want)
    assert perplexity(nats, tokens) == pytest.approx(math.exp(15 / 17))


def test_no_texts_have_no_losses() -> None:
    assert batch_losses(torch.zeros(0), torch.zeros(0)).shape == (0,)
