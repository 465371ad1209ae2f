"""From shares to members: whole counts with an exact total, and pools that are walked to the end.

Systematic sampling on fractional parts: Madow (1949), "On the theory of systematic sampling, II".
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Ints", "Pools", "Rounding", "cell_counts", "whole", "whole_numpy"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Rounding = Literal["stochastic", "largest_remainder", "independent"]


def whole(target: Tensor, total: int, rounding: Rounding, generator: torch.Generator) -> Tensor:
    """(K,) int64 counts for real-valued targets (K,) that sum to `total`.

    `stochastic`: every count is the floor or the ceiling of its target, its expectation is the
    target, and the sum is exact. `largest_remainder`: the same without chance (ties go to the
    first). `independent`: each target rounded alone, halves to even; the sum may drift.

    Raises:
        ValueError: an unknown rounding, or targets that do not sum to `total`.

    >>> import torch
    >>> target = torch.tensor([1.6, 0.7, 0.7])
    >>> whole(target, 3, "independent", torch.Generator()).tolist()
    [2, 1, 1]
    >>> whole(target, 3, "largest_remainder", torch.Generator()).tolist()
    [1, 1, 1]
    """
    return torch.from_numpy(whole_numpy(target.double().numpy(), total, rounding, generator))


def whole_numpy(target: Floats, total: int, rounding: Rounding, generator: torch.Generator) -> Ints:
    """`whole` on NumPy arrays, for the hot path."""
    if rounding == "independent":
        return np.rint(target).astype(np.int64)
    if rounding not in get_args(Rounding):
        raise ValueError(f"rounding must be one of {get_args(Rounding)}, got {rounding!r}")
    floor = np.floor(target)
    missing = total - int(floor.sum())
    fraction = target - floor
    if abs(missing - fraction.sum()) > 1e-6 * max(total, 1):
        raise ValueError(f"targets sum to {target.sum():.6g}, but the batch holds {total}")
    counts = floor.astype(np.int64)
    if missing == 0:
        return counts
    if rounding == "largest_remainder":
        counts[np.argsort(-fraction, kind="stable")[:missing]] += 1
        return counts
    # One uniform orders the cells, one places the comb whose teeth hand out the missing slots.
    chance = torch.rand(len(target) + 1, generator=generator, dtype=torch.float64).numpy()
    order = np.argsort(chance[1:])
    edge = np.cumsum(fraction[order])
    edge[-1] = missing
    teeth = np.floor(edge - chance[0])
    gained = np.diff(teeth, prepend=np.floor(-chance[0]))
    counts[order] += gained.astype(np.int64)
    return counts


def cell_counts(
    lam: Tensor,
    mu: Tensor,
    quota: Tensor,
    total: int,
    rounding: Rounding = "stochastic",
    generator: torch.Generator | None = None,
) -> Tensor:
    """(2, C, G) int64 real and generated members of every cell of a batch.

    Args:
        lam: (C, G) share of each group inside its label; rows sum to one.
        mu: (C, G) share of real data inside each cell, in [0, 1].
        quota: (C,) members of each label, real-valued, summing to `total`.
        total: members of the batch.
        rounding: see `whole`.
        generator: needed for "stochastic" rounding only.

    Raises:
        ValueError: stochastic rounding without a generator, or targets that miss the total.

    >>> import torch
    >>> lam, mu = torch.tensor([[0.25, 0.75]]), torch.tensor([[0.125, 0.5]])
    >>> cell_counts(lam, mu, torch.tensor([16.0]), 16, "independent").tolist()
    [[[0, 6]], [[4, 6]]]
    """
    if generator is None:
        if rounding == "stochastic":
            raise ValueError("rounding='stochastic' draws numbers: pass generator=")
        generator = torch.Generator()
    target = torch.stack([mu, 1 - mu]).double() * (lam * quota[:, None]).double()
    return whole(target.flatten(), total, rounding, generator).view(target.shape)


class Pools:
    """The rows of every place, shuffled and walked by a cursor; reshuffled when walked through.

    A place asked for more rows than it has repeats whole passes (warned about once). Rows given
    in one call to one place are distinct unless it is smaller than the request. With
    `replacement=True`, or with weights, every call draws afresh, distinct inside the call: the next
    row is any row of the place not drawn yet, with a chance in proportion to its weight.

    >>> pools = Pools(torch.tensor([4, 2, 7]), torch.tensor([2, 1]), torch.Generator())
    >>> sorted(pools.draw(np.array([2, 0])).tolist()), pools.draw(np.array([0, 1])).tolist()
    ([2, 4], [7])
    """

    def __init__(
        self,
        order: Tensor,
        count: Tensor,
        generator: torch.Generator,
        *,
        replacement: bool = False,
        shuffle: bool = True,
        weight: Tensor | None = None,
    ) -> None:
        """Pools of the rows `order` (N,), which lists `count` (K,) rows of each place in turn.

        `shuffle=False` keeps the given order, also at the wrap: a cyclic walk. `weight` (N,) are
        positive weights of the rows, in the order of `order`.
        """
        self.order = order.numpy().copy()
        self.count = count.numpy().astype(np.int64)
        self.start = np.cumsum(self.count) - self.count
        self.cursor = np.zeros(len(self.count), dtype=np.int64)
        self.generator = generator
        self.replacement, self.shuffle = replacement or weight is not None, shuffle
        self._weight: Floats | None = None if weight is None else weight.double().numpy()
        self._edge = np.cumsum(self._weight) if self._weight is not None else None
        self._warned = False
        self._fresh = np.ones(len(self.count), dtype=bool)  # places not shuffled yet

    def draw(self, wanted: Ints) -> Ints:
        """The next `wanted` (K,) rows of each place, place by place, (sum of wanted,) int64.

        Raises:
            ValueError: rows are wanted from a place that has none.
        """
        asked = np.flatnonzero(wanted)
        if (self.count[asked] == 0).any():
            place = int(asked[self.count[asked] == 0][0])
            raise ValueError(f"{int(wanted[place])} rows wanted from place {place}, which is empty")
        number = wanted[asked]
        if self.replacement:
            pairs = zip(asked.tolist(), number.tolist(), strict=True)
            return np.concatenate([np.zeros(0, np.int64), *(self._afresh(p, n) for p, n in pairs)])
        if self.shuffle and self._fresh[asked].any():
            for place in asked[self._fresh[asked]].tolist():
                self._reshuffle(place)
        if (self.cursor[asked] + number <= self.count[asked]).all():
            first = self.start[asked] + self.cursor[asked]
            ends = np.cumsum(number)
            step = np.arange(ends[-1] if len(ends) else 0) + np.repeat(
                first - ends + number, number
            )
            self.cursor[asked] += number
            return np.asarray(self.order[step])
        pairs = zip(asked.tolist(), number.tolist(), strict=True)
        return np.concatenate([self._walk(place, rows) for place, rows in pairs])

    def _afresh(self, place: int, number: int) -> Ints:
        """`number` rows of one place, distinct as far as it goes, whatever was drawn before."""
        size, start = int(self.count[place]), int(self.start[place])
        self._warn_if_short(place, number)
        passes, left = divmod(number, size)
        if self._edge is not None and self._weight is not None:
            rows, mine = self.order[start : start + size], slice(start, start + size)
            picked = _weighted(self._weight[mine], self._edge[mine], left, self.generator)
            return np.concatenate([np.tile(rows, passes), rows[picked]])
        draws = [torch.randperm(size, generator=self.generator) for _ in range(passes)]
        if 4 * left > size:
            draws.append(torch.randperm(size, generator=self.generator)[:left])
        elif left:
            draws.append(_distinct(size, left, self.generator))
        return np.asarray(self.order[start + torch.cat(draws).numpy()])

    def _warn_if_short(self, place: int, number: int) -> None:
        if number > self.count[place] and not self._warned:
            self._warned = True
            warnings.warn(
                f"{number} rows wanted at once from place {place}, which has "
                f"{self.count[place]}: rows repeat",
                stacklevel=5,
            )

    def _walk(self, place: int, number: int) -> Ints:
        """`number` rows of one place across its end."""
        size, start = int(self.count[place]), int(self.start[place])
        self._warn_if_short(place, number)
        parts: list[Ints] = []
        while number:
            if self.cursor[place] == size:
                self._turn(place, sum(map(len, parts)))
            at = int(self.cursor[place])
            part = self.order[start + at : start + min(size, at + number)].copy()
            parts.append(part)
            self.cursor[place] += len(part)
            number -= len(part)
        return np.concatenate(parts)

    def _turn(self, place: int, given: int) -> None:
        """Start the next pass; rows just given in this call come last in it."""
        size, start = int(self.count[place]), int(self.start[place])
        if self.shuffle:
            given = given % size
            rows = self.order[start : start + size].copy()
            recent, rest = rows[size - given :], rows[: size - given]
            for part in (rest, recent):
                part[:] = part[torch.randperm(len(part), generator=self.generator).numpy()]
            self.order[start : start + size] = np.concatenate([rest, recent])
        self.cursor[place] = 0

    def _reshuffle(self, place: int) -> None:
        size, start = int(self.count[place]), int(self.start[place])
        turn = torch.randperm(size, generator=self.generator).numpy()
        self.order[start : start + size] = self.order[start : start + size][turn]
        self.cursor[place], self._fresh[place] = 0, False

    def state_dict(self) -> dict[str, Any]:
        """Order, cursors and which places were shuffled, as tensors; not the generator."""
        return {
            "order": torch.from_numpy(self.order.copy()),
            "cursor": torch.from_numpy(self.cursor.copy()),
            "fresh": torch.from_numpy(self._fresh.copy()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: the state belongs to pools of another size.
        """
        if state["order"].shape != self.order.shape or state["cursor"].shape != self.cursor.shape:
            raise ValueError(
                f"state holds {len(state['order'])} rows in {len(state['cursor'])} places, these "
                f"pools {len(self.order)} in {len(self.cursor)}"
            )
        self.order = state["order"].numpy().copy()
        self.cursor = state["cursor"].numpy().copy()
        self._fresh = state["fresh"].numpy().copy()


def _weighted(weight: Floats, edge: Floats, number: int, generator: torch.Generator) -> Ints:
    """(number,) distinct places, each in proportion to its weight among those not drawn yet.

    `edge` are the cumulative weights, from any start. A few are drawn with repeats, which are
    passed over: the same as drawing from the rest. Where many of all are wanted, or weights are
    very uneven, exponential clocks decide (Efraimidis and Spirakis, 2006), which is the same again.
    """
    drawn = np.zeros(0, np.int64)
    base = edge[0] - weight[0]
    for _ in range(3 if 4 * number <= len(weight) else 0):
        chance = torch.rand(2 * number, generator=generator, dtype=torch.float64).numpy()
        more = np.searchsorted(edge, base + chance * (edge[-1] - base), side="right")
        drawn = np.concatenate([drawn, np.minimum(more, len(weight) - 1)])
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        if len(drawn) >= number:
            return drawn[:number]
    chance = torch.rand(len(weight), generator=generator, dtype=torch.float64).numpy()
    clock = -np.log1p(-chance) / weight
    clock[drawn] = np.inf
    return np.concatenate([drawn, np.argsort(clock)[: number - len(drawn)]])


def _distinct(size: int, number: int, generator: torch.Generator) -> Tensor:
    """(number,) distinct draws from 0..size-1 for number well below size, without listing them."""
    drawn = torch.zeros(0, dtype=torch.long)
    while True:
        drawn = torch.cat([drawn, torch.randint(size, (2 * number,), generator=generator)])
        values, inverse = torch.unique(drawn, return_inverse=True)
        if len(values) < number:
            continue
        first = torch.full_like(values, len(drawn))
        first = first.scatter_reduce(0, inverse, torch.arange(len(drawn)), "amin")
        return drawn[first.sort().values[:number]]
