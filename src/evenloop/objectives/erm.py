"""Empirical risk: the mean cross-entropy of the batch, whoever is in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from evenloop.seams import Objective

__all__ = ["Erm"]


@dataclass(frozen=True, slots=True)
class Erm(Objective):
    """Mean cross-entropy in nats; `label_smoothing` in [0, 1) mixes in the uniform label.

    >>> import torch
    >>> round(float(Erm().loss(torch.zeros(4, 2), torch.zeros(4).long(), torch.zeros(4))), 4)
    0.6931
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        """Scalar mean cross-entropy of logits (B, C) against labels (B,)."""
        return cross_entropy(outputs, y, label_smoothing=self.label_smoothing)

    def units(self, y: Tensor) -> Tensor:
        """Scalar number of rows the loss of labels (B,) is the mean over."""
        return torch.full((), float(len(y)), device=y.device)
