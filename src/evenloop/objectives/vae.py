"""What a variational autoencoder's batch costs: reconstruction plus weighted divergence.

The presets are the losses that the generator-feedback study ran (Wyllie, Shumailov and Papernot,
FAccT 2024), under names that say what they compute; sums are over the whole batch. All take the
reconstruction as logits, which keeps the logarithms finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from evenloop.seams import Objective

__all__ = ["PRESETS", "Elbo", "Reconstructed", "divergence"]

Likelihood = Literal["bernoulli", "gaussian"]
Reduction = Literal["sum", "mean"]


class Reconstructed(Protocol):
    """Outputs of a VAE: `logits`, `target` (B, C, H, W) in [0, 1], `mu` and `logvar` (B, L)."""

    @property
    def logits(self) -> Tensor: ...  # noqa: D102
    @property
    def target(self) -> Tensor: ...  # noqa: D102
    @property
    def mu(self) -> Tensor: ...  # noqa: D102
    @property
    def logvar(self) -> Tensor: ...  # noqa: D102


def divergence(mu: Tensor, logvar: Tensor, *, clamp: float | None = None) -> Tensor:
    """Scalar KL divergence in nats from N(mu, exp logvar) to the standard normal, summed.

    -1/2 sum(1 + logvar - mu^2 - exp logvar). With `clamp` the log variance is kept within
    +-`clamp` where it enters linearly, as the study's ColoredSVHN loss does.

    >>> float(divergence(torch.ones(3, 2), torch.zeros(3, 2)))
    3.0
    """
    linear = logvar if clamp is None else logvar.clamp(-clamp, clamp)
    return -0.5 * (1 + linear - mu.square() - logvar.exp()).sum()


@dataclass(frozen=True, slots=True)
class Elbo(Objective):
    """Negative evidence lower bound of a batch of `Reconstructed` outputs.

    Reconstruction is the binary cross-entropy ("bernoulli") or the squared error of the sigmoid
    ("gaussian", target clamped to [0, 1]), summed over the batch or averaged over its elements;
    the divergence is weighted by `beta` and summed, or averaged over rows with `mean_kl`. A sum
    scales with the batch, a mean does not: change the learning rate with it.

    >>> from types import SimpleNamespace
    >>> half = torch.full((1, 3, 28, 28), 0.5)
    >>> row = SimpleNamespace(
    ...     logits=half * 0, target=half, mu=torch.zeros(1, 2), logvar=torch.zeros(1, 2)
    ... )
    >>> round(float(Elbo().loss(row, half, half)), 2)              # 2352 ln 2
    1630.28

    Raises:
        ValueError: `beta` is negative, or a word is not one of those allowed.
    """

    likelihood: Likelihood = "bernoulli"
    reduction: Reduction = "sum"
    beta: float = 1.0
    mean_kl: bool = False
    clamp: float | None = None

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"beta must be at least 0, got {self.beta}")
        if self.likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood must be bernoulli or gaussian, got {self.likelihood!r}")
        if self.reduction not in ("sum", "mean"):
            raise ValueError(f"reduction must be sum or mean, got {self.reduction!r}")

    def loss(self, outputs: Any, y: Tensor, cell: Tensor) -> Tensor:
        """Scalar loss of `Reconstructed` outputs; labels and cells are not used."""
        return self.cost(outputs)

    def cost(self, outputs: Reconstructed) -> Tensor:
        """Scalar loss of one batch."""
        target = outputs.target.clamp(0, 1)
        if self.likelihood == "bernoulli":
            cost = binary_cross_entropy_with_logits(
                outputs.logits, target, reduction=self.reduction
            )
        else:
            cost = mse_loss(torch.sigmoid(outputs.logits), target, reduction=self.reduction)
        kl = divergence(outputs.mu, outputs.logvar, clamp=self.clamp)
        return cost + self.beta * (kl / len(outputs.mu) if self.mean_kl else kl)


PRESETS = {
    "bernoulli-sum": Elbo(),
    "gaussian-sum": Elbo("gaussian", clamp=100.0),
    "bernoulli-mean": Elbo(reduction="mean", beta=5e-6),
    "gaussian-mean": Elbo("gaussian", "mean", beta=0.00025, mean_kl=True),
}
"""By name: ColoredMNIST, ColoredSVHN, CelebA and any other set, and one the study never used."""
