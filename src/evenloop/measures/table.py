"""Every rate of one class in every group, with its gaps, found in one pass over the counts.

The rates and limits are those of the single measures and notions, to the last bit: definitions and
formulas are theirs, applied to all rates at once. Without limits a table costs little enough to be
made after every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenloop.counts import Counts
from evenloop.intervals import Bounded, wilson
from evenloop.measures.contrasts import CHUNK, KINDS, Kind, apart, pairs, widest
from evenloop.measures.estimate import MIN_SUPPORT, Estimate, check_support, in_words
from evenloop.measures.proportions import CLASS_RATES, ODDS, OneVsRest, correct, klass_code

__all__ = ["OF_CLASS", "RateTable", "class_rates", "rate_table"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

OF_CLASS = (
    "selection rate",
    "true positive rate",
    "false positive rate",
    "true negative rate",
    "false negative rate",
    "precision",
)
RATES = ("accuracy", *OF_CLASS)
GAPS = (*RATES, "equalized odds")
BOTH = np.array([RATES.index(rate) for rate in ODDS])
# Rows whose gaps are sought: every rate, then the two of equalized odds.
COMPARED = np.append(np.arange(len(RATES)), BOTH)
# Rows whose limits are sought: every rate alone, then those compared, at levels of their own.
WITH_LIMITS = np.append(np.arange(len(RATES)), COMPARED)


@dataclass(frozen=True, slots=True, eq=False)
class RateTable:
    """Rates of class `klass` by group: R rows named in `rates`, G columns named in `groups`.

    `rate` holds values and limits (R, G), `support` int64 the items each is a share of; `overall`
    and `overall_support` (R,) are those of all items. `difference` and `ratio` (R + 1,) are the
    widest of each rate over the groups, in the order of `gaps`: the rates, then equalized odds, the
    worse of the true and the false positive rate. What has fewer than `min_support` items, and a
    gap with fewer than two such groups, is nan. Limits hold at `level`, those of a gap for the
    widest pair whichever it is; with level None there are none and they are nan.

    `table["precision"]` is one row as an `Estimate`, `table.gap("equalized odds")` one gap.
    """

    klass: str
    groups: tuple[str, ...]
    rate: Bounded
    support: Ints
    overall: Bounded
    overall_support: Ints
    difference: Bounded
    ratio: Bounded
    level: float | None
    min_support: int
    rates: tuple[str, ...] = RATES
    gaps: tuple[str, ...] = GAPS

    def __getitem__(self, rate: str) -> Estimate:
        """One rate as an estimate, the same that its own measure gives.

        Raises:
            KeyError: there is no such rate.
        """
        row = _place(rate, self.rates)
        return Estimate(
            rate if rate == "accuracy" else f"{rate} of {self.klass}",
            *self.rate.at(row),
            self.support[row],
            self.groups,
            np.nan if self.level is None else self.level,
            "none" if self.level is None else "Wilson",
            self.min_support,
        )

    def gap(self, name: str, kind: Kind = "difference") -> Bounded:
        """The widest difference, or the ratio, of one rate or of equalized odds: three scalars.

        Raises:
            KeyError: there is no such gap.
        """
        gaps = self.difference if kind == "difference" else self.ratio
        return gaps.at(_place(name, self.gaps))

    def __str__(self) -> str:
        lines = [[f"rates of {self.klass}", *self.groups, "overall", "difference", "ratio"]]
        for name in self.gaps:
            gaps = (in_words(*map(float, self.gap(name, kind))) for kind in KINDS)
            lines.append([name, *self._words(name), *gaps])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        spaced = ("  ".join(map(str.ljust, line, widths)) for line in lines)
        return "\n".join(line.rstrip() for line in spaced)

    def _words(self, name: str) -> list[str]:
        """One rate in every group and overall; nothing for a gap that is of no single rate."""
        if name not in self.rates:
            return [""] * (len(self.groups) + 1)
        row = self.rates.index(name)
        found = [(self.rate.at((row, g)), self.support[row, g]) for g in range(len(self.groups))]
        found.append((self.overall.at(row), self.overall_support[row]))
        return [in_words(*map(float, bounded), n=int(n)) for bounded, n in found]


def rate_table(
    counts: Counts,
    klass: int | str = 1,
    *,
    level: float | None = 0.95,
    min_support: int = MIN_SUPPORT,
) -> RateTable:
    """Accuracy and every rate of `klass` against the rest, by group and overall, with all gaps.

    Args:
        counts: truth against prediction of any number of classes and groups.
        klass: name or code of the class; by default the second.
        level: probability that the limits of a rate hold it, and those of a gap the widest one;
            None leaves limits out, which is several times quicker.
        min_support: fewest items behind a rate for it to be estimable.

    Raises:
        ValueError: there is no such class, `level` is not between 0 and 1, or `min_support` is
            below 1.

    >>> counts = Counts(np.array([[[3, 1], [1, 3]], [[1, 1], [0, 2]]]), ("a", "b"), ("no", "yes"))
    >>> print(rate_table(counts, "yes", level=None))
    rates of yes         a           b            overall       difference  ratio
    accuracy             0.75 (n=8)  0.75 (n=4)   0.75 (n=12)   0           1
    selection rate       0.5 (n=8)   0.75 (n=4)   0.583 (n=12)  0.25        0.667
    true positive rate   0.75 (n=4)  1 (n=2)      0.833 (n=6)   0.25        0.75
    false positive rate  0.25 (n=4)  0.5 (n=2)    0.333 (n=6)   0.25        0.5
    true negative rate   0.75 (n=4)  0.5 (n=2)    0.667 (n=6)   0.25        0.667
    false negative rate  0.25 (n=4)  0 (n=2)      0.167 (n=6)   0.25        0
    precision            0.75 (n=4)  0.667 (n=3)  0.714 (n=7)   0.0833      0.889
    equalized odds                                              0.25        0.5
    >>> table = rate_table(counts)
    >>> print(table["precision"])
    precision of yes: a 0.75 [0.301, 0.954] (n=4); b 0.667 [0.208, 0.939] (n=3)
    >>> gap = table.gap("equalized odds")
    >>> float(gap.value), float(gap.low), round(float(gap.high), 3)
    (0.25, 0.0, 0.741)
    """
    code, least = klass_code(counts, klass), check_support(min_support)
    table = np.concatenate((counts.table, counts.table.sum(0, keepdims=True)))
    right, every = correct(table)
    hits, of = class_rates(table, code)
    hits, of = np.concatenate((right[None], hits)), np.concatenate((every[None], of))
    usable = of * (of >= least)
    rate, difference, ratio = (
        _values(hits, usable) if level is None else _limited(hits, usable, level)
    )
    return RateTable(
        counts.classes[code],
        counts.groups,
        rate.at(np.s_[:, :-1]),
        of[:, :-1],
        rate.at(np.s_[:, -1]),
        of[:, -1],
        difference,
        ratio,
        level,
        min_support,
    )


def class_rates(table: NDArray[np.integer], klass: int | list[int]) -> tuple[Ints, Ints]:
    """Items of every rate in `OF_CLASS`, and those it is a share of, of tables (..., G, C, C).

    Both (6, ..., G) for one class, (6, ..., G, K) for several.
    """
    cells = OneVsRest.of(table).at(klass)
    hits, of = zip(*(CLASS_RATES[rate](cells) for rate in OF_CLASS), strict=True)
    return np.array(hits), np.array(of)


def _values(hits: Ints, of: Ints) -> tuple[Bounded, Bounded, Bounded]:
    """Rates (R, G + 1), of all items last, with their differences and ratios; no limits."""
    value = hits / np.where(of > 0, of, np.nan)
    groups = value[COMPARED, :-1]
    top, bottom = np.fmax.reduce(groups, axis=1), np.fmin.reduce(groups, axis=1)
    top[_lone(_estimable(of))] = np.nan
    gaps = (_with_odds(apart(top, bottom, kind), kind) for kind in KINDS)
    difference, ratio = (Bounded(gap, *np.full((2, len(gap)), np.nan)) for gap in gaps)
    return Bounded(value, *np.full((2, *value.shape), np.nan)), difference, ratio


def _limited(hits: Ints, of: Ints, level: float) -> tuple[Bounded, Bounded, Bounded]:
    """The same with limits: those of a gap allow for every pair that was looked at."""
    rows, groups = len(RATES), _estimable(of)
    many = groups * (groups - 1) // 2
    many[rows:] = many[rows:].sum()
    behind = of[WITH_LIMITS]
    behind[rows:][_lone(groups)] = 0
    comparisons = np.append(np.ones(rows, np.int64), many)[:, None]
    found = wilson(hits[WITH_LIMITS], behind, level=level, comparisons=comparisons)
    compared = found.at(np.s_[rows:, :-1])
    difference, ratio = (_widest(compared, kind) for kind in KINDS)
    return found.at(np.s_[:rows]), difference, ratio


def _estimable(of: Ints) -> Ints:
    """(R + 2,) groups with items behind each row of `COMPARED`, from (R, G + 1)."""
    return np.asarray((of[:, :-1] > 0).sum(1)[COMPARED])


def _lone(groups: Ints) -> NDArray[np.bool_]:
    """(R + 2,) rows of `COMPARED` without two groups; equalized odds needs both its rates."""
    lone = groups < 2
    lone[len(RATES) :] = lone[len(RATES) :].any()
    return lone


def _widest(rate: Bounded, kind: Kind) -> Bounded:
    """Gaps (R + 1,) of rates (R + 2, G), a few rows at a time where there are many pairs."""
    rows, groups = rate.value.shape
    step = max(1, CHUNK // groups**2)
    blocks = [
        widest(pairs(rate.at(np.s_[at : at + step]), kind), kind) for at in range(0, rows, step)
    ]
    return Bounded(*_with_odds(np.concatenate(blocks, axis=1), kind))


def _with_odds(gap: Floats, kind: Kind) -> Floats:
    """Gaps of `COMPARED` (..., R + 2), the last two folded to the worse: (..., R + 1)."""
    pick = np.fmax if kind == "difference" else np.fmin
    return np.asarray(pick.reduceat(gap, np.arange(len(GAPS)), axis=-1))


def _place(name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise KeyError(f"{name!r} is none of {', '.join(names)}")
    return names.index(name)
