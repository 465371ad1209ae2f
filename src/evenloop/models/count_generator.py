"""A categorical generator: counts distinct rows, samples them by their shares.

Fitting and sampling are exact, so a loop around it has closed forms (genetic drift): after g
generations of n samples a share keeps its mean, its variance is p (1 - p) (1 - (1 - 1/n)^g), and
what vanishes stays away. It is the loop's unit test, and a baseline for tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CountGenerator"]


class CountGenerator(nn.Module):
    """Rows (N, features) -> the same distinct rows, drawn independently with their shares.

    `values` (U, features) and `count` (U,) int64 are learned by `fit`; both are in `state_dict`.

    >>> counter = CountGenerator(1)
    >>> counter.fit(torch.tensor([[5.0], [7.0], [5.0], [5.0]]))
    >>> counter.values.flatten().tolist(), counter.count.tolist()
    ([5.0, 7.0], [3, 1])
    >>> counter.sample(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1])
    """

    values: Tensor
    count: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features must be at least 1, got {features}")
        self.register_buffer("values", torch.zeros(0, features))
        self.register_buffer("count", torch.zeros(0, dtype=torch.long))

    def fit(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Count the distinct rows of `x` (N, features); `generator` is not used.

        Raises:
            ValueError: `x` has no row or another width.
        """
        if x.ndim != 2 or x.shape[1] != self.values.shape[1] or len(x) == 0:
            raise ValueError(
                f"x must be (N, {self.values.shape[1]}) with N > 0, got {tuple(x.shape)}"
            )
        self.values, self.count = torch.unique(x, dim=0, return_counts=True)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, features) rows drawn with replacement.

        Raises:
            ValueError: nothing was fitted.
        """
        if len(self.count) == 0:
            raise ValueError("sample needs a fitted generator; call fit first")
        edges = self.count.cumsum(0)
        luck = torch.randint(int(edges[-1]), (n,), generator=generator, device=generator.device).to(
            edges.device
        )
        return self.values[torch.searchsorted(edges, luck, right=True)]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As for any module; the number of distinct rows may differ."""
        self.values = state_dict["values"].new_empty(state_dict["values"].shape)
        self.count = state_dict["count"].new_empty(state_dict["count"].shape)
        return super().load_state_dict(state_dict, strict, assign)
