"""FairBatch: once an epoch, a small step of the groups' shares towards the worse-off group.

Roh, Lee, Whang, Suh (2021), "FairBatch: Batch Selection for Model Fairness", ICLR. For two labels
and two groups the rule is theirs; for more, the pair with the widest gap moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.balanced import CellPools
from evenloop.samplers.cells import REAL, CellIndex
from evenloop.samplers.head import evaluating
from evenloop.samplers.outer import row_losses
from evenloop.samplers.rounding import Ints, Rounding, whole_numpy
from evenloop.seams import Sampler, Seen

__all__ = ["FairBatchSampler"]

Measure = Literal["eqodds", "eqopp", "dp"]
_CHUNK = 4096  # rows per forward pass of the epoch's look at the training data


class FairBatchSampler(Sampler):
    """Batches of real rows whose groups follow `share` (C, G) inside each label.

    Iterate it as a `batch_sampler` and call `update` once an epoch with the training rows' losses;
    `fit` does both.

    Args:
        cells: the training rows; generated ones are never drawn.
        batch_size: rows of a batch, at least one for every cell that has real rows.
        generator: draws counts and rows.
        measure: "eqodds" (the label with the widest gap moves), "eqopp" (only `positive`), or "dp"
            (losses towards `positive`, divided by group size).
        alpha: step of a share per epoch, in (0, 1].
        positive: the favourable label.
        batches: batches of an epoch; real rows divided by `batch_size` when None.
        rounding: "independent" as published, where a batch's total may drift.

    Attributes:
        share: (C, G) float64 share of each group inside its label.

    Raises:
        ValueError: an unknown measure, alpha outside (0, 1], a positive label that is none, or a
            batch smaller than the number of cells.

    >>> cells = CellIndex([0, 0, 1, 1], [0, 1, 0, 1])
    >>> sampler = FairBatchSampler(cells, 4, generator=torch.Generator())
    >>> sampler.update(torch.tensor([1.0, 1.0, 1.0, 3.0]))
    >>> sampler.share.tolist()
    [[0.5, 0.5], [0.495, 0.505]]
    """

    def __init__(
        self,
        cells: CellIndex,
        batch_size: int,
        *,
        generator: torch.Generator,
        measure: Measure = "eqodds",
        alpha: float = 0.005,
        positive: int = 1,
        batches: int | None = None,
        rounding: Rounding = "stochastic",
    ) -> None:
        if measure not in get_args(Measure):
            raise ValueError(f"measure must be one of {get_args(Measure)}, got {measure!r}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], got {alpha}")
        if not 0 <= positive < cells.shape[0]:
            raise ValueError(f"positive must be in 0..{cells.shape[0] - 1}, got {positive}")
        cells.check_batch(batch_size)
        self.cells, self.batch_size, self.batches = cells, batch_size, batches
        self.measure, self.alpha, self.positive = measure, alpha, positive
        self.rounding: Rounding = rounding
        self.pools = CellPools(cells, (REAL,), generator)
        real = cells.counts[REAL].double()
        self.share = real / real.sum(1, keepdim=True).clamp_min(1)
        self.real = (cells.source == REAL).nonzero().flatten()
        self._data: GroupedData | None = None
        self._left = 0

    def __len__(self) -> int:
        return self.steps(len(self.cells), self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of one epoch as lists of rows."""
        for _ in range(len(self)):
            yield self.draw(self.batch_size).tolist()

    def counts(self, batch: int) -> Ints:
        """(C*G,) int64 rows of each cell in the next batch."""
        target = (self.share * self.cells.quota(batch)[:, None]).flatten().numpy()
        return whole_numpy(target, batch, self.rounding, self.pools.pools.generator)

    def draw(self, batch: int) -> Ints:
        """(batch,) int64 rows of the next batch, shuffled."""
        return self.pools.draw(self.counts(batch))

    def targets(self, y: Tensor) -> Tensor:
        """The labels the measured losses are taken towards: `y`, or all positive for "dp"."""
        return torch.full_like(y, self.positive) if self.measure == "dp" else y

    def update(self, losses: Tensor) -> None:
        """Move the shares once.

        Args:
            losses: (N_real,) losses of the real rows, in row order, towards `targets`.

        Raises:
            ValueError: not one loss per real row, or one is not finite (named).
        """
        if losses.shape != self.real.shape:
            raise ValueError(
                f"losses must be {len(self.real)} numbers, one per real row, got shape "
                f"{tuple(losses.shape)}"
            )
        self._check_finite(losses.isfinite().cpu())
        c, g = self.cells.shape
        total = torch.zeros(c * g, dtype=torch.float64)
        total = total.index_add_(0, self.cells.cell[self.real], losses.double().cpu()).view(c, g)
        count = self.cells.counts[REAL].double()
        if self.measure == "dp":
            level = total / count.sum(0).clamp_min(1)
        else:
            level = total / count.clamp_min(1)
        high = level.masked_fill(count == 0, -torch.inf)
        low = level.masked_fill(count == 0, torch.inf)
        spread = (high.max(1).values - low.min(1).values).clamp_min(0)
        label = self.positive if self.measure == "eqopp" else int(spread.argmax())
        worse, better = int(high[label].argmax()), int(low[label].argmin())
        if self.measure == "dp" and label != self.positive:
            worse, better = better, worse  # fewer of those already pushed to the positive label
        step = min(self.alpha, float(self.share[label, better]))
        self.share[label, worse] += step
        self.share[label, better] -= step

    def _check_finite(self, finite: Tensor) -> None:
        if bool(finite.all()):
            return
        bad = self.real[~finite]
        if len(bad) == len(self.real):
            raise ValueError(
                "the losses of all real rows are not finite: the model diverged or was trained on "
                "NaN; lower lr, set clip_norm, or clean the training rows"
            )
        cell = self.cells.names[int(self.cells.cell[bad[0]])]
        raise ValueError(
            f"the loss of row {int(bad[0])} of cell {cell!r} is not finite ({len(bad)} such rows): "
            "the row holds NaN or the model diverges there; clean the rows or lower lr"
        )

    def steps(self, rows: int, batch: int) -> int:
        """Batches of an epoch."""
        return self.batches or max(len(self.real) // batch, 1)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Tensor]:
        """(B,) positions in `data`, whose rows are those of `cells`."""
        if len(data) != len(self.cells):
            raise ValueError(f"data has {len(data)} rows, the sampler's cells {len(self.cells)}")
        self.pools.pools.generator = rng.gen()
        self._data, self._left = data, self.steps(len(data), batch)
        for _ in range(self._left):
            yield torch.from_numpy(self.draw(batch)).to(data.y.device)

    def after(self, seen: Seen) -> None:
        """After the last step of an epoch, look at all real rows and move the shares."""
        self._left -= 1
        if self._left == 0 and self._data is not None:
            self.update(self.losses(seen.model, self._data.x))

    def losses(self, model: nn.Module, x: Tensor) -> Tensor:
        """(N_real,) losses of the real rows towards `targets`, in eval mode."""
        tensor = next(model.parameters())
        parts = []
        with evaluating(model), torch.no_grad():
            for rows in torch.split(self.real, _CHUNK):
                inputs = x[rows.to(x.device)].to(tensor.device)
                if inputs.is_floating_point():
                    inputs = inputs.to(tensor.dtype)
                logits = model(inputs)
                y = self.targets(self.cells.label[rows]).to(tensor.device)
                parts.append(row_losses(logits if logits.ndim == 2 else logits[:, None], y))
        return torch.cat(parts)

    def state_dict(self) -> dict[str, Any]:
        """Shares, pools, the generator and the steps left: drawing goes on where it was."""
        pools = self.pools.pools
        return {
            "share": self.share.clone(),
            "pools": pools.state_dict(),
            "generator": pools.generator.get_state(),
            "left": self._left,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.share = state["share"].clone()
        self.pools.pools.load_state_dict(state["pools"])
        self.pools.pools.generator.set_state(state["generator"])
        self._left = int(state["left"])
