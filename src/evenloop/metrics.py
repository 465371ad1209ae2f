"""What a record says in numbers: one long table of measures with limits and counts.

Everything is computed from the stored counts and moments, so a measure added here appears for runs
that were made before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evenloop import measures
from evenloop.claims import TrainOn, feedback_steps, trained
from evenloop.counts import Counts, Moments
from evenloop.measures.proportions import ODDS
from evenloop.measures.table import OF_CLASS
from evenloop.record import Record, Row
from evenloop.shares import Limited, share_bias, share_gap

__all__ = ["COLUMNS", "frame", "of_record"]

COLUMNS = ("seed", "round", "stage", "split", "group", "metric", "value", "low", "high", "n")
Entry = Mapping[str, Any]
ALL = ("all",)
BATCH_LOSS = "batch loss"  # as `evenloop.texts` calls it, whose perplexity weighs rows
OWN_MOMENTS = ("loss", "confidence", "hit", "lost")
# Gaps of a `RateTable` that are a notion of their own; the others are called as their rate.
NOTIONS = {"selection rate": "demographic parity", "true positive rate": "equal opportunity"}


def frame(
    records: Mapping[int, Record],
    *,
    track: int | None,
    groups: bool,
    train_on: TrainOn = "all",
) -> pd.DataFrame:
    """The long table of every seed's record, with the columns `COLUMNS`.

    Limits are at 95 % for one round at a time, but for "bound of largest gap", a maximum over
    rounds, whose limits rest on those of all rounds at once.

    Args:
        records: by seed.
        track: class code whose share is the bias statistic, if there is one.
        groups: whether the groups are people's (parity gaps are of interest), not the classes.
        train_on: which labelled rows a relabelling loop trains on.
    """
    rows = [
        {"seed": seed, **entry}
        for seed, record in records.items()
        for entry in of_record(record.rows, track=track, groups=groups, train_on=train_on)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def of_record(
    rows: Sequence[Row], *, track: int | None, groups: bool, train_on: TrainOn = "all"
) -> Iterator[Entry]:
    """Entries of one record, round by round."""
    for row in rows:
        at = _At(row.round)
        yield from _sizes(at, row)
        yield from _labels(at, row, track)
        if "audit" in row.counts:
            yield from _audit(at, row, track, groups)
        for name, value in row.values.items():
            if not isinstance(value, str):
                yield at.entry("notes", "all", name, float(value))
        for name, counts in row.counts.items():
            if name not in ("audit", "train", "trained"):
                alike = "audit" in row.counts and counts.groups == row.counts["audit"].groups
                yield from _own(at, name, counts, people=groups and alike)
            if f"{name}.reference" in row.counts:
                yield from _excess(at, row, name)
    if track is not None and rows and "audit" in rows[0].counts:
        yield from _bounds(rows, track, train_on)


@dataclass(frozen=True, slots=True)
class _At:
    """Makes the entries of one round."""

    round: int

    def entry(
        self,
        split: str,
        group: str,
        metric: str,
        value: float,
        low: float = nan,
        high: float = nan,
        n: int = 0,
    ) -> Entry:
        return {
            "round": self.round,
            "stage": "round",
            "split": split,
            "group": group,
            "metric": metric,
            "value": value,
            "low": low,
            "high": high,
            "n": n,
        }

    def estimate(self, split: str, estimate: measures.Estimate) -> Iterator[Entry]:
        for row in estimate.rows():
            yield self.entry(split, **row)  # type: ignore[arg-type]

    def worst(self, split: str, estimate: measures.Estimate) -> Iterator[Entry]:
        """The group that is worst off, by name, and again for "all", so that runs compare."""
        yield from self.estimate(split, estimate)
        for row in estimate.rows():
            yield self.entry(split, **{**row, "group": "all"})  # type: ignore[arg-type]

    def gap(self, split: str, gap: measures.Gap) -> Entry:
        n = min(gap.support) if gap.between else 0
        return self.entry(split, "all", gap.name, gap.value, gap.low, gap.high, n)

    def limited(self, metric: str, share: Limited) -> Entry:
        return self.entry("audit", "all", metric, share.value, share.low, share.high, share.n)


def _sizes(at: _At, row: Row) -> Iterator[Entry]:
    total = row.sizes["train"]
    for name, size in row.sizes.items():
        yield at.entry("train", "all", f"rows {name}", float(size), n=total)
    for name in ("relabelled", "generated"):
        yield at.entry("train", "all", f"share {name}", row.sizes[name] / total, n=total)


def _labels(at: _At, row: Row, track: int | None) -> Iterator[Entry]:
    """Shares of the classes in the labels that were trained on, exact: they are all counted."""
    counts = trained(row)
    table = counts.table.sum(0)
    total = int(table.sum())
    if not total:
        return
    for code, name in enumerate(counts.classes):
        if track in (None, code):
            share = float(table[:, code].sum() / total)
            yield at.entry("train", "all", f"label share of {name}", share, n=total)
    wrong = 1 - float(table.trace() / total)
    yield at.entry("train", "all", "labels that differ from the truth", wrong, n=total)


def _audit(at: _At, row: Row, track: int | None, groups: bool) -> Iterator[Entry]:
    counts = row.counts["audit"]
    pooled = counts.pooled()
    yield from _of_groups(at, "audit", counts, people=groups, track=track)
    if "audit.loss" in row.moments:
        loss = measures.mean(row.moments["audit.loss"], name="log loss")
        yield from at.estimate("audit", loss)
    yield from _written(at, row)
    yield from _perplexities(at, row)
    if "audit.confidence" in row.moments:
        error = measures.expected_calibration_error(
            row.moments["audit.confidence"], row.moments["audit.hit"]
        )
        yield from at.estimate("audit", error)
    if track is not None:
        yield from at.estimate("audit", measures.predicted_share(pooled, track))
        yield from at.estimate("audit", measures.true_share(pooled, track))
        bias = share_bias(counts, track)
        yield at.limited("bias", bias)
        yield at.entry("audit", "all", "size of bias", abs(bias.value), *bias.size(), bias.n)
        yield at.limited("gap to labels", share_gap(counts, trained(row), track))
        if groups:
            yield from at.estimate("audit", measures.predicted_share(counts, track))


def _own(at: _At, name: str, counts: Counts, *, people: bool) -> Iterator[Entry]:
    """A table that a loop made on its own side; a reference model's is what another is held to."""
    if name.endswith(".reference"):
        yield from at.estimate(name, measures.accuracy(counts.pooled()))
    else:
        yield from _of_groups(at, name, counts, people=people)


def _of_groups(
    at: _At, split: str, counts: Counts, *, people: bool, track: int | None = None
) -> Iterator[Entry]:
    """Accuracy of all and of every group, and gaps; parities where the groups are `people`'s.

    The selection rate of the class `track` is left to who tells its share.
    """
    yield from at.estimate(split, measures.accuracy(counts.pooled()))
    if len(counts.groups) > 1:
        yield from at.estimate(split, measures.accuracy(counts))
        yield from at.worst(split, measures.worst_group_accuracy(counts))
        yield at.gap(split, measures.accuracy_parity(counts).difference())
    if people:
        yield from at.worst(split, measures.worst_cell_accuracy(counts))
        for parity in (
            measures.demographic_parity(counts),
            measures.equalized_odds(counts),
            measures.equal_opportunity(counts),
        ):
            yield at.gap(split, parity.difference())
        yield from _precision_gaps(at, split, counts)
        if len(counts.classes) == 2:
            yield from _rates(at, split, counts, told=track)


def _rates(at: _At, split: str, counts: Counts, *, told: int | None) -> Iterator[Entry]:
    """Every rate of the second of two classes, by group and of all, with differences and ratios.

    Of more classes no one is the benefit, and each would bring as many rows again. A selection
    rate that is `told` already is left out, as are the differences that parities are.
    """
    table = measures.rate_table(counts)
    for row, rate in enumerate(table.rates):
        if rate == "accuracy" or (rate == "selection rate" and told == 1):
            continue
        yield from at.estimate(split, table[rate])
        n = int(table.overall_support[row])
        value, low, high = map(float, table.overall.at(row))
        yield at.entry(split, "all", f"{rate} of {table.klass}", value, low, high, n)
    if len(counts.groups) < 2:
        return
    fewest = [_fewest(of) for of in table.support]
    odds = min(fewest[table.rates.index(rate)] for rate in ODDS)
    for gap, n in zip(table.gaps, (*fewest, odds), strict=True):
        shown = [(f"{NOTIONS.get(gap, gap)} ratio", table.gap(gap, "ratio"))]
        if gap in OF_CLASS and gap not in NOTIONS:
            shown.insert(0, (f"{gap} difference", table.gap(gap)))
        for name, found in shown:
            value, low, high = map(float, found)
            yield at.entry(split, "all", name, value, low, high, 0 if isnan(value) else n)


def _fewest(support: NDArray[np.int64]) -> int:
    """Items behind the thinnest of the rates that a gap compares; 0 where there are not two."""
    there = support[support > 0]
    return int(there.min()) if len(there) > 1 else 0


def _precision_gaps(at: _At, split: str, counts: Counts) -> Iterator[Entry]:
    """Predictive parity of every class, the widest distance and the mean over classes.

    Of two classes both must have it: the wider one alone would hide that a class is never
    predicted for a group, and which class was read would hang on their order.
    """
    two = counts.classes if len(counts.classes) == 2 else ()
    each = [measures.predictive_parity(counts, [c]).difference() for c in two]
    missing = not all(gap.estimable for gap in each)
    whole = measures.predictive_parity(counts, counts.classes)
    for gap, of in (
        (whole.difference(), ""),
        (whole.difference(over="mean"), ", mean over classes"),
    ):
        shown = replace(gap, value=nan, low=nan, high=nan, between=None) if missing else gap
        yield {**at.gap(split, shown), "metric": gap.name + of}


def _written(at: _At, row: Row) -> Iterator[Entry]:
    """Statistics of labels, as written, as people give them and as trained on; scores; biases.

    What adds up over groups is also given for all of them together.
    """
    for key, moments in row.moments.items():
        split, _, name = key.partition(".")
        if split == "train":
            yield from _with_all(at, "train", moments, name)
        elif key.endswith((".predicted", ".truth")):
            name, _, side = name.rpartition(".")
            whose = "predicted" if side == "predicted" else "true"
            yield from _with_all(at, "audit", moments, f"{whose} {name}")
        elif split == "audit" and name not in OWN_MOMENTS:
            name = name.removesuffix(".all")
            if name == BATCH_LOSS:
                continue
            of = name.removesuffix(".bias")
            shown = "log loss" if name == "loss" else f"bias of {of}" if of != name else name
            yield from at.estimate("audit", measures.mean(moments, name=shown))


def _perplexities(at: _At, row: Row) -> Iterator[Entry]:
    """Of people's texts: by tokens, and as published, where batches weigh by their rows."""
    for key, moments in row.moments.items() if f"audit.{BATCH_LOSS}" in row.moments else ():
        name = key.removeprefix("audit.").removesuffix(".all")
        if name == "loss":
            loss = measures.mean(moments, name="perplexity")
            limits = {part: np.exp(getattr(loss, part)) for part in ("value", "low", "high")}
            yield from at.estimate("audit", replace(loss, **limits))
        elif name == BATCH_LOSS and moments.groups == ALL:
            # Rows of a batch share one number, so their spread gives no limits.
            n, total = moments.table[0, :2]
            published = float(np.exp(total / n))
            yield at.entry("audit", "all", "published perplexity", published, n=int(n))


def _with_all(at: _At, split: str, moments: Moments, name: str) -> Iterator[Entry]:
    yield from at.estimate(split, measures.mean(moments, name=name))
    if moments.groups != ALL:
        together = Moments(moments.table.sum(0, keepdims=True), ALL)
        yield from at.estimate(split, measures.mean(together, name=name))


def _excess(at: _At, row: Row, split: str) -> Iterator[Entry]:
    """What every group lost against the reference model, beyond what all items lost."""
    found = measures.excess_gap(
        row.counts[f"{split}.reference"],
        row.counts[split],
        tolerance=0.0,
        lost=row.moments.get(f"{split}.lost"),
    )
    yield from at.estimate(split, found.excess)
    for gap in (found.worst, found.pairwise):
        yield at.gap(split, gap)


def _bounds(rows: Sequence[Row], track: int, train_on: TrainOn) -> Iterator[Entry]:
    """Both feedback bounds, signed like the tolerance they are made of."""
    first = share_bias(rows[0].counts["audit"], track)
    for step in feedback_steps(rows, track, train_on=train_on):
        at, factor = _At(step.round), step.factor
        yield at.entry("audit", "all", "bound over tolerance", factor)
        low, high = factor * first.low, factor * first.high
        yield at.entry("audit", "all", "bound of round 0", step.first_bound, low, high, first.n)
        sign = -1.0 if step.largest < 0 else 1.0
        low, high = sorted(sign * factor * size for size in step.largest_size)
        largest = step.largest_bound
        yield at.entry("audit", "all", "bound of largest gap", largest, low, high, step.gap.n)
