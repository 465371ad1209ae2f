"""Every benchmark in one command: `python -m benchmarks [NAME ...]` rewrites RESULTS.md.

A benchmark is a module `bench_<name>` with `rows()`: dicts of name, ours, baseline, ratio,
target and unit. Ratios are taken inside one process, on one thread, in CPU time; a row that
needs an original program or data that is not there is left out by its module. With names, only
those are measured and the others' lines stay.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
KEPT, SHOWN = HERE / "results.json", HERE / "RESULTS.md"


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
            f"{result['machine']}",
            "",
            "| what | ours | other | unit | ratio | target | met |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in result["rows"]:
            numbers = [f"{float(row[k]):.4g}" for k in ("ours", "baseline")]
            lines.append(
                f"| {row['name']} | {numbers[0]} | {numbers[1]} | {row['unit']} | "
                f"{float(row['ratio']):.3g} | {row['target']} | {met(row)} |"
            )
        lines += [f"\n{row['note']}" for row in result["rows"] if row.get("note")]
        lines.append("")
    return "\n".join(lines)


def main(wanted: list[str]) -> None:
    """Measure `wanted`, or everything, and rewrite the page."""
    unknown = set(wanted) - set(names())
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names())}")
    torch.set_num_threads(1)
    results = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    machine = f"Python {platform.python_version()}, torch {torch.__version__}, one CPU thread."
    for name in wanted or names():
        print(f"measuring {name}", flush=True)
        rows = importlib.import_module(f"benchmarks.bench_{name}").rows()
        results[name] = {"machine": machine, "rows": rows}
        KEPT.write_text(json.dumps(results, indent=1) + "\n")
        SHOWN.write_text(page(results))
    print(SHOWN.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
