"""Batches curated toward an ideal mix of strata (STAR, stratified algorithmic reparation).

Draw more rows than a batch needs, keep of each stratum at most its quota in draw order, and fill
what is missing by a stated rule. Wyllie, Shumailov and Papernot, "Fairness Feedback Loops:
Training on Synthetic Data Amplifies Bias", FAccT 2024. There the strata are two labels times two
groups and the ideal is uniform; here both are free. `evenloop.samplers.quota_plan` says before a
run what a budget can and cannot repair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex, ranks_within
from evenloop.rng import Rng
from evenloop.seams import Sampler

__all__ = ["Fill", "Quota", "Stratified", "Tally", "budget_of", "quotas", "stratified_batch"]

Fill = Literal["unfiltered", "surplus", "reject", "repeat"]
Draw = Callable[[int], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Stratified:
    """`R` curated batches of `B` rows, and how they came about.

    `x` (R, B, ...) and `cell` (R, B) int64 are the rows and their strata; `first` (R, K) int64
    counts the strata of each first draw; `missing` (R,) int64 is how many rows the quotas left
    open after all of the filtered draws, the rounding remainder included.
    """

    x: Tensor
    cell: Tensor
    first: Tensor
    missing: Tensor


def budget_of(budget: int | str, batch: int) -> int:
    """The reparation budget in rows: a count as it is, "25%" as that part of `batch`, rounded down.

    >>> budget_of("25%", 256), budget_of(8, 32), budget_of("12.5%", 20)
    (64, 8, 2)

    Raises:
        ValueError: it is neither a whole number of rows nor a percentage, or it is negative.
    """
    if isinstance(budget, str):
        number = budget.strip().removesuffix("%")
        if number != budget.strip() and number.replace(".", "", 1).isdigit():
            return int(batch * float(number) / 100 + 1e-9)
    elif type(budget) is int and budget >= 0:
        return budget
    raise ValueError(
        f'budget must be a whole number of rows (64) or a percentage ("25%"), got {budget!r}'
    )


def quotas(batch: int, strata: int, ideal: Sequence[float] | Tensor | None = None) -> Tensor:
    """(K,) int64 rows kept of each stratum: floor(B times its ideal share); uniform by default.

    >>> quotas(30, 4).tolist(), quotas(10, 2, [0.7, 0.3]).tolist()
    ([7, 7, 7, 7], [7, 3])

    Raises:
        ValueError: a size is not positive; the ideal has another length, a negative or not finite
            share, or does not sum to 1.
    """
    if batch < 1 or strata < 1:
        raise ValueError(f"batch and strata must be at least 1, got {batch} and {strata}")
    if ideal is None:
        return torch.full((strata,), batch // strata, dtype=torch.long)
    share = torch.as_tensor(ideal, dtype=torch.float64).cpu()
    if share.shape != (strata,):
        raise ValueError(
            f"ideal must hold one share for each of {strata} strata, got {share.numel()}"
        )
    if not bool(torch.isfinite(share).all()) or bool((share < 0).any()):
        raise ValueError(f"ideal must hold finite shares of at least 0, got {share.tolist()}")
    if abs(float(share.sum()) - 1) > 1e-6:
        raise ValueError(f"ideal must sum to 1, got {float(share.sum()):.6g}; divide by the sum")
    return (share * batch + 1e-6).long()


def stratified_batch(
    draw: Draw,
    stratum: Callable[[Tensor], Tensor],
    *,
    batch: int,
    strata: int,
    generator: torch.Generator,
    budget: int | str = "25%",
    ideal: Sequence[float] | Tensor | None = None,
    fill: Fill = "unfiltered",
    tries: int = 8,
    blocks: int = 1,
) -> Stratified:
    """Curated batches of exactly `batch` rows from any source of samples.

    One first draw of `batch + budget` rows per batch; of each stratum the first
    `quotas(batch, strata, ideal)` rows in draw order are kept. What is missing is filled:
    "unfiltered" by new rows whatever their stratum (the paper's rule); "surplus" by the rows of
    the first draw that were over a quota, in draw order; "reject" by drawing `budget` more rows
    up to `tries` times and keeping those of a short stratum; "repeat" by repeating the rows of a
    short stratum. What the last two cannot supply is drawn unfiltered. Each batch is shuffled.

    Args:
        draw: n -> (n, ...) new samples.
        stratum: (n, ...) samples -> (n,) int64 strata in [0, `strata`), for example
            `label * groups + group` from two annotators.
        batch: rows of a batch, B.
        strata: number of strata, K.
        generator: source of the shuffle, on the CPU or on the samples' device.
        budget: rows drawn beyond the batch, a count or a percentage of it; 0 is allowed.
        ideal: (K,) target shares that sum to 1; None is uniform.
        fill: how missing rows are supplied.
        tries: further draws of "reject", at least 0.
        blocks: batches curated at once, R; one device read serves all ("reject": one a try more).

    Raises:
        ValueError: a size, the ideal, the budget or the fill rule is not valid, or `draw` or
            `stratum` gives another number of rows, or strata outside of the whole [0, `strata`).

    >>> import torch
    >>> g = torch.Generator().manual_seed(0)
    >>> skewed = lambda n: (torch.rand(n, generator=g) < 0.9).long()     # 10% of stratum 0
    >>> kept = stratified_batch(skewed, lambda x: x, batch=40, strata=2, budget=400, generator=g)
    >>> kept.x.shape, torch.bincount(kept.cell[0]).tolist()
    (torch.Size([1, 40]), [20, 20])
    """
    extra, quota = budget_of(budget, batch), quotas(batch, strata, ideal)
    check_rule(fill, tries, blocks)
    with torch.no_grad():
        drawn = _Drawn(draw, stratum, blocks, strata).more(batch + extra)
        quota = quota.to(drawn.cell.device)
        first = drawn.count()
        for _ in range(tries if fill == "reject" and extra else 0):
            if not bool((drawn.count() < quota).any()):
                break
            drawn = drawn.more(extra)
        missing = batch - torch.minimum(quota, drawn.count()).sum(1)
        drawn, chosen = drawn.completed(quota, batch, fill)
        spot = _shuffled(chosen, drawn.block[chosen], generator).view(blocks, batch)
        return Stratified(drawn.x[spot], drawn.cell[spot], first, missing)


def check_rule(fill: str, tries: int, blocks: int) -> None:
    if fill not in get_args(Fill):
        raise ValueError(f"fill must be one of {', '.join(get_args(Fill))}, got {fill!r}")
    if tries < 0 or blocks < 1:
        raise ValueError(f"tries must be at least 0 and blocks at least 1, got {tries}, {blocks}")


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Rows drawn so far for all blocks, flat, each with its stratum and block, in draw order."""

    draw: Draw
    stratum: Callable[[Tensor], Tensor]
    blocks: int
    strata: int
    x: Tensor = field(default_factory=lambda: torch.empty(0))
    cell: Tensor = field(default_factory=lambda: torch.empty(0))
    block: Tensor = field(default_factory=lambda: torch.empty(0))

    def more(self, per_block: int) -> _Drawn:
        """These rows and `per_block` new ones for each block."""
        return self._more(torch.full((self.blocks,), per_block), self.blocks * per_block)

    def _more(self, per_block: Tensor, n: int) -> _Drawn:
        """These rows and `n` new ones, `per_block` (R,) of them for each block."""
        x = self.draw(n)
        if len(x) != n:
            raise ValueError(f"draw was asked for {n} rows and gave {len(x)}")
        cell = self.stratum(x)
        if cell.shape != (n,):
            raise ValueError(f"stratum must return shape ({n},), got {tuple(cell.shape)}")
        if cell.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"stratum must return whole numbers, int64; got {cell.dtype}")
        owner = torch.arange(self.blocks, device=cell.device)
        block = owner.repeat_interleave(per_block.to(cell.device), output_size=n)
        if len(self.block):
            x, cell = torch.cat([self.x, x]), torch.cat([self.cell, cell])
            block = torch.cat([self.block, block])
        return _Drawn(self.draw, self.stratum, self.blocks, self.strata, x, cell, block)

    def _key(self) -> Tensor:
        return self.block * self.strata + self.cell

    def count(self) -> Tensor:
        """(R, K) int64 rows of each stratum in each block; nothing is read from the device."""
        key = self._key().clamp(0, self.blocks * self.strata - 1)  # `completed` refuses others
        zero = key.new_zeros(self.blocks * self.strata)
        return zero.scatter_add_(0, key, torch.ones_like(key)).view(self.blocks, self.strata)

    def _within(self, quota: Tensor) -> Tensor:
        """(N,) bool: the row is among the first `quota` (K,) of its stratum in its block."""
        order = torch.argsort(self._key(), stable=True)
        rank = ranks_within(self._key()[order], self.blocks * self.strata)
        within = torch.empty_like(rank, dtype=torch.bool)
        within[order] = rank < quota[self.cell[order]]
        return within

    def completed(self, quota: Tensor, batch: int, fill: str) -> tuple[_Drawn, Tensor]:
        """All rows and positions of `batch` of each block by rule `fill`, new rows for the rest."""
        count = self.count()
        given = quota * (count > 0) if fill == "repeat" else torch.minimum(quota, count)
        gaps = batch - given.sum(1)
        # The one read from the device.
        n, low, high = torch.stack([gaps.sum(), self.cell.min(), self.cell.max()]).tolist()
        if low < 0 or high >= self.strata:
            raise ValueError(
                f"stratum must return numbers in [0, {self.strata}), got {low} to {high}"
            )
        if fill == "surplus":
            return self, self.kept_then_surplus(quota, batch)
        have = self.blocks * batch - n
        if fill == "repeat":
            chosen = self.repeated(quota, have)
        else:
            chosen = torch.argsort((~self._within(quota)).to(torch.uint8), stable=True)[:have]
        if not n:
            return self, chosen
        new = torch.arange(len(self.block), len(self.block) + n, device=chosen.device)
        return self._more(gaps, n), torch.cat([chosen, new])

    def kept_then_surplus(self, quota: Tensor, batch: int) -> Tensor:
        """Positions of `batch` rows of each block: those within quota, then others as drawn."""
        late = (~self._within(quota)).view(self.blocks, -1).to(torch.uint8)
        spot = torch.argsort(late, dim=1, stable=True)[:, :batch]
        start = torch.arange(self.blocks, device=spot.device) * late.shape[1]
        return (spot + start[:, None]).flatten()

    def repeated(self, quota: Tensor, n: int) -> Tensor:
        """`n` positions that fill every quota of a stratum in its block, repeating its rows."""
        key = self._key()
        order = torch.argsort(key, stable=True)
        count = self.count().flatten()
        slots = quota.repeat(self.blocks) * (count > 0)
        slot = torch.arange(len(count), device=key.device).repeat_interleave(slots, output_size=n)
        turn = ranks_within(slot, len(count)) % count[slot]
        return order[(count.cumsum(0) - count)[slot] + turn]


def _shuffled(chosen: Tensor, block: Tensor, generator: torch.Generator) -> Tensor:
    """`chosen` with each block's rows together and in random order, in one sort."""
    u = torch.rand(len(chosen), generator=generator, device=generator.device, dtype=torch.float64)
    return chosen[torch.argsort(block + u.to(block.device))]


@dataclass(slots=True, eq=False)
class Tally:
    """What curation did, summed on the device and read once: the resampled share, first draws.

    >>> tally = Tally(2)
    >>> tally.add(Stratified(*[torch.zeros(1, 4)] * 2, torch.tensor([[3, 1]]), torch.tensor([1])))
    >>> tally.read()
    {'batches': 1, 'drawn': 4, 'missing_share': 0.25, 'first_share': [0.75, 0.25]}
    """

    strata: int
    sums: Tensor | None = None

    def add(self, made: Stratified) -> None:
        """Count the batches of `made`."""
        blocks, batch = made.cell.shape
        missing = made.missing.sum()[None]
        size = (torch.full_like(missing, n) for n in (blocks, blocks * batch))
        new = torch.cat([*size, missing, made.first.sum(0)])
        self.sums = new if self.sums is None else self.sums + new

    def read(self) -> dict[str, Any]:
        """Batches, rows of first draws, the share the fill rule supplied, first draws by stratum.

        Shares are nan before the first batch.
        """
        sums = torch.zeros(self.strata + 3) if self.sums is None else self.sums.double().cpu()
        first = sums[3:] / sums[3:].sum()
        return {
            "batches": int(sums[0]),
            "drawn": int(sums[3:].sum()),
            "missing_share": float(sums[2] / sums[1]),
            "first_share": first.tolist(),
        }


@dataclass(frozen=True, slots=True)
class Quota(Sampler):
    """Batches of a data set curated toward an ideal mix of its groups.

    Rows are drawn from shuffled passes over the data, as many as STAR asks for; the strata are
    the cells of `groups` (build it with "label" for label x group). Parameters are those of
    `stratified_batch`. Needs the groups of training rows. `tally` collects what happened.

    >>> import torch
    >>> from evenloop.data import GroupedData, Schema
    >>> data = GroupedData.of(torch.zeros(100, 1), [0] * 90 + [1] * 10, {}, Schema(("no", "yes")))
    >>> groups = GroupIndex.of(data, ["label"])
    >>> batches = Quota(budget="400%").epoch(data, groups, batch=10, rng=Rng.of(0))
    >>> [len(b) for b in batches] == [10] * Quota().steps(100, 10)
    True
    """

    budget: int | str = "25%"
    ideal: tuple[float, ...] | None = None
    fill: Fill = "unfiltered"
    tries: int = 8
    blocks: int = 1
    tally: Tally | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_rule(self.fill, self.tries, self.blocks)
        budget_of(self.budget, 100)
        if self.ideal is not None:
            quotas(1, len(self.ideal), self.ideal)

    def steps(self, rows: int, batch: int) -> int:
        """As many batches as plain shuffling has: ceil(rows / batch)."""
        return -(-rows // batch)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Tensor]:
        """(B,) positions in `data`, always `batch` of them."""
        stream = _Passes(len(data), rng.at("draw").gen(), data.y.device)
        generator = rng.at("shuffle").gen()
        left = self.steps(len(data), batch)
        while left:
            made = self.curate(
                stream.draw,
                lambda index: groups.cell[index],
                batch=batch,
                strata=groups.size,
                generator=generator,
                blocks=min(self.blocks, left),
            )
            left -= len(made.cell)
            yield from made.x

    def curate(
        self,
        draw: Draw,
        stratum: Callable[[Tensor], Tensor],
        *,
        batch: int,
        strata: int,
        generator: torch.Generator,
        blocks: int | None = None,
    ) -> Stratified:
        """`stratified_batch` with this sampler's parameters; counted in `tally` if there is one."""
        made = stratified_batch(
            draw,
            stratum,
            batch=batch,
            strata=strata,
            generator=generator,
            budget=self.budget,
            ideal=self.ideal,
            fill=self.fill,
            tries=self.tries,
            blocks=blocks or self.blocks,
        )
        if self.tally is not None:
            self.tally.add(made)
        return made

    def state_dict(self) -> dict[str, Any]:
        """The tally so far."""
        counted = self.tally is not None and self.tally.sums is not None
        return {"tally": self.tally.sums} if self.tally is not None and counted else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the tally."""
        if self.tally is not None:
            self.tally.sums = state.get("tally")


@dataclass(slots=True)
class _Passes:
    """Positions 0..n-1 in shuffled passes, one after the other, as many as are asked for."""

    n: int
    generator: torch.Generator
    device: torch.device
    rest: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def draw(self, k: int) -> Tensor:
        parts, have = [self.rest], len(self.rest)
        while have < k:
            parts.append(torch.randperm(self.n, generator=self.generator))
            have += self.n
        stream = torch.cat(parts)
        self.rest = stream[k:]
        return stream[:k].to(self.device)
