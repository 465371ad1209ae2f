"""Arms of a comparison, paired by seed: the same streams, so that luck cancels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import cast

import pandas as pd

from evenloop import metrics
from evenloop.claims import TrainOn
from evenloop.config import RunConfig
from evenloop.inputs import ConfigError
from evenloop.intervals import Runs, across_runs, paired_runs
from evenloop.record import Record
from evenloop.shares import ALIKE
from evenloop.study.seeds import read_study
from evenloop.words import nearest

__all__ = ["Arm", "arms_of", "compare", "last_of", "rows_of", "table_of", "tracked", "trains_on"]


NOTES = "notes"


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One study in a comparison: its name, configuration and long table of measures."""

    name: str
    config: RunConfig
    table: pd.DataFrame

    def values(self, metric: str, split: str, round: int | None) -> dict[int, float]:
        """The metric of every seed at `round`, or at each seed's last round."""
        kept = rows_of(self.table, metric, split)
        kept = kept[kept["group"] == "all"]
        return last_of(kept if round is None else kept[kept["round"] == round])


def last_of(rows: pd.DataFrame) -> dict[int, float]:
    """The value of each seed's last round in a metric's `rows`; seeds without one are left out.

    A value that is not estimable there is missing: that of an earlier round says nothing of the
    last.
    """
    last = rows.sort_values("round").groupby("seed").tail(1)
    pairs = zip(last["seed"], last["value"], strict=True)
    return {int(seed): float(value) for seed, value in pairs if not isnan(value)}


def rows_of(table: pd.DataFrame, metric: str, split: str) -> pd.DataFrame:
    """The metric's rows of a long table on `split`, or in a loop's own notes if it is not there.

    "accuracy@deployed" is the accuracy on the split "deployed", whatever `split` is.
    """
    named = table[table["metric"] == metric]
    kept = named[named["split"] == split]
    if not len(named) and "@" in metric:
        name, _, place = metric.rpartition("@")
        return table[(table["metric"] == name) & (table["split"] == place)]
    return kept if len(kept) else named[named["split"] == NOTES]


def tracked(config: RunConfig, records: Mapping[int, Record]) -> int | None:
    """Code of the class whose share is the study's bias statistic, or None."""
    if config.track is None:
        return None
    for record in records.values():
        for row in record.rows:
            classes = row.counts["train"].classes
            return (
                classes.index(str(config.track)) if isinstance(config.track, str) else config.track
            )
    return None


def table_of(config: RunConfig, records: Mapping[int, Record]) -> pd.DataFrame:
    """The long table of a study."""
    people = not set(config.by) <= {"truth", "label"}
    track = tracked(config, records)
    return metrics.frame(records, track=track, groups=people, train_on=trains_on(config))


def trains_on(config: RunConfig) -> TrainOn:
    """Which labelled rows a study's relabelling loop trains on, "all" where there is none."""
    for entry in config.loop:
        if "relabel" in entry:
            return cast(TrainOn, (entry["relabel"] or {}).get("train_on", "all"))
    return "all"


def arms_of(folders: Sequence[Path], names: Sequence[str] | None = None) -> list[Arm]:
    """The arms in study folders, named by folder or by `names`.

    Raises:
        ConfigError: a folder holds no study or no finished round.
    """
    arms = []
    for place, folder in enumerate(folders):
        config, records = read_study(folder)
        if not records:
            raise ConfigError(f"{folder} has no finished round; continue it with evenloop resume")
        name = names[place] if names else folder.name
        arms.append(Arm(name, config, table_of(config, records)))
    return arms


def compare(
    arms: Sequence[Arm],
    wanted: Sequence[str] = (),
    *,
    split: str = "audit",
    rounds: Sequence[int | None] = (0, None),
    level: float = 0.95,
) -> pd.DataFrame:
    """Each metric of each arm, and its difference from the first arm, over seeds.

    Args:
        arms: at least one; the first is the reference.
        wanted: metrics of the split or, where it has none of that name, of the loops' notes;
            "accuracy@deployed" names a split of its own. By default every one that all arms have
            for the whole split.
        split: "audit", "train" or the name of counts that the loops made themselves.
        rounds: which rounds; None is each seed's last. A round that is the last of every seed
            is not told twice.
        level: of the Student limits.

    Returns:
        One row per metric, round and arm: mean, low, high, sd and n over seeds, and difference,
        difference_low, difference_high, pairs of the paired difference from the first arm. Limits
        are nan ("not estimable between seeds") with one seed or where all seeds agree exactly.

    Raises:
        ConfigError: a metric or split that not all arms have.
    """
    shared = _shared(arms, wanted, split)
    if None in rounds:
        ends = {int(end) for arm in arms for end in arm.table.groupby("seed")["round"].max()}
        rounds = [r for r in rounds if r is None or ends != {r}]
    rows = []
    for metric in wanted or sorted(shared):
        for round in rounds:
            reference = arms[0].values(metric, split, round)
            for place, arm in enumerate(arms):
                mine = arm.values(metric, split, round)
                if not mine:
                    continue  # noted in later rounds only
                paired = place > 0 and bool(reference)
                against = paired_runs(mine, reference, level=level) if paired else None
                shown = "last" if round is None else str(round)
                over = across_runs([*mine.values()], level=level)
                rows.append(
                    {"metric": metric, "round": shown, "arm": arm.name, **_cells(over, against)}
                )
    return pd.DataFrame(rows)


def _shared(arms: Sequence[Arm], wanted: Sequence[str], split: str) -> set[str]:
    """Metrics that all arms have for the whole of `split`, once all that is `wanted` is there."""
    tables = [a.table[a.table["group"] == "all"] for a in arms]
    pairs = [set(zip(t["metric"], t["split"], strict=True)) for t in tables]
    known = set.intersection(*pairs)
    splits = {place for _, place in known}
    shared = {metric for metric, place in known if place == split}
    if not wanted and not shared:
        raise ConfigError(f"no split {split!r} that all have; {nearest(split, splits)}")
    for metric in wanted:
        if all(len(rows_of(table, metric, split)) for table in tables):
            continue
        name, sign, place = metric.rpartition("@")
        if sign and place not in splits:
            raise ConfigError(f"no split {place!r} for {metric!r}; {nearest(place, splits)}")
        there = {m for m, p in known if p == place} if sign else shared
        hint = nearest(name if sign else metric, there)
        raise ConfigError(f"no metric {metric!r} on split {(place if sign else split)!r}; {hint}")
    return shared


def _cells(over: Runs, against: Runs | None) -> dict[str, float]:
    low, high = _limits(over)
    cells = {
        "mean": float(over.mean),
        "low": low,
        "high": high,
        "sd": float(over.sd),
        "n": int(over.n),
    }
    if against is not None:
        low, high = _limits(against)
        cells |= {
            "difference": float(against.mean),
            "difference_low": low,
            "difference_high": high,
            "pairs": int(against.n),
        }
    return cells


def _limits(runs: Runs) -> tuple[float, float]:
    """Limits between seeds; nan where all seeds agree to the last item, which proves nothing."""
    if not runs.sd > ALIKE:
        return nan, nan
    return float(runs.low), float(runs.high)
