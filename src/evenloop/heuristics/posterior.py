"""Draws from a net's approximate posterior: logits (B, C, T) of a batch, draws last.

    MCDropout         dropout layers stay active                    (Gal and Ghahramani 2016)
    DropConnect       weights of linear layers are dropped          (Mobiny et al. 2021)
    Ensemble          one draw per trained net               (Lakshminarayanan et al. 2017)

`LastLayerLaplace` is in a file of its own.

Draws are *independent* (every row its own masks: enough for BALD and entropy, and the cheapest) or
*consistent* (draw t is one net for all items: what BatchBALD and EPIG need). Everything random
comes from the `Rng` given; torch's global generator is not touched, and on a CPU the result does
not depend on how the pool is cut into batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from evenloop.heuristics.split import DROPOUT, Split, random_layers, split
from evenloop.rng import Rng

__all__ = [
    "DropConnect",
    "Ensemble",
    "MCDropout",
    "Posterior",
    "check_budget",
    "draw_pool",
    "draws_differ",
    "item_batches",
    "score_pool",
]


class Posterior(Protocol):
    """What can draw predictions."""

    @property
    def items(self) -> int:
        """Items that fit into one batch of the row budget."""
        ...

    def draws(self, batches: Iterable[Tensor], *, rng: Rng) -> Iterator[Tensor]:
        """Logits (B, C, T) of every batch of inputs (B, ...)."""
        ...


def item_batches(x: Tensor, index: Tensor | None, items: int) -> Iterator[Tensor]:
    """Inputs in batches of `items` rows; `index` (M,) picks rows of `x` a batch at a time."""
    places = range(len(x) if index is None else len(index))
    for start in places[::items]:
        part = slice(start, start + items)
        yield x[part] if index is None else x[index[part]]


def score_pool(
    posterior: Posterior,
    x: Tensor,
    rule: Callable[[Tensor], Tensor],
    *,
    rng: Rng,
    index: Tensor | None = None,
) -> Tensor:
    """(M,) float64 scores of a pool, batch by batch: no (M, C, T) tensor is ever held.

    Args:
        posterior: draws the predictions.
        x: (N, ...) inputs.
        rule: maps logits (B, C, T) to scores (B,), or to several of them (B, K).
        rng: stream of the draws.
        index: (M,) positions to score; all of `x` by default.

    >>> from evenloop.heuristics.uncertainty import bald
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Flatten())
    >>> scores = score_pool(MCDropout(net, samples=4), torch.ones(3, 2),
    ...                     lambda draws: bald(draws, kind="logits"), rng=Rng.of(0))
    >>> scores.shape, bool((scores >= 0).all())
    (torch.Size([3]), True)
    """
    batches = item_batches(x, index, posterior.items)
    scores, done = torch.zeros(0, dtype=torch.float64), 0
    for draws in posterior.draws(batches, rng=rng):
        part = rule(draws)
        if not done:
            # one tensor for all: small results kept between large ones that go would hold the
            # allocator's pages, and the memory would grow with the pool after all
            n = len(x) if index is None else len(index)
            scores = torch.empty((n, *part.shape[1:]), dtype=torch.float64)
        scores[done : done + len(part)] = part
        done += len(part)
    return scores


def draw_pool(posterior: Posterior, x: Tensor, *, rng: Rng, index: Tensor | None = None) -> Tensor:
    """(M, C, T) logits of a pool, held whole: for rules that look at items together."""
    parts = list(posterior.draws(item_batches(x, index, posterior.items), rng=rng))
    if not parts:
        raise ValueError("the pool holds no items to draw predictions for")
    return torch.cat(parts)


@contextmanager
def _evaluating(*models: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for model in models for m in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _class_output(output: Any, name: int | str | None) -> Tensor:
    if name is not None:
        output = output[name]
    elif isinstance(output, (tuple, list)):
        output = output[0]
    if not isinstance(output, Tensor):
        raise TypeError(
            f"the model returns {type(output).__name__}; name its class output with output="
        )
    return output


def _placed(model: nn.Module, x: Tensor) -> Tensor:
    """`x` where the model is, in double precision if the model is."""
    like = next(model.parameters(), x)
    double = x.is_floating_point() and like.dtype == torch.float64
    return x.to(like.device, torch.float64 if double else x.dtype)


def check_budget(samples: int, rows: int) -> None:
    """Raise `ValueError` unless draws and rows per pass are both at least 1."""
    if samples < 1 or rows < 1:
        raise ValueError(f"samples and rows must be at least 1, got {samples} and {rows}")


def draws_differ(model: nn.Module, x: Tensor) -> bool:
    """Whether dropout masks can change what `model` says about inputs `x` (B, ...).

    A layer counts, and so does a call of `torch.nn.functional.dropout` in a net that can be traced
    on `x`; one with p = 0 does not.

    >>> draws_differ(torch.nn.Sequential(torch.nn.Dropout(0.5)), torch.ones(2, 3))
    True
    >>> draws_differ(torch.nn.Sequential(torch.nn.Dropout(0.0)), torch.ones(2, 3))
    False
    """
    if _active(random_layers(model, DROPOUT).values()):
        return True
    with _evaluating(model):
        return _active(split(model, _placed(model, x)).random.values())


def _active(layers: Iterable[nn.Module]) -> bool:
    return any(getattr(layer, "p", 0.0) > 0 for layer in layers)


@dataclass(frozen=True, slots=True, eq=False)
class MCDropout(Posterior):
    """Draws by dropout masks at prediction time.

    Attributes:
        model: maps x (B, ...) to logits (B, C), batch first throughout.
        samples: number of draws T.
        consistent: one mask per draw for all items, instead of one per item and draw.
        cut: run the part before the first dropout layer once per item (same draws either way).
        rows: rows per forward pass of the random part, items times draws.
        output: which output is the class output, for models with several; the first by default.

    >>> net = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Flatten())
    >>> twice = torch.ones(1, 6).repeat(2, 1)
    >>> a, b = next(MCDropout(net, 8, consistent=True).draws([twice], rng=Rng.of(1)))
    >>> bool((a == b).all())
    True
    """

    model: nn.Module
    samples: int = 20
    consistent: bool = False
    cut: bool = True
    rows: int = 1024
    output: int | str | None = None

    def __post_init__(self) -> None:
        check_budget(self.samples, self.rows)

    @property
    def items(self) -> int:
        """Items per batch: the row budget over the draws."""
        return max(1, self.rows // self.samples)

    def draws(self, batches: Iterable[Tensor], *, rng: Rng) -> Iterator[Tensor]:
        """Logits (B, C, T) of every batch; warns if the model has no dropout layer."""
        made: Split | None = None
        masks: _Masks | None = None
        for x in (_placed(self.model, batch) for batch in batches):
            with _evaluating(self.model):
                if made is None or masks is None:
                    made = split(self.model, x[:2], cut=self.cut)
                    _warn_if_certain(made, self.samples)
                    masks = _Masks(self.samples, self.consistent, rng)
                with masks.on(made.random):
                    rows = (p.repeat_interleave(self.samples, 0) for p in made.prefix(x))
                    out = _class_output(made.suffix(*rows), self.output)
                yield out.view(len(x), self.samples, -1).transpose(1, 2)


def _warn_if_certain(made: Split, samples: int) -> None:
    if samples > 1 and not _active(made.random.values()):
        warnings.warn(
            "the model has no active dropout layer: all draws are equal and BALD is 0 for every "
            "item; use a model with dropout, an ensemble, or another heuristic",
            stacklevel=3,
        )
    if samples == 1:
        warnings.warn("with samples=1 BALD and variance are 0 for every item", stacklevel=3)


@dataclass(slots=True, eq=False)
class _Masks:
    """Dropout masks from named streams, handed to the layers by forward hooks.

    Each call of a layer within a pass has its own stream, consumed item by item, so the masks of
    an item do not depend on the batch it is in.
    """

    samples: int
    consistent: bool
    rng: Rng
    streams: dict[tuple[str, int], torch.Generator] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def on(self, layers: dict[str, nn.Module]) -> Iterator[None]:
        self.calls.clear()
        handles = [m.register_forward_hook(self._hook(n, m)) for n, m in layers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, layer: Any) -> Callable[..., Tensor]:
        whole_maps = not isinstance(layer, nn.Dropout)

        def masked(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            call = self.calls.get(name, 0)
            self.calls[name] = call + 1
            shape = out.shape[1:2] + (1,) * (out.ndim - 2) if whole_maps else out.shape[1:]
            return out * self._mask((name, call), (len(out), *shape), layer.p, out)

        return masked

    def _mask(self, key: tuple[str, int], shape: tuple[int, ...], p: float, like: Tensor) -> Tensor:
        if key not in self.streams or self.consistent:
            self.streams[key] = self.rng.at(*key).gen(like.device)
        rows = self.samples if self.consistent else shape[0]
        noise = torch.rand((rows, *shape[1:]), generator=self.streams[key], device=like.device)
        mask = (noise >= p).to(like.dtype).div_(max(1 - p, torch.finfo(like.dtype).tiny))
        if self.consistent:
            mask = mask.repeat(shape[0] // self.samples, *(1,) * (len(shape) - 1))
        return mask


@dataclass(frozen=True, slots=True, eq=False)
class DropConnect(Posterior):
    """Draws by dropping single weights of linear layers; always consistent.

    Kept weights are scaled by 1/(1 - p); biases stay. The trained weights are not changed.

    >>> from evenloop.models import build
    >>> net = build("mlp", features=4, classes=2, seed=0)
    >>> next(DropConnect(net, samples=3).draws([torch.ones(5, 4)], rng=Rng.of(0))).shape
    torch.Size([5, 2, 3])
    """

    model: nn.Module
    samples: int = 20
    p: float = 0.5
    layers: tuple[str, ...] = ()
    rows: int = 1024
    output: int | str | None = None

    def __post_init__(self) -> None:
        check_budget(self.samples, self.rows)
        if not 0 < self.p < 1:
            raise ValueError(f"p must be in (0, 1), got {self.p}")
        unknown = set(self.layers) - set(random_layers(self.model, (nn.Linear,)))
        if unknown:
            raise ValueError(f"layers {sorted(unknown)} are not linear layers of the model")

    @property
    def items(self) -> int:
        """Items per batch; draws are made one after the other."""
        return self.rows

    def draws(self, batches: Iterable[Tensor], *, rng: Rng) -> Iterator[Tensor]:
        """Logits (B, C, T) of every batch."""
        linear = random_layers(self.model, (nn.Linear,))
        chosen = {n: m for n, m in linear.items() if not self.layers or n in self.layers}
        if not chosen:
            raise ValueError("the model has no linear layer whose weights could be dropped")
        made: Split | None = None
        for x in (_placed(self.model, batch) for batch in batches):
            with _evaluating(self.model):
                made = made or split(self.model, x[:2], random=chosen)
                crossing = made.prefix(x)
                drawn = []
                for t in range(self.samples):
                    out = functional_call(made.suffix, self._dropped(chosen, rng.at(t)), crossing)
                    drawn.append(_class_output(out, self.output))
                yield torch.stack(drawn, 2)

    def _dropped(self, layers: dict[str, Any], rng: Rng) -> dict[str, Tensor]:
        masked = {}
        for name, layer in layers.items():
            weight = layer.weight
            generator = rng.at(name).gen(weight.device)
            keep = torch.rand(weight.shape, generator=generator, device=weight.device) >= self.p
            masked[f"{name}.weight"] = weight * keep / (1 - self.p)
        return masked


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble(Posterior):
    """One draw per member; the members are trained by the caller, from different starts.

    >>> from evenloop.models import build
    >>> nets = [build("logistic", features=4, classes=2, seed=s) for s in range(3)]
    >>> next(Ensemble(nets).draws([torch.ones(5, 4)], rng=Rng.of(0))).shape
    torch.Size([5, 2, 3])
    """

    models: tuple[nn.Module, ...] | list[nn.Module]
    rows: int = 1024
    output: int | str | None = None

    def __post_init__(self) -> None:
        check_budget(len(self.models), self.rows)

    @property
    def items(self) -> int:
        """Items per batch."""
        return self.rows

    def draws(self, batches: Iterable[Tensor], *, rng: Rng) -> Iterator[Tensor]:
        """Logits (B, C, T) of every batch; `rng` is not used."""
        for x in batches:
            with _evaluating(*self.models):
                outputs = [_class_output(m(_placed(m, x)), self.output) for m in self.models]
                yield torch.stack([out.to(outputs[0].device) for out in outputs], 2)
