"""Rules of other libraries, called through their own interface."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from evenloop.heuristics.external import from_baal, skactiveml_selection, strategy
from evenloop.heuristics.uncertainty import bald


class Baal:
    """The shape of a BaaL heuristic."""

    def __init__(self, reversed: bool) -> None:
        self.reversed = reversed

    def compute_score(self, predictions: np.ndarray) -> np.ndarray:
        assert predictions.min() >= 0
        return np.asarray(bald(predictions))


def test_a_baal_heuristic_gets_probabilities_and_says_its_direction() -> None:
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    score = bald(logits, kind="logits")
    assert torch.equal(from_baal(Baal(True))(logits, kind="logits"), score)
    assert torch.equal(from_baal(Baal(False))(logits, kind="logits"), -score)
    with pytest.raises(TypeError, match="compute_score"):
        from_baal(object())


class Farthest:
    """The shape of a scikit-activeml pool strategy."""

    def __init__(self, spoil: int | None = None) -> None:
        self.spoil = spoil

    def query(self, X: Any, y: Any, *, candidates: Any, batch_size: int) -> np.ndarray:
        assert np.isnan(y[candidates]).all()
        assert not np.isnan(np.delete(y, candidates)).any()
        order = candidates[np.argsort(-np.abs(X[candidates, 0]))][:batch_size]
        return order if self.spoil is None else np.full(batch_size, self.spoil)


@pytest.fixture
def skactiveml(monkeypatch: pytest.MonkeyPatch) -> None:
    package, utils = ModuleType("skactiveml"), ModuleType("skactiveml.utils")
    utils.MISSING_LABEL = float("nan")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "skactiveml", package)
    monkeypatch.setitem(sys.modules, "skactiveml.utils", utils)


@pytest.mark.usefixtures("skactiveml")
def test_a_strategy_sees_what_is_labelled_and_answers_in_pool_positions() -> None:
    pool, labelled = torch.tensor([[1.0], [-3.0], [2.0]]), torch.tensor([[9.0], [8.0]])
    y = torch.tensor([0, 1])
    assert skactiveml_selection(Farthest(), pool, labelled, y, 2).tolist() == [1, 2]
    assert skactiveml_selection(Farthest(), pool, labelled, y, 9).tolist() == [1, 2, 0]
    for spoil in (0, 3):
        with pytest.raises(ValueError, match="not 2 distinct"):
            skactiveml_selection(Farthest(spoil), pool, labelled, y, 2)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skactiveml", None)
    monkeypatch.setitem(sys.modules, "skactiveml.utils", None)
    with pytest.raises(ModuleNotFoundError, match=r"evenloop\[active\]"):
        skactiveml_selection(Farthest(), torch.ones(1, 1), torch.ones(1, 1), torch.ones(1), 1)
    monkeypatch.setitem(sys.modules, "skactiveml.pool", None)
    with pytest.raises(ModuleNotFoundError, match=r"evenloop\[active\]"):
        strategy("typiclust", seed=0)


def test_strategies_are_known_by_name() -> None:
    with pytest.raises(ValueError, match="there are: typiclust, probcover"):
        strategy("typicluster", seed=0)
    pytest.importorskip("skactiveml.pool", reason="needs the extra `active`")
    assert type(strategy("probcover", seed=0)).__name__ == "ProbCover"


def test_a_real_strategy_of_scikit_activeml() -> None:
    pool_strategies = pytest.importorskip("skactiveml.pool", reason="needs the extra `active`")
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)).double()
    asked = skactiveml_selection(
        pool_strategies.CoreSet(random_state=0), x[5:], x[:5], torch.arange(5) % 2, 4
    )
    assert len(set(asked.tolist())) == 4
    assert int(asked.max()) < 25
