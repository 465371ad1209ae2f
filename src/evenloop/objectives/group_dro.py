"""The worst group's loss, softly: group distributionally robust optimisation.

Sagawa, Koh, Hashimoto and Liang, "Distributionally Robust Neural Networks for Group Shifts"
(ICLR 2020), Algorithm 1. It needs the groups at training time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.objectives.reference import check_codes, group_mean, item_losses
from evenloop.seams import Objective

__all__ = ["GroupDRO"]


class GroupDRO(nn.Module, Objective):
    """Sum of q_g L_g, with q_g growing by exp(rate * L_g) each training step and summing to one.

    Groups absent from a batch keep their odds against each other and cost nothing in it.

    Args:
        rate: step size of the group weights, > 0 (0.01 in the paper).
        adjustment: C >= 0 of the paper's size adjustment: C / sqrt(n_g) is added to L_g, n_g the
            group's training count. It needs `bind` or `count`.
        count: (G,) training items of each group; `bind` takes them from the data.

    Attributes:
        weight: (G,) q_g.

    Raises:
        ValueError: a rate that is not positive, a negative adjustment, or a loss before the
            groups are known.

    >>> dro = GroupDRO(rate=1.0, count=torch.tensor([10, 10]))
    >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0]])
    >>> value = dro.loss(logits, torch.tensor([0, 1]), torch.tensor([0, 1]))
    >>> [round(float(q), 3) for q in dro.weight], round(float(value), 3)
    ([0.018, 0.982], 3.946)
    """

    weight: Tensor
    count: Tensor

    def __init__(
        self, rate: float = 0.01, *, adjustment: float = 0.0, count: Tensor | None = None
    ) -> None:
        super().__init__()
        if not 0 < rate < float("inf"):
            raise ValueError(f"rate of GroupDRO must be finite and > 0, got {rate}")
        if not 0 <= adjustment < float("inf"):
            raise ValueError(f"adjustment of GroupDRO must be finite and >= 0, got {adjustment}")
        self.rate, self.adjustment = rate, adjustment
        self._size(torch.zeros(0) if count is None else count)

    def _size(self, count: Tensor) -> None:
        size = len(count)
        even = torch.full((size,), 1 / max(size, 1), device=count.device)
        self.register_buffer("count", count.float(), persistent=False)
        self.register_buffer("weight", even)

    def bind(self, model: nn.Module, data: GroupedData, groups: GroupIndex) -> None:
        """Count the groups and start from equal weights.

        Raises:
            ValueError: a cell is no code of `groups`.
        """
        check_codes(groups.cell, groups.size)
        self._size(groups.count())

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        """Scalar sum over groups of q_g L_g, for logits (B, C), labels (B,), cells (B,)."""
        if not len(self.weight):
            raise ValueError("GroupDRO knows no groups yet; call bind(...) or give count")
        losses = item_losses(outputs, y)
        mean, seen = group_mean(losses, cell, len(self.weight))
        if self.adjustment:
            extra = self.adjustment / self.count.clamp(min=1).sqrt()
            mean = (mean + extra).where(seen > 0, 0)
        if self.training:
            grown = self.weight.log() + self.rate * mean.detach()
            self.weight.copy_(torch.softmax(grown, 0))
        return torch.dot(self.weight.to(mean.dtype, copy=True), mean)
