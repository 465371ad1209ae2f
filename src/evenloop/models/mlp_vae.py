"""A variational autoencoder of linear layers: for small images, several times faster on a CPU.

Kingma, Welling, "Auto-Encoding Variational Bayes" (ICLR 2014) use this form; conditioned on the
cell (label x group) of a row it is that of Kingma, Rezende, Mohamed, Welling, "Semi-Supervised
Learning with Deep Generative Models" (NeurIPS 2014), M2 with every label known.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from evenloop.models.shape import Size, image, positive
from evenloop.models.vae import Vae

__all__ = ["mlp_vae"]


def mlp_vae(
    *,
    channels: int | None,
    size: Size | None,
    features: int | None = None,
    widths: Sequence[int] = (256,),
    latent: int = 8,
    cells: int = 0,
) -> Vae:
    """Linear layers with ReLU down to the posterior, and their mirror image; `Vae` says the rest.

    Args:
        channels: of the images.
        size: side or (height, width) in pixels.
        features: must be None; the generator makes images.
        widths: of the hidden layers of the encoder, at least one.
        latent: number of latent dimensions.
        cells: number of cells it is conditioned on; 0 for none.

    Raises:
        ValueError: no image shape, no hidden layer, or a count that is not positive.

    >>> from evenloop.models import seeded
    >>> vae = seeded(lambda: mlp_vae(channels=2, size=8, widths=(32,), latent=3), 0)
    >>> sum(p.numel() for p in vae.parameters())
    8678
    """
    depth, high, wide = image("mlp-vae", channels, size)
    hidden = list(widths)
    positive("mlp-vae", latent=latent, **{f"widths[{i}]": w for i, w in enumerate(hidden)})
    if not hidden:
        raise ValueError("mlp-vae: widths must name at least one hidden layer, got none")
    pixels = high * wide
    down: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise([(depth + cells) * pixels, *hidden]):
        down += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    up: list[nn.Module] = []
    for before, after in pairwise([latent + cells, *hidden[::-1]]):
        up += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    up += [nn.Linear(hidden[0], depth * pixels), nn.Unflatten(1, (depth, high, wide))]
    return Vae(
        nn.Sequential(*down),
        nn.Sequential(*up),
        shape=(depth, high, wide),
        width=hidden[-1],
        latent=latent,
        cells=cells,
    )
