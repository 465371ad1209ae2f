"""Held-out rows and their features for one update after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from evenloop.samplers.head import HeadTap
from evenloop.samplers.validation import Draw, Draws, Validation

__all__ = ["HeldOut"]


class HeldOut:
    """Draws held-out rows and passes them through the model's body, now or a few updates ago.

    With `reuse` above 1 every update draws `per_cell / reuse` rows of each cell (rounded up) and
    meets those of the last `reuse - 1` updates again: their features are as old as that, their
    logits are of the present head. A forward pass then costs 1 / `reuse` of the rows looked at.

    >>> from evenloop.samplers.cells import CellIndex
    >>> val = Validation(torch.eye(8), CellIndex([0, 1] * 4, [0, 0, 1, 1] * 2))
    >>> held = HeldOut(val, "stratified", 2, 128, torch.Generator(), reuse=2)
    >>> rows, share = held.draw()
    >>> len(rows), share.tolist()
    (8, [[0.25, 0.25], [0.25, 0.25]])
    """

    def __init__(
        self,
        val: Validation,
        draw: Draw,
        per_cell: int,
        size: int,
        generator: torch.Generator,
        *,
        reuse: int = 1,
        chunk: int | None = None,
    ) -> None:
        """Rows of `val`; for the rest see `RatioController`.

        Raises:
            ValueError: a draw or reuse that is none, or reuse of rows not drawn by cell.
        """
        if reuse < 1:
            raise ValueError(f"reuse must be at least 1, got {reuse}")
        if reuse > 1 and draw != "stratified":
            raise ValueError(f"reuse={reuse} works with draw='stratified', got draw={draw!r}")
        self.val, self.cells, self.chunk, self.reuse = val, val.cells, chunk, reuse
        self.draws = Draws(val.cells, draw, -(-per_cell // reuse), size, generator)
        self.kept: tuple[tuple[Tensor, Tensor], ...] = ()  # rows and features, oldest first

    def draw(self, source: int | None = None) -> tuple[Tensor, Tensor]:
        """New rows, of one source or all, and the (C, G) shares of the cells they stand for."""
        parts = [self.draws.draw(source) for _ in range(self.reuse - len(self.kept))]
        rows = torch.cat(parts) if len(parts) > 1 else parts[0]
        return rows, self.draws.shares_of(rows)

    def fetch(self, rows: Tensor, model: nn.Module) -> Tensor:
        """Inputs (n, ...) of some rows, where the model is."""
        like, x = next(model.parameters()), self.val.fetch(rows)
        return x.to(like.device, like.dtype if x.is_floating_point() else None)

    def look(
        self, rows: Tensor, tap: HeadTap, part: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rows in source order, their features (n, H) and logits (n, O), kept ones included.

        Args:
            rows: from `draw`.
            tap: the model's head.
            part: the share of the rows that this process looks at.
        """
        rows = part(rows)
        features, logits = tap.look(self.fetch(rows, tap.model), self.chunk)
        if self.reuse == 1:
            return rows, features, logits
        parts = self.reuse - len(self.kept)
        fresh = zip(rows.tensor_split(parts), features.tensor_split(parts), strict=True)
        held = (*self.kept, *fresh)
        self.kept = held[1:]
        rows, features = (torch.cat([h[i] for h in held]) for i in (0, 1))
        order = self.cells.source[rows].argsort(stable=True)
        rows, features = rows[order], features[order.to(features.device)]
        return rows, features, tap.logits(features)

    def state_dict(self) -> dict[str, Tensor]:
        """Rows and features that serve again, with the length of each draw."""
        if not self.kept:
            return {}
        return {
            "rows": torch.cat([rows for rows, _ in self.kept]),
            "features": torch.cat([features for _, features in self.kept]),
            "lengths": torch.tensor([len(rows) for rows, _ in self.kept]),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict()`."""
        self.kept = ()
        if state and self.reuse > 1:
            lengths = state["lengths"].tolist()
            rows, features = (
                torch.split(state[name].clone(), lengths) for name in ("rows", "features")
            )
            self.kept = tuple(zip(rows, features, strict=True))[1 - self.reuse :]
