"""Sections of a report, found by file; each says whether it applies to a study.

A section file has `ORDER` (an integer; lower comes first) and `build(study) -> Section | None`.
What a loop noted and no section says it `shows` is in `evenloop.report.other`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenloop.report.study import Study

__all__ = ["Section", "Table", "build_all"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of plain values; everything in it is escaped when it is shown."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of the page.

    Attributes:
        title: its heading.
        text: plain paragraphs.
        figures: SVG elements made by `evenloop.report.figures`, which escapes every text.
        note: what the figures' bands are, or what the measure leaves out.
        tables: shown below the figures.
        alarms: sentences shown as warnings.
        images: groups of pictures, each {"title", "items": [{"src", "caption", "mark"}]}, and
            "folded" where a reader opens it first.
        texts: groups of texts, each {"title", "items": [{"src", "said", "people", "by", "hidden"}]}
            with "src" a picture or empty, "people" empty where they say the same.
        summary: lines for the terminal and the head of the page.
        shows: names of a loop's own counts and values that are told here, "*" for anything.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[str] = ()
    note: str = ""
    tables: Sequence[Table] = ()
    alarms: Sequence[str] = ()
    images: Sequence[Mapping[str, Any]] = ()
    texts: Sequence[Mapping[str, Any]] = ()
    summary: Sequence[str] = field(default=())
    shows: Sequence[str] = ()


def build_all(study: Study) -> list[Section]:
    """The sections that apply to `study`, in order."""
    from evenloop.report import other

    modules = [import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    ordered = sorted(modules, key=lambda module: (module.ORDER, module.__name__))
    built = [(module.ORDER, section) for module in ordered if (section := module.build(study))]
    rest = other.build(study, [name for _, section in built for name in section.shows])
    if rest is not None:
        built.append((other.ORDER, rest))
    return [section for _, section in sorted(built, key=lambda pair: pair[0])]
