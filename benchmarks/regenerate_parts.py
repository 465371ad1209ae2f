"""CPU seconds of a generation by part: each piece of work of a step, ours and the study's.

Called by `bench_regenerate`, which brings the study's program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, cross_entropy

from evenloop.data import GroupedData
from evenloop.fit import predict
from evenloop.models.generators import build_generator
from evenloop.models.vae import Vae
from evenloop.objectives.vae import PRESETS
from evenloop.optimizer import build_optimizer
from evenloop.recipe import Recipe
from evenloop.samplers.quota import Quota

__all__ = ["pieces"]

Work = Callable[[], object]
Piece = tuple[str, Work, Work]


def pieces(
    side: Any,
    parent: nn.Module,
    annotator: nn.Module,
    net: nn.Module,
    data: GroupedData,
    their_way: Callable[[], AbstractContextManager[None]],
    *,
    batch: int,
    budget: int,
) -> Iterator[Piece]:
    """Name, our work and theirs, of one batch each; `side` has trained a generation before.

    Args:
        side: their trainer.
        parent: their generator to draw from.
        annotator: their classifier.
        net: our classifier, of the same layers.
        data: the natural rows.
        their_way: what their program runs under.
        batch: rows of a batch.
        budget: rows drawn beyond it.
    """
    index = torch.arange(batch)
    x, y = data.x[index].float() / 255, data.y[index]
    vae = build_generator("vae28", tuple(x.shape[1:]), seed=0)
    assert isinstance(vae, Vae)
    gen = torch.Generator().manual_seed(0)

    def theirs(work: Work, grad: bool = False) -> Work:
        def run() -> None:
            with their_way(), torch.set_grad_enabled(grad):
                work()

        return run

    def stratum(rows: Tensor) -> Tensor:
        return 2 * predict(net, rows).argmax(1) + predict(net, rows).argmax(1)

    def curate() -> object:
        return Quota(budget).curate(
            lambda n: vae.sample(n, gen), stratum, batch=batch, strata=4, generator=gen
        )

    def curate_theirs() -> None:
        side.reparation_batch(parent, annotator, annotator, 1, 0, batch)

    kind = PRESETS["bernoulli-sum"]
    yield (
        "a generator's training step",
        training(vae, x, lambda out: kind.loss(out, y, y), "adam"),
        theirs(lambda: side.train_step([x, y]), grad=True),
    )
    yield (
        "its convolutions alone",
        convolutions(vae, x, folded=True),
        convolutions(vae, x, folded=False),
    )
    yield (
        "a classifier's training step",
        training(net, x, lambda out: cross_entropy(out, y), "sgd"),
        theirs(lambda: side.c_train_step([x, y, y], 1), grad=True),
    )
    yield (
        f"drawing {batch} rows",
        lambda: vae.sample(batch, gen),
        theirs(lambda: side.sample_decoder(parent, batch)),
    )
    yield (
        f"annotating {batch} rows",
        lambda: predict(net, x).argmax(1),
        theirs(lambda: annotator(x).argmax(1)),
    )
    yield "a curated batch, drawn and annotated", curate, theirs(curate_theirs)
    yield (
        "a natural batch",
        lambda: data.x[index].float() / 255,
        theirs(lambda: next(iter(side.train_loader))),
    )


def training(model: nn.Module, x: Tensor, loss: Callable[[Any], Tensor], optimizer: Any) -> Work:
    """One training step of `model` as `fit` does it."""
    model.train()
    steps = build_optimizer(model.parameters(), Recipe(optimizer=optimizer, lr=1e-4))

    def step() -> None:
        model.train()
        steps.zero_grad(set_to_none=True)
        loss(model(x)).backward()
        steps.step()

    return step


def convolutions(vae: Vae, x: Tensor, *, folded: bool) -> Work:
    """Forward and backward of nothing but the VAE's convolutions, on rows of the right shapes."""
    first, second = (m for m in vae.encoder.modules() if isinstance(m, nn.Conv2d))
    third, fourth = (m for m in vae.decoder.modules() if isinstance(m, nn.ConvTranspose2d))
    rows, side = len(x), x.shape[-1]
    small = rows if not folded else vae.latent + 1
    maps: list[tuple[Tensor, Any, Any]] = [
        (x, first, conv2d),
        (torch.rand(rows, 64, side // 2, side // 2), second, conv2d),
        (torch.rand(small, 128, side // 4, side // 4), third, conv_transpose2d),
        (torch.rand(rows, 64, side // 2, side // 2), fourth, conv_transpose2d),
    ]
    for seen, _, _ in maps[1:]:  # the pixels themselves need no gradient
        seen.requires_grad_()

    def run() -> None:
        for seen, layer, call in maps:
            own = folded and layer is fourth
            made = layer(seen) if own else call(seen, layer.weight, None, 2, 1)
            made.backward(torch.ones_like(made))

    return run
