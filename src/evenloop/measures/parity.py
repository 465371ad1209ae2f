"""Parity: rates that should be equal over groups, and how far they are from it.

A notion is K blocks (classes) of F rates in G groups. Its distance is the widest one: over groups,
over the rates of a block, and over blocks. The limits are those of the widest distance itself, not
of the pair that happens to be widest in the sample: limits that hold for all pairs at once (the
pairs' own limits at a Bonferroni level) bound it from both sides, so a gap that may be 0 has 0
among its limits. They need independent groups, and get wide with many groups.

Definitions: Fairlearn's for two classes (demographic parity, equalized odds: Hardt et al. 2016;
predictive parity: Chouldechova 2017); one class against the rest for more. `reference="pooled"`
measures each group against all items instead, as in the tests of FairBatch (Roh et al. 2021); its
distances are smaller. All of them compare rates; none says what a fair difference would be, or
who is harmed by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evenloop.counts import Counts
from evenloop.intervals import Bounded, wilson
from evenloop.measures.contrasts import (
    KINDS,
    Kind,
    Over,
    against_all,
    fold,
    pairs,
    percentile_limits,
    simultaneous_limits,
)
from evenloop.measures.estimate import MIN_SUPPORT, Excluded, Gap, check_support

__all__ = ["Parity", "Reference"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Reference = Literal["pairwise", "pooled"]


@dataclass(frozen=True, slots=True, eq=False)
class Parity:
    """Rates that a parity notion wants equal over the groups of `counts`.

    `rates` names them, K tuples of F. `parts` maps tables (..., G, C, C) to their numerators and
    denominators, two arrays (..., K, F, G). A block takes part only if each of its rates has two
    groups with enough items; what does not take part is named in the gap.

    >>> from evenloop.measures import equalized_odds
    >>> counts = Counts(np.array([[[3, 1], [1, 3]], [[2, 0], [2, 2]]]), ("a", "b"), ("no", "yes"))
    >>> print(equalized_odds(counts).difference())
    equalized odds difference: 0.25 [0, 0.741], a (n=4) above b (n=4), true positive rate of yes
    """

    name: str
    counts: Counts
    rates: tuple[tuple[str, ...], ...]
    parts: Callable[[NDArray[np.integer]], tuple[Ints, Ints]]

    def difference(
        self,
        *,
        level: float = 0.95,
        min_support: int = MIN_SUPPORT,
        reference: Reference = "pairwise",
        over: Over = "worst",
    ) -> Gap:
        """Highest minus lowest rate, 0 for parity.

        Args:
            level: probability that the limits hold the true distance.
            min_support: fewest items behind a group's rate for it to take part.
            reference: "pairwise", group against group, or "pooled", group against all items.
            over: "worst" class or "mean" over classes.
        """
        return self._gaps(("difference",), level, min_support, reference, over)[0]

    def ratio(
        self,
        *,
        level: float = 0.95,
        min_support: int = MIN_SUPPORT,
        reference: Reference = "pairwise",
        over: Over = "worst",
    ) -> Gap:
        """Lowest over highest rate, 1 for parity; arguments as in `difference`.

        A rate that is 0 in every group has no ratio: it is left out and named.
        """
        return self._gaps(("ratio",), level, min_support, reference, over)[0]

    def both(
        self,
        *,
        level: float = 0.95,
        min_support: int = MIN_SUPPORT,
        reference: Reference = "pairwise",
        over: Over = "worst",
    ) -> tuple[Gap, Gap]:
        """The difference and the ratio, counted once; arguments as above."""
        difference, ratio = self._gaps(KINDS, level, min_support, reference, over)
        return difference, ratio

    def bootstrap(
        self,
        draws: Ints,
        *,
        kind: Kind = "difference",
        level: float = 0.95,
        min_support: int = MIN_SUPPORT,
        over: Over = "worst",
        limits: Literal["simultaneous", "percentile"] = "simultaneous",
    ) -> Gap:
        """The same pairwise gap with limits from counts drawn again inside each group.

        "simultaneous" limits take the largest studentised error of any pair in each resample,
        on a log scale for ratios, so they too hold for all pairs at once, and are narrower than
        Bonferroni's where rates share items or there are many groups. "percentile" limits are
        the equal-tailed quantiles of the resampled gap: simple, often quoted, and wrong near
        parity, because resampling only widens a gap of 0.

        Args:
            draws: (R, G, C, C) from `intervals.resample(counts.table, R, rng)`; all gaps of one
                table may share them.
            kind: "difference" or "ratio".
            level, min_support, over: as in `difference`.
            limits: how limits are read from the draws.

        Raises:
            ValueError: `draws` are of another table.
        """
        if draws.shape[1:] != self.counts.table.shape:
            raise ValueError(
                f"draws must have shape (R, *{self.counts.table.shape}), got {draws.shape}; "
                "resample the table of these counts"
            )
        (gap,) = self._gaps((kind,), level, min_support, "pairwise", over)
        if not gap.estimable:
            return gap
        hits, of = self.parts(self.counts.table)
        enough = of >= min_support
        drawn, drawn_of = self.parts(draws)
        if limits == "percentile":
            usable = enough & ~self._void(enough)[:, None, None]
            low, high = percentile_limits(drawn, drawn_of, usable, kind, over, level)
        else:
            defined = ~np.isnan(pairs(wilson(hits, of).where(enough), kind).value)
            low, high = simultaneous_limits(
                hits, of, drawn, drawn_of, defined, self._void(enough), kind, over, level
            )
        return replace(
            gap,
            low=min(low, gap.value),
            high=max(high, gap.value),
            method=f"bootstrap of counts, {limits}, {len(draws)} resamples",
        )

    def _void(self, enough: Bools) -> Bools:
        """(K,) blocks with a rate that fewer than two groups can estimate."""
        return np.asarray((enough.sum(-1) < 2).any(-1))

    def _gaps(
        self,
        kinds: Sequence[Kind],
        level: float,
        min_support: int,
        reference: Reference,
        over: Over,
    ) -> list[Gap]:
        hits, of = self.parts(self.counts.table)
        enough = of >= check_support(min_support)
        void, groups = self._void(enough), enough.sum(-1)
        pooled = reference == "pooled"
        many = int((groups if pooled else groups * (groups - 1) // 2).sum())
        rate = wilson(hits, of, level=level, comparisons=many).where(enough)
        compare: Callable[[Kind], Bounded] = partial(pairs, rate)
        if pooled:
            every = of.sum(-1, keepdims=True)
            others = hits.sum(-1, keepdims=True) - hits
            rest = wilson(others, every - of, level=level, comparisons=many)
            compare = partial(against_all, rate, rest, of / np.maximum(every, 1))
        mean = "" if over == "worst" or len(self.rates) == 1 else ", mean over classes"
        found = []
        for kind in kinds:
            contrast = compare(kind)
            folded, where = fold(contrast, void, kind, over)
            recovered = "Newcombe" if kind == "difference" else "Donner-Zou"
            gap = Gap(
                f"{self.name} {kind}",
                *folded,
                *self._widest(where, of, kind, reference),
                reference,
                f"{recovered}, Bonferroni over {max(many, 1)}{mean}",
                level,
                self._left_out(of, enough, void, contrast, min_support),
            )
            found.append(gap)
        return found

    def _widest(
        self, where: tuple[int, ...] | None, of: Ints, kind: Kind, reference: Reference
    ) -> tuple[tuple[str, str] | None, tuple[int, int], str]:
        if where is None:
            return None, (0, 0), ""
        k, f, i, j = where
        names, n = self.counts.groups, of[k, f]
        if reference == "pooled":
            sides = ((names[i], int(n[i])), ("all", int(n.sum())))
            sides = sides if j == 0 else sides[::-1]
        else:
            sides = ((names[i], int(n[i])), (names[j], int(n[j])))
        (high, n_high), (low, n_low) = sides if kind == "difference" else sides[::-1]
        return (high, low), (n_high, n_low), self.rates[k][f]

    def _left_out(
        self, of: Ints, enough: Bools, void: Bools, contrast: Bounded, min_support: int
    ) -> tuple[Excluded, ...]:
        out = [
            Excluded.too_few(self.counts.groups[g], int(of[k, f, g]), min_support, self.rates[k][f])
            for k, f, g in np.argwhere(~enough)
        ]
        undefined = np.isnan(contrast.value).all((-1, -2)) & ~void[:, None]
        for k, names in enumerate(self.rates):
            if void[k]:
                total = int(of[k].sum())
                out.append(Excluded(" and ".join(names), "fewer than two groups have it", total))
            out += [
                Excluded(name, "0 in every group, no ratio", int(of[k, f].sum()))
                for f, name in enumerate(names)
                if undefined[k, f]
            ]
        return tuple(out)
