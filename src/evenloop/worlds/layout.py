"""What folder names say: a layout of directory levels, and a vocabulary of their tokens."""

from __future__ import annotations

import json
import os
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from evenloop.words import nearest
from evenloop.worlds.images import SUFFIXES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Vocabulary", "check_layout", "check_tokens", "read_vocabulary", "scan", "translated"]

Vocabulary = Mapping[str, Mapping[str, str]]
"""Attribute -> token -> value; values are coded in the order in which they first appear."""


def scan(root: Path, layout: str = "{label}", target: str = "label") -> pd.DataFrame:
    """Every picture below `root`, sorted: a column "path" and one column per name in `layout`.

    Hidden files and files that are no pictures (by their ending) are passed over; directories below
    the last level of the layout belong to it.

    Args:
        root: the folder.
        layout: what each directory level is called, from the top: "{split}/{sex}_{age}/{label}";
            "*" stands for anything, and as the last level for the pictures themselves.
        target: the name in the layout that is the label.

    Raises:
        ValueError: a directory does not fit the layout or holds no picture, a picture lies above
            the last level, or there is none at all.
    """
    import pandas as pd

    patterns = _level_patterns(layout, target)
    rows: list[dict[str, str]] = []
    leaves: dict[tuple[str, ...], bool] = {}
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = sorted(d for d in below if not d.startswith("."))
        pictures = sorted(f for f in files if _is_picture(f))
        parts = Path(folder).relative_to(root).parts
        if len(parts) < len(patterns):
            if pictures:
                raise ValueError(
                    f"{Path(folder) / pictures[0]} lies above the directories of the layout "
                    f"{layout!r}; move it, or give another layout"
                )
            continue
        leaf = parts[: len(patterns)]
        leaves[leaf] = leaves.get(leaf, False) or bool(pictures)
        named = _match(patterns, leaf, layout, folder)
        rows.extend({"path": os.path.join(folder, f), **named} for f in pictures)
    for leaf, filled in leaves.items():
        if not filled:
            raise ValueError(f"directory {root.joinpath(*leaf)} holds no picture")
    if not rows:
        raise ValueError(f"{root} holds no directories of pictures in the layout {layout!r}")
    return pd.DataFrame(rows)


def _is_picture(file: str) -> bool:
    return not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES


def _match(
    patterns: list[re.Pattern[str]], parts: tuple[str, ...], layout: str, folder: str
) -> dict[str, str]:
    named: dict[str, str] = {}
    for pattern, part in zip(patterns, parts, strict=True):
        found = pattern.fullmatch(part)
        if found is None:
            raise ValueError(f"directory {folder} does not fit the layout {layout!r}")
        named |= found.groupdict()
    return named


def check_layout(layout: str, target: str = "label") -> None:
    """Raise `ValueError` unless the layout names levels, each once, the target among them."""
    _level_patterns(layout, target)


def _level_patterns(layout: str, target: str) -> list[re.Pattern[str]]:
    """One pattern per directory level; every {name} takes as little as it can."""
    names: list[str] = []
    patterns = []
    for level in layout.removesuffix("/*").split("/"):
        pattern = ""
        for text, name, _, _ in string.Formatter().parse(level):
            pattern += re.escape(text).replace(r"\*", ".*")
            if name is not None:
                names.append(name)
                pattern += f"(?P<{name}>.+?)" if name.isidentifier() else "("
        try:
            patterns.append(re.compile(pattern))
        except re.error as error:
            raise ValueError(
                f"layout {layout!r} must name directory levels like '{{split}}/{{label}}', each "
                "name once"
            ) from error
    if names.count(target) != 1 or "path" in names or len(set(names)) != len(names):
        raise ValueError(
            f"layout {layout!r} must hold {{{target}}} once, every other name once, and no {{path}}"
        )
    return patterns


def read_vocabulary(given: Path | str | Mapping[str, Any] | None) -> Vocabulary:
    """A vocabulary from a .yaml or .json file, or from a mapping of the same form.

    For every attribute either its tokens, [old, young], or what each token means, {blackhair:
    black, darkhair: black, blondhair: blond}.

    >>> read_vocabulary({"age": ["old", "young"], "hair": {"blackhair": "black"}})
    {'age': {'old': 'old', 'young': 'young'}, 'hair': {'blackhair': 'black'}}

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is neither, or holds something else; a token or value of a mapping is
            True or False, as YAML reads an unquoted no.
    """
    if given is None:
        return {}
    where, raw = "vocabulary", given
    if isinstance(given, (str, Path)):
        where, raw = f"vocabulary {given}", _read(Path(given).expanduser())
    if not isinstance(raw, Mapping) or not raw:
        raise ValueError(f"{where} must name attributes and their tokens, got {raw!r}")
    found = {}
    for name, tokens in raw.items():
        listed = isinstance(tokens, Sequence) and not isinstance(tokens, str)
        pairs = {t: t for t in tokens} if listed else tokens
        if not isinstance(pairs, Mapping) or not pairs:
            raise ValueError(
                f"{where} must give {name!r} a list of tokens or token: value pairs, got {tokens!r}"
            )
        for word in (*pairs, *pairs.values()):
            if isinstance(word, bool):
                raise ValueError(
                    f"{where} has {word} for {name!r}, which may have been written yes, no, on or "
                    "off; put it in quotes"
                )
        found[str(name)] = {str(token): str(value) for token, value in pairs.items()}
    return found


def _read(path: Path) -> Any:
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"vocabulary {path} must end in .yaml, .yml or .json")
    if not path.is_file():
        raise FileNotFoundError(f"vocabulary {path} does not exist")
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".json":
            return json.loads(text)
        # every scalar as it is written: `no`, `12:30` and `007` are names of folders
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes texts alone
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"vocabulary {path} cannot be read: {error}") from error


def check_tokens(name: str, tokens: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ValueError` for the first token that is not known, with the nearest that is."""
    known = list(known)
    for token in sorted(set(tokens) - set(known)):
        raise ValueError(f"unknown token {token!r} for {name!r}: {nearest(token, known)}")


def translated(
    frame: pd.DataFrame, vocabulary: Vocabulary
) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
    """The frame of `scan` with values for tokens, and all values of each attribute, in order.

    Raises:
        ValueError: an attribute that is no name of the layout, or a token that is not in the
            vocabulary (with the nearest, and the first picture it is found at).
    """
    values = {}
    for name, meaning in vocabulary.items():
        if name not in frame.columns or name == "path":
            names = [c for c in frame.columns if c != "path"]
            raise ValueError(f"vocabulary of {name!r}, but the layout has: {', '.join(names)}")
        strange = ~frame[name].isin(list(meaning))
        try:
            check_tokens(name, frame.loc[strange, name], meaning)
        except ValueError as error:
            raise ValueError(f"{error} (first at {frame.loc[strange, 'path'].iloc[0]})") from None
        frame = frame.assign(**{name: frame[name].map(meaning)})
        values[name] = tuple(dict.fromkeys(meaning.values()))
    return frame, values
