"""The outer objective of the ratios: a gap between groups plus a weighted mean loss, both real.

Equalized odds in loss form follows Dr-Fairness (Roh et al., TMLR 2023); equal opportunity and
demographic parity in loss form follow FairBatch (Roh et al., ICLR 2021). The other members of the
family, the aggregates and several group variables are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

__all__ = ["Outer", "RatioObjective", "residuals", "row_losses"]

Fairness = Literal["eqodds", "eqopp", "dp", "dp_cellwise", "equal_loss", "worst_cell"]
Aggregate = Literal["max", "mean", "smooth"]


def row_losses(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) cross-entropy in nats of logits (n, O) on labels (n,); one output means binary.

    >>> row_losses(torch.zeros(2, 1), torch.tensor([0, 1])).round(decimals=4).tolist()
    [0.693..., 0.693...]
    """
    if logits.shape[1] == 1:
        target = y.to(logits.dtype)
        return binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
    return cross_entropy(logits, y, reduction="none")


def residuals(logits: Tensor, y: Tensor) -> Tensor:
    """(n, O) derivative of `row_losses` by the logits: probabilities minus the one-hot label."""
    if logits.shape[1] == 1:
        return torch.sigmoid(logits) - y[:, None].to(logits.dtype)
    hot = torch.zeros_like(logits).scatter_(1, y[:, None], 1.0)
    return logits.softmax(1) - hot


@dataclass(frozen=True, slots=True, eq=False)
class Outer:
    """The outer objective at one point; every entry is a tensor without a host sync.

    `value`, `gap` and `accuracy` are scalars (the last is the mean loss, not a rate); `table` is
    (C, G) cell means of the loss, nan where absent; `weight` is (n, K) the derivative of `value`
    by each row's statistics.
    """

    value: Tensor
    gap: Tensor
    accuracy: Tensor
    table: Tensor
    weight: Tensor


def _labels(positive: tuple[int, ...] | int) -> tuple[int, ...]:
    """The labels; a single one is often written without a tuple."""
    return (positive,) if isinstance(positive, int) else tuple(positive)


@dataclass(frozen=True, slots=True)
class RatioObjective:
    """fairness_weight * gap + accuracy_weight * mean loss, on real validation rows.

    `fairness`: "eqodds" (largest gap between groups of the cell losses of one label), "eqopp"
    (the same for the labels in `positive`), "dp" (gap of the groups' mean loss towards the first
    positive label), "dp_cellwise" (the same within labels: FairBatch's sufficient condition),
    "equal_loss" (gap of the groups' mean loss), "worst_cell" (largest cell loss).
    `aggregate`: "max", "mean" over pairs, or "smooth" (softmax-weighted mean of the gaps at
    `temperature`, in nats). `reference`: gaps between pairs of groups, or from the pooled rows of
    the label. `soft` replaces the loss in the gap by one minus the predicted probability.
    `sizes` splits the group axis into several group variables; the gap is their mean.

    >>> loss, cell = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 0, 1])
    >>> outer = RatioObjective(accuracy_weight=0.0).at(loss[:, None], cell, (1, 2))
    >>> float(outer.gap), outer.table.tolist(), outer.weight[:, 0].tolist()
    (0.0, [[2.0, 2.0]], [0.0, 0.0, 0.0])
    """

    fairness: Fairness = "eqodds"
    accuracy_weight: float = 20.0
    fairness_weight: float = 1.0
    aggregate: Aggregate = "max"
    reference: Literal["pairwise", "pooled"] = "pairwise"
    positive: tuple[int, ...] = (1,)
    soft: bool = False
    temperature: float = 0.1
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in (("fairness", Fairness), ("aggregate", Aggregate)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"{name} must be one of {get_args(allowed)}, got {getattr(self, name)!r}"
                )
        if self.reference not in ("pairwise", "pooled"):
            raise ValueError(f"reference must be 'pairwise' or 'pooled', got {self.reference!r}")
        for name in ("accuracy_weight", "fairness_weight"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(
                    f"{name} must be a number that is not negative, got {getattr(self, name)}"
                )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        object.__setattr__(self, "positive", _labels(self.positive))
        if not self.positive:
            raise ValueError("positive must name at least one label")

    def words(self) -> str:
        """What is made small, in one line, with what gaps are measured from.

        >>> RatioObjective("dp", 5.0, reference="pooled").words()
        '1 x dp gap of losses (reference=pooled, aggregate=max) + 5 x mean loss'
        """
        of = "predicted probabilities" if self.soft else "losses"
        how = f"reference={self.reference}, aggregate={self.aggregate}"
        if len(self.sizes) > 1:
            how += f", mean over {len(self.sizes)} group variables"
        gap = f"{self.fairness} gap of {of} ({how})"
        return f"{self.fairness_weight:g} x {gap} + {self.accuracy_weight:g} x mean loss"

    def _own_channel(self) -> bool:
        """Whether the gap is of another statistic than the loss on the row's own label."""
        return self.soft or self.fairness in ("dp", "dp_cellwise")

    def _target(self, y: Tensor) -> Tensor:
        towards = self.fairness in ("dp", "dp_cellwise")
        return torch.full_like(y, self.positive[0]) if towards else y

    def statistics(self, logits: Tensor, y: Tensor) -> Tensor:
        """(n, K) per-row statistics: the loss, and the gap's own statistic if it has one."""
        loss = row_losses(logits, y)
        if not self._own_channel():
            return loss[:, None]
        own = row_losses(logits, self._target(y))
        return torch.stack([loss, 1 - torch.exp(-own) if self.soft else own], 1)

    def logit_weights(self, logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """(n, O) derivative by the logits of sum(weight * statistics), in closed form."""
        out = weight[:, :1] * residuals(logits, y)
        if not self._own_channel():
            return out
        target = self._target(y)
        own = residuals(logits, target)
        if self.soft:  # d(1 - exp(-l)) = exp(-l) dl
            own = own * torch.exp(-row_losses(logits, target))[:, None]
        return out + weight[:, 1:2] * own

    def at(
        self,
        statistics: Tensor,
        cell: Tensor,
        shape: tuple[int, int],
        share: Tensor | None = None,
        reduce: Callable[[Tensor], object] | None = None,
    ) -> Outer:
        """The objective at per-row statistics, and its derivative by each of them.

        Args:
            statistics: (n, K) from `statistics`.
            cell: (n,) codes label * G + group.
            shape: (C, G).
            share: (C, G) true shares of the cells; those among the `n` rows when None.
            reduce: a function summing a tensor over processes in place, for distributed rows.

        Raises:
            ValueError: a positive label is not a class, or `sizes` does not fit the groups.
        """
        size = shape[0] * shape[1]
        uses = self.fairness in ("eqopp", "dp", "dp_cellwise")
        if uses and not all(0 <= p < shape[0] for p in self.positive):
            raise ValueError(f"positive labels {self.positive} are not all in 0..{shape[0] - 1}")
        dtype = torch.promote_types(statistics.dtype, torch.float32)
        packed = torch.cat(
            [statistics.to(dtype), torch.ones_like(statistics[:, :1], dtype=dtype)], 1
        )
        sums = packed.new_zeros(size, packed.shape[1]).index_add_(0, cell, packed)
        if reduce is not None:
            reduce(sums)
        count = sums[:, -1]
        seen, items = count > 0, count.clamp_min(1)
        mean = (sums[:, :-1] / items[:, None]).detach()
        part = (count if share is None else share.to(count).flatten()) * seen
        part = part / part.sum()
        accuracy = torch.dot(part, mean[:, 0])
        gap, tilt = self._tilted(mean[:, -1].view(shape), part.view(shape))
        slope = torch.stack([self.accuracy_weight * part, self.fairness_weight * tilt.flatten()], 1)
        if mean.shape[1] == 1:  # the gap is of the loss itself
            slope = slope.sum(1, keepdim=True)
        per_row = (slope / items[:, None]).index_select(0, cell)
        table = torch.where(seen, mean[:, 0], torch.nan).view(shape)
        value = self.fairness_weight * gap + self.accuracy_weight * accuracy
        return Outer(value, gap, accuracy, table, per_row)

    def _tilted(self, mean: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """The gap (a scalar) and its derivative by the cell means, (C, G)."""
        sizes = self.sizes or (mean.shape[1],)
        if torch.Size(sizes).numel() != mean.shape[1]:
            raise ValueError(f"sizes {sizes} do not multiply to the {mean.shape[1]} groups")
        if self.aggregate != "max" or self.reference != "pairwise" or len(sizes) > 1:
            with torch.enable_grad():
                leaf = mean.requires_grad_()
                gap = self._gap(leaf, share)
                (tilt,) = torch.autograd.grad(gap, leaf)
            return gap.detach(), tilt
        level, den, seen = self._levels(mean * share, share)  # the usual case, in closed form
        unseen, groups = ~seen, level.shape[1]
        high, top = level.masked_fill(unseen, -torch.inf).max(1)
        low, bottom = level.masked_fill(unseen, torch.inf).min(1)
        if self.fairness == "worst_cell":
            low = torch.zeros_like(high)
        gap, row = torch.where(seen.any(1), high - low, 0.0).max(0, keepdim=True)
        sign = level.new_zeros(level.numel())
        sign.index_fill_(0, row * groups + top.index_select(0, row), 1.0)
        if self.fairness != "worst_cell":
            place = row * groups + bottom.index_select(0, row)
            sign.index_add_(0, place, torch.ones_like(gap), alpha=-1)
        tilt = sign.view_as(level) * seen * share / torch.where(seen, den, 1.0)
        return gap.squeeze(0), tilt

    def _gap(self, mean: Tensor, share: Tensor) -> Tensor:
        sizes = self.sizes or (mean.shape[1],)
        if len(sizes) == 1:
            return self._variable_gap(mean * share, share)
        total = (mean * share).view(-1, *sizes)
        weight = share.view(-1, *sizes)
        gaps = []
        for d in range(len(sizes)):
            others = [i + 1 for i in range(len(sizes)) if i != d]
            gaps.append(self._variable_gap(total.sum(others), weight.sum(others)))
        return torch.stack(gaps).mean()

    def _variable_gap(self, num: Tensor, den: Tensor) -> Tensor:
        """The gap of one group variable from (C, G) sums and shares."""
        level, den, seen = self._levels(num, den)
        if self.fairness == "worst_cell":
            return self._pick(level, seen)
        if self.reference == "pooled":
            total = den.sum(1, keepdim=True).clamp_min(1e-12)
            pooled = (level * den).sum(1, keepdim=True) / total
            return self._pick((level - pooled).abs(), seen)
        if self.aggregate == "max":  # the widest pair of a row is its largest and smallest
            high = level.masked_fill(~seen, -torch.inf).amax(1)
            low = level.masked_fill(~seen, torch.inf).amin(1)
            return torch.where(seen.any(1), high - low, 0.0).max()
        i, j = torch.triu_indices(level.shape[1], level.shape[1], 1, device=level.device)
        return self._pick((level[:, i] - level[:, j]).abs(), seen[:, i] & seen[:, j])

    def _levels(self, num: Tensor, den: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(R, G) what is compared between groups, what it is divided by, and where it is known."""
        if self.fairness == "eqopp":
            kept = torch.zeros_like(den[:, :1])
            kept[list(self.positive)] = 1.0
            num, den = num * kept, den * kept
        elif self.fairness in ("equal_loss", "dp"):
            num, den = num.sum(0, keepdim=True), den.sum(0, keepdim=True)
        elif self.fairness == "dp_cellwise":
            den = den.sum(0, keepdim=True).expand_as(num)
        seen = den > 0
        return num / torch.where(seen, den, 1.0), den, seen

    def _pick(self, gaps: Tensor, seen: Tensor) -> Tensor:
        """The aggregate of non-negative gaps over the seen entries; 0 when there is none."""
        if gaps.numel() == 0:
            return gaps.sum()
        if self.aggregate == "max":
            return torch.where(seen, gaps, 0.0).max()
        if self.aggregate == "mean":
            return torch.where(seen, gaps, 0.0).sum() / seen.sum().clamp_min(1)
        counted = seen | ~seen.any()  # never an empty softmax: its gradient would be nan
        heat = torch.where(counted, gaps / self.temperature, -torch.inf)
        weight = heat.flatten().softmax(0)
        return (weight * torch.where(seen, gaps, 0.0).flatten()).sum()
