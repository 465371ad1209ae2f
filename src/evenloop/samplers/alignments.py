"""What one update of the ratios sees: the outer objective and how training on each cell moves it.

Roh, Nie, Huang, Whang, Vahdat, Anandkumar (2023), "Dr-Fairness: Dynamic Data Ratio Adjustment for
Fair Training on Real and Generated Data", TMLR. Alignments of the training batch and other Hessians
than the identity are ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from evenloop.samplers.cells import REAL
from evenloop.samplers.head import HeadTap, evaluating
from evenloop.samplers.held_out import HeldOut
from evenloop.samplers.hypergradient import (
    Hessian,
    alignment,
    check_options,
    head_alignment,
    head_direction,
    head_hessian_product,
    solve,
)
from evenloop.samplers.outer import Outer, RatioObjective
from evenloop.samplers.shares import Ratios

__all__ = ["Alignments", "InnerData", "Sight", "check_outputs", "subset"]

InnerData = Literal["validation", "train_batch"]


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """One look: the outer objective, and by place the sum and count (S*C*G,) of alignments.

    `share` (C, G) are the shares of the cells that the objective was taken with.
    """

    outer: Outer
    total: Tensor
    count: Tensor
    share: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows whose alignment is asked: features (n, H), logits (n, O), labels and places (n,)."""

    features: Tensor
    logits: Tensor
    y: Tensor
    place: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Alignments:
    """Looks at a model with held-out rows; the fields are those of `RatioController`."""

    model: nn.Module
    ratios: Ratios
    objective: RatioObjective
    held: HeldOut
    tap: HeadTap
    parameters: tuple[str, ...] | None = None
    hessian: Hessian = "identity"
    hessian_options: Mapping[str, float] = field(default_factory=dict)
    inner_data: InnerData = "validation"
    distributed: bool = False

    def __post_init__(self) -> None:
        val, cells = self.held.cells, self.ratios.cells
        if val.shape != cells.shape:
            raise ValueError(
                f"val has {val.shape} labels x groups, the training rows {cells.shape}: index "
                "both with the same classes= and groups="
            )
        if self.inner_data not in ("validation", "train_batch"):
            raise ValueError(
                f"inner_data must be 'validation' or 'train_batch', got {self.inner_data!r}"
            )
        check_options(self.hessian, self.hessian_options)
        if self.inner_data == "validation":
            self._check_sources()
        if self.parameters is None:
            few = self.held.fetch(torch.arange(1), self.model)
            check_outputs(self.tap.look(few)[1], cells.classes)  # finds the head now
            return
        if self.hessian != "identity" or self.inner_data != "validation" or self.held.reuse > 1:
            raise ValueError(
                "parameters= works with hessian='identity', inner_data='validation' and reuse=1; "
                f"got {self.hessian!r}, {self.inner_data!r} and {self.held.reuse}"
            )
        subset(self.model, self.parameters)

    def _check_sources(self) -> None:
        """A source is pulled only where held-out rows of it show what training on it does.

        Raises:
            ValueError: mu is learned and a source has no held-out row.
        """
        held, there = self.held.cells.counts, self.ratios.available
        counts = held.new_zeros(there.shape)
        counts[: len(held)] = held[: len(counts)]
        if "mu" not in self.ratios.learn or len(there) == 1:
            return
        for source in range(len(there)):
            missing = there[source] & (counts[source] == 0)
            if not bool(missing.any()):
                continue
            if bool((counts[source] == 0).all()):
                raise ValueError(
                    f"val has no rows of source {source}, so its shares would never move: hold "
                    "some out, set inner_data='train_batch', or learn=('lambda',)"
                )
            names = [self.ratios.cells.names[i] for i in missing.flatten().nonzero().flatten()]
            warnings.warn(
                f"no held-out rows of source {source} in {names}: its share there does not move",
                stacklevel=5,
            )

    @property
    def places(self) -> int:
        """S*C*G of the training rows."""
        return self.ratios.cells.counts.numel()

    def look(self, batch: Tensor | None) -> Sight:
        """The objective and the alignments now, on the next held-out rows.

        Args:
            batch: (B,) rows of the batch just trained on, with `inner_data="train_batch"`.

        Raises:
            ValueError: `batch` is missing or does not fit the batch just passed forward.
            RuntimeError: no training pass was seen with `inner_data="train_batch"`.
        """
        if self.parameters is not None:
            return self._through(self.parameters)
        own = self.inner_data == "validation"
        inner = None if own else self._trained(batch)
        rows, share = self.held.draw(None if own else REAL)
        rows, features, logits = self.held.look(rows, self.tap, self._part)
        y, place, real = self._codes(rows, logits.device)
        outer, slope = self._outer(logits[:real], y[:real], place[:real], share)
        v_w, v_b = head_direction(features[:real], slope)
        inner = inner or _Rows(features, logits, y, place)
        if self.distributed or self.hessian != "identity":
            v = self._inverted(self._summed(torch.cat([v_w.flatten(), v_b])), inner)
            v_w, v_b = v[: v_w.numel()].view_as(v_w), v[v_w.numel() :]
        total, count = head_alignment(
            inner.features, inner.logits, inner.y, inner.place, v_w, v_b, self.places
        )
        return Sight(outer, self._summed(total), self._summed(count), share)

    def _through(self, names: Sequence[str]) -> Sight:
        """The same for a subset of all parameters: one reverse and one forward-mode pass."""
        rows, share = self.held.draw()
        rows = self._part(rows)
        x = self.held.fetch(rows, self.model)
        y, place, real = self._codes(rows, x.device)
        kept: list[Outer] = []

        def slope(logits: Tensor) -> Tensor:
            outer, slope = self._outer(logits, y[:real], place[:real], share)
            kept.append(outer)
            return slope

        reduce: Callable[[Tensor], object] | None = self._sum if self.distributed else None
        with evaluating(self.model):
            chosen = subset(self.model, names)
            total, count = alignment(
                self.model, chosen, x[:real], slope, x, y, place, self.places, reduce=reduce
            )
        return Sight(kept[0], self._summed(total), self._summed(count), share)

    def _trained(self, rows: Tensor | None) -> _Rows:
        """Features, logits, labels and places of the batch just trained on."""
        if rows is None:
            raise ValueError("inner_data='train_batch' needs rows=, the rows of the batch")
        features, logits = self.tap.trained()
        if len(rows) != len(logits):
            raise ValueError(f"rows has {len(rows)} entries, the batch just trained {len(logits)}")
        cells, rows, device = self.ratios.cells, rows.cpu(), logits.device
        return _Rows(features, logits, cells.label[rows].to(device), cells.place[rows].to(device))

    def _codes(self, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor, int]:
        """Labels and places of held-out rows in source order, and how many are real."""
        cells = self.held.cells
        real = int((cells.source[rows] == REAL).sum())
        return cells.label[rows].to(device), cells.place[rows].to(device), real

    def _outer(
        self, logits: Tensor, y: Tensor, place: Tensor, share: Tensor
    ) -> tuple[Outer, Tensor]:
        """The objective on real rows and its derivative by their logits (n, O)."""
        objective = self.objective
        reduce = self._sum if self.distributed else None
        statistics = objective.statistics(logits, y)
        outer = objective.at(statistics, place, self.ratios.cells.shape, share, reduce)
        return outer, objective.logit_weights(logits, y, outer.weight)

    def _inverted(self, v: Tensor, inner: _Rows) -> Tensor:
        """Return v after the approximate inverse Hessian of the training objective."""
        if self.hessian == "identity":
            return v
        count = self._summed(torch.bincount(inner.place, minlength=self.places).to(v))
        pi = self.ratios.quota(1.0)[:, None]
        weight = (self.ratios.shares * pi).flatten().to(v) / count.clamp_min(1)
        product = head_hessian_product(inner.features, inner.logits, weight[inner.place])
        options = self.hessian_options
        return solve(
            lambda u: self._summed(product(u)),
            v,
            self.hessian,
            steps=int(options.get("steps", 10)),
            damping=options.get("damping", 1e-3),
            rate=options.get("rate", 0.1),
        )

    def _part(self, rows: Tensor) -> Tensor:
        """This process's share of some rows."""
        return rows[dist.get_rank() :: dist.get_world_size()] if self.distributed else rows

    def _summed(self, values: Tensor) -> Tensor:
        """The values summed over processes."""
        if self.distributed:
            values = values.contiguous()  # a strided view would be reduced wrongly, silently
            self._sum(values)
        return values

    @staticmethod
    def _sum(values: Tensor) -> None:
        whole = values.contiguous()
        dist.all_reduce(whole)
        if whole is not values:
            values.copy_(whole)


def check_outputs(logits: Tensor, classes: Sequence[str]) -> None:
    """Raise `ValueError` unless logits (n, O) have an output per class, or one for two classes."""
    outputs, wanted = logits.shape[1], len(classes)
    if outputs < wanted and not (outputs == 1 and wanted == 2):
        raise ValueError(
            f"the head has {outputs} outputs for {wanted} classes: set head= to the layer that "
            "gives the logits, or give the net as many outputs"
        )


def subset(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """The parameters of these names.

    Raises:
        ValueError: the model has no parameter of some name; names those it has.
    """
    have = dict(model.named_parameters())
    if missing := [n for n in names if n not in have]:
        raise ValueError(
            f"parameters= names {missing}, which the model does not have; it has: {sorted(have)}"
        )
    return {n: have[n] for n in names}
