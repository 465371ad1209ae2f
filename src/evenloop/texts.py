"""What is counted in texts: scores above a threshold, quotes, repetition, memorised n-grams.

Definitions follow the text runs of Taori and Hashimoto, "Data Feedback Loops" (ICML 2023); their
perplexity weights batches by rows, ours by tokens, and both are here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "BATCH_LOSS",
    "QUOTE",
    "THRESHOLD",
    "batch_losses",
    "ngram_hits",
    "ngram_overlap",
    "perplexity",
    "published_perplexity",
    "quotes",
    "repetition",
    "text_statistics",
    "words_of",
]

QUOTE = "\u201d"
"""The closing curly double quote."""
THRESHOLD = 0.5
BATCH_LOSS = "batch loss"
"""What the audit of a text model calls the means that `published_perplexity` weighs by rows."""
PUBLISHED_ROWS = 80  # of a batch of their evaluation of GPT-2 small
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; an apostrophe inside a word belongs to it.

    >>> words_of("The cat's hat, THE hat.")
    ['the', "cat's", 'hat', 'the', 'hat']
    """
    return _WORD.findall(text.lower())


def quotes(text: str) -> int:
    """Closing curly double quotes in a text; they are a measure of broken sentences."""
    return text.count(QUOTE)


def repetition(text: str) -> float:
    """Share of a text's words that stood in it before; nan where there is no word.

    >>> repetition("the cat and the")
    0.25
    """
    words = words_of(text)
    return 1 - len(set(words)) / len(words) if words else float("nan")


def text_statistics(
    texts: Sequence[str], scores: ArrayLike, *, threshold: float = THRESHOLD
) -> dict[str, float]:
    """Means over texts: "score", "above" the threshold (strictly), "quotes", "quoted" (any quote).

    Args:
        texts: N texts.
        scores: (N,) of them, such as toxicity in [0, 1].
        threshold: a score at it is not above it.

    Raises:
        ValueError: there is no text, or not one score a text.

    >>> text_statistics(["a", "b\u201d"], [0.5, 0.9])
    {'score': 0.7, 'above': 0.5, 'quotes': 0.5, 'quoted': 0.5}
    """
    found: NDArray[np.float64] = np.asarray(scores, np.float64)
    if found.shape != (len(texts),) or not len(texts):
        raise ValueError(f"scores must have shape ({len(texts)},), one a text, got {found.shape}")
    counts = np.array([quotes(text) for text in texts])
    return {
        "score": float(found.mean()),
        "above": float((found > threshold).mean()),
        "quotes": float(counts.mean()),
        "quoted": float((counts > 0).mean()),
    }


def ngram_hits(outputs: Tensor, trained: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(N,) n-grams of each output found anywhere in `trained`, and (N,) its n-grams in all.

    N-grams are counted as often as they occur.

    Args:
        outputs: (N, L) token ids, -1 behind the end.
        trained: (M, K) token ids, -1 behind the end.
        n: tokens of a gram, at least 1.

    Raises:
        ValueError: `n` is below 1.

    >>> ngram_hits(torch.tensor([[1, 2, 3, -1]]), torch.tensor([[0, 1, 2]]), 2)
    (tensor([1]), tensor([2]))
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    width = max(outputs.shape[1], trained.shape[1], n)
    both = torch.cat([_widened(outputs, width), _widened(trained, width)])
    size = int(both.max()) + 2 if both.numel() else 1
    code, place = both[:, : width - n + 1] + 1, width - n + 1
    for ahead in range(1, n):
        pair = code * size + both[:, ahead : ahead + place] + 1
        code = torch.unique(pair, return_inverse=True)[1]
    real = both[:, n - 1 :] >= 0
    new, old = code[: len(outputs)], code[len(outputs) :][real[len(outputs) :]]
    real = real[: len(outputs)]
    return (torch.isin(new, old) & real).sum(1), real.sum(1)


def ngram_overlap(outputs: Tensor, trained: Tensor, n: int) -> float:
    """Share of all n-grams of the outputs found in `trained`; nan where there is none.

    >>> ngram_overlap(torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3]]), 2)
    1.0
    """
    hits, grams = ngram_hits(outputs, trained, n)
    return int(hits.sum()) / int(grams.sum()) if int(grams.sum()) else float("nan")


def _widened(rows: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(rows.long(), (0, width - rows.shape[1]), value=-1)


def perplexity(nats: ArrayLike, tokens: ArrayLike) -> float:
    """exp(all nats / all tokens): every token counts alike; nan without tokens.

    >>> perplexity([0.0, 2.0], [3, 1])
    1.6487212707001282
    """
    count = np.sum(np.asarray(tokens, np.float64))
    return float(np.exp(np.sum(np.asarray(nats, np.float64)) / count)) if count else float("nan")


def batch_losses(nats: Tensor, tokens: Tensor, rows: int = PUBLISHED_ROWS) -> Tensor:
    """(N,) float64 nats a token of the batch that each row is in; the mean over rows is published.

    Args:
        nats: (N,) of each text, in the order in which they are read.
        tokens: (N,) of each text.
        rows: of a batch, 80 in the published evaluation of GPT-2 small.

    >>> batch_losses(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([3, 1, 1]), rows=2).tolist()
    [1.0, 1.0, 2.0]
    """
    batch = torch.arange(len(nats), device=nats.device) // rows
    both = torch.zeros(2, int(len(nats) + rows - 1) // rows, dtype=torch.float64)
    both = both.to(nats.device).index_add_(1, batch, torch.stack([nats.double(), tokens.double()]))
    return (both[0] / both[1])[batch]


def published_perplexity(mean_nats: ArrayLike, rows: ArrayLike) -> float:
    """Exp of batches' mean nats a token, weighted by the batches' rows, as the paper's runs do.

    Short texts weigh as much as long ones, and the number depends on the batches.

    >>> published_perplexity([0.0, 2.0], [3, 1])
    1.6487212707001282
    """
    weights: NDArray[np.float64] = np.asarray(rows, np.float64)
    return float(np.exp((np.asarray(mean_nats, np.float64) * weights).sum() / weights.sum()))
