"""What a stranger may import: every name is there, lazy, typed, and shown by an example."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import evenloop

BINDING = (
    "feedback_bound", "stratified_batch", "RatioBatchSampler", "RatioController",
    "FairBatchSampler", "AccuracyGap", "EqualizedLoss", "GradualMagnitudePruning", "bald",
    "predictive_entropy", "margin", "batch_bald", "epig", "balanced_selection",
    "GradientReversal", "AdversarialObjective", "repair_weights", "group_rates", "group_gaps",
    "bootstrap_gaps",
)  # fmt: skip
SEAMS = ("Sampler", "Objective", "Surgery", "Batch", "Seen")
LOOPS = ("Acquire", "Mix", "Prune", "Regenerate", "Relabel")


@pytest.mark.parametrize("name", [*BINDING, *SEAMS, *LOOPS])
def test_a_promised_name_is_public(name: str) -> None:
    assert name in evenloop.__all__
    assert getattr(evenloop, name).__name__ == name


def test_every_public_name_is_found_where_it_says() -> None:
    for name in evenloop.__all__:
        assert getattr(evenloop, name) is not None, name


def test_names_are_listed_once_in_order_and_for_type_checkers_too() -> None:
    assert list(evenloop.__all__) == sorted(set(evenloop.__all__))
    tree = ast.parse(Path(str(evenloop.__file__)).read_text(encoding="utf-8"))
    typed = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.If)
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert typed == set(evenloop.__all__) - {"__version__"}
    assert set(dir(evenloop)) == set(evenloop.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'feedback_bounds'"):
        _ = evenloop.feedback_bounds


def examples_of(name: str) -> int:
    value = getattr(evenloop, name)
    module = importlib.import_module(value.__module__)
    found = doctest.DocTestFinder(recurse=True).find(value, name, module=module)
    return sum(len(test.examples) for test in found)


@pytest.mark.parametrize("name", BINDING)
def test_a_promised_name_has_an_example_that_doctest_runs(name: str) -> None:
    assert examples_of(name) > 0
    source = inspect.getsourcefile(getattr(evenloop, name))
    assert source is not None
    assert Path(source).is_relative_to(Path(str(evenloop.__file__)).parent)


def test_a_name_without_an_example_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def bare() -> None:
        """Nothing to run."""

    monkeypatch.setattr(evenloop, "bare", bare, raising=False)
    bare.__module__ = __name__
    assert examples_of("bare") == 0


def test_one_name_loads_no_more_than_it_needs() -> None:
    code = (
        "import sys, evenloop; before = 'torch' in sys.modules; from evenloop import feedback_bound"
        "; print(before, 'torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
