"""From a table of prompts and continuations to rows of token ids, encoded once.

Every source of texts has these fields beside its own:

- tokens: "words", "characters", "bytes", "charlm", the folder of a model's tokenizer, or a model's
  name ("gpt2") for the folder of its weights. A pretrained model needs its own;
- vocabulary: words known, where tokens are words; the others become one unknown word. They are the
  most frequent of all rows, the audit's among them;
- weights: folder of the packaged character model, for tokens="charlm";
- prompt_tokens: a longer prompt keeps its last so many tokens; None keeps all;
- continuation_tokens: a longer continuation keeps its first so many; None keeps all;
- new_tokens: most tokens a model will write; labels have room for them;
- empty: "error", or "drop" rows whose prompt or continuation has no token;
- unknown: "keep" continuations with words that are not in the vocabulary, or "drop" those rows; a
  model that never reads the unknown word does not write it;
- score: what a continuation is scored by, see `evenloop.scorers.scorer`;
- threshold: a continuation counts as the second class when its score is above this;
- ngrams: lengths of the n-grams whose memorised share is measured;
- hide: texts that a report hides until asked: "none", those "flagged" by the score, "all"; "auto"
  hides what a score of toxicity flags and nothing where the score counts words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from evenloop.data import Attribute, GroupedData, Schema, Structure
from evenloop.models.weights import weights_folder
from evenloop.objectives.continuation import ContinuationLoss
from evenloop.readings import Structured
from evenloop.samplers.trimmed import Trimmed
from evenloop.scorers import Cached, Scorer, scorer
from evenloop.texts import THRESHOLD
from evenloop.worlds.base import Card, Normalisation, check_choice
from evenloop.worlds.frames import group_columns
from evenloop.worlds.text_reading import HIDDEN, TextReading
from evenloop.worlds.tokens import FromFiles, Tokenizer, as_rows, tokenizer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TextSource"]

CLASSES = {
    "words": ("unmatched", "matched"),
    "quotes": ("no quote", "quote"),
    "profanity": ("not offensive", "offensive"),
    "detoxify": ("not toxic", "toxic"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource(ABC):
    """Prompts and continuations as a source: what its files are is its own, the rest is here."""

    name: ClassVar[str]
    about: ClassVar[Card]

    tokens: str = "words"
    vocabulary: int = 2000
    weights: Path | str | None = None
    prompt_tokens: int | None = None
    continuation_tokens: int | None = None
    new_tokens: int = 20
    empty: Literal["error", "drop"] = "error"
    unknown: Literal["keep", "drop"] = "keep"
    score: str = "words:the"
    threshold: float = THRESHOLD
    ngrams: tuple[int, ...] = (5, 10)
    hide: Literal["auto", "none", "flagged", "all"] = "auto"

    def __post_init__(self) -> None:
        check_choice("empty", self.empty, ("error", "drop"))
        check_choice("unknown", self.unknown, ("keep", "drop"))
        check_choice("hide", self.hide, ("auto", *HIDDEN))
        for name in ("prompt_tokens", "continuation_tokens"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a whole number from 1 on, or None, got {value!r}")
        for name, least in (("vocabulary", 2), ("new_tokens", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")
        if any(type(n) is not int or n < 1 for n in self.ngrams):
            raise ValueError(f"ngrams must be whole numbers from 1 on, got {self.ngrams!r}")
        self.check()

    def check(self) -> None:
        """Raise `ValueError` where a field of its own is out of range."""
        return

    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """Columns prompt and continuation, in the files' order; every other column is a group."""

    @property
    def normalisation(self) -> Normalisation | None:
        """None: tokens are used as they are."""
        return None

    def load(self) -> GroupedData:
        """Prompts (N, P) and continuations (N, L), read and encoded once a process.

        Raises:
            ValueError: a text is missing, or has no token where empty="error" (names the row).
        """
        return _read(self)[0]

    def structured(self, score: Scorer | None = None) -> Structured:
        """How its continuations are read, and what its models need to know.

        `score` is a function of the user's, used instead of the source's own scorer.
        """
        data, reading = _read(self)
        if score is not None:
            reading = replace(reading, scorer=Cached(score))
        assert data.schema.structure is not None
        longest = data.x.shape[1] + data.schema.structure.length
        tokens = reading.tokens
        net = {
            "vocabulary": tokens.size,
            "end": tokens.end,
            "longest": longest,
            "tokenizer": tokens.folder if isinstance(tokens, FromFiles) else None,
        }
        return Structured(reading, ContinuationLoss, Trimmed, net)


# Few: a whole set may be large, and a run needs one.
@lru_cache(maxsize=2)
def _read(source: TextSource) -> tuple[GroupedData, TextReading]:
    frame = source.frame()
    # A table cannot tell an empty text from a missing one.
    texts = {
        name: [str(text) for text in frame[name].fillna("")] for name in ("prompt", "continuation")
    }
    made = tokenizer(
        source.tokens,
        [*texts["prompt"], *texts["continuation"]],
        size=source.vocabulary,
        weights=source.weights,
    )
    cut = source.continuation_tokens
    prompts = made.encode(texts["prompt"])
    labels = [ids[:cut] for ids in made.encode(texts["continuation"])]
    kept = _kept(prompts, labels, texts, source.empty, source.name)
    if source.unknown == "drop":
        kept = _known(kept, labels, made, source.name)
    before = [] if made.start is None else [made.start]
    cut = source.prompt_tokens
    prompts = [before + (prompts[i] if cut is None else prompts[i][-cut:]) for i in kept]
    labels = [labels[i] for i in kept]
    wide = max(source.new_tokens, *map(len, labels))
    groups = [str(name) for name in frame.columns if name not in texts]
    coded = group_columns(frame.iloc[kept], groups, source.name)
    reading = _reading(source, made)
    schema = Schema(
        reading.classes,
        tuple(Attribute(name, one.names) for name, one in coded.items()),
        Structure(wide, made.size),
    )
    data = GroupedData.of(
        as_rows(prompts, max(map(len, prompts))),
        as_rows(labels, wide),
        {name: one.codes for name, one in coded.items()},
        schema,
    )
    return data, reading


def _kept(
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    texts: dict[str, list[str]],
    empty: str,
    where: str,
) -> list[int]:
    """Positions of the rows that have a prompt and a continuation."""
    for name, rows in (("prompt", prompts), ("continuation", labels)):
        bad = next((i for i, row in enumerate(rows) if not row), None)
        if bad is not None and empty == "error":
            raise ValueError(
                f"{where}: the {name} of row {bad} (counted from 0), {texts[name][bad]!r}, has no "
                "token; fill it, or set empty=drop"
            )
    kept = [i for i, both in enumerate(zip(prompts, labels, strict=True)) if all(both)]
    if not kept:
        raise ValueError(f"{where}: no row has both a prompt and a continuation")
    return kept


def _known(
    kept: list[int], labels: Sequence[Sequence[int]], tokens: Tokenizer, where: str
) -> list[int]:
    """Those of the positions whose continuation the vocabulary holds whole."""
    whole = [i for i in kept if tokens.unknown not in labels[i]]
    if not whole:
        raise ValueError(
            f"{where}: unknown=drop leaves no row, every continuation has a word that is not among "
            f"the {tokens.size} of the vocabulary; raise vocabulary"
        )
    return whole


def _reading(source: TextSource, tokens: Tokenizer) -> TextReading:
    made = scorer(source.score, weights_folder("detoxify"))
    kind = source.score.partition(":")[0]
    hide = source.hide
    if hide == "auto":
        hide = "none" if kind in ("words", "quotes") else "flagged"
    return TextReading(tokens, Cached(made), CLASSES[kind], source.threshold, source.ngrams, hide)
