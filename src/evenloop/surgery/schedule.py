"""How sparse a net is at each epoch: the cubic schedule of gradual magnitude pruning.

Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression"
(ICLR 2018 workshop).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Cubic", "pruned_count"]


@dataclass(frozen=True, slots=True)
class Cubic:
    """Sparsity rising fast, then slowly, from `initial` at epoch `begin` to `final` at `end`.

    s(t) = final + (initial - final) (1 - (t - begin) / (end - begin))^3 in between. Pruning
    happens every `every` epochs from `begin` on, and at `end`.

    Raises:
        ValueError: a sparsity outside [0, 1), a schedule that ends before it starts or gets
            denser, or one-shot pruning (`begin` = `end`) with two different sparsities.

    >>> half = Cubic(0.9, begin=0, end=15)
    >>> [round(half.sparsity(t), 4) for t in (0, 1, 5, 15, 30)]
    [0.0, 0.1683, 0.6333, 0.9, 0.9]
    >>> half.fires(15), half.fires(16)
    (True, False)
    """

    final: float
    begin: int = 0
    end: int = 15
    every: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        for field in ("initial", "final"):
            value = getattr(self, field)
            if not 0 <= value < 1:
                raise ValueError(
                    f"{field} sparsity must be in [0, 1), the share of weights to remove, "
                    f"got {value}"
                )
        if self.final < self.initial:
            raise ValueError(
                f"final sparsity {self.final} is below initial {self.initial}; pruned weights do "
                "not come back"
            )
        if self.begin < 0 or self.end < self.begin:
            raise ValueError(
                f"the schedule must not end before it starts: begin={self.begin}, end={self.end}"
            )
        if self.begin == self.end and self.initial != self.final:
            raise ValueError(
                f"begin = end = {self.begin} prunes at once and needs initial = final, got "
                f"{self.initial} and {self.final}"
            )
        if self.every < 1:
            raise ValueError(f"every must be at least 1 epoch, got {self.every}")

    def sparsity(self, epoch: int) -> float:
        """Share of weights to be zero at `epoch`, in [initial, final]."""
        if epoch <= self.begin:
            return self.initial
        if epoch >= self.end:
            return self.final
        left = 1 - (epoch - self.begin) / (self.end - self.begin)
        return self.final + (self.initial - self.final) * left**3

    def fires(self, epoch: int) -> bool:
        """Whether weights are removed at the start of `epoch`."""
        if not self.begin <= epoch <= self.end:
            return False
        return epoch == self.end or (epoch - self.begin) % self.every == 0


def pruned_count(sparsity: float, n: int) -> int:
    """The ceiling of sparsity * n in exact decimal arithmetic (0.55 of 100 is 55, not 56).

    >>> pruned_count(0.55, 100), pruned_count(1e-6, 50)
    (55, 1)
    """
    return math.ceil(Fraction(repr(round(sparsity, 12))) * n)
