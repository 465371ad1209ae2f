"""Texts as token ids: bytes, characters, words, GPT-2's pairs, or any tokenizer saved on this disk.

A tokenizer needs no padding token: what stands behind a text is `NOTHING`, which no vocabulary
holds.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from evenloop.data import NOTHING
from evenloop.models.char_lstm import char_vocabulary
from evenloop.models.weights import GGUF, MODEL_FILES, find_gguf, find_weights

__all__ = [
    "Bytes",
    "Codes",
    "FromFiles",
    "Tokenizer",
    "Words",
    "as_rows",
    "characters",
    "tokenizer",
    "words",
]

KINDS = ("bytes", "characters", "words", "charlm")
PRETRAINED = ("gpt2", "gpt2-medium", "gpt2-large", "smollm2")
FILES = ("tokenizer.json", "vocab.json", "encoder.json", GGUF)
UNKNOWN = "<unknown>"
END = "<|endoftext|>"
_PIECES = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|[^\w\s]|_")
_TIGHT = re.compile(r" (?=[.,;:!?%)\]}\u201d\u2019])|(?<=[(\[{\u201c$#]) ")


class Tokenizer(Protocol):
    """Texts to ids in [0, size) and back.

    `end` is the id that ends a text, `start` the one that stands before every prompt and `unknown`
    that of everything the vocabulary lacks; None where there is none.
    """

    @property
    def size(self) -> int:
        """Number of ids."""

    @property
    def end(self) -> int | None:
        """The id that ends a text."""

    @property
    def start(self) -> int | None:
        """The id that stands before every prompt."""

    @property
    def unknown(self) -> int | None:
        """The id of what the vocabulary lacks."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """UTF-8 bytes.

    >>> Bytes().encode(["é"]), Bytes().decode([195, 169])
    ([[195, 169]], 'é')
    """

    size: int = field(default=256, init=False)
    end: int | None = field(default=None, init=False)
    start: int | None = field(default=None, init=False)
    unknown: int | None = field(default=None, init=False)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The bytes of each text."""
        return [list(text.encode("utf-8")) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes; those that are no UTF-8 become the replacement character."""
        return bytes(ids).decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Codes:
    """Characters by a table of codes; a character that is not in it has the code `unknown`.

    >>> both = Codes({"a": 1, "b": 2}, size=3)
    >>> both.encode(["abc"]), both.decode([1, 2, 0])
    ([[1, 2, 0]], 'ab\ufffd')
    """

    codes: dict[str, int]
    size: int
    unknown: int | None = 0
    end: int | None = None
    start: int | None = None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The code of each character of each text."""
        other = self.unknown or 0
        return [[self.codes.get(c, other) for c in text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of codes."""
        names = {code: c for c, code in self.codes.items()}
        return "".join(names.get(i, "\ufffd") for i in ids if i not in (self.start, self.end))


@dataclass(frozen=True, slots=True)
class Words:
    """Words and punctuation marks in lower case; a rare one is "<unknown>", id 0.

    >>> both = Words(("<unknown>", "the", "cat", "."))
    >>> both.encode(["The dog, the cat."]), both.decode([1, 2, 3])
    ([[1, 0, 0, 1, 2, 3]], 'the cat.')
    """

    vocabulary: tuple[str, ...]
    codes: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", {w: i for i, w in enumerate(self.vocabulary)})

    @property
    def size(self) -> int:
        """Number of words."""
        return len(self.vocabulary)

    @property
    def end(self) -> int | None:
        """None: no word ends a text."""
        return None

    @property
    def start(self) -> int | None:
        """None: no word stands before every prompt."""
        return None

    @property
    def unknown(self) -> int | None:
        """The id of all rare words."""
        return 0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of the words of each text."""
        return [[self.codes.get(w, 0) for w in _PIECES.findall(t.lower())] for t in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The words with spaces between them, but for those around punctuation."""
        return _TIGHT.sub("", " ".join(self.vocabulary[i] for i in ids))


class FromFiles:
    """A tokenizer of the library `tokenizers`, from files; ids as its authors number them.

    `size` is one more than the highest id, and `folder` where the files lie.
    """

    start: int | None = None
    unknown: int | None = None

    def __init__(self, made: Any, end: int | None, folder: Path) -> None:
        self._made, self.end, self.folder = made, end, folder
        self.size = 1 + max(made.get_vocab().values(), default=-1)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens."""
        found = self._made.encode_batch(list(texts), add_special_tokens=False)
        return [one.ids for one in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        text: str = self._made.decode(list(ids), skip_special_tokens=True)
        return text


def words(texts: Iterable[str], size: int) -> Words:
    """The `size` most frequent words of these texts, "<unknown>" among them.

    >>> words(["a b a", "c a b"], size=3).vocabulary
    ('<unknown>', 'a', 'b')
    """
    counts = Counter(w for text in texts for w in _PIECES.findall(text.lower()))
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return Words((UNKNOWN, *(w for w, _ in ranked[: size - 1])))


def characters(texts: Iterable[str]) -> Codes:
    """Every character of these texts; code 0 is for all others.

    >>> characters(["ab", "ba"]).codes
    {'a': 1, 'b': 2}
    """
    found = sorted({c for text in texts for c in text})
    return Codes({c: i for i, c in enumerate(found, 1)}, size=len(found) + 1)


def tokenizer(
    kind: str, texts: Sequence[str], *, size: int = 2000, weights: Path | str | None = None
) -> Tokenizer:
    """The tokenizer that a config names.

    Args:
        kind: "bytes", "characters" or "words" (of the texts given), "charlm" (the packaged
            character model's), or a folder with tokenizer.json, or with GPT-2's vocabulary and
            merges under either of their published names, or with one .gguf file. "gpt2" and other
            names of models stand for the folder of their weights.
        texts: what a vocabulary is made of.
        size: words of a vocabulary.
        weights: folder of the packaged character model.

    Raises:
        ValueError: there is no such tokenizer or folder.
        FileNotFoundError: a folder without a tokenizer.
        ModuleNotFoundError: a folder needs the extra `text`, which is not installed.
    """
    if kind == "bytes":
        return Bytes()
    if kind == "characters":
        return characters(texts)
    if kind == "words":
        return words(texts, size)
    if kind == "charlm":
        codes = char_vocabulary(weights)
        between = codes.pop("<s>")
        return Codes(codes, size=len(codes) + 2, end=between, start=between)
    if kind in PRETRAINED:
        return _from_folder(find_weights(kind, None, *FILES, needs=MODEL_FILES, field="tokens"))
    folder = Path(kind).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"tokens={kind!r} is neither a folder nor one of {', '.join((*KINDS, *PRETRAINED))}; a "
            "model's own tokenizer lies in the folder of its weights"
        )
    return _from_folder(folder)


def _from_folder(folder: Path) -> Tokenizer:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"tokens={str(folder)!r} needs tokenizers; install the extra: "
            "pip install 'evenloop[text]'"
        ) from error
    whole = folder / "tokenizer.json"
    if whole.is_file():
        made = tokenizers.Tokenizer.from_file(str(whole))
        return FromFiles(made, _end(folder, made), folder)
    for vocabulary, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            made = tokenizers.ByteLevelBPETokenizer(str(folder / vocabulary), str(folder / merges))
            return FromFiles(made, made.token_to_id(END), folder)
    packed = find_gguf(folder, f"tokens={str(folder)!r}")
    if packed is not None:
        return _from_gguf(packed)
    raise FileNotFoundError(
        f"no tokenizer found in {folder}; it needs tokenizer.json, or vocab.json and merges.txt, "
        "or encoder.json and vocab.bpe, or one .gguf file"
    )


def _from_gguf(path: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    read: Any = AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name, local_files_only=True
    )
    return FromFiles(read.backend_tokenizer, read.eos_token_id, path.parent)


def _end(folder: Path, made: Any) -> int | None:
    """The id of the end-of-text token that the folder's settings name, if they do."""
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return None if made.token_to_id(END) is None else int(made.token_to_id(END))
    token = json.loads(settings.read_text(encoding="utf-8")).get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    found = made.token_to_id(token) if token else None
    return None if found is None else int(found)


def as_rows(texts: Sequence[Sequence[int]], width: int) -> Tensor:
    """(N, width) int32 ids, `NOTHING` behind the end; texts are not longer than `width`.

    >>> as_rows([[5, 6], [7]], 3).tolist()
    [[5, 6, -1], [7, -1, -1]]
    """
    out = np.full((len(texts), width), NOTHING, np.int32)
    lengths = np.fromiter((len(t) for t in texts), np.int64, len(texts))
    filled = np.arange(width) < lengths[:, None]
    out[filled] = np.fromiter((i for t in texts for i in t), np.int32, int(lengths.sum()))
    return torch.from_numpy(out)
