"""Every benchmark in one command: `python -m benchmarks [NAME ...]` rewrites RESULTS.md.

A benchmark is a module `bench_<name>` with `rows()`: dicts of name, ours, baseline, ratio,
target and unit. Ratios are taken inside one process, on one thread, in CPU time; a row that
needs an original program or data that is not there is left out by its module. What was measured
of it last stays on the page, marked as earlier; `--fresh` drops it, as for a row that is no longer
made. With names, only those are measured and the others' lines stay.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
EARLIER = "earlier"


def names() -> list[str]:
    """The benchmarks, by file."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def met(row: dict[str, Any]) -> str:
    """Whether the ratio meets a target such as "<= 1.05"; a target in words is not judged."""
    sign, _, limit = str(row["target"]).partition(" ")
    if sign not in ("<=", ">=", "<", ">"):
        return ""
    ratio, wanted = float(row["ratio"]), float(limit)
    return "yes" if (ratio <= wanted if sign[0] == "<" else ratio >= wanted) else "**no**"


def stamp() -> str:
    """The day and the commit of what is measured now."""
    commit, changed = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "src")
    what = f"commit {commit}{' and changes' if changed else ''}" if commit else "no commit"
    return f"{datetime.now(UTC):%Y-%m-%d}, {what}"


def _git(*words: str) -> str | None:
    """What git says of this checkout, None where there is none."""
    try:
        done = subprocess.run(["git", "-C", HERE.parent, *words], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def merged(last: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The result `now` and, marked with when that was, the rows that only the `last` one has."""
    measured = {row["name"] for row in now["rows"]}
    when = f"{last.get('at', 'day not noted')}, {last.get('machine', '')}"
    kept = [
        {**row, EARLIER: row.get(EARLIER, when)}
        for row in last.get("rows", ())
        if row["name"] not in measured
    ]
    return {**now, "rows": [*now["rows"], *kept]}


def page(results: dict[str, Any]) -> str:
    """The results as a page."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks`. CPU time on one thread, medians; both sides of a",
        "ratio were measured in one run on one machine. `ratio` is ours over the other for costs",
        "(a step, memory) and the other over ours where the target is a speed-up (`>=`).",
        "",
    ]
    for name, result in sorted(results.items()):
        lines += [
            f"## {name}",
            "",
            " ".join(filter(None, (result["machine"], result.get("at")))),
            "",
            "| what | ours | other | unit | ratio | target | met |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in result["rows"]:
            numbers = [f"{float(row[k]):.4g}" for k in ("ours", "baseline")]
            what = f"{row['name']} *({EARLIER})*" if EARLIER in row else row["name"]
            lines.append(
                f"| {what} | {numbers[0]} | {numbers[1]} | {row['unit']} | "
                f"{float(row['ratio']):.3g} | {row['target']} | {met(row)} |"
            )
        lines += [f"\n{row['note']}" for row in result["rows"] if row.get("note")]
        lines += _earlier(result["rows"])
        lines.append("")
    return "\n".join(lines)


def _earlier(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """When the rows were measured that the last run could not measure."""
    for when in dict.fromkeys(row[EARLIER] for row in rows if EARLIER in row):
        names = "; ".join(row["name"] for row in rows if row.get(EARLIER) == when)
        yield (
            f"\n*({EARLIER})*: not measured with the others, for want of the original program or "
            f"the data; kept from {when.rstrip('.')}: {names}."
        )


def main(wanted: Sequence[str], fresh: bool = False) -> None:
    """Measure `wanted`, or everything, and rewrite the page; `fresh` keeps no earlier row."""
    unknown = set(wanted) - set(names())
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names())}")
    torch.set_num_threads(1)
    kept, shown = HERE / "results.json", HERE / "RESULTS.md"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    machine = f"Python {platform.python_version()}, torch {torch.__version__}, one CPU thread."
    for name in wanted or names():
        print(f"measuring {name}", flush=True)
        rows = importlib.import_module(f"benchmarks.bench_{name}").rows()
        now = {"machine": machine, "at": stamp(), "rows": rows}
        results[name] = now if fresh else merged(results.get(name, {}), now)
        kept.write_text(json.dumps(results, indent=1) + "\n")
        shown.write_text(page(results))
    print(shown.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure and rewrite RESULTS.md.")
    parser.add_argument("name", nargs="*", help=f"of {', '.join(names())}; all by default")
    parser.add_argument("--fresh", action="store_true", help="keep no row of an earlier run")
    given = parser.parse_args()
    main(given.name, given.fresh)
