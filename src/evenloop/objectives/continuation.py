"""What a continuation costs: the mean negative log-likelihood of its tokens.

Only the continuation teaches: the prompt is given (Taori and Hashimoto, "Data Feedback Loops", ICML
2023, train their language models so).
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from evenloop.data import NOTHING
from evenloop.seams import Objective

__all__ = ["ContinuationLoss"]


class Outputs(Protocol):
    """What a language model gives for a batch: `log_likelihood` (B,) and `tokens` (B,)."""

    @property
    def log_likelihood(self) -> Tensor:
        """(B,) nats."""

    @property
    def tokens(self) -> Tensor:
        """(B,) how many tokens each is over."""


class ContinuationLoss(Objective):
    """Nats a token, over all tokens of the batch: -sum log-likelihood / sum tokens.

    >>> import torch
    >>> from collections import namedtuple
    >>> two = namedtuple("Two", "log_likelihood tokens")
    >>> made = two(torch.tensor([-3.0, -1.0]), torch.tensor([3, 1]))
    >>> labels = torch.tensor([[4, 5, 6], [4, -1, -1]])
    >>> ContinuationLoss().loss(made, labels, torch.zeros(2).long()).item()
    1.0
    """

    def loss(self, outputs: Any, y: Tensor, cell: Tensor) -> Tensor:
        """Scalar mean over the tokens of labels y (B, L), `NOTHING` behind the end."""
        made: Outputs = outputs
        return -made.log_likelihood.sum() / made.tokens.sum().clamp_min(1)

    def units(self, y: Tensor) -> Tensor:
        """Scalar number of tokens that the loss of labels y (B, L) is the mean over."""
        return (y != NOTHING).sum().clamp_min(1).float()
