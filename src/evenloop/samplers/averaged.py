"""The running average of a model's weights, as a value to evaluate and swap in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.seams import Batch, Sampler, Seen

__all__ = ["Averaged", "Ema"]


class Ema:
    """Exponential moving average of parameters and floating-point buffers; others are copied.

    It starts at the values of the first `update` (after the first optimiser step).

    >>> model = nn.BatchNorm1d(1)
    >>> ema = Ema(0.9)
    >>> for value in (1.0, 2.0):
    ...     _ = model.weight.data.fill_(value)
    ...     ema.update(model)
    >>> round(float(ema.values["weight"]), 6)
    1.1
    """

    def __init__(self, decay: float) -> None:
        """An average that keeps the share `decay` of itself at each update, in [0, 1).

        Raises:
            ValueError: decay is outside [0, 1).
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.values: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's current weights."""
        now = model.state_dict()
        if not self.values:
            self.values = {name: value.clone() for name, value in now.items()}
            return
        for name, value in now.items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - self.decay)
            else:
                self.values[name].copy_(value)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the average into the model.

        Raises:
            RuntimeError: nothing was averaged yet.
        """
        if not self.values:
            raise RuntimeError("the average is empty: update it after an optimiser step first")
        model.load_state_dict(self.values)

    @contextmanager
    def swap(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model with averaged weights; its own come back afterwards."""
        own = {name: value.clone() for name, value in model.state_dict().items()}
        self.copy_to(model)
        try:
            yield model
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name."""
        return {name: value.clone() for name, value in self.values.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict()`."""
        self.values = {name: value.clone() for name, value in state.items()}


class Averaged(Sampler):
    """Another sampler, while `ema` follows the model's weights after every step of `fit`.

    >>> from evenloop.samplers.uniform import Uniform
    >>> Averaged(Uniform(), Ema(0.99)).steps(10, 4)
    3
    """

    def __init__(self, inner: Sampler, ema: Ema) -> None:
        """`inner` decides what is in a batch; `ema` is updated in `after`."""
        self.inner, self.ema = inner, ema

    def steps(self, rows: int, batch: int) -> int:
        """Those of the inner sampler."""
        return self.inner.steps(rows, batch)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Tensor | Batch]:
        """Batches of the inner sampler."""
        return self.inner.epoch(data, groups, batch=batch, rng=rng)

    def after(self, seen: Seen) -> None:
        """The inner sampler's turn, then the average's."""
        self.inner.after(seen)
        self.ema.update(seen.model)

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"inner": self.inner.state_dict(), "ema": self.ema.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.inner.load_state_dict(state["inner"])
        self.ema.load_state_dict(state["ema"])
