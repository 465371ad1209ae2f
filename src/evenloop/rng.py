"""Named random streams.

A stream is a path of names folded from one seed. Adding a stream never shifts another, and two
runs with the same seed, purpose and round draw the same numbers, which is what lets two arms of
a comparison be paired (common random numbers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

__all__ = ["Rng", "seeded"]

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Rng:
    """One named stream; a value, so drawing from it twice gives the same numbers.

    >>> root = Rng.of(7)
    >>> root.at("round", 3, "fit").name
    'round/3/fit'
    >>> root.at("fit").seed == root.at("fit").seed
    True
    >>> root.at("fit").seed == root.at("draw").seed
    False
    """

    key: bytes
    name: str = ""

    @staticmethod
    def of(seed: int) -> Rng:
        """The root stream of a run.

        Args:
            seed: any integer in [0, 2**63).

        Raises:
            ValueError: if the seed is not an integer in that range.
        """
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise ValueError(f"seed must be an integer in [0, 2**63), got {seed!r}")
        return Rng(hashlib.blake2b(seed.to_bytes(8, "big"), digest_size=16).digest())

    def at(self, *path: str | int) -> Rng:
        """The stream below this one at `path`; integers and strings are told apart."""
        key, name = self.key, self.name
        for part in path:
            step = f"{type(part).__name__}:{part}".encode()
            key = hashlib.blake2b(step, key=key, digest_size=16).digest()
            name = f"{name}/{part}" if name else str(part)
        return Rng(key, name)

    @property
    def seed(self) -> int:
        """This stream as an integer in [0, 2**63), for libraries that take a seed."""
        return int.from_bytes(self.key[:8], "big") >> 1

    def gen(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh torch generator at the start of this stream."""
        return torch.Generator(device=device).manual_seed(self.seed)

    def numpy(self) -> np.random.Generator:
        """A fresh NumPy generator at the start of this stream."""
        return np.random.Generator(np.random.Philox(key=int.from_bytes(self.key, "big")))


def seeded(factory: Callable[[], M], seed: int) -> M:
    """`factory()`, where what it draws from torch's global generator depends on `seed` alone.

    So do a module's initial weights. The global generators are as before. The factory builds on
    the CPU; move the module afterwards.

    >>> a, b = (seeded(lambda: torch.nn.Linear(2, 2), 5) for _ in range(2))
    >>> bool((a.weight == b.weight).all())
    True
    """
    with torch.random.fork_rng(devices=[]):
        # The CPU generator alone: torch.manual_seed would seed the GPUs too, which are not forked.
        torch.default_generator.manual_seed(seed)
        return factory()
