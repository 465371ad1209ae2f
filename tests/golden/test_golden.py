"""Replays every golden case: values computed with the original programs.

The folder is EVENLOOP_GOLDEN, or this one. A case is replayed by the adapter whose key is the
longest prefix of its name; a case without one fails, unless `EXCUSED` names it with a reason.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("EVENLOOP_GOLDEN", HERE))
TOLERANCE = 1e-6

# file, case-name prefix, reason. Only two kinds of reason: a fault of the original that is not
# repeated, or a system that is not built yet.
EXCUSED: list[tuple[str, str, str]] = [
    (
        "real_generated_ratio",
        "first_update_has_no_information_ARTEFACT",
        "the original's first update sees rounding noise only; ours is informative",
    ),
]

# The same for one key of what is expected: file, case-name prefix, key, reason.
FAULTS: list[tuple[str, str, str, str]] = [
    (
        "real_generated_ratio",
        "index_selection_without_replacement_",
        "original",
        "the original restarts at a wrong offset after its first wrap-around",
    ),
]

# Where a case gives no tolerance of its own and its text says how closely it was computed: file,
# case-name prefix, tolerance, reason.
TOLERANCES: list[tuple[str, str, float, str]] = [
    (
        "feedback_labels",
        "vrl/crf_",
        1e-4,
        "single precision and 1e-8 inside a logarithm; the case says to compare at 1e-4",
    ),
]

# An adapter takes the inputs; one whose second parameter is called `expected` (a replay of given
# draws) is handed that as well.
Adapter = Callable[..., Any]


@cache
def adapters() -> dict[str, Adapter]:
    """Every adapter of the modules `cases_*` beside this file."""
    found: dict[str, Adapter] = {}
    for module in pkgutil.iter_modules([str(HERE)]):
        if module.name.startswith("cases_"):
            cases: dict[str, Adapter] = importlib.import_module(module.name).CASES
            twice = set(cases) & set(found)
            assert not twice, f"two adapters for {twice}"
            found |= cases
    return found


def adapter(name: str) -> Adapter | None:
    keys = [key for key in adapters() if name.startswith(key)]
    return adapters()[max(keys, key=len)] if keys else None


def excuse(file: str, name: str) -> str | None:
    return next((r for f, p, r in EXCUSED if f == file and name.startswith(p)), None)


def faulty(file: str, name: str, key: str) -> bool:
    return any(f == file and name.startswith(p) and k == key for f, p, k, _ in FAULTS)


def tolerance_of(file: str, case: Mapping[str, Any]) -> Any:
    stated = (t for f, p, t, _ in TOLERANCES if f == file and case["name"].startswith(p))
    return case.get("tolerance", next(stated, TOLERANCE))


def files() -> list[Path]:
    found = sorted(FOLDER.glob("*.json"))
    assert found, f"no golden files in {FOLDER}"
    return found


def cases() -> list[Any]:
    listed = []
    for path in files():
        every = {case["name"]: case for case in json.loads(path.read_text())}
        for name, case in every.items():
            inputs = with_references(case["inputs"], every)
            listed.append(
                pytest.param(path.stem, case | {"inputs": inputs}, id=f"{path.stem}-{name}")
            )
    return listed


def with_references(inputs: Any, every: Mapping[str, Any]) -> Any:
    """An input given as "same as X" is that input of case X."""
    if not isinstance(inputs, dict):
        return inputs
    out = {}
    for key, value in inputs.items():
        if isinstance(value, str) and value.startswith("same as "):
            other = every[value.removeprefix("same as ").strip()]["inputs"]
            out[key] = other.get(key, other)
        else:
            out[key] = value
    return out


@pytest.mark.parametrize(("file", "case"), cases())
def test_case(file: str, case: dict[str, Any]) -> None:
    name = case["name"]
    run = adapter(name)
    if run is None:
        reason = excuse(file, name)
        assert reason is not None, f"no adapter for {name} and no reason why"
        pytest.skip(reason)
    assert excuse(file, name) is None, f"{name} has an adapter; take it off the list"
    want = case["expected"]
    if isinstance(want, dict):
        want = {k: v for k, v in want.items() if not faulty(file, name, k)}
    replay = "expected" in inspect.signature(run).parameters
    got = run(case["inputs"], case["expected"]) if replay else run(case["inputs"])
    agree(got, want, tolerance_of(file, case), name)


def agree(got: Any, want: Any, tolerance: Any, where: str) -> None:
    """Recursive comparison; a tolerance may be one number or a number by key."""
    if isinstance(want, dict):
        assert isinstance(got, Mapping), f"{where}: got {type(got).__name__}"
        missing = set(want) - {str(key) for key in got}
        assert not missing, f"{where}: missing {sorted(missing)}"
        by_text = {str(key): value for key, value in got.items()}
        for key, value in want.items():
            agree(by_text[key], value, _tolerance(tolerance, key), f"{where}.{key}")
    elif isinstance(want, list):
        got = list(got)
        assert len(got) == len(want), f"{where}: {len(got)} values, expected {len(want)}"
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            agree(a, b, tolerance, f"{where}[{i}]")
    elif isinstance(want, bool) or want is None or isinstance(want, str):
        assert got == want, f"{where}: {got!r}, expected {want!r}"
    else:
        limit = max(tolerance.values()) if isinstance(tolerance, dict) else tolerance
        close = math.isclose(float(got), want, rel_tol=limit, abs_tol=limit)
        assert close or (math.isnan(want) and math.isnan(float(got))), (
            f"{where}: {got!r}, expected {want!r} within {limit}"
        )


def _tolerance(tolerance: Any, key: str) -> Any:
    if not isinstance(tolerance, dict):
        return tolerance
    return tolerance.get(key, tolerance)
