"""Whom frames name as agents: women, men, or neither; and what an audit reads from frames.

Nouns are WordNet 3.0 ids, and whether one names a man or a woman is decided by a set of ids. The
original's sets hold every synset with "man" (or "woman") between the underscores of a lemma, so a
scarecrow and a man-hour are male there, a boy is neither, and a woman-chaser is female. `persons`
holds synsets of persons only: those below *male person* or *female person*, and those whose
definition begins "a ... man, male, boy, gentleman" (or woman, female, girl, lady).

Reference: Taori and Hashimoto, Data Feedback Loops (ICML 2023), for the statistic and its tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evenloop.data import GroupedData
from evenloop.roles.annotations import decode, sentence
from evenloop.roles.layout import Layout
from evenloop.roles.scores import frame_scores

__all__ = [
    "AGENT",
    "NOUN_SETS",
    "STEPS",
    "VERB_BINS",
    "FrameReading",
    "NounSets",
    "noun_sets",
    "verb_bins",
]

AGENT = "agent"
STEPS = 5  # bins of verbs, by steps of a fifth of the share of women
OTHER, MAN, WOMAN = range(3)
Statistic = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class NounSets:
    """Nouns that name a man and nouns that name a woman.

    Raises:
        ValueError: a set is empty, or a noun is in both.
    """

    male: frozenset[str]
    female: frozenset[str]

    def __post_init__(self) -> None:
        for name in ("male", "female"):
            if not getattr(self, name):
                raise ValueError(f"the {name} noun set is empty; name at least one noun")
        both = sorted(self.male & self.female)
        if both:
            raise ValueError(f"noun {both[0]!r} is in the male and the female set; choose one")


_TABLES: dict[str, Any] = json.loads(files(__package__).joinpath("gender.json").read_text("utf-8"))
NOUN_SETS: Mapping[str, NounSets] = {
    name: NounSets(frozenset(sets["male"]), frozenset(sets["female"]))
    for name, sets in _TABLES["noun_sets"].items()
}
"""`persons` (the default everywhere) and `original`, sets of WordNet 3.0 ids."""
VERB_BINS: tuple[frozenset[str], ...] = tuple(map(frozenset, _TABLES["verb_bins"]))
"""The original's five bins of 432 of imSitu's verbs, from male to female dominated."""


def noun_sets(name: str | Path) -> NounSets:
    """A set by its name, or the user's: a JSON file {"male": [...], "female": [...]}.

    Raises:
        ValueError: neither a known name nor a file, or a file of another form.

    >>> len(noun_sets("original").male), len(noun_sets("original").female)
    (122, 29)
    """
    if str(name) in NOUN_SETS:
        return NOUN_SETS[str(name)]
    path = Path(name).expanduser()
    known = ", ".join(NOUN_SETS)
    if not path.is_file():
        raise ValueError(f"gender_sets={str(name)!r} is neither of {known} nor a JSON file")
    try:
        found = json.loads(path.read_text("utf-8"))
        return NounSets(frozenset(found["male"]), frozenset(found["female"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'gender_sets: {path} must hold {{"male": [...], "female": [...]}}, two lists that '
            f"share no noun ({error})"
        ) from None


@dataclass(frozen=True, slots=True)
class FrameReading:
    """Reads whether the agent of a frame is a man, a woman, or neither of the two.

    A row is a man's if some annotator names one and none names a woman, and the reverse; rows that
    name both, or have no agent role, are "other". A frame that a model wrote is one annotator's.

    Statistics, each 1 for a woman, 0 for a man and nan for others, so that a mean is
    women / (women + men): `women` over verbs in a bin (over all, without bins), `women.bin0` and
    so on, `women.<verb>` of each watched verb, and `women.single`, the same as `women` from the
    first frame alone. People's labels have three frames in a test set and a model's have one; with
    independent annotators that alone moves the mean of `women` away from .5, not of `women.single`.

    Attributes:
        layout: what the codes mean.
        sets: which nouns name men and women.
        bins: verbs by bin, or none.
        watched: verbs with a statistic of their own.
        single: whether `women.single` is among the statistics; where people give one frame it is
            `women`.
        agent: name of the role that is read.
        words: nouns as people would say them, for reports.
    """

    layout: Layout
    sets: NounSets
    bins: tuple[frozenset[str], ...] = ()
    watched: tuple[str, ...] = ()
    single: bool = True
    agent: str = AGENT
    words: Mapping[str, str] = field(default_factory=dict)
    _place: Tensor = field(init=False, repr=False, compare=False)
    _sex: Tensor = field(init=False, repr=False, compare=False)
    _bin: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        layout = self.layout
        place = [layout.position(v, self.agent) for v in range(len(layout.verbs))]
        if max(place) < 0:
            raise ValueError(f"no verb has a role {self.agent!r}, so there is nobody to read")
        sex = torch.zeros(len(layout.verbs), 1 + layout.codes, dtype=torch.int64)
        for v, r in enumerate(place):
            for u, noun in enumerate(layout.nouns[v][r] if r >= 0 else ()):
                sex[v, 1 + u] = MAN * (noun in self.sets.male) + WOMAN * (noun in self.sets.female)
        binned = [
            next((b for b, verbs in enumerate(self.bins) if verb in verbs), -1)
            for verb in layout.verbs
        ]
        object.__setattr__(self, "_place", torch.tensor(place))
        object.__setattr__(self, "_sex", sex)
        object.__setattr__(self, "_bin", torch.tensor(binned))

    @property
    def classes(self) -> tuple[str, ...]:
        """Whom the agent is."""
        return ("other", "man", "woman")

    def read(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) 0 other, 1 man, 2 woman, of frames (N, 1 + F * R)."""
        found = self._named(y)
        man, woman = (found == MAN).any(1), (found == WOMAN).any(1)
        return MAN * (man & ~woman).long() + WOMAN * (woman & ~man).long()

    def _named(self, y: Tensor) -> Tensor:
        """(N, F) whom each annotator's frame names; 0 too where there is no agent."""
        frames = y[:, 1:].view(len(y), -1, self.layout.max_roles)
        place = self._place.to(y.device)[y[:, 0]]
        index = place.clamp(min=0)[:, None, None].expand(-1, frames.shape[1], 1)
        noun = frames.gather(2, index).squeeze(2).where(place[:, None] >= 0, -1)
        return self._sex.to(y.device)[y[:, :1], 1 + noun]

    def statistics(self) -> Mapping[str, Statistic]:
        """Shares of women among men and women, by name."""
        named = {"women": partial(self._women, single=False)}
        if self.single:
            named["women.single"] = partial(self._women, single=True)
        for b in range(len(self.bins)):
            named[f"women.bin{b}"] = partial(self._women_in, bin=b)
        for verb in self.watched:
            if verb in self.layout.verbs:
                at = self.layout.verbs.index(verb)
                named[f"women.{verb}"] = partial(self._women_of, verb=at)
        return named

    def _women(self, x: Tensor, y: Tensor, *, single: bool) -> Tensor:
        women = _share(self.read(x, y[:, : 1 + self.layout.max_roles] if single else y))
        if not self.bins:
            return women
        return women.where(self._bin.to(y.device)[y[:, 0]] >= 0, torch.nan)

    def _women_in(self, x: Tensor, y: Tensor, *, bin: int) -> Tensor:
        return _share(self.read(x, y)).where(self._bin.to(y.device)[y[:, 0]] == bin, torch.nan)

    def _women_of(self, x: Tensor, y: Tensor, *, verb: int) -> Tensor:
        return _share(self.read(x, y)).where(y[:, 0].eq(verb), torch.nan)

    def compare(
        self, x: Tensor, written: Tensor, truth: Tensor, trained: GroupedData
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scores "verb", "value" and "value-all" of every image, and as means by verb.

        A mean of verbs weighs an image by one over its verb's images among all rows. Limits take
        these weights as given, which makes them somewhat too wide.
        """
        found = frame_scores(written, truth, self.layout)
        return self._weighted(found.scores, found.verb_weights())

    def compare_given(
        self, x: Tensor, given: Tensor, truth: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Scores "value*" and "value-all*", of frames written for the true verb."""
        found = frame_scores(given, truth, self.layout, given=given)
        starred = {name: found.scores[name] for name in ("value*", "value-all*")}
        return self._weighted(starred, found.verb_weights())

    def _weighted(
        self, scores: Mapping[str, Tensor], by_verb: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        compared = {}
        for name, score in scores.items():
            there = (~score.isnan()).double()
            compared[name] = (score.nan_to_num(0.0), there)
            compared[f"{name}, mean of verbs"] = (score.nan_to_num(0.0), there * by_verb)
        return compared

    def show(self, x: Tensor, y: Tensor) -> list[str]:
        """Verb and first frame of each row."""
        return [sentence(situation, self.words) for situation in decode(y, self.layout)]

    def hidden(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) False: a frame offends nobody by itself."""
        return torch.zeros(len(y), dtype=torch.bool, device=y.device)


def _share(read: Tensor) -> Tensor:
    """(N,) 1 for a woman, 0 for a man, nan otherwise."""
    return (read == WOMAN).double().where(read != OTHER, torch.nan)


def verb_bins(y: Tensor, reading: FrameReading, steps: int = STEPS) -> tuple[frozenset[str], ...]:
    """Verbs in `steps` bins by the share of women that people's labels `y` (N, L) give.

    Bin b holds shares in [b / steps, (b + 1) / steps), the last also 1; verbs whose rows name
    neither men nor women are in none. Take people's labels of training rows, never the audit's.

    Raises:
        ValueError: no row names a man or a woman.
    """
    read = reading.read(y, y)
    verbs = len(reading.layout.verbs)
    women, men = (y[read == sex, 0].bincount(minlength=verbs).tolist() for sex in (WOMAN, MAN))
    binned: list[list[str]] = [[] for _ in range(steps)]
    for verb, w, m in zip(reading.layout.verbs, women, men, strict=True):
        if w + m:
            binned[min(w * steps // (w + m), steps - 1)].append(verb)
    if not any(binned):
        raise ValueError("no row names a man or a woman; check the noun sets and the agent role")
    return tuple(map(frozenset, binned))
