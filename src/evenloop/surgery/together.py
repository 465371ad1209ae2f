"""Several surgeries on one net, such as pruning it and then rounding what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from evenloop.seams import Surgery

__all__ = ["Together"]


class Together(Surgery):
    """Surgeries in order: each begins, applies and finishes after the one before it.

    Raises:
        ValueError: none is given.

    >>> from evenloop.surgery.int8 import Int8Weights
    >>> Together(Int8Weights()).state_dict()
    {'0': {}}
    """

    def __init__(self, *parts: Surgery) -> None:
        if not parts:
            raise ValueError("Together needs at least one surgery")
        self.parts = parts

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Begin each."""
        for part in self.parts:
            part.begin(model, epoch)

    def apply(self, model: nn.Module) -> None:
        """Apply each; twice is the same as once where that holds for every part."""
        for part in self.parts:
            part.apply(model)

    def finish(self, model: nn.Module) -> None:
        """Finish each."""
        for part in self.parts:
            part.finish(model)

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts by their place."""
        return {str(place): part.state_dict() for place, part in enumerate(self.parts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue every part from `state_dict()`."""
        for place, part in enumerate(self.parts):
            part.load_state_dict(state[str(place)])
