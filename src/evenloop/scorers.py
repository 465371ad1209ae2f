"""Scorers of texts: anything that maps texts to numbers, the same for all of them.

A toxicity classifier is a measuring instrument with errors of its own: it misses some harm and
flags harmless mentions of groups of people more often than others. Read its mean as its mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evenloop.words import nearest

__all__ = ["KINDS", "Cached", "Lexicon", "Scorer", "detoxify", "profanity", "scorer"]

Scorer = Callable[[Sequence[str]], ArrayLike]
"""Texts (N) to one number each (N,), no nan."""
Scores = NDArray[np.float64]
KINDS = ("words", "quotes", "detoxify", "profanity")
_DETOXIFY = ("toxic_original-c1212f89.ckpt", "config.json", "vocab.txt")


@dataclass(slots=True)
class Cached:
    """A scorer that sees every text once; what it says is checked.

    >>> calls = []
    >>> def length(texts):
    ...     calls.append(len(texts))
    ...     return [len(t) for t in texts]
    >>> score = Cached(length)
    >>> score(["a", "bb", "a"]).tolist(), score(["bb"]).tolist(), calls
    ([1.0, 2.0, 1.0], [2.0], [2])
    """

    scorer: Scorer
    batch: int = 64
    known: dict[str, float] = field(default_factory=dict, repr=False)

    def __call__(self, texts: Sequence[str]) -> Scores:
        """(N,) scores.

        Raises:
            ValueError: the scorer gives another number of scores, or one is not finite (names the
                position of the text).
        """
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        for start in range(0, len(new), self.batch):
            part = new[start : start + self.batch]
            self.known.update(zip(part, self._scored(part, texts), strict=True))
        return np.array([self.known[text] for text in texts], np.float64)

    def _scored(self, part: list[str], texts: Sequence[str]) -> list[float]:
        scores: Scores = np.asarray(self.scorer(part), np.float64)
        if scores.shape != (len(part),):
            raise ValueError(
                f"the scorer gave shape {scores.shape} for {len(part)} texts; it must give "
                f"({len(part)},), one number a text"
            )
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            place = list(texts).index(part[bad[0]])
            raise ValueError(
                f"the scorer gave {scores[bad[0]]} for text {place} ({len(part[bad[0]])} "
                f"characters), and {len(bad)} such scores in its batch; it must give a number for "
                "every text, an empty one too"
            )
        out: list[float] = scores.tolist()
        return out


@dataclass(frozen=True, slots=True)
class Lexicon:
    """1 for a text with any of these words or phrases as whole words in any case, else 0.

    >>> Lexicon(("he", "his own"))(["He left.", "She", "the", "his  own"])
    array([1., 0., 0., 1.])
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.words or not all(word.strip() for word in self.words):
            raise ValueError(f"a lexicon needs words, none of them empty, got {self.words!r}")

    @staticmethod
    def read(path: Path | str) -> Lexicon:
        """One word or phrase a line, UTF-8; empty lines and those that start with # are skipped."""
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
        return Lexicon(tuple(s for line in lines if (s := line.strip()) and s[0] != "#"))

    def __call__(self, texts: Sequence[str]) -> Scores:
        """(N,) 0 or 1."""
        phrases = (r"\s+".join(map(re.escape, word.split())) for word in self.words)
        found = re.compile(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)", re.IGNORECASE).search
        return np.array([found(text) is not None for text in texts], np.float64)


def profanity() -> Scorer:
    """alt-profanity-check's probability that a text is offensive, in [0, 1].

    A linear model of words, trained on about 200,000 comments; it reads no context.

    Raises:
        ModuleNotFoundError: the package is not installed; names the extra.
    """
    try:
        from profanity_check import predict_prob
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "score='profanity' needs alt-profanity-check; install the extra: "
            "pip install 'evenloop[toxicity]'"
        ) from error

    def score(texts: Sequence[str]) -> ArrayLike:
        found: ArrayLike = predict_prob(list(texts))
        return found

    return score


def detoxify(weights: Path | str, device: str = "cpu") -> Scorer:
    """Detoxify "original": its probability that a text is toxic, in [0, 1].

    Reference: Hanu and Unitary team, Detoxify (2020), trained on the comments of the Jigsaw 2018
    challenge.

    Args:
        weights: folder with toxic_original-c1212f89.ckpt and, for its encoder, the configuration
            and vocabulary files of bert-base-uncased. Nothing is downloaded.
        device: where it computes.

    Raises:
        FileNotFoundError: a file is not there; says which, and where to put it.
        ModuleNotFoundError: detoxify is not installed; names the extra.
    """
    folder = Path(weights).expanduser()
    for file in _DETOXIFY:
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"detoxify: {file} was not found at {folder}. Nothing is downloaded: put "
                f"{_DETOXIFY[0]} there with the config.json and vocab.txt of bert-base-uncased, "
                "or name their folder, score='detoxify:FOLDER'"
            )
    try:
        from detoxify import Detoxify
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "score='detoxify' needs detoxify; install the extra: pip install 'evenloop[toxicity]'"
        ) from error
    model = Detoxify(
        "original",
        checkpoint=str(folder / _DETOXIFY[0]),
        huggingface_config_path=str(folder),
        device=device,
    )

    def score(texts: Sequence[str]) -> ArrayLike:
        found: ArrayLike = model.predict(list(texts))["toxicity"]
        return found

    return score


def _quoted(texts: Sequence[str]) -> Scores:
    """(N,) 1 for a text with a closing curly double quote, else 0."""
    return np.array(["\u201d" in text for text in texts], np.float64)


def scorer(text: str, weights: Path | str | None = None) -> Scorer:
    """The scorer that a config names.

    Args:
        text: "words:the,a" (any of these words), "words:@FILE" (those in a file, one a line),
            "quotes" (a closing curly quote), "profanity", "detoxify" or "detoxify:FOLDER".
        weights: folder of detoxify's weights where the text names none.

    Raises:
        ValueError: there is no such scorer, or it lacks what it needs.

    >>> scorer("words:the, a")(["The end", "an end"])
    array([1., 0.])
    """
    kind, _, rest = text.partition(":")
    if kind == "words" and rest.startswith("@"):
        return Lexicon.read(rest[1:])
    if kind == "words" and rest:
        return Lexicon(tuple(word.strip() for word in rest.split(",")))
    if kind == "quotes" and not rest:
        return _quoted
    if kind == "profanity" and not rest:
        return profanity()
    if kind == "detoxify" and (rest or weights):
        return detoxify(rest or str(weights))
    if kind in KINDS:
        wants = {"words": "words:the,a", "detoxify": "detoxify:FOLDER"}.get(kind, kind)
        raise ValueError(f"score={text!r} is not complete; write score={wants!r}")
    raise ValueError(f"score={text!r} is not known; {nearest(kind, KINDS)}")
