"""Alarms a run raised, and why it stopped."""

from __future__ import annotations

from evenloop.report.sections import Section
from evenloop.report.study import Study

ORDER = 5
SHOWN = 12


def build(study: Study) -> Section | None:
    """The section, where there was an alarm or a stop before the last round asked for."""
    alarms = [
        f"seed {seed}, {alarm}"
        for seed, record in study.records.items()
        for row in record.rows
        for alarm in row.alarms
    ]
    stops = sorted({r.rows[-1].stop for r in study.records.values() if r.rows[-1].stop})
    if not alarms and not stops:
        return None
    more = f"and {len(alarms) - SHOWN} more, in rows.jsonl of each seed"
    shown = [*alarms[:SHOWN], more] if len(alarms) > SHOWN else alarms
    text = [f"Stopped: {stop}." for stop in stops]
    count = [f"{len(alarms)} alarm{'s' if len(alarms) > 1 else ''}: {alarms[0]}"] if alarms else []
    return Section("Alarms", text=text, alarms=shown, summary=count)
