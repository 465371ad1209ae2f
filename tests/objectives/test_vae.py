"""VAE losses: closed forms, scaling with the batch, and their guards."""

from __future__ import annotations

import math

import pytest
import torch

from evenloop.models.vae import Reconstruction
from evenloop.objectives.vae import PRESETS, Elbo, divergence


def outputs(n: int, level: float = 0.5, mu: float = 0.0, logvar: float = 0.0) -> Reconstruction:
    image = torch.full((n, 3, 28, 28), 0.5)
    code = torch.full((n, 20), mu)
    return Reconstruction(torch.logit(image * 0 + level), image, code, code * 0 + logvar)


def test_half_against_half_is_the_entropy():
    assert float(Elbo().cost(outputs(1))) == pytest.approx(2352 * math.log(2))


def test_divergence_is_zero_only_at_the_prior():
    grid = torch.linspace(-3, 3, 13)
    for mu in grid:
        for logvar in grid:
            kl = float(divergence(mu[None, None], logvar[None, None]))
            assert kl >= 0
            assert (kl == 0) == (float(mu) == 0 and float(logvar) == 0)


def test_sums_scale_with_the_batch_and_means_do_not():
    one, four = outputs(1, 0.3, 0.5, -1.0), outputs(4, 0.3, 0.5, -1.0)
    for name in ("bernoulli-sum", "gaussian-sum"):
        assert float(PRESETS[name].cost(four)) == pytest.approx(4 * float(PRESETS[name].cost(one)))
    kl = float(divergence(one.mu, one.logvar))
    bernoulli = [float(PRESETS["bernoulli-mean"].cost(o)) for o in (one, four)]
    assert bernoulli[1] - bernoulli[0] == pytest.approx(3 * 5e-6 * kl, rel=1e-2)
    gaussian = [float(PRESETS["gaussian-mean"].cost(o)) for o in (one, four)]
    assert gaussian[0] == pytest.approx(gaussian[1], rel=1e-5)


def test_certain_and_wrong_pixels_stay_finite():
    image = torch.tensor([[[[1.0]]]])
    sure = Reconstruction(torch.full_like(image, -500.0), image, image[..., 0, 0], image[..., 0, 0])
    assert torch.isfinite(Elbo().cost(sure))


def test_loss_is_differentiable_and_ignores_labels():
    made = outputs(2, 0.4)
    logits = made.logits.requires_grad_()
    nothing = torch.zeros(2, dtype=torch.long)
    Elbo(beta=0.5).loss(made._replace(logits=logits), nothing, nothing).backward()
    assert logits.grad is not None


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"likelihood": "poisson"}, "likelihood must be"),
        ({"reduction": "none"}, "reduction must be"),
    ],
)
def test_bad_fields_are_named(fields, match):
    with pytest.raises(ValueError, match=match):
        Elbo(**fields)
    assert Elbo(beta=0.0, likelihood="gaussian", reduction="mean").beta == 0
