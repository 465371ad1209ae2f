"""What an audit reads from written continuations: their class, numbers, and memorised n-grams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from evenloop.data import GroupedData
from evenloop.readings import Statistic
from evenloop.scorers import Cached
from evenloop.texts import BATCH_LOSS, THRESHOLD, batch_losses, ngram_hits, quotes, repetition
from evenloop.worlds.tokens import Tokenizer

__all__ = ["HIDDEN", "TextReading"]

HIDDEN = ("none", "flagged", "all")


@dataclass(frozen=True, slots=True, eq=False)
class TextReading:
    """Reads continuations `y` (N, L); the prompt is never scored, it is the same for every writer.

    Attributes:
        tokens: makes texts of ids.
        scorer: gives each text a number, once.
        classes: names of texts not above, and above, the threshold.
        threshold: a score at it is not above it.
        ngrams: lengths whose memorised share is measured.
        hide: which texts a report hides until asked: "none", those "flagged" by the scorer, "all".
    """

    tokens: Tokenizer
    scorer: Cached
    classes: tuple[str, str] = ("below", "above")
    threshold: float = THRESHOLD
    ngrams: tuple[int, ...] = (5, 10)
    hide: str = "flagged"
    _known: dict[bytes, str] = field(default_factory=dict, repr=False)

    def texts(self, y: Tensor) -> list[str]:
        """The N texts of ids (N, L); each is decoded once."""
        rows = y.to(torch.int32).cpu().numpy()
        out = []
        for row in rows:
            key = row[row >= 0].tobytes()
            text = self._known.get(key)
            if text is None:
                text = self._known[key] = self.tokens.decode(row[row >= 0].tolist())
            out.append(text)
        return out

    def read(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) int64: 1 where a continuation's score is above the threshold, else 0."""
        return (self._scores(y) > self.threshold).long().to(y.device)

    def statistics(self) -> Mapping[str, Statistic]:
        """The score, repeated words, quotes, whether there is one, and the length in tokens."""
        return {
            "score": lambda x, y: self._scores(y).to(y.device),
            "repetition": self._each(repetition),
            "quotes": self._each(quotes),
            "quoted": self._each(lambda text: float(quotes(text) > 0)),
            "length": lambda x, y: (y >= 0).sum(1).double(),
        }

    def compare(
        self, x: Tensor, written: Tensor, truth: Tensor, trained: GroupedData
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The share of each written text's n-grams that occur in the texts trained on."""
        out = {}
        for n in self.ngrams:
            hits, grams = ngram_hits(written, trained.y, n)
            share = hits.double() / grams.where(grams > 0, 1)
            out[f"memorised {n}-grams"] = (share.where(grams > 0, torch.nan), grams.double())
        return out

    def compare_cost(self, nats: Tensor, units: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The mean cost of a token in each row's batch, as the published perplexity takes it."""
        return {BATCH_LOSS: (batch_losses(nats, units), torch.ones_like(nats))}

    def show(self, x: Tensor, y: Tensor) -> list[str]:
        """One line a row: the prompt, a bar, the continuation."""
        both = zip(self.texts(x), self.texts(y), strict=True)
        return [f"{prompt.strip()} | {text.strip()}" for prompt, text in both]

    def hidden(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) bool: rows that a report hides until asked."""
        if self.hide == "flagged":
            return self.read(x, y).bool() | self.read(x, x).bool()  # prompts are shown too
        return torch.full((len(y),), self.hide == "all", device=y.device)

    def _scores(self, y: Tensor) -> Tensor:
        return torch.from_numpy(self.scorer(self.texts(y)))

    def _each(self, number: Callable[[str], float]) -> Statistic:
        def statistic(x: Tensor, y: Tensor) -> Tensor:
            found = np.array([number(text) for text in self.texts(y)], np.float64)
            return torch.from_numpy(found).to(y.device)

        return statistic
