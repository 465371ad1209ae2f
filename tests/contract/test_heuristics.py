"""What every heuristic keeps to: scores of draws, selections and posteriors, found by their files.

A public function of `heuristics/` whose required arguments all have a name of `ARGUMENTS` is called
with those; one of other arguments is a tool with tests of its own.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evenloop import heuristics
from evenloop.groups import GroupIndex
from evenloop.heuristics.posterior import Posterior, draw_pool
from evenloop.models import seeded
from evenloop.rng import Rng

N, C, T, K = 12, 3, 5, 4


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probabilities(n: int = N) -> Tensor:
    return torch.rand(n, C, T, generator=gen(0)).softmax(1)


ARGUMENTS: dict[str, Callable[[], Any]] = {
    "draws": probabilities,
    "targets": lambda: probabilities(3),
    "probs": lambda: probabilities().mean(2),
    "features": lambda: torch.randn(N, 4, generator=gen(1)),
    "labelled": lambda: torch.randn(2, 4, generator=gen(2)),
    "score": lambda: torch.rand(N, generator=gen(3)),
    "scores": lambda: torch.rand(N, generator=gen(3)),
    "groups": lambda: GroupIndex(torch.arange(N) % 2, ("f", "m", "x")),  # nobody is an x
    "k": lambda: K,
    "rule": lambda: "softmax",
    "generator": lambda: gen(4),
}
# Not of items of a pool: what they return is told by their own tests.
TOOLS = {"probabilities", "joint_information", "mean_probs", "acquisition_probabilities"}


def functions() -> Iterator[Any]:
    """Every public function that can be called with `ARGUMENTS`."""
    for module in pkgutil.iter_modules(heuristics.__path__):
        code = import_module(f"evenloop.heuristics.{module.name}")
        for name in code.__all__:
            made = getattr(code, name)
            if inspect.isfunction(made) and name not in TOOLS and made.__module__ == code.__name__:
                needed = required(made)
                if needed and needed[0] != "groups" and set(needed) <= set(ARGUMENTS):
                    yield pytest.param(made, id=name)


def required(made: Any) -> list[str]:
    """Names of the arguments without a default, and of `generator` where there is one."""
    parameters = inspect.signature(made).parameters
    return [n for n, p in parameters.items() if p.default is p.empty or n == "generator"]


def called(made: Any, **other: Any) -> tuple[Tensor, dict[str, Any]]:
    given = {name: ARGUMENTS[name]() for name in required(made)} | other
    return made(**given), given


FUNCTIONS = [*functions()]


def test_those_of_the_house_are_found() -> None:
    names = {str(one.id) for one in FUNCTIONS}
    assert {"bald", "margin", "batch_bald", "epig", "badge", "balanced_selection"} <= names


@pytest.mark.parametrize("made", FUNCTIONS)
class TestFunctions:
    """A score (N,) of every item, or the positions (k,) of those chosen."""

    def test_it_scores_every_item_or_chooses_k_of_them(self, made: Any) -> None:
        out, given = called(made)
        if "k" in given:
            assert out.dtype == torch.int64
            assert len(out) == len(set(out.tolist())) == K
            assert 0 <= int(out.min()) <= int(out.max()) < N
        else:
            assert out.shape == (N,)
            assert torch.isfinite(out).all()

    def test_it_is_repeatable_and_changes_nothing_it_was_given(self, made: Any) -> None:
        torch_before = torch.random.get_rng_state()
        numpy_before: Any = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
        first, given = called(made)
        again, _ = called(made)
        assert torch.equal(first, again)
        for name, value in given.items():
            if isinstance(value, Tensor):
                assert torch.equal(value, ARGUMENTS[name]()), f"{name} was changed"
        assert torch.equal(torch.random.get_rng_state(), torch_before)
        numpy_after: Any = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
        assert numpy_after["pos"] == numpy_before["pos"]

    def test_a_pool_of_one_item(self, made: Any) -> None:
        needed = required(made)
        few: dict[str, Any] = {
            name: ARGUMENTS[name]()[:1]
            for name in ("draws", "probs", "features", "score", "scores")
            if name in needed
        }
        few |= {"k": 1} if "k" in needed else {}
        few |= (
            {"groups": GroupIndex(torch.zeros(1).long(), ("f", "m"))} if "groups" in needed else {}
        )
        out, _ = called(made, **few)
        assert out.shape == (1,)


def posteriors() -> Iterator[Any]:
    """Every class that draws logits, with how to build it around a net."""
    for module in pkgutil.iter_modules(heuristics.__path__):
        code = import_module(f"evenloop.heuristics.{module.name}")
        for name in code.__all__:
            cls = getattr(code, name)
            if isinstance(cls, type) and Posterior in cls.__mro__[1:]:
                yield pytest.param(cls, id=name)


def around(cls: Any, net: nn.Module) -> Any:
    needed = set(required(cls))
    if needed == {"model"}:
        return cls(net)
    if needed == {"models"}:
        return cls([net, dropping(1)])
    return cls.fit(net, torch.randn(20, 4, generator=gen(6)))


def dropping(seed: int = 0) -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, C))

    return seeded(make, seed).train()


@pytest.mark.parametrize("cls", [*posteriors()])
def test_a_posterior_draws_by_its_stream_and_leaves_the_net_as_it_was(cls: Any) -> None:
    net, x = dropping(), torch.randn(N, 4, generator=gen(5))
    weights = [value.clone() for value in net.state_dict().values()]
    before, drawn = torch.random.get_rng_state(), []
    for seed in (1, 1):
        posterior = around(cls, net)
        drawn.append(draw_pool(posterior, x, rng=Rng.of(seed)))
    assert torch.equal(drawn[0], drawn[1])
    assert drawn[0].shape[:2] == (N, C)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(module.training for module in net.modules())
    assert all(map(torch.equal, weights, net.state_dict().values()))
