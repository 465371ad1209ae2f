"""Tables: any CSV or Parquet file, and Adult, COMPAS and German credit as published.

References: Becker, Kohavi, Adult, UCI repository (1996); Larson, Mattu, Kirchner, Angwin, How We
Analyzed the COMPAS Recidivism Algorithm, ProPublica (2016); Hofmann, Statlog German Credit, UCI
repository (1994). For what is wrong with the first two see Ding et al., arXiv 2108.04884, and Bao
et al., arXiv 2106.05498.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from evenloop.data import GroupedData
from evenloop.worlds.base import Card, Normalisation, check_choice, find_file, find_root
from evenloop.worlds.columns import SCALES, encode, need_columns, read_table
from evenloop.worlds.dropped import Dropped
from evenloop.worlds.frames import (
    POLICIES,
    dropped,
    feature_columns,
    table_from_frame,
    usable,
)
from evenloop.worlds.listing import listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Adult", "Compas", "GermanCredit", "Table"]

SPLITS = ("all", "train", "test")
_ADULT = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation",
    "relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week",
    "native-country", "income",
)  # fmt: skip
_GERMAN = (
    "status", "duration", "history", "purpose", "amount", "savings", "employment", "rate",
    "personal", "debtors", "residence", "property", "age", "plans", "housing", "credits", "job",
    "dependants", "telephone", "foreign", "credit",
)  # fmt: skip
_COMPAS_FEATURES = (
    "age", "sex", "race", "juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count",
    "c_charge_degree",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """Any table: float32 N x F features, a label, group columns.

    A file encoded by itself has codes of its own: rows to train on and rows to audit belong in one
    table, with a column that says `split` if they are not to be drawn at random.

    Attributes:
        path: the table; .csv, .tsv, .jsonl (also .gz) or .parquet.
        target: the label column.
        groups: group columns; "age:25,45" puts a number in bins. They may be features, too.
        split, source, weight: columns that say what `listing.listed` reads, and are no features;
            "" where there is none.
        classes: class names in the order of their codes; by default those found, sorted.
        features: feature columns; by default every column but the target.
        leave_out: columns that are no features.
        scale: "standard", "minmax" or "none", for numbers; texts become one 0/1 column per value.
        missing: "error", or "drop" rows that lack a number or the label; whom that leaves out is
            told before a run and in its report.
    """

    name: ClassVar[str] = "table"
    about: ClassVar[Card] = Card(
        "Table",
        "any CSV, JSON lines or Parquet table with a label, feature and group columns",
        "yours to state",
        "the columns you name; say how they were obtained",
        "your own disk",
    )

    path: Path | str
    target: str = "label"
    groups: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    scale: Literal["standard", "minmax", "none"] = "standard"
    missing: Literal["error", "drop"] = "error"
    split: str = ""
    source: str = ""
    weight: str = ""

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, SCALES)
        check_choice("missing", self.missing, POLICIES)

    @property
    def normalisation(self) -> Normalisation | None:
        """None: features are used as they are."""
        return None

    def load(self) -> GroupedData:
        """Rows in the table's order. Raises what `table_from_frame` and `listing.listed` raise."""
        frame = read_table(self.path)
        data = table_from_frame(
            frame,
            target=self.target,
            groups=self.groups,
            classes=self.classes,
            features=self.features,
            leave_out=self._aside,
            scale=self.scale,
            missing=self.missing,
            where=str(self.path),
        )
        kept = usable(frame, self.target, self._columns(frame), self.missing)
        named = {"split": self.split, "source": self.source, "weight": self.weight}
        return listed(data, kept, str(self.path), **named)

    def encoding(self) -> tuple[str, ...]:
        """How each of the F columns of `x` is made, in words."""
        frame = read_table(self.path)
        columns = self._columns(frame)
        return encode(usable(frame, self.target, columns, self.missing), columns, self.scale).names

    def left_out(self) -> Dropped:
        """Whom `missing` drops: rows kept and dropped of every group and class."""
        frame = read_table(self.path)
        return dropped(
            frame,
            target=self.target,
            columns=self._columns(frame),
            groups=self.groups,
            classes=self.classes,
            missing=self.missing,
            where=str(self.path),
        )

    @property
    def _aside(self) -> tuple[str, ...]:
        """Columns that are no features."""
        said = (self.split, self.source, self.weight)
        return (*self.leave_out, *(name for name in said if name))

    def _columns(self, frame: pd.DataFrame) -> list[str]:
        """The feature columns."""
        return feature_columns(frame, self.target, self.features, self._aside, str(self.path))


@dataclass(frozen=True, slots=True)
class _Published(ABC):
    """A published table, of which label and classes are known.

    Attributes:
        root: folder of its files; None for what `evenloop data get` fetched.
        groups: columns; "age:25,45" puts a number in bins.
        scale: "standard", "minmax" or "none".
    """

    name: ClassVar[str]
    about: ClassVar[Card]
    target: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]

    root: Path | str | None = None
    groups: tuple[str, ...] = ()
    scale: Literal["standard", "minmax", "none"] = "standard"

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, SCALES)

    @property
    def normalisation(self) -> Normalisation | None:
        """None: features are used as they are."""
        return None

    def load(self) -> GroupedData:
        """Rows in file order; "?" is the value "unknown". An attribute "split" comes last."""
        frame, columns = self._frame()
        split = {"split": SPLITS[1:]} if "split" in frame else {}
        return table_from_frame(
            frame,
            target=self.target,
            groups=(*self.groups, *split),
            vocabulary=split,
            classes=self.classes,
            features=columns,
            scale=self.scale,
            where=self.name,
        )

    def encoding(self) -> tuple[str, ...]:
        """How each of the F columns of `x` is made, in words."""
        return encode(*self._frame(), self.scale).names

    @abstractmethod
    def _frame(self) -> tuple[pd.DataFrame, Sequence[str]]:
        """The table and its feature columns."""


@dataclass(frozen=True, slots=True)
class Adult(_Published):
    """Adult (census income): float32 features, label income above 50,000 dollars, in 1994.

    Attributes:
        root: folder of adult.data and adult.test; None for what `evenloop data get` fetched.
        split: "train", "test", or "all" (train, then test).
        groups: columns; "age:25,45" puts a number in bins.
        leave_out: columns that are no features; by default the census weight.
        scale: "standard", "minmax" or "none".
    """

    name: ClassVar[str] = "adult"
    about: ClassVar[Card] = Card(
        "Adult",
        "48,842 people of the 1994 US census; the label is income above 50,000 dollars",
        "Creative Commons Attribution 4.0",
        "sex (two values) and race (five) as answered in, or imputed by, the census",
        "the UCI Machine Learning Repository, data set 2; files adult.data and adult.test",
    )
    target: ClassVar[str] = "income"
    classes: ClassVar[tuple[str, ...]] = ("<=50K", ">50K")

    split: Literal["all", "train", "test"] = "all"
    groups: tuple[str, ...] = ("sex", "race")
    leave_out: tuple[str, ...] = ("fnlwgt",)

    def __post_init__(self) -> None:
        _Published.__post_init__(self)
        check_choice("split", self.split, SPLITS)

    def _frame(self) -> tuple[pd.DataFrame, list[str]]:
        import pandas as pd

        folder = find_root(self, self.root, "a folder with adult.data and adult.test")
        parts = []
        for split, file in (("train", "adult.data"), ("test", "adult.test")):
            if self.split in ("all", split):
                path = find_file(self, folder, file)
                part = _read_plain(path, ",", _ADULT, comment="|")
                part["income"] = part["income"].str.rstrip(".")
                parts.append(part.assign(split=split))
        frame = pd.concat(parts, ignore_index=True)
        return frame, feature_columns(frame, "income", (), ("split", *self.leave_out), "adult")


@dataclass(frozen=True, slots=True)
class Compas(_Published):
    """COMPAS: float32 features, label "arrested again within two years".

    Attributes:
        root: folder of compas-scores-two-years.csv; None for what `evenloop data get` fetched.
        filtered: keep the 6,172 rows of ProPublica's analysis (charge within 30 days of the
            screening, no ordinary traffic offence, a known outcome and score), not all 7,214.
        groups: columns; "age:25,45" puts a number in bins. "white" is recorded race in two values.
        features: feature columns.
        scale: "standard", "minmax" or "none".
    """

    name: ClassVar[str] = "compas"
    about: ClassVar[Card] = Card(
        "COMPAS, two years",
        "7,214 defendants of Broward County, Florida, 2013-2014; the label is a new arrest within "
        "two years, which is not the same as a new offence",
        "none stated; published by ProPublica for re-analysis",
        "race and sex as recorded by the sheriff's office",
        "ProPublica's repository compas-analysis; file compas-scores-two-years.csv",
    )
    target: ClassVar[str] = "two_year_recid"
    classes: ClassVar[tuple[str, ...]] = ("no", "yes")

    filtered: bool = True
    groups: tuple[str, ...] = ("race", "sex")
    features: tuple[str, ...] = _COMPAS_FEATURES

    def _frame(self) -> tuple[pd.DataFrame, tuple[str, ...]]:
        folder = find_root(self, self.root, "a folder with compas-scores-two-years.csv")
        path = find_file(self, folder, "compas-scores-two-years.csv")
        frame = read_table(path)
        wanted = ("days_b_screening_arrest", "is_recid", "c_charge_degree", "score_text", "race")
        need_columns(frame, [*wanted, *self.features, "two_year_recid"], str(path))
        white = (frame["race"] == "Caucasian").map({True: "white", False: "not white"})
        frame = frame.assign(white=white)
        if not self.filtered:
            return frame, self.features
        days, score = frame["days_b_screening_arrest"], frame["score_text"]
        known = (frame["is_recid"] != -1) & score.notna() & (score != "N/A")
        kept = days.between(-30, 30) & known & (frame["c_charge_degree"] != "O")
        return frame[kept], self.features


@dataclass(frozen=True, slots=True)
class GermanCredit(_Published):
    """German credit: float32 features, label good or bad credit risk.

    Attributes:
        root: folder of german.data; None for what `evenloop data get` fetched.
        groups: columns; "age:25" puts a number in bins. "sex" is read off the column "personal".
        leave_out: columns that are no features; "sex" repeats a part of "personal".
        scale: "standard", "minmax" or "none".
    """

    name: ClassVar[str] = "german"
    about: ClassVar[Card] = Card(
        "Statlog German Credit",
        "1,000 loans of a German bank, 1973-1975, bad risks over-sampled; the label is the risk",
        "Creative Commons Attribution 4.0",
        "sex is read off a column that mixes it with marital status (codes A91 to A95), which is "
        "known to be unreliable; age in years",
        "the UCI Machine Learning Repository, data set 144; file german.data",
    )
    target: ClassVar[str] = "credit"
    classes: ClassVar[tuple[str, ...]] = ("good", "bad")

    groups: tuple[str, ...] = ("sex", "age:25")
    leave_out: tuple[str, ...] = ("sex",)

    def _frame(self) -> tuple[pd.DataFrame, list[str]]:
        folder = find_root(self, self.root, "a folder with german.data")
        path = find_file(self, folder, "german.data")
        frame = _read_plain(path, " ", _GERMAN)
        sexes = {"A91": "male", "A92": "female", "A93": "male", "A94": "male", "A95": "female"}
        risks = {1: "good", 2: "bad"}
        for column, names in (("personal", sexes), ("credit", risks)):
            bad = ~frame[column].isin(list(names))
            if bad.any():
                raise ValueError(f"{path}: {column} is {frame[column][bad].tolist()[0]!r}")
        frame = frame.assign(sex=frame["personal"].map(sexes), credit=frame["credit"].map(risks))
        return frame, feature_columns(frame, "credit", (), self.leave_out, "german")


def _read_plain(
    path: Path, sep: str, names: tuple[str, ...], comment: str | None = None
) -> pd.DataFrame:
    """A file without header; "?" is missing.

    Raises:
        ValueError: it is empty or has another number of columns.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(
            path, sep=sep, header=None, skipinitialspace=True, comment=comment,
            keep_default_na=False, na_values=["?"],
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if frame.shape[1] != len(names):
        raise ValueError(f"{path} has {frame.shape[1]} columns, {len(names)} are wanted")
    return frame.set_axis(list(names), axis=1)
