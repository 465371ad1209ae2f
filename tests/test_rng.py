"""Named streams: equal by path, apart by anything else, untouched by use."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evenloop.rng import Rng


def test_the_same_path_draws_the_same() -> None:
    a, b = (Rng.of(3).at("round", 2, "fit") for _ in range(2))
    assert torch.equal(torch.rand(5, generator=a.gen()), torch.rand(5, generator=b.gen()))
    np.testing.assert_array_equal(a.numpy().random(5), b.numpy().random(5))


def test_a_stream_is_a_value() -> None:
    stream = Rng.of(3).at("x")
    first = torch.rand(3, generator=stream.gen())
    assert torch.equal(first, torch.rand(3, generator=stream.gen()))


@pytest.mark.parametrize(
    "other", [("b",), ("a", "b"), (1,), ("1",), ("a", 1), ("a", "1"), ("a/1",), ()]
)
def test_any_difference_is_another_stream(other: tuple[str | int, ...]) -> None:
    paths = [("b",), ("a", "b"), (1,), ("1",), ("a", 1), ("a", "1"), ("a/1",), ()]
    seeds = {path: Rng.of(0).at(*path).seed for path in paths}
    assert sum(seed == seeds[other] for seed in seeds.values()) == 1
    assert seeds[other] != Rng.of(1).at(*other).seed


def test_two_steps_are_one_path() -> None:
    assert Rng.of(0).at("a").at("b") == Rng.of(0).at("a", "b")


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, "3"])
def test_a_seed_that_is_none(seed: object) -> None:
    with pytest.raises(ValueError, match="seed must be an integer"):
        Rng.of(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_a_seed_that_is_one(seed: int) -> None:
    assert 0 <= Rng.of(seed).seed < 2**63
