"""A small diffusion model for images, through the extra `diffusion`.

Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (NeurIPS 2020): a net learns to tell
the noise in a noisy picture; samples are drawn in fewer, deterministic steps as in Song, Meng,
Ermon, "Denoising Diffusion Implicit Models" (ICLR 2021). The net and both schedules are those of
the library diffusers; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from evenloop.models.shape import Size, image, positive
from evenloop.seams import Objective

__all__ = ["Denoised", "Denoising", "Diffusion", "diffusion"]

DRAW_ROWS = 512


class Denoised(NamedTuple):
    """What the net said the noise was, and the noise that was added; both (B, C, H, W)."""

    predicted: Tensor
    noise: Tensor


@dataclass(frozen=True, slots=True)
class Denoising(Objective):
    """Mean squared error of the predicted noise, averaged over the batch and its elements.

    >>> made = Denoised(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    >>> float(Denoising().loss(made, torch.zeros(1), torch.zeros(1)))
    0.5
    """

    def loss(self, outputs: Any, y: Tensor, cell: Tensor) -> Tensor:
        """Scalar loss of `Denoised` outputs; labels and cells are not used."""
        return mse_loss(outputs.predicted, outputs.noise)


class Diffusion(nn.Module):
    """x (B, C, H, W) in [0, 1] or uint8 -> `Denoised`; steps and noise from torch's generator.

    Attributes:
        net: noisy pictures (B, C, H, W) in about [-1, 1] and steps (B,) -> predicted noise.
        shape: (C, H, W).
        steps: of the noising process in training.
        draw_steps: of sampling, at most `steps`.
        kept: (steps,) how much of a picture's variance is left after each step.
    """

    kept: Tensor

    def __init__(
        self, net: nn.Module, scheduler: Any, shape: tuple[int, int, int], draw_steps: int
    ) -> None:
        super().__init__()
        self.net, self.shape, self.draw_steps = net, shape, draw_steps
        self._scheduler = scheduler
        self.register_buffer("kept", scheduler.alphas_cumprod.clone())

    def objective(self) -> Denoising:
        """What a batch costs in training."""
        return Denoising()

    def forward(self, x: Tensor) -> Denoised:
        """The noise of each row at a random step, as the net sees it and as it is."""
        weight = next(self.net.parameters())
        x = x.to(weight.dtype) / 255 if x.dtype == torch.uint8 else x
        step = torch.randint(len(self.kept), (len(x),), device=x.device)
        noise = torch.randn_like(x)
        left = self.kept[step].to(x.dtype)[:, None, None, None]
        noisy = left.sqrt() * (2 * x - 1) + (1 - left).sqrt() * noise
        return Denoised(self.net(noisy, step).sample, noise)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, C, H, W) images in [0, 1]; `generator` gives the first noise, the rest is fixed.

        Args:
            n: number of images, at least 0.
            generator: source of the noise that the pictures begin as.
        """
        weight = next(self.net.parameters())
        x = torch.randn(n, *self.shape, generator=generator, device=generator.device)
        x = x.to(weight.device, weight.dtype)
        was_training = self.training
        self.eval()
        parts = [self._clean(part) for part in torch.split(x, DRAW_ROWS) if n]
        self.train(was_training)
        return torch.cat(parts) if parts else x

    def _clean(self, x: Tensor) -> Tensor:
        self._scheduler.set_timesteps(self.draw_steps)
        for step in self._scheduler.timesteps:
            noise = self.net(x, step.to(x.device)).sample.to(x.dtype)
            x = self._scheduler.step(noise, step, x).prev_sample
        return ((x + 1) / 2).clamp(0, 1)


def diffusion(
    *,
    channels: int | None,
    size: Size | None,
    features: int | None = None,
    widths: Sequence[int] = (16, 32),
    layers: int = 1,
    steps: int = 200,
    draw_steps: int = 20,
) -> Diffusion:
    """A U-Net of residual blocks, one level for each width, on a squared cosine schedule.

    Args:
        channels: of the images.
        size: side in pixels; must be a multiple of 2 to the number of levels less one.
        features: must be None; the generator makes images.
        widths: channels of each level.
        layers: residual blocks of a level.
        steps: of the noising process in training.
        draw_steps: of sampling, at most `steps`; a sample costs as many forwards.

    Raises:
        ImportError: the extra is not installed.
        ValueError: no image shape, a size the levels do not fit, or a count that is not positive.
    """
    try:
        from diffusers import DDIMScheduler, UNet2DModel
    except ImportError as error:
        raise ImportError(
            "generator 'diffusion' needs diffusers; install the extra: "
            "pip install 'evenloop[diffusion]'"
        ) from error
    depth, high, wide = image("diffusion", channels, size)
    levels = [*widths]
    positive("diffusion", layers=layers, steps=steps, draw_steps=draw_steps, levels=len(levels))
    positive("diffusion", **{f"widths[{i}]": w for i, w in enumerate(levels)})
    if draw_steps > steps:
        raise ValueError(f"diffusion: draw_steps={draw_steps} must be at most steps={steps}")
    fold = 2 ** (len(levels) - 1)
    if high % fold or wide % fold:
        raise ValueError(
            f"diffusion: size must be a multiple of {fold} for {len(levels)} widths, got "
            f"{high}x{wide}"
        )
    net = UNet2DModel(
        sample_size=(high, wide),
        in_channels=depth,
        out_channels=depth,
        layers_per_block=layers,
        block_out_channels=tuple(levels),
        down_block_types=("DownBlock2D",) * len(levels),
        up_block_types=("UpBlock2D",) * len(levels),
        norm_num_groups=gcd(8, *levels),
        add_attention=False,
    )
    scheduler = DDIMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2")
    return Diffusion(net, scheduler, (depth, high, wide), draw_steps)
