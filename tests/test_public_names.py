"""What a stranger may import: every name is there, lazy, typed, and shown by an example."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evenloop
from evenloop import loops
from evenloop.public import homes

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


def test_names_are_listed_once_in_the_stub_that_type_checkers_read() -> None:
    stub = Path(str(evenloop.__file__)).with_suffix(".pyi").read_text(encoding="utf-8")
    listed = [
        (alias.name, alias.asname)
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert all(name == known_as for name, known_as in listed)
    typed = [name for name, _ in listed]
    assert len(set(typed)) == len(typed)
    found = {loops.class_name(verb) for verb in loops.names()}
    assert {*typed, *found, "__version__"} == set(evenloop.__all__)
    assert set(LOOPS) <= set(typed)
    assert list(evenloop.__all__) == sorted(set(evenloop.__all__))
    assert set(dir(evenloop)) == set(evenloop.__all__)


def test_names_are_read_off_a_stub_and_loops_off_their_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "names", lambda: ["relabel", "self_train"])
    found = homes("import os\nfrom evenloop.rng import Rng as Rng\n\n__version__: str\n")
    assert found == {
        "Relabel": "evenloop.loops.relabel",
        "SelfTrain": "evenloop.loops.self_train",
        "Rng": "evenloop.rng",
    }


def test_a_name_of_several_words_is_found_by_its_file(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "self_train.py").write_text("class SelfTrain:\n    pass\n")
    (tmp_path / "self_made.py").write_text("class Selfmade:\n    pass\n")
    (tmp_path / "_self.py").write_text("")
    monkeypatch.setattr(loops, "__path__", [str(tmp_path)])
    assert loops.names() == ["self_made", "self_train"]
    assert loops.find("self_train").__name__ == "SelfTrain"
    with pytest.raises(TypeError, match=r"loops/self_made\.py must hold a class SelfMade"):
        loops.find("self_made")


WORKS_WITH = {
    "FairBatchSampler": ("CellIndex", "Ratios", "Validation"),
    "RatioBatchSampler": ("CellIndex", "Ratios"),
    "RatioController": ("RatioObjective", "Validation"),
    "bald": ("MCDropout", "score_pool"),
}


@pytest.mark.parametrize("name", WORKS_WITH)
def test_what_a_promised_name_takes_is_public_too(name: str) -> None:
    assert set(WORKS_WITH[name]) <= set(evenloop.__all__)


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
