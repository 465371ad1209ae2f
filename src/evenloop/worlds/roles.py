"""imSitu: photographs of what people do, with roles and nouns by three annotators.

Reference: Yatskar, Zettlemoyer and Farhadi, Situation Recognition: Visual Semantic Role Labeling
for Image Understanding (CVPR 2016); the split is that of Taori and Hashimoto (ICML 2023).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenloop.data import NOTHING, Attribute, GroupedData, Schema, Structure
from evenloop.objectives.frames import FrameLoss
from evenloop.readings import Structured
from evenloop.rng import Rng
from evenloop.roles import Layout
from evenloop.roles.annotations import Situation, collapse, encode, vocabulary
from evenloop.roles.gender import STEPS, VERB_BINS, FrameReading, noun_sets, verb_bins
from evenloop.worlds.base import (
    Card,
    Normalisation,
    cached,
    check_choice,
    check_size,
    find_file,
    find_root,
)
from evenloop.worlds.images import decode

__all__ = ["ImSitu"]

FILES = ("train.json", "dev.json", "test.json")
SPACE = "imsitu_space.json"
MOMENTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # ImageNet's, as the weights expect


@dataclass(frozen=True, slots=True)
class ImSitu:
    """imSitu's official files: uint8 N x 3 x size x size, and a frame for each picture.

    All three files are one pool. Of every verb, `test_per_verb` random pictures are the test rows
    and keep every annotator's frame; each other row keeps one frame: for each role the noun that
    two annotators agree on, else a random one of those given. A picture takes 3 x size^2 bytes of
    memory, 19 GB for all of them at 224 pixels, and as much again while a run splits them.

    Attribute columns: bin (of the verb) and split.

    Attributes:
        root: folder with train.json, dev.json, test.json and the folder of pictures; where it has
            imsitu_space.json, reports show nouns in words.
        images: that folder's name.
        size: side in pixels: the shorter side is brought to it and the middle square kept.
        test_per_verb: test pictures of every verb.
        gender_sets: "persons", "original" (the study's nouns for men and women), or a JSON file
            {"male": [...], "female": [...]} of your own.
        bins: "original" (the study's five bins of verbs), "data" (bins of the share of women, in
            steps of a fifth, as people's labels of the train rows give it) or "none".
        watched: verbs with a statistic of their own.
        seed: of the split and of the nouns drawn where annotators disagree.
        cache: folder that keeps the decoded rows, or None.
    """

    name: ClassVar[str] = "imsitu"
    about: ClassVar[Card] = Card(
        "imSitu",
        "126,102 photographs of 504 verbs with up to 6 roles; the label is verb and nouns",
        "annotations by the authors, for research; photographs of their owners on the web",
        "the agent's gender as the noun annotators wrote says it (man, woman, ...); nobody was "
        "asked, and most nouns say neither",
        "imsitu.org: the annotation files and of500_images_resized",
        people=True,
    )

    root: Path | str | None = None
    images: str = "of500_images_resized"
    size: int = 224
    test_per_verb: int = 50
    gender_sets: str = "persons"
    bins: str = "original"
    watched: tuple[str, ...] = ("cooking",)
    seed: int = 0
    cache: Path | str | None = None

    def __post_init__(self) -> None:
        check_size("size", self.size)
        check_choice("bins", self.bins, ("original", "data", "none"))
        noun_sets(self.gender_sets)
        for name, least in (("test_per_verb", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")

    @property
    def normalisation(self) -> Normalisation | None:
        """None: the net that writes frames normalises its own pictures."""
        return None

    def load(self) -> GroupedData:
        """Rows in the order of the files; decodes every picture, once with a cache.

        Raises:
            FileNotFoundError: a file or the folder of pictures is not there.
            ValueError: a file of another form, a listed picture that is absent, a role without
                nouns, or a verb with too few pictures.
        """
        root = find_root(self, self.root, ", ".join(FILES))
        listed = _annotations(self, root)
        paths = [root / self.images / name for name in listed.names]
        files = [root / name for name in (*FILES, SPACE) if (root / name).is_file()]
        return cached(self, self.cache, files, lambda: self._decoded(listed, paths))

    def _decoded(self, listed: _Listed, paths: Sequence[Path]) -> GroupedData:
        y, split = self._rows(listed)
        reading = self._reading(listed, y, split)
        x = decode(paths, listed.names, resize=self.size, crop=True)
        binned = {verb: b for b, verbs in enumerate(reading.bins) for verb in verbs}
        places = [binned.get(verb, STEPS) for verb in listed.layout.verbs]
        names = (*(f"bin{b}" for b in range(STEPS)), "none")
        attributes = (Attribute("bin", names), Attribute("split", ("train", "test")))
        structure = Structure(y.shape[1], listed.layout.codes)
        schema = Schema(reading.classes, attributes, structure)
        bins = torch.tensor(places)[y[:, 0]]
        return GroupedData.of(x, y, {"bin": bins, "split": split}, schema)

    def structured(self) -> Structured:
        """Frames are read for the gender of their agent."""
        listed = _annotations(self, find_root(self, self.root, ", ".join(FILES)))
        reading = self._reading(listed, *self._rows(listed))
        return Structured(reading, FrameLoss, net={"layout": listed.layout, "pixels": MOMENTS})

    def _reading(self, listed: _Listed, y: Tensor, split: NDArray[np.int64]) -> FrameReading:
        bins: tuple[frozenset[str], ...] = VERB_BINS if self.bins == "original" else ()
        sets = noun_sets(self.gender_sets)
        if self.bins == "data":
            bins = verb_bins(y[split == 0], FrameReading(listed.layout, sets))
        return FrameReading(
            listed.layout, sets, bins=bins, watched=self.watched, words=listed.words
        )

    def _rows(self, listed: _Listed) -> tuple[Tensor, NDArray[np.int64]]:
        """(N, 1 + F * R) labels of every row and its split, 0 train or 1 test."""
        rng = Rng.of(self.seed).at("imsitu")
        y = listed.y.clone()
        split = np.zeros(len(y), np.int64)
        order = rng.at("test").numpy().permutation(len(y))
        verbs = y[:, 0].numpy()
        order = order[np.argsort(verbs[order], kind="stable")]
        count = np.bincount(verbs, minlength=len(listed.layout.verbs))
        if count.min() <= self.test_per_verb:
            few = int(count.argmin())
            raise ValueError(
                f"verb {listed.layout.verbs[few]!r} has {count[few]} pictures, and "
                f"test_per_verb={self.test_per_verb} leaves none to train on; lower it"
            )
        rank = np.arange(len(y)) - np.repeat(np.cumsum(count) - count, count)
        split[order[rank < self.test_per_verb]] = 1
        collapsing = rng.at("collapse")
        merged = [
            {"verb": s["verb"], "frames": [collapse(s["frames"], collapsing.at(name))]}
            for name, s, test in zip(listed.names, listed.situations, split, strict=True)
            if not test
        ]
        train = torch.from_numpy(split == 0)
        y[train] = NOTHING
        y[train, : 1 + listed.layout.max_roles] = encode(merged, listed.layout, references=1)
        return y, split


@dataclass(frozen=True, slots=True, eq=False)
class _Listed:
    """What the files say: pictures, their situations and codes, and nouns in words."""

    names: list[str]
    situations: list[Situation]
    layout: Layout
    y: Tensor
    words: Mapping[str, str] = field(default_factory=dict)


def _annotations(source: ImSitu, root: Path) -> _Listed:
    paths = [find_file(source, root, name) for name in FILES]
    folder = root / source.images
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{source.name}: no folder of pictures {folder}; unpack it there, or name it with "
            "images="
        )
    space = root / SPACE
    stamps = tuple((p.stat().st_size, p.stat().st_mtime_ns) for p in paths)
    return _listed(tuple(paths), folder, space if space.is_file() else None, stamps)


# One: the files of all of imSitu are a few hundred megabytes of Python objects.
@lru_cache(maxsize=1)
def _listed(
    paths: tuple[Path, ...], folder: Path, space: Path | None, stamps: tuple[tuple[int, int], ...]
) -> _Listed:
    whole: dict[str, Situation] = {}
    for path in paths:
        for name, situation in _checked(path).items():
            if name in whole:
                raise ValueError(f"{path}: picture {name!r} is listed twice; keep one line")
            whole[name] = situation
    if not whole:
        raise ValueError(f"{paths[0].parent}: the files list no picture")
    present = {entry.name for entry in os.scandir(folder)}
    absent = [name for name in whole if name not in present]
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(whole)} listed pictures are absent from {folder}, the first is "
            f"{absent[0]!r}; unpack the whole archive, or take them out of the files"
        )
    situations = list(whole.values())
    layout = vocabulary(situations)
    for verb, roles, nouns in zip(layout.verbs, layout.roles, layout.nouns, strict=True):
        for role, listed in zip(roles, nouns, strict=True):
            if not any(noun.strip() for noun in listed):
                raise ValueError(
                    f"role {role!r} of verb {verb!r} has no nouns: every annotator left it blank; "
                    "take the role out of the files"
                )
    most = max(len(s["frames"]) for s in situations)
    y = encode(situations, layout, references=most)
    return _Listed(list(whole), situations, layout, y, _words(space))


def _checked(path: Path) -> dict[str, Situation]:
    """One file's situations by picture.

    Raises:
        ValueError: it is not JSON of the official form; names the picture.
    """
    try:
        listed = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON in UTF-8: {error}") from error
    if not isinstance(listed, dict):
        raise ValueError(f"{path} must hold one object of pictures, got {type(listed).__name__}")
    for name, situation in listed.items():
        if not _is_situation(situation):
            raise ValueError(
                f'{path}: picture {name!r} must be {{"verb": ..., "frames": [{{role: noun}}, ...]}}'
            )
    return listed


def _is_situation(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("verb"), str):
        return False
    frames = value.get("frames")
    if not isinstance(frames, list) or not frames:
        return False
    return all(
        isinstance(frame, dict) and all(isinstance(noun, str) for noun in frame.values())
        for frame in frames
    )


def _words(space: Path | None) -> dict[str, str]:
    """Nouns in words, from the first gloss of each in imsitu_space.json."""
    if space is None:
        return {}
    try:
        nouns = json.loads(space.read_text("utf-8"))["nouns"]
        return {noun: about["gloss"][0] for noun, about in nouns.items() if about["gloss"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{space} must hold {{"nouns": {{id: {{"gloss": [...]}}}}}}; take it away to go without'
        ) from error
