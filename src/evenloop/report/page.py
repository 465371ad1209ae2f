"""The report of a study: `report.html`, one file that opens offline, and `metrics.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from evenloop import __version__
from evenloop.inputs import ConfigError
from evenloop.record import write_atomically
from evenloop.report.sections import Section, build_all
from evenloop.report.study import Study
from evenloop.study.compare import table_of, tracked
from evenloop.study.seeds import read_study

__all__ = ["Page", "read", "write_page", "write_report"]


@dataclass(frozen=True, slots=True)
class Page:
    """Where the report is, and its verdict in a few plain lines."""

    path: Path
    summary: tuple[str, ...]


def read(folder: Path | str) -> Study:
    """The study in a folder, with its table of measures.

    Raises:
        ConfigError: it is not a study folder, or no round was finished.
    """
    folder = Path(folder)
    if folder.name.startswith("seed-") and (folder.parent / "manifest.json").exists():
        folder = folder.parent
    config, records = read_study(folder)
    records = {seed: record for seed, record in records.items() if record.rows}
    if not records:
        raise ConfigError(f"{folder} has no finished round; continue it with evenloop resume")
    return Study(folder, config, records, table_of(config, records), tracked(config, records))


def write_report(folder: Path | str) -> Page:
    """Write `metrics.parquet` and `report.html` into a study folder, from its counts alone.

    Raises:
        ConfigError: it is not a study folder, or no round was finished.
    """
    study = read(folder)
    study.table.to_parquet(study.folder / "metrics.parquet", index=False)
    return write_page(study.folder / "report.html", "page.html", build_all(study), study=study)


def write_page(path: Path, template: str, sections: Sequence[Section], **shown: object) -> Page:
    """Write `sections` to `path` as `template` puts them; it also sees what is `shown`."""
    loader = jinja2.PackageLoader("evenloop.report")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    summary = tuple(line for section in sections for line in section.summary)
    html = environment.get_template(template).render(
        sections=sections, summary=summary, version=__version__, **shown
    )
    write_atomically(path, html.encode())
    return Page(path, summary)
