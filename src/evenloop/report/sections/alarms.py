"""Alarms of the data and those a run raised, the first of every seed, and why it stopped."""

from __future__ import annotations

from evenloop.report.sections import Section
from evenloop.report.study import Study

ORDER = 15
SHOWN = 6


def build(study: Study) -> Section | None:
    """The section, where there was an alarm, of the data too, or a stop before the last round."""
    first = next(iter(study.records.values())).manifest
    before = [str(alarm) for alarm in first.get("alarms", ())]  # of the data, so of every seed
    shown, total = [], 0
    for seed, record in study.records.items():
        alarms = [alarm for row in record.rows for alarm in row.alarms]
        total += len(alarms)
        if alarms:
            more = f" ({len(alarms) - 1} more of this seed in rows.jsonl)" if alarms[1:] else ""
            shown.append(f"seed {seed}, {alarms[0]}{more}")
    stops = sorted({r.rows[-1].stop for r in study.records.values() if r.rows[-1].stop})
    if not total and not stops and not before:
        return None
    if len(shown) > SHOWN:
        shown = [*shown[:SHOWN], f"and alarms of {len(shown) - SHOWN} more seeds"]
    text = [f"Stopped: {stop}." for stop in stops]
    more = f" ({len(before) - 1} more of the data below)" if before[1:] else ""
    count = [f"{alarm}{more}." for alarm in before[:1]]
    if total:
        seeds = sum(any(row.alarms for row in r.rows) for r in study.records.values())
        what = f"{total} alarm{'s' if total > 1 else ''}"
        count += [f"{what} in {seeds} of {len(study.records)} seeds while it ran; see below."]
    return Section("Alarms", text=text, alarms=[*before, *shown], summary=count)
