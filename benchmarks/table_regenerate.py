"""Tables of docs/regenerate.md: `python -m benchmarks.table_regenerate SWEEP RUNS [key=value ...]`.

One table for each metric of a packaged or own sweep whose runs lie in the folder RUNS, and for the
drift that a judge sees where there is one: every arm's mean of every generation over the seeds that
the sweep asks for, the single seeds of the last, and below it the paired difference from the first
arm with 95% Student limits. Seeds in the folder that the sweep does not ask for (those that
settings were chosen on) are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path

from evenloop.report.generation_arms import JUDGED
from evenloop.study.compare import NOTES, Arm, arms_of, compare
from evenloop.study.seeds import folder_of
from evenloop.study.sweep import load_sweep


def arms(sweep: str, runs: Path, overrides: Sequence[str]) -> tuple[list[Arm], tuple[str, ...]]:
    """The arms of a sweep, each with the seeds it asks for alone, and its metrics."""
    plan = load_sweep(sweep, tuple(overrides))
    found = arms_of([folder_of(c, runs) for c in plan.arms.values()], [*plan.arms])
    kept = []
    for arm, config in zip(found, plan.arms.values(), strict=True):
        kept.append(Arm(arm.name, arm.config, arm.table[arm.table["seed"].isin(config.seeds)]))
    return kept, tuple(plan.metrics)


def table(arms: Sequence[Arm], metric: str) -> Iterator[str]:
    """Lines of Markdown."""
    for place, arm in enumerate(arms):
        rows = arm.table[(arm.table["metric"] == metric) & (arm.table["group"] == "all")]
        split = "audit" if (rows["split"] == "audit").any() else NOTES
        course = rows[rows["split"] == split].pivot(index="round", columns="seed", values="value")
        if place == 0:
            yield "| ".join([f"| {metric} ", *(f"{g} " for g in course.index), "single seeds |"])
            yield "| --- " * (len(course) + 2) + "|"
        last = ", ".join(f"{value:.3f}" for value in course.iloc[-1])
        yield f"| {arm.name} | {' | '.join(f'{v:.3f}' for v in course.mean(axis=1))} | {last} |"


def differences(arms: Sequence[Arm], metrics: Sequence[str]) -> Iterator[str]:
    """Of the last generation, paired by seed."""
    changed = compare(arms, metrics, rounds=(None,))
    for row in changed[changed["arm"] != arms[0].name].to_dict("records"):
        low, high = row["difference_low"], row["difference_high"]
        limits = "no limits" if isnan(low) else f"{low:+.3f} to {high:+.3f}"
        yield (
            f"{row['metric']}: {row['arm']} minus {arms[0].name} {row['difference']:+.3f} "
            f"({limits}, n = {int(row['pairs'])})"
        )


def main(sweep: str, runs: str, *overrides: str) -> None:
    """Print every table of one sweep."""
    found, metrics = arms(sweep, Path(runs), overrides)
    if JUDGED not in metrics and all((arm.table["metric"] == JUDGED).any() for arm in found):
        metrics = (*metrics, JUDGED)
    for metric in metrics:
        print(*table(found, metric), "", sep="\n")
    print(*differences(found, metrics), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
