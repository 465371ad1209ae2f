"""Variational autoencoders for images: those of the generator-feedback study, and smaller ones.

Wyllie, Shumailov and Papernot, "Fairness Feedback Loops: Training on Synthetic Data Amplifies
Bias" (FAccT 2024) train a VAE of 28, 64 or 128 pixels in every generation; `ConvVae` generalises
the first to any size and width, and can be conditioned on the cell (label x group) of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evenloop.models.shape import Size, image, positive
from evenloop.models.vae_layers import Folded, SubPixel

__all__ = ["FACTORIES", "Reconstruction", "Vae", "conditioned", "conv_vae"]

DECODE_ROWS = 256
FEW_CHANNELS = 4


class Reconstruction(NamedTuple):
    """What a VAE gives in training: everything its loss needs.

    `logits` and `target` are (B, C, H, W), the target in [0, 1]; `mu` and `logvar` (B, L).
    """

    logits: Tensor
    target: Tensor
    mu: Tensor
    logvar: Tensor


class Vae(nn.Module):
    """Encoder, posterior and decoder; x (B, C, H, W) -> `Reconstruction`.

    Pixels are uint8 or floating in [0, 1]. In training the posterior's noise comes from torch's
    current generator (`fit` gives it a private one); in evaluation the latent is its mean. With
    `cells` > 0 the VAE is conditional: x has one plane more, holding each row's cell (see
    `conditioned`), and `sample` draws cells by the shares it was trained on.

    Attributes:
        shape: (C, H, W) of the images.
        latent: number of latent dimensions, L.
        cells: number of cells it is conditioned on; 0 for none.
        share: (cells,) shares of the cells, set by `count_cells`.
    """

    share: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        shape: tuple[int, int, int],
        width: int,
        latent: int,
        cells: int = 0,
    ) -> None:
        super().__init__()
        positive("vae", latent=latent)
        self.shape, self.latent, self.cells = shape, latent, cells
        self.encoder = encoder
        self.mu = nn.Linear(width, latent)
        self.logvar = nn.Linear(width, latent)
        self.decoder = decoder
        self.register_buffer("share", torch.full((cells,), 1 / cells if cells else 0.0))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, both (B, L)."""
        hidden = self.encoder(x)
        return self.mu(hidden), self.logvar(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, H, W) images in [0, 1] for latents (B, L), followed by one-hot cells if any."""
        return torch.sigmoid(self.decoder(z))

    def forward(self, x: Tensor) -> Reconstruction:
        """Logits of the images given a latent of each row of `x`, and the posterior."""
        x = self._floating(x)
        channels = self.shape[0]
        target, seen, known = x[:, :channels], x, None
        if self.cells:
            code = (x[:, channels, 0, 0] * 255).round().long()
            known = nn.functional.one_hot(code, self.cells).to(x.dtype)
            planes = known[:, :, None, None].expand(-1, -1, *x.shape[2:])
            seen = torch.cat([target, planes], 1)
        mu, logvar = self.encode(seen)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu
        logits = self.decoder(z if known is None else torch.cat([z, known], 1))
        return Reconstruction(logits, target, mu, logvar)

    def _floating(self, x: Tensor) -> Tensor:
        if x.dtype == torch.uint8:
            return x.to(self.mu.weight.dtype) / 255
        if not x.is_floating_point():
            raise TypeError(f"pixels must be uint8 or floating in [0, 1], got {x.dtype}")
        return x

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator, cell: Tensor | None = None) -> Tensor:
        """(n, C, H, W) float images in [0, 1] of latents drawn from the standard normal.

        Args:
            n: number of images, at least 0.
            generator: source of the latents (and of the cells, if conditional and none given).
            cell: (n,) int64 cells of a conditional VAE.

        Raises:
            ValueError: `cell` is given to a VAE without cells, or has another length.

        >>> from evenloop.models import seeded
        >>> vae = seeded(lambda: conv_vae(1, 8, widths=(4,), latent=2), 0)
        >>> vae.sample(3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 1, 8, 8])
        """
        weight = self.mu.weight
        if cell is not None and (not self.cells or cell.shape != (n,)):
            raise ValueError(f"cell must have shape ({n},) and the VAE {self.cells or 'no'} cells")
        z = torch.randn(n, self.latent, generator=generator, device=generator.device)
        z = z.to(weight.device, weight.dtype)
        if self.cells:
            if cell is None and n:
                share = self.share.to(generator.device)
                cell = torch.multinomial(share, n, replacement=True, generator=generator)
            elif cell is None:
                cell = torch.zeros(0, dtype=torch.long)
            known = nn.functional.one_hot(cell.to(weight.device), self.cells)
            z = torch.cat([z, known.to(z.dtype)], 1)
        was_training = self.training
        self.eval()
        parts = [self.decode(part) for part in torch.split(z, DECODE_ROWS)]
        self.train(was_training)
        return torch.cat(parts) if n else z.new_zeros(0, *self.shape)

    def count_cells(self, cell: Tensor) -> None:
        """Set the shares of the cells that `sample` draws to those of `cell` (N,)."""
        count = torch.bincount(cell, minlength=self.cells).to(self.share)
        self.share.copy_(count / count.sum())


def conditioned(x: Tensor, cell: Tensor) -> Tensor:
    """(B, C + 1, H, W) images with one more plane that holds the row's cell.

    This is what a conditional VAE reads; the type of `x` (uint8, or floating in [0, 1]) stays.

    >>> conditioned(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 5]))[:, 3, 0, 0]
    tensor([0, 5], dtype=torch.uint8)
    """
    code = cell.to(x.dtype) if x.dtype == torch.uint8 else cell.to(x.dtype) / 255
    return torch.cat([x, code[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


def _up(wide_in: int, wide: int) -> nn.Module:
    if wide <= FEW_CHANNELS:
        return SubPixel(wide_in, wide)
    return nn.ConvTranspose2d(wide_in, wide, 4, stride=2, padding=1)


def _down(wide_in: int, wide: int, act: nn.Module, *, k: int = 4, p: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(wide_in, wide, k, stride=2, padding=p), act]


def conv_vae(
    channels: int,
    size: int,
    *,
    widths: Sequence[int] = (64, 128),
    latent: int = 20,
    cells: int = 0,
) -> Vae:
    """Stride-2 4x4 convolutions down to one linear layer, and their mirror image.

    With 3 channels, 28 pixels and the default widths it is the VAE of ColoredMNIST: 651,179
    parameters. `size` must be a multiple of 2 to the number of widths.

    Raises:
        ValueError: the size does not fit the widths, or a count is not positive.

    >>> from evenloop.models import seeded
    >>> sum(p.numel() for p in seeded(lambda: conv_vae(3, 28), 0).parameters())
    651179
    """
    positive("conv-vae", channels=channels, size=size, latent=latent, depth=len(widths))
    step = 2 ** len(widths)
    if size % step:
        raise ValueError(
            f"conv-vae: size must be a multiple of {step} for {len(widths)} widths, got {size}"
        )
    side, top = size // step, widths[-1]
    down: list[nn.Module] = []
    up: list[nn.Module] = [nn.Linear(latent + cells, top * side * side)]
    up.append(nn.Unflatten(1, (top, side, side)))
    for wide_in, wide in zip([channels + cells, *widths[:-1]], widths, strict=True):
        down += _down(wide_in, wide, nn.ReLU(inplace=True))
    for wide, wide_out in zip(widths[::-1], [*widths[-2::-1], channels], strict=True):
        up += [_up(wide, wide_out), nn.ReLU(inplace=True)]
    return Vae(
        nn.Sequential(*down, nn.Flatten()),
        Folded(*up[:-1]),
        shape=(channels, size, size),
        width=top * side * side,
        latent=latent,
        cells=cells,
    )


def _vae64(channels: int, latent: int) -> Vae:
    """The VAE of ColoredSVHN: no padding on the way down, wide kernels on the way up."""
    leaky = nn.LeakyReLU(0.2, inplace=True)
    widths = (32, 64, 128, 256)
    down: list[nn.Module] = []
    for wide_in, wide in zip((channels, *widths), widths, strict=False):
        down += _down(wide_in, wide, leaky, p=0)
    up: list[nn.Module] = [nn.Linear(latent, 1024), nn.Unflatten(1, (1024, 1, 1))]
    for wide_in, wide, k in ((1024, 128, 5), (128, 64, 5), (64, 32, 6), (32, channels, 6)):
        up += [nn.ConvTranspose2d(wide_in, wide, k, stride=2), nn.ReLU(inplace=True)]
    shape = (channels, 64, 64)
    encoder, decoder = nn.Sequential(*down, nn.Flatten()), Folded(*up[:-1])
    return Vae(encoder, decoder, shape=shape, width=1024, latent=latent)


def _vae64_deep(channels: int, latent: int) -> Vae:
    """Five levels with batch norm; the study's unused alternative, with a Bernoulli output."""
    widths = (32, 64, 128, 256, 512)
    down: list[nn.Module] = []
    for wide_in, wide in zip((channels, *widths), widths, strict=False):
        down += [*_down(wide_in, wide, nn.BatchNorm2d(wide), k=3), nn.LeakyReLU(inplace=True)]
    up: list[nn.Module] = [nn.Linear(latent, 2048), nn.Unflatten(1, (512, 2, 2))]
    for wide_in, wide in zip(widths[::-1], (*widths[-2::-1], 32), strict=True):
        up += [
            nn.ConvTranspose2d(wide_in, wide, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(wide),
            nn.LeakyReLU(inplace=True),
        ]
    up.append(nn.Conv2d(32, channels, 3, padding=1))
    shape = (channels, 64, 64)
    encoder, decoder = nn.Sequential(*down, nn.Flatten()), nn.Sequential(*up)
    return Vae(encoder, decoder, shape=shape, width=2048, latent=latent)


def _vae128(channels: int, latent: int) -> Vae:
    """The VAE of CelebA: nearest upsampling and replicated borders on the way up."""
    leaky = nn.LeakyReLU(0.2, inplace=True)
    widths = (128, 256, 512, 1024, 1024)
    down: list[nn.Module] = []
    for wide_in, wide in zip((channels, *widths), widths, strict=False):
        down += [*_down(wide_in, wide, nn.BatchNorm2d(wide)), leaky]
    up: list[nn.Module] = [nn.Linear(latent, 2048 * 16), nn.ReLU(inplace=True)]
    up.append(nn.Unflatten(1, (2048, 4, 4)))
    outs = (1024, 512, 256, 128, channels)
    for wide_in, wide in zip((2048, *outs), outs, strict=False):
        up += [nn.Upsample(scale_factor=2, mode="nearest")]
        up += [nn.Conv2d(wide_in, wide, 3, padding=1, padding_mode="replicate")]
        up += [nn.BatchNorm2d(wide, eps=1e-3), leaky]
    shape = (channels, 128, 128)
    encoder, decoder = nn.Sequential(*down, nn.Flatten()), nn.Sequential(*up[:-2])
    return Vae(encoder, decoder, shape=shape, width=1024 * 16, latent=latent)


def _exact(name: str, channels: int | None, size: Size | None, side: int) -> int:
    depth, high, wide = image(name, channels, size)
    if (high, wide) != (side, side):
        raise ValueError(f"{name}: size must be {side}, got {high}x{wide}; use 'conv-vae'")
    return depth


def vae28(
    *,
    channels: int | None,
    size: Size | None,
    classes: int = 0,
    features: int | None = None,
    latent: int = 20,
) -> Vae:
    """The VAE of ColoredMNIST, 651,179 parameters with 3 channels."""
    return conv_vae(_exact("vae28", channels, size, 28), 28, latent=latent)


def vae64(
    *,
    channels: int | None,
    size: Size | None,
    classes: int = 0,
    features: int | None = None,
    latent: int = 32,
) -> Vae:
    """The VAE of ColoredSVHN, 4,348,547 parameters with 3 channels."""
    return _vae64(_exact("vae64", channels, size, 64), latent)


def vae64_deep(
    *,
    channels: int | None,
    size: Size | None,
    classes: int = 0,
    features: int | None = None,
    latent: int = 128,
) -> Vae:
    """The study's other VAE of 64 pixels, 3,937,635 parameters with 3 channels."""
    return _vae64_deep(_exact("vae64-deep", channels, size, 64), latent)


def vae128(
    *,
    channels: int | None,
    size: Size | None,
    classes: int = 0,
    features: int | None = None,
    latent: int = 500,
) -> Vae:
    """The VAE of CelebA, 85,680,747 parameters with 3 channels."""
    return _vae128(_exact("vae128", channels, size, 128), latent)


def small_vae(
    *,
    channels: int | None,
    size: Size | None,
    classes: int = 0,
    features: int | None = None,
    widths: Sequence[int] = (16, 32),
    latent: int = 8,
    cells: int = 0,
) -> Vae:
    """`conv_vae` for square images, narrow by default; `cells` makes it conditional."""
    depth, high, wide = image("conv-vae", channels, size)
    if high != wide:
        raise ValueError(f"conv-vae: images must be square, got {high}x{wide}; pad or resize them")
    return conv_vae(depth, high, widths=tuple(widths), latent=latent, cells=cells)


FACTORIES = {
    "conv-vae": small_vae,
    "vae28": vae28,
    "vae64": vae64,
    "vae64-deep": vae64_deep,
    "vae128": vae128,
}
