"""From a table of prompts and continuations to rows of token ids, encoded once.

Every source of texts has these fields beside its own:

- tokens: "words", "characters", "bytes", "charlm", the folder of a model's tokenizer, or a model's
  name ("gpt2") for the folder of its weights;
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

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from evenloop.data import Attribute, GroupedData, Schema, Structure
from evenloop.models.weights import weights_folder
from evenloop.objectives.continuation import ContinuationLoss
from evenloop.readings import Structured
from evenloop.samplers.trimmed import Trimmed
from evenloop.scorers import Cached, Scorer, scorer
from evenloop.worlds.base import check_choice
from evenloop.worlds.frames import group_columns
from evenloop.worlds.text_reading import HIDDEN, TextReading
from evenloop.worlds.tokens import Tokenizer, as_rows, tokenizer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_text_fields", "encoded", "structured"]

CLASSES = {
    "words": ("unmatched", "matched"),
    "quotes": ("no quote", "quote"),
    "profanity": ("not offensive", "offensive"),
    "detoxify": ("not toxic", "toxic"),
}


def check_text_fields(source: _TextSource) -> None:
    """Raise `ValueError` unless the fields that every source of texts has are in range."""
    values: Any = source
    check_choice("empty", values.empty, ("error", "drop"))
    check_choice("unknown", values.unknown, ("keep", "drop"))
    check_choice("hide", values.hide, ("auto", *HIDDEN))
    for name in ("prompt_tokens", "continuation_tokens"):
        value = getattr(values, name)
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{name} must be a whole number from 1 on, or None, got {value!r}")
    for name, least in (("vocabulary", 2), ("new_tokens", 1)):
        value = getattr(values, name)
        if type(value) is not int or value < least:
            raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")
    if any(type(n) is not int or n < 1 for n in values.ngrams):
        raise ValueError(f"ngrams must be whole numbers from 1 on, got {values.ngrams!r}")


class _TextSource(Protocol):
    """A source whose rows are texts, with the fields listed above."""

    name: ClassVar[str]

    def __hash__(self) -> int:
        """Of all its fields."""

    def frame(self) -> pd.DataFrame:
        """Columns prompt and continuation; every other column is a group."""


def structured(source: _TextSource, score: Scorer | None = None) -> Structured:
    """How a source's continuations are read, and what its models need to know.

    `score` is a function of the user's, used instead of the source's own scorer.
    """
    data, reading = _read(source)
    if score is not None:
        reading = replace(reading, scorer=Cached(score))
    assert data.schema.structure is not None
    longest = data.x.shape[1] + data.schema.structure.length
    net = {"vocabulary": reading.tokens.size, "end": reading.tokens.end, "longest": longest}
    return Structured(reading, ContinuationLoss, Trimmed, net)


def encoded(source: _TextSource) -> GroupedData:
    """A source's rows: prompts (N, P) and continuations (N, L), read and encoded once a process.

    Raises:
        ValueError: a text is missing, or has no token where empty="error" (names the row).
    """
    return _read(source)[0]


# Few: a whole set may be large, and a run needs one.
@lru_cache(maxsize=2)
def _read(source: _TextSource) -> tuple[GroupedData, TextReading]:
    options: Any = source
    frame = source.frame()
    # A table cannot tell an empty text from a missing one.
    texts = {
        name: [str(text) for text in frame[name].fillna("")] for name in ("prompt", "continuation")
    }
    made = tokenizer(
        options.tokens,
        [*texts["prompt"], *texts["continuation"]],
        size=options.vocabulary,
        weights=options.weights,
    )
    cut = options.continuation_tokens
    prompts = made.encode(texts["prompt"])
    labels = [ids[:cut] for ids in made.encode(texts["continuation"])]
    kept = _kept(prompts, labels, texts, options.empty, source.name)
    if options.unknown == "drop":
        kept = _known(kept, labels, made, source.name)
    before = [] if made.start is None else [made.start]
    cut = options.prompt_tokens
    prompts = [before + (prompts[i] if cut is None else prompts[i][-cut:]) for i in kept]
    labels = [labels[i] for i in kept]
    wide = max(options.new_tokens, *map(len, labels))
    groups = [str(name) for name in frame.columns if name not in texts]
    coded = group_columns(frame.iloc[kept], groups, source.name)
    reading = _reading(options, made)
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


def _reading(options: Any, tokens: Tokenizer) -> TextReading:
    made = scorer(options.score, weights_folder("detoxify"))
    kind = options.score.partition(":")[0]
    hide = options.hide
    if hide == "auto":
        hide = "none" if kind in ("words", "quotes") else "flagged"
    return TextReading(tokens, Cached(made), CLASSES[kind], options.threshold, options.ngrams, hide)
