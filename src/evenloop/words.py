"""Sentences for names that do not exist: the near misses, or all there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["nearest"]

MOST = 30


def nearest(word: str, known: Iterable[object]) -> str:
    """What to try instead of `word`: up to three near misses, else everything known.

    >>> nearest("humans", ["human", "machine"])
    "did you mean 'human'?"
    >>> nearest("zz", ["human", "machine"])
    'there are: human, machine'
    """
    names = sorted(str(name) for name in known)
    close = difflib.get_close_matches(str(word), names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    shown = ", ".join(names[:MOST]) or "none"
    return f"there are: {shown}" + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
