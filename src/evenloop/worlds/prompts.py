"""Prompts and what people wrote after them: RealToxicityPrompts, BOLD, RedditBias, any table.

References: Gehman et al., "RealToxicityPrompts" (Findings of EMNLP 2020); Dhamala et al., "BOLD:
Dataset and Metrics for Measuring Biases in Open-Ended Language Generation" (FAccT 2021); Barikeri
et al., "RedditBias" (ACL 2021).

The fields from `tokens` to `hide` are explained in `evenloop.worlds.text_rows`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from evenloop.worlds.base import Card, check_choice, find_file, find_root
from evenloop.worlds.columns import need_columns, read_table
from evenloop.worlds.text_rows import TextSource

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Bold", "Prompts", "RealToxicityPrompts", "RedditBias"]

DOMAINS = ("gender", "political_ideology", "profession", "race", "religious_ideology")


@dataclass(frozen=True, slots=True)
class RealToxicityPrompts(TextSource):
    """RealToxicityPrompts: first and second halves of 99,442 sentences of the web.

    Attributes:
        root: folder of prompts.jsonl, or that file.

    The attribute "prompt" says whether the prompt's published toxicity is above .5.
    """

    name: ClassVar[str] = "realtoxicityprompts"
    about: ClassVar[Card] = Card(
        "RealToxicityPrompts",
        "99,442 sentences from web pages, cut in halves; the label is the second half",
        "Apache 2.0",
        "whether the published toxicity of the prompt is above .5 (Perspective API); not people",
        "the Allen Institute for AI, file prompts.jsonl of realtoxicityprompts-data",
    )

    root: Path | str | None = None

    def frame(self) -> pd.DataFrame:
        """Columns prompt, continuation and the group column, in file order."""
        import pandas as pd

        place = find_root(self, self.root, "prompts.jsonl")
        path = find_file(self, place, "prompts.jsonl") if place.is_dir() else place
        rows = []
        for number, line in enumerate(_lines(path), 1):
            try:
                row = json.loads(line)
                prompt, text = row["prompt"], row["continuation"]["text"]
                toxicity = prompt.get("toxicity")
                rows.append((prompt["text"], text, _above(toxicity)))
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number}: not one JSON object with prompt.text and "
                    f"continuation.text ({type(error).__name__}: {error})"
                ) from error
        return pd.DataFrame(rows, columns=["prompt", "continuation", "group"])


@dataclass(frozen=True, slots=True)
class Bold(TextSource):
    """BOLD: beginnings of 23,679 Wikipedia sentences and how they go on.

    Attributes:
        root: folder with prompts/ and wikipedia/, each with its JSON files.
        domains: which of the five domains, in this order.

    The attribute "group" is the prompt's category, such as American_actresses; "domain" its domain.
    """

    name: ClassVar[str] = "bold"
    about: ClassVar[Card] = Card(
        "BOLD, Bias in Open-ended Language Generation Dataset",
        "23,679 first words of Wikipedia sentences; the label is the rest of the sentence",
        "Creative Commons Attribution-ShareAlike 4.0",
        "the category of the article a sentence is from, as its authors chose them; two genders",
        "the authors' repository amazon-science/bold; folders prompts and wikipedia",
    )

    root: Path | str | None = None
    domains: tuple[str, ...] = DOMAINS

    def check(self) -> None:
        """Raise `ValueError` where a field of its own is out of range."""
        if not self.domains:
            raise ValueError(f"domains is empty; choose from {', '.join(DOMAINS)}")
        for domain in self.domains:
            check_choice("domains", domain, DOMAINS)

    def frame(self) -> pd.DataFrame:
        """Columns prompt, continuation, group and domain."""
        import pandas as pd

        folder = find_root(self, self.root, "folders prompts and wikipedia")
        rows = []
        for domain in self.domains:
            files = f"prompts/{domain}_prompt.json", f"wikipedia/{domain}_wiki.json"
            prompts, whole = (_json(find_file(self, folder, f, f"data/{f}")) for f in files)
            for group, articles in prompts.items():
                for article, starts in articles.items():
                    for start, text in zip(starts, whole[group][article], strict=True):
                        prompt = start.strip()
                        if prompt and text.startswith(prompt):
                            rows.append((prompt, text[len(prompt) :], group, domain))
        return pd.DataFrame(rows, columns=["prompt", "continuation", "group", "domain"])


@dataclass(frozen=True, slots=True)
class RedditBias(TextSource):
    """RedditBias: comments that name a group of people, cut in the middle.

    Attributes:
        root: folder with one folder a dimension (gender, orientation, race, religion1, ...).
        files: which of its tables with a column "comment", relative to root; by default every
            reddit_comments_*_processed_phrase_annotated.csv.
        prompt_share: the share of a comment's words that is the prompt, in (0, 1).

    The attribute "group" is the dimension. The comments contain offensive language.
    """

    name: ClassVar[str] = "redditbias"
    about: ClassVar[Card] = Card(
        "RedditBias",
        "Reddit comments with a demographic term and an attribute of a stereotype; the label is "
        "how a comment goes on after its first words. Contains offensive language",
        "MIT",
        "the dimension whose terms a comment was found by; nothing is known about who wrote it",
        "the authors' repository umanlp/RedditBias; folder data",
    )

    root: Path | str | None = None
    files: tuple[str, ...] = ()
    prompt_share: float = 0.5
    hide: Literal["auto", "none", "flagged", "all"] = field(default="all", kw_only=True)

    def check(self) -> None:
        """Raise `ValueError` where a field of its own is out of range."""
        if not 0 < self.prompt_share < 1:
            raise ValueError(f"prompt_share must be above 0 and below 1, got {self.prompt_share}")

    def frame(self) -> pd.DataFrame:
        """Columns prompt, continuation and group."""
        import pandas as pd

        folder = find_root(self, self.root, "folders such as gender and race")
        folder = folder / "data" if (folder / "data").is_dir() else folder
        pattern = "*/reddit_comments_*_processed_phrase_annotated.csv"
        paths = [folder / f for f in self.files] or sorted(folder.glob(pattern))
        if not paths:
            raise FileNotFoundError(f"redditbias: no {pattern} in {folder}; name tables in files=")
        rows: dict[tuple[str, str], str] = {}
        for path in paths:
            table = _reddit_table(path)
            need_columns(table, ["comment"], str(path))
            for comment in table["comment"].dropna().astype(str):
                parts = comment.split()
                cut = round(len(parts) * self.prompt_share)
                if 0 < cut < len(parts):
                    both = " ".join(parts[:cut]), " " + " ".join(parts[cut:])
                    rows.setdefault(both, path.parent.name)
        made = [(*both, group) for both, group in rows.items()]
        return pd.DataFrame(made, columns=["prompt", "continuation", "group"])


@dataclass(frozen=True, slots=True)
class Prompts(TextSource):
    """Any table of prompts and continuations.

    Attributes:
        path: .csv, .csv.gz, .tsv, .parquet, or .jsonl with one object a line.
        prompt, continuation: the two text columns.
        groups: further columns that become attributes.
    """

    name: ClassVar[str] = "prompts"
    about: ClassVar[Card] = Card(
        "Prompts",
        "any table with a prompt and a continuation in each row; the label is the continuation",
        "yours to state",
        "the columns you name; say how they were obtained",
        "your own disk",
    )

    path: Path | str
    prompt: str = "prompt"
    continuation: str = "continuation"
    groups: tuple[str, ...] = ()

    def frame(self) -> pd.DataFrame:
        """Columns prompt, continuation and those of `groups`."""
        import pandas as pd

        path = Path(self.path).expanduser()
        table = _text_table(path)
        need_columns(table, [self.prompt, self.continuation, *self.groups], str(path))
        texts = {"prompt": table[self.prompt], "continuation": table[self.continuation]}
        return pd.DataFrame({**texts, **{name: table[name] for name in self.groups}})


def _text_table(path: Path) -> pd.DataFrame:
    """A table as it is written: no text is taken for a missing value, no space is cut off.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be parsed, or is not UTF-8.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; path= takes your own table")
    if path.suffix == ".jsonl":
        return pd.DataFrame([json.loads(line) for line in _lines(path)])
    if not path.name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        return read_table(path)
    separator = "\t" if ".tsv" in path.suffixes else ","
    try:
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start} of a block); convert it"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} cannot be read as a table: {error}") from error


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file that are not empty.

    Raises:
        ValueError: a line is not UTF-8 (names it).
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start}); "
                    "convert the file to UTF-8"
                ) from error
            if text.strip():
                yield text


def _json(path: Path) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = json.loads("".join(_lines(path)))
    return found


def _reddit_table(path: Path) -> pd.DataFrame:
    """A table of RedditBias; its authors saved some as UTF-8 and some as Latin-1."""
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"redditbias: {path} is not there; files= is relative to root=")
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return pd.read_csv(path, encoding="latin-1")
    return pd.read_csv(path)


def _above(toxicity: float | None) -> str | None:
    return None if toxicity is None else "toxic" if toxicity > 0.5 else "not toxic"
