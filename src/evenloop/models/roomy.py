"""Keys and values of a `transformers` model in tensors that have room for tokens to come.

The library's own cache copies everything for each new token; here a token is written behind the
others. Only layers of its plain kind are replaced; those with windows stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["joined_layers", "with_room"]


@cache
def _layer_kind() -> Any:
    """The class of a layer with room; made here because it derives from one of transformers."""
    from transformers.cache_utils import DynamicLayer

    class Layer(DynamicLayer):  # type: ignore[misc]
        """`keys` and `values` (B, H, T, D) are views of `held` (2, B, H, T + room, D).

        The first `prompt` places of T are the prompts'.
        """

        held: Tensor
        prompt: int

        def update(
            self, keys: Tensor, values: Tensor, *args: Any, **options: Any
        ) -> tuple[Tensor, Tensor]:
            """Keys and values with new ones (B, H, t, D) behind them."""
            start = self.keys.shape[2]
            stop = start + keys.shape[2]
            if stop > self.held.shape[3]:
                self.held = pad(self.held, (0, 0, 0, stop - self.held.shape[3] + stop // 2))
            self.held[0, :, :, start:stop] = keys
            self.held[1, :, :, start:stop] = values
            self._show(stop)
            return self.keys, self.values

        def reorder_cache(self, beam_idx: Tensor) -> None:
            """Row i becomes what row `beam_idx[i]` was, a continuation of the same prompt.

            So only what stands behind the prompt moves.
            """
            moved = self.held[:, :, :, self.prompt : self.keys.shape[2]]
            moved.copy_(moved.index_select(1, beam_idx))

        def batch_select_indices(self, indices: Tensor) -> None:
            """Only these rows stay."""
            self._hold(self.held.index_select(1, indices))

        def batch_repeat_interleave(self, repeats: int) -> None:
            """Each row `repeats` times."""
            self._hold(self.held.repeat_interleave(repeats, 1))

        def _hold(self, held: Tensor) -> None:
            self.held = held
            self._show(self.keys.shape[2])

        def _show(self, places: int) -> None:
            self.keys, self.values = self.held[0, :, :, :places], self.held[1, :, :, :places]

    return Layer


def with_room(past: Any, room: int) -> Any:
    """A `DynamicCache` whose plain layers have room for `room` more tokens."""
    from transformers.cache_utils import DynamicLayer

    for i, layer in enumerate(past.layers):
        if type(layer) is DynamicLayer:
            past.layers[i] = _roomy(layer.keys, layer.values, room)
    return past


def _roomy(keys: Tensor, values: Tensor, room: int) -> Any:
    made = _layer_kind()()
    made.lazy_initialization(keys, values)
    made.held = pad(torch.stack([keys, values]), (0, 0, 0, room))
    made.prompt = keys.shape[2]
    made._show(made.prompt)
    return made


def joined_layers(pasts: Sequence[Any], more: Sequence[int], config: Any) -> Any:
    """One `DynamicCache` with the rows of several, each with `more` empty places before it."""
    from transformers import DynamicCache

    past = DynamicCache(config=config)
    for i, layers in enumerate(zip(*(one.layers for one in pasts), strict=True)):
        both = [
            torch.cat([pad(t, (0, 0, m, 0)) for t, m in zip(parts, more, strict=True)])
            for parts in ([one.keys for one in layers], [one.values for one in layers])
        ]
        past.update(*both, i)
    return past
