"""A Gaussian posterior over the last layer alone (last-layer Laplace, Kronecker factors).

Ritter, Botev and Barber 2018; for the last layer only: Daxberger et al. 2021. Nothing is trained:
the trained weights are the mean, the curvature of the loss at the labelled items the precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evenloop.heads import features_of, find_head
from evenloop.heuristics.posterior import Posterior, check_budget
from evenloop.rng import Rng

__all__ = ["LastLayerLaplace"]


@dataclass(frozen=True, slots=True, eq=False)
class LastLayerLaplace(Posterior):
    """Gaussian over the weights of the last linear layer, around the trained ones.

    The precision is prior + A (x) G with A the second moment of the features (a one appended for
    the bias), summed over the labelled items, and G the mean curvature of the softmax. Made by
    `fit`; needs no labels. Its spread grows with the feature norm, as that of dropout does.
    """

    model: nn.Module
    layer: nn.Linear
    axes_in: Tensor
    axes_out: Tensor
    precision: Tensor
    samples: int = 20
    consistent: bool = False
    rows: int = 1024

    @staticmethod
    def fit(
        model: nn.Module,
        x: Tensor,
        *,
        prior: float = 1.0,
        samples: int = 20,
        consistent: bool = False,
        rows: int = 1024,
    ) -> LastLayerLaplace:
        """The posterior after seeing labelled inputs `x` (N, ...); `prior` is a precision > 0.

        >>> from evenloop.models import build
        >>> net, x = build("logistic", features=4, classes=2, seed=0), torch.ones(5, 4)
        >>> next(LastLayerLaplace.fit(net, x, samples=3).draws([x], rng=Rng.of(0))).shape
        torch.Size([5, 2, 3])
        """
        check_budget(samples, rows)
        layer = find_head(model)
        if not isinstance(layer, nn.Linear) or not prior > 0:
            raise ValueError(
                f"the model's last layer must be nn.Linear (it is {type(layer).__name__}) and "
                f"prior positive (it is {prior})"
            )
        features = _with_one(features_of(model, x, batch=rows), layer)
        probs = _apply(layer, features).softmax(1)
        curvature = torch.diag(probs.mean(0)) - probs.T @ probs / len(probs)
        value_in, axes_in = torch.linalg.eigh(features.T @ features)
        value_out, axes_out = torch.linalg.eigh(curvature)
        precision = value_out.clamp_min(0)[:, None] * value_in.clamp_min(0) + prior
        return LastLayerLaplace(
            model, layer, axes_in, axes_out, precision, samples, consistent, rows
        )

    @property
    def items(self) -> int:
        """Items per batch: the row budget over the draws."""
        return max(1, self.rows // self.samples)

    def draws(self, batches: Iterable[Tensor], *, rng: Rng) -> Iterator[Tensor]:
        """Logits (B, C, T) of every batch."""
        device = self.axes_in.device
        generator = rng.at("laplace").gen(device)
        shape = (self.samples, *self.precision.shape)
        weights = torch.zeros(0)
        if self.consistent:
            noise = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
            weights = self.axes_out @ (noise / self.precision.sqrt()) @ self.axes_in.T
        for x in batches:
            features = _with_one(features_of(self.model, x, batch=self.rows), self.layer)
            mean = _apply(self.layer, features)[:, :, None]
            if self.consistent:
                yield mean + torch.einsum("nf,tcf->nct", features, weights)
                continue
            # a row's logits are Gaussian with variances v along the curvature's axes
            spread = ((features @ self.axes_in) ** 2 @ (1 / self.precision).T).sqrt()
            noise = torch.randn(
                (len(x), self.samples, spread.shape[1]),
                generator=generator,
                device=device,
                dtype=torch.float64,
            ).transpose(1, 2)
            yield mean + torch.einsum("cd,ndt->nct", self.axes_out, spread[:, :, None] * noise)


def _with_one(features: Tensor, layer: nn.Linear) -> Tensor:
    features = features.double()
    if "bias" in dict(layer.named_parameters()):
        features = torch.cat([features, features.new_ones(len(features), 1)], 1)
    return features


def _apply(layer: nn.Linear, features: Tensor) -> Tensor:
    weight = layer.weight.detach().double()
    if "bias" in dict(layer.named_parameters()):
        weight = torch.cat([weight, layer.bias.detach().double()[:, None]], 1)
    return features @ weight.T
