"""Batches of real and generated rows under learned shares, in anyone's training loop.

Roh, Nie, Huang, Whang, Vahdat, Anandkumar (2023), "Dr-Fairness: Dynamic Data Ratio Adjustment for
Fair Training on Real and Generated Data", TMLR. `Ratios` are the shares, `RatioController` moves
them, `RatioBatchSampler` draws batches that follow them with an exact total.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.cells import GENERATED, REAL, CellIndex
from evenloop.samplers.control import RatioController
from evenloop.samplers.hypergradient import (
    head_alignment,
    outer_weights,
    ratio_gradients,
)
from evenloop.samplers.outer import RatioObjective
from evenloop.samplers.rounding import Ints, Pools, Rounding, cell_counts, whole_numpy
from evenloop.samplers.shares import Ratios, UpdateReport
from evenloop.samplers.trail import Trail
from evenloop.samplers.validation import Validation
from evenloop.seams import Sampler, Seen

__all__ = [
    "GENERATED",
    "REAL",
    "CellIndex",
    "RatioBatchSampler",
    "RatioController",
    "RatioObjective",
    "Ratios",
    "UpdateReport",
    "Validation",
    "cell_counts",
    "head_alignment",
    "outer_weights",
    "ratio_gradients",
]


class RatioBatchSampler(Sampler):
    """Batches whose cells and sources follow `ratios`: a `batch_sampler`, and a sampler of `fit`.

    Every batch holds `batch_size` rows exactly (with the two exact roundings); rows of a cell are
    drawn without replacement until all were used, or by the weights of `cells`. `counts` (S, C, G)
    int64 says what was really drawn so far. Labels keep their share of the real rows.

    With `controller`, `after` (called by `fit`) also updates the ratios. In a loop of your own,
    call `controller.step(...)` and then `trained()` after each batch; `lag` is then the number of
    batches already drawn with older ratios (workers that read ahead).

    Args:
        cells: the training rows: real ones and generated ones, in any order.
        ratios: the shares, of the same cells.
        batch_size: rows of a batch, on each process.
        generator: draws counts and rows; seeded alike on all processes.
        batches: batches of an epoch; real rows divided by `batch_size` when None.
        rounding: see `whole`; "independent" lets the total drift, as the published code did.
        replacement: draw each batch afresh instead of walking shuffled pools.
        rank: this process; processes get equal counts and disjoint rows.
        world_size: number of processes.
        controller: moves the ratios after each step of `fit`.
        max_staleness: most batches that may be drawn ahead of training; None for any number.

    Raises:
        ValueError: ratios of other cells, a batch smaller than the number of cells, or an
            option out of range.

    >>> cells = CellIndex([0, 0, 1, 1], [0, 1, 0, 1])
    >>> generator = torch.Generator().manual_seed(0)
    >>> sampler = RatioBatchSampler(cells, Ratios(cells), 4, batches=2, generator=generator)
    >>> [sorted(batch) for batch in sampler], sampler.counts.sum().item()
    ([[0, 1, 2, 3], [0, 1, 2, 3]], 8)
    """

    def __init__(
        self,
        cells: CellIndex,
        ratios: Ratios,
        batch_size: int,
        *,
        generator: torch.Generator,
        batches: int | None = None,
        rounding: Rounding = "stochastic",
        replacement: bool = False,
        rank: int = 0,
        world_size: int = 1,
        controller: RatioController | None = None,
        max_staleness: int | None = None,
    ) -> None:
        _check_fit(cells, ratios, batch_size)
        if rounding not in get_args(Rounding):
            raise ValueError(f"rounding must be one of {get_args(Rounding)}, got {rounding!r}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, {world_size}), got {rank}")
        if batches is not None and batches < 1:
            raise ValueError(f"batches must be at least 1, got {batches}")
        if max_staleness is not None and max_staleness < 0:
            raise ValueError(f"max_staleness must not be negative, got {max_staleness}")
        self.cells, self.ratios, self.batch_size = cells, ratios, batch_size
        self.batches, self.rounding = batches, rounding
        self.rank, self.world_size = rank, world_size
        self.controller, self.max_staleness = controller, max_staleness
        self.generator = generator
        self.counts = torch.zeros_like(cells.counts)
        self.drawn = self.taken = 0
        self.last: UpdateReport | None = None
        self.trail = Trail()
        self._pools = Pools(
            cells.order,
            cells.counts.flatten(),
            generator,
            replacement=replacement,
            weight=None if cells.weight is None else cells.weight[cells.order],
        )
        self._target: tuple[int, int, npt.NDArray[np.float64]] = (-1, 0, np.zeros(0))
        self._position = self._resume = 0

    def __len__(self) -> int:
        return self.steps(int(self.cells.counts[REAL].sum()), self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of one epoch as lists of rows; continues inside an epoch after a resume.

        Batches that an earlier pass drew and nobody trained on (a loop that ended early) are
        forgotten: they count in no lag.
        """
        start, self._resume = self._resume, 0
        self.taken = self.drawn
        for position in range(start, len(self)):
            self._position = (position + 1) % len(self)
            yield self.draw(self.batch_size).tolist()

    @property
    def lag(self) -> int:
        """Batches drawn but not yet trained on."""
        return max(self.drawn - self.taken, 0)

    def draw(self, batch: int) -> Ints:
        """(batch,) int64 rows of the next batch, shuffled.

        Raises:
            RuntimeError: more than `max_staleness` batches wait to be trained on.
        """
        if self.max_staleness is not None and self.lag > self.max_staleness:
            raise RuntimeError(
                f"{self.lag} batches are drawn ahead of training, max_staleness is "
                f"{self.max_staleness}: use fewer workers (num_workers=0 reads nothing ahead), a "
                "smaller prefetch_factor, and call trained() after every batch"
            )
        counts = whole_numpy(self._targets(batch), batch, self.rounding, self.generator)
        rows = self._pools.draw(counts * self.world_size)
        if self.world_size > 1:
            block = np.repeat(np.arange(len(counts)), counts * self.world_size)
            first = np.cumsum(counts) - counts
            within = np.arange(len(rows)) - first[block] * self.world_size
            rows = rows[within // counts[block] == self.rank]
        self.counts += torch.from_numpy(counts).view(self.counts.shape)
        self.drawn += 1
        turn = torch.randperm(len(rows), generator=self.generator).numpy()
        return np.asarray(rows[turn])

    def _targets(self, batch: int) -> npt.NDArray[np.float64]:
        if self._target[:2] != (self.ratios.version, batch):
            target = self.ratios.target(batch).flatten().numpy()
            if self.rounding != "independent":  # labels without any row leave room: fill it
                target = target * (batch / target.sum())
            self._target = (self.ratios.version, batch, target)
        return self._target[2]

    def steps(self, rows: int, batch: int) -> int:
        """Batches of an epoch: `batches`, or enough for every real row once on average."""
        if self.batches is not None:
            return self.batches
        return max(int(self.cells.counts[REAL].sum()) // (batch * self.world_size), 1)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Tensor]:
        """Batches for `fit`: (batch,) positions in `data`, whose rows are those of `cells`.

        Raises:
            ValueError: `data` has another number of rows than `cells`.
        """
        if len(data) != len(self.cells):
            raise ValueError(f"data has {len(data)} rows, the sampler's cells {len(self.cells)}")
        self.generator = self._pools.generator = rng.gen()
        for _ in range(self.steps(len(data), batch)):
            yield torch.from_numpy(self.draw(batch)).to(data.y.device)

    def trained(self) -> None:
        """Say that one more batch was trained on, so that `lag` is right."""
        self.taken += 1

    def after(self, seen: Seen) -> None:
        """Let the controller, if any, learn from a finished step.

        `last` holds its report, `trail` some of the shares before.
        """
        if self.controller is not None:
            report = self.controller.step(seen.batch.index, lag=max(self.lag - 1, 0))
            if report is not None:
                self.last = report
                self.trail.add(report)
        self.trained()

    def state_dict(self) -> dict[str, Any]:
        """Ratios, pools, generator, counters and the controller: resuming is bit-identical.

        Inside an epoch this holds for loaders that read nothing ahead.
        """
        return {
            "ratios": self.ratios.state_dict(),
            "pools": self._pools.state_dict(),
            "generator": self.generator.get_state(),
            "counts": self.counts.clone(),
            "drawn": self.drawn,
            "taken": self.taken,
            "position": self._position,
            "controller": self.controller.state_dict() if self.controller else {},
            "trail": self.trail.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.ratios.load_state_dict(state["ratios"])
        self._pools.load_state_dict(state["pools"])
        self.generator.set_state(state["generator"])
        self.counts = state["counts"].clone()
        self.drawn, self.taken = int(state["drawn"]), int(state["taken"])
        self._position = self._resume = int(state["position"])
        self.trail.load_state_dict(state["trail"])
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])


def _check_fit(cells: CellIndex, ratios: Ratios, batch_size: int) -> None:
    """Raise `ValueError` unless the ratios are for these cells and a batch has a row of each."""
    if ratios.cells.counts.shape != cells.counts.shape:
        raise ValueError(
            f"ratios are for counts of shape {tuple(ratios.cells.counts.shape)}, cells have "
            f"{tuple(cells.counts.shape)}"
        )
    ratios.cells.check_batch(batch_size)
