"""Weights instead of resampling: every row counts by its cell's wanted over its given share.

With the shares of `evenloop.samplers.ratios` as the target this minimises the same training
objective as drawing batches by them, in any loader's batches, at the price of more gradient
variance in rare cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.objectives.reference import check_codes, item_losses, rows_of
from evenloop.seams import Objective, Seen

__all__ = ["Reweight"]


class Reweight(Objective):
    """Mean over the batch of target[cell] / given[cell] times the cross-entropy.

    Args:
        target: (G,) wanted shares of the cells, or a function giving them, asked again after each
            step (learned ratios); uniform over the cells that have rows when None.
        given: (G,) shares the loader gives; `bind` takes those of the data.

    Raises:
        ValueError: shares that are negative, do not fit the cells, or want a cell without rows.

    >>> even = Reweight(given=torch.tensor([0.75, 0.25]))
    >>> [round(float(w), 3) for w in even.weight]
    [0.667, 2.0]
    """

    def __init__(
        self,
        target: Tensor | Callable[[], Tensor] | None = None,
        *,
        given: Tensor | None = None,
    ) -> None:
        self.target = target
        self.given = torch.zeros(0) if given is None else given
        self.weight = self._weights() if given is not None else torch.zeros(0)

    def bind(self, model: nn.Module, data: GroupedData, groups: GroupIndex) -> None:
        """Take the cells' shares of the data as given.

        Raises:
            ValueError: a cell is no code of `groups`.
        """
        check_codes(groups.cell, groups.size)
        self.given = groups.count().double() / max(len(groups), 1)
        self.weight = self._weights()

    def units(self, y: Tensor) -> Tensor:
        """Scalar number of rows the loss of labels (B,) is the mean over."""
        return torch.full((), float(len(y)), device=y.device)

    def _weights(self) -> Tensor:
        held = self.given > 0
        if self.target is None:
            target = held / held.sum()
        else:
            target = self.target() if callable(self.target) else self.target
            target = target.flatten().to(self.given.device)
        if target.shape != self.given.shape or not bool((target >= 0).all()):
            raise ValueError(
                f"target must be {len(self.given)} shares, none negative, got {target.tolist()}"
            )
        if bool((target[~held] > 0).any()):
            cell = int(((target > 0) & ~held).nonzero()[0])
            raise ValueError(f"target wants cell {cell}, which has no rows; set its share to 0")
        return torch.where(held, target / self.given.where(held, 1.0), 0.0)

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        """Scalar weighted mean for logits (B, C), labels (B,), cells (B,)."""
        if not len(self.weight):
            raise ValueError("Reweight knows no cells yet; call bind(...) or give given=")
        losses = item_losses(outputs, y)
        return (rows_of(self.weight.to(losses.dtype), cell) * losses).mean()

    def after(self, seen: Seen) -> None:
        """Ask a learned target for its new shares."""
        if callable(self.target):
            self.weight = self._weights().to(self.weight.device)

    def state_dict(self) -> dict[str, Any]:
        """The weights."""
        return {"weight": self.weight.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.weight = state["weight"].to(self.weight.device).clone()
