"""What was run, exactly: configuration, seeds, versions, cost."""

from __future__ import annotations

import json

import yaml

from evenloop.report.command import command_of
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

ORDER = 90


def build(study: Study) -> Section:
    """Always applies."""
    record = next(iter(study.records.values()))
    manifest = record.manifest
    config = yaml.safe_dump(study.config.identity(), sort_keys=False).splitlines()
    about = study.config.about
    rows = [
        ("paper", about.paper),
        ("figure", about.figure),
        *(("note", note) for note in manifest.get("notes", ())),
        ("seeds", ", ".join(map(str, study.records))),
        ("trainer", str(manifest.get("trainer", ""))),
        ("evenloop", f"{manifest.get('evenloop', '')} (source {manifest.get('source', '')})"),
        *((name, str(v)) for name, v in manifest.get("versions", {}).items()),
        ("CPU seconds", _cpu(study)),
        ("command", command_of(study.config)),
    ]
    known = [(name, value) for name, value in rows if value]
    return Section(
        "Settings",
        tables=[
            Table("The run", ("what", "value"), known),
            Table("Configuration", ("resolved values",), [(line,) for line in config], folded=True),
        ],
    )


def _cpu(study: Study) -> str:
    total, found = 0.0, False
    for record in study.records.values():
        path = record.folder / "timing.jsonl" if record.folder else None
        if path and path.exists():
            found = True
            total += sum(json.loads(line)["cpu_seconds"] for line in path.read_text().splitlines())
    return f"{total:.0f} in all" if found else ""
