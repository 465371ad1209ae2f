"""What a record says in numbers: one long table of measures with limits and counts.

Everything is computed from the stored counts and moments, so a measure added here appears for runs
that were made before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd

from evenloop import measures
from evenloop.claims import sized_factor
from evenloop.record import Record, Row
from evenloop.shares import Z95, Measured, share_bias, share_gap

__all__ = ["COLUMNS", "frame", "of_record"]

COLUMNS = ("seed", "round", "stage", "split", "group", "metric", "value", "low", "high", "n")
Entry = Mapping[str, Any]


def frame(records: Mapping[int, Record], *, track: int | None, groups: bool) -> pd.DataFrame:
    """The long table of every seed's record, with the columns `COLUMNS`.

    Args:
        records: by seed.
        track: class code whose share is the bias statistic, if there is one.
        groups: whether the groups are people's (parity gaps are of interest), not the classes.
    """
    rows = [
        {"seed": seed, **entry}
        for seed, record in records.items()
        for entry in of_record(record.rows, track=track, groups=groups)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def of_record(rows: Sequence[Row], *, track: int | None, groups: bool) -> Iterator[Entry]:
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
            if name not in ("audit", "train"):
                yield from at.estimate(name, measures.accuracy(counts.pooled()))
            if f"{name}.reference" in row.counts:
                yield from _excess(at, row, name)
    if track is not None and rows and "audit" in rows[0].counts:
        yield from _bounds(rows, track)


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

    def gap(self, gap: measures.Gap) -> Entry:
        n = min(gap.support) if gap.between else 0
        return self.entry("audit", "all", gap.name, gap.value, gap.low, gap.high, n)

    def measured(self, split: str, metric: str, value: Measured) -> Entry:
        low, high = value.value - Z95 * value.se, value.value + Z95 * value.se
        return self.entry(split, "all", metric, value.value, low, high, value.n)


def _sizes(at: _At, row: Row) -> Iterator[Entry]:
    total = row.sizes["train"]
    for name, size in row.sizes.items():
        yield at.entry("train", "all", f"rows {name}", float(size), n=total)
    for name in ("relabelled", "generated"):
        yield at.entry("train", "all", f"share {name}", row.sizes[name] / total, n=total)


def _labels(at: _At, row: Row, track: int | None) -> Iterator[Entry]:
    """Shares of the classes in the labels that were trained on, exact: they are all counted."""
    counts = row.counts["train"]
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
    yield from at.estimate("audit", measures.accuracy(pooled))
    if len(counts.groups) > 1:
        yield from at.estimate("audit", measures.accuracy(counts))
        yield from at.estimate("audit", measures.worst_group_accuracy(counts))
        yield at.gap(measures.accuracy_parity(counts).difference())
    if groups:
        yield from at.estimate("audit", measures.worst_cell_accuracy(counts))
        for parity in (
            measures.demographic_parity(counts),
            measures.equalized_odds(counts),
            measures.equal_opportunity(counts),
            measures.predictive_parity(counts),
        ):
            yield at.gap(parity.difference())
    if "audit.loss" in row.moments:
        loss = measures.mean(row.moments["audit.loss"], name="log loss")
        yield from at.estimate("audit", loss)
    if "audit.confidence" in row.moments:
        error = measures.expected_calibration_error(
            row.moments["audit.confidence"], row.moments["audit.hit"]
        )
        yield from at.estimate("audit", error)
    if track is not None:
        yield from at.estimate("audit", measures.predicted_share(pooled, track))
        yield from at.estimate("audit", measures.true_share(pooled, track))
        yield at.measured("audit", "bias", share_bias(counts, track))
        yield at.measured("audit", "gap to labels", share_gap(counts, row.counts["train"], track))
        if groups:
            yield from at.estimate("audit", measures.predicted_share(counts, track))


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
        yield {**at.gap(gap), "split": split}


def _bounds(rows: Sequence[Row], track: int) -> Iterator[Entry]:
    """Both feedback bounds, signed like the tolerance they are made of."""
    first = share_bias(rows[0].counts["audit"], track)
    factors = sized_factor([row.sizes for row in rows])
    largest = first
    for row, factor in zip(rows, factors, strict=True):
        gap = share_gap(row.counts["audit"], row.counts["train"], track)
        largest = max(largest, gap, key=lambda m: abs(m.value))
        at = _At(row.round)
        for metric, delta in (("bound of round 0", first), ("bound of largest gap", largest)):
            scaled = Measured(factor * delta.value, factor * delta.se, delta.n)
            yield at.measured("audit", metric, scaled)
