"""What a loop promises of its runs, as plain values, each checked by a claim of `evenloop.claims`.

A loop knows no claim, and whoever checks one knows no loop: these values are between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AccuracyKept", "BiasBounded", "Promise", "SharesKept"]


@dataclass(frozen=True, slots=True)
class BiasBounded:
    """Labels of rows drawn at random feed back: the tracked class's bias has the feedback bound.

    `rows` are the labelled rows that a model is trained on. Where rows are chosen, nothing is
    promised.
    """

    rows: Literal["all", "subsample", "latest"] = "all"


@dataclass(frozen=True, slots=True)
class SharesKept:
    """No group's share among generated rows is farther than `tolerance` from its natural one."""

    tolerance: float


@dataclass(frozen=True, slots=True)
class AccuracyKept:
    """No group loses more accuracy than all items did plus `tolerance`, against the reference."""

    tolerance: float


Promise = BiasBounded | SharesKept | AccuracyKept
