"""Generators: what they must offer, by name, and what their samples are checked for.

A generator is a module with `sample(n, generator)`. It either trains by gradient like any other
module (at a VAE's cost, or at its own `objective()`), or brings its own `fit(x, generator=...)`.
Two methods, `fit` and `sample`, are all that a user's own needs (in a module, so that its state can
be kept: `state_dict` must hold what `fit` learned).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from evenloop.models import seeded
from evenloop.models.count_generator import CountGenerator
from evenloop.models.diffusion import diffusion
from evenloop.models.mlp_vae import mlp_vae
from evenloop.models.vae import FACTORIES as VAES
from evenloop.seams import Objective
from evenloop.words import nearest

__all__ = [
    "BringsObjective",
    "FitsItself",
    "Generates",
    "build_generator",
    "check_kept",
    "check_samples",
    "generator_names",
]


@runtime_checkable
class Generates(Protocol):
    """Anything that draws samples."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, ...) new rows, shaped and scaled as in training (pixels in [0, 1]).

        Random numbers are drawn with `device=generator.device`.
        """
        ...


@runtime_checkable
class FitsItself(Generates, Protocol):
    """A generator with a training procedure of its own."""

    def fit(self, x: Tensor, *, generator: torch.Generator) -> None:
        """Learn from rows `x` (N, ...); what is learned must be in `state_dict`.

        The module, `x` and `generator` are on the run's device, as they are in `sample`.
        """
        ...


@runtime_checkable
class BringsObjective(Protocol):
    """A generator trained by gradient that says itself what a batch costs."""

    def objective(self) -> Objective:
        """The objective of its training."""
        ...


KEPT_ROWS = 8  # drawn to see whether a generator keeps what it learned


def _counting(*, channels: int | None, size: Any, features: int | None) -> nn.Module:
    if features is None:
        raise ValueError(
            "generator 'count' copies rows of a table and got images; use 'conv-vae' for images"
        )
    return CountGenerator(features)


_FACTORIES: dict[str, Callable[..., nn.Module]] = {
    **VAES,
    "diffusion": diffusion,
    "mlp-vae": mlp_vae,
    "count": _counting,
}


def generator_names() -> list[str]:
    """The names `build_generator` knows, sorted.

    >>> generator_names()
    ['conv-vae', 'count', 'diffusion', 'mlp-vae', 'vae128', 'vae28', 'vae64', 'vae64-deep']
    """
    return sorted(_FACTORIES)


def build_generator(
    name: str | Callable[..., nn.Module],
    shape: Sequence[int],
    *,
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A new generator of rows of `shape`, its first weights given by `seed` alone.

    Args:
        name: one of `generator_names()`, or a factory with the keywords channels, size, features.
        shape: (C, H, W) of an image or (F,) of a table's row.
        seed: of the initial weights.
        options: of the generator itself (latent, widths, ...).

    Raises:
        ValueError: an unknown name or option, or a shape it cannot make.
        TypeError: what the factory returned has no `sample`.

    >>> build_generator("vae28", (3, 28, 28), seed=0).latent
    20
    """
    if callable(name):
        factory = name
    elif name in _FACTORIES:
        factory = _FACTORIES[name]
    else:
        raise ValueError(f"unknown generator {name!r}; {nearest(name, generator_names())}")
    image = len(shape) == 3
    keywords = {
        "channels": shape[0] if image else None,
        "size": (shape[1], shape[2]) if image else None,
        "features": None if image else shape[0],
    }
    called = name if isinstance(name, str) else getattr(name, "__name__", repr(name))
    taken = inspect.signature(factory).parameters
    if not any(kind.kind is inspect.Parameter.VAR_KEYWORD for kind in taken.values()):
        for key in keywords:
            if key not in taken:
                raise ValueError(
                    f"generator {called!r} does not take {key!r}; a factory is called with the "
                    "keywords channels, size and features, and with its own options"
                )
        own = [key for key in taken if key not in (*keywords, "classes")]
        for key in options or {}:
            if key not in own:
                raise ValueError(f"generator {called!r} has no option {key!r}; {nearest(key, own)}")
    made = seeded(lambda: factory(**keywords, **(options or {})), seed)
    if not isinstance(made, Generates) or not isinstance(made, nn.Module):
        raise TypeError(f"generator {called!r} must be a torch module with sample(n, generator)")
    return made


def check_samples(x: Tensor, shape: Sequence[int], *, name: str = "the generator") -> None:
    """Raise `ValueError` unless x is (n, *shape), floating, finite and, if an image, in [0, 1].

    >>> check_samples(torch.full((4, 3, 8, 8), 0.5), (3, 8, 8))
    """
    if tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"{name} made rows of shape {tuple(x.shape[1:])}, not {tuple(shape)}")
    if not x.is_floating_point():
        raise ValueError(f"{name} made rows of type {x.dtype}; samples must be floating")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} made NaN or infinite values; lower its rate or set clip_norm")
    if len(shape) == 3 and x.numel() and not (float(x.min()) >= 0 and float(x.max()) <= 1):
        raise ValueError(
            f"{name} made pixels in [{float(x.min()):.3g}, {float(x.max()):.3g}]; pixels must be "
            "in [0, 1]: end it in a sigmoid or rescale its output"
        )


def check_kept(model: nn.Module, again: nn.Module, source: Callable[[], torch.Generator]) -> None:
    """Raise `ValueError` unless `again`, given the state of `model`, draws the same rows.

    Args:
        model: a fitted generator.
        again: a new one of the same kind, which is changed.
        source: a new stream, the same at every call.

    >>> class Mean(nn.Module):
    ...     def fit(self, x, *, generator):
    ...         self.mean = x.mean()
    ...     def sample(self, n, generator):
    ...         return self.mean.expand(n, 1)
    >>> made = Mean()
    >>> made.fit(torch.ones(3, 1), generator=torch.Generator())
    >>> check_kept(made, Mean(), torch.Generator)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the generator forgets what fit learned: ...
    """
    advice = (
        "the generator forgets what fit learned: rebuilt from its state_dict, as the next "
        "generation and a resumed run do, it {}. Register what fit sets in __init__, with "
        "register_buffer or as a parameter, in the shape that fit gives it"
    )
    with torch.no_grad():
        rows: Tensor = model.sample(KEPT_ROWS, source())  # type: ignore[operator]
        try:
            again.load_state_dict(model.state_dict())
            other: Tensor = again.eval().sample(KEPT_ROWS, source())  # type: ignore[operator]
        except Exception as error:  # whatever a module of a user's own raises
            reason = str(error).splitlines() or [type(error).__name__]
            raise ValueError(advice.format(f"fails ({reason[0]})")) from error
    if rows.shape != other.shape or not torch.allclose(
        rows, other, rtol=1e-3, atol=1e-5, equal_nan=True
    ):
        raise ValueError(advice.format("draws other rows from the same random numbers"))
