"""How the learned shares moved inside a training, at a bounded number of points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from evenloop.samplers.cells import REAL
from evenloop.samplers.shares import UpdateReport

__all__ = ["Trail"]


class Trail:
    """Shares after every n-th update; n doubles whenever more than `most` points are kept.

    `points` are (update, lambda (C, G), mu (C, G)), oldest first.

    >>> report = dict.fromkeys(UpdateReport.__slots__, 0) | {"lam": torch.ones(1, 1)}
    >>> trail = Trail(most=4)
    >>> for update in range(1, 12):
    ...     trail.add(UpdateReport(**report | {"update": update, "mix": torch.ones(1, 1, 1)}))
    >>> [update for update, _, _ in trail.points]
    [4, 8]
    """

    def __init__(self, most: int = 60) -> None:
        self.most, self.every = most, 1
        self.points: list[tuple[int, Tensor, Tensor]] = []

    def add(self, report: UpdateReport) -> None:
        """Take in one update."""
        if report.update % self.every:
            return
        self.points.append((report.update, report.lam, report.mix[REAL]))
        if len(self.points) > self.most:
            self.every *= 2
            self.points = [point for point in self.points if point[0] % self.every == 0]

    def state_dict(self) -> dict[str, Any]:
        """Points as tensors, and how far apart they are."""
        if not self.points:
            return {"every": self.every}
        update, lam, mu = zip(*self.points, strict=True)
        return {
            "every": self.every,
            "updates": torch.tensor(update),
            "lam": torch.stack(lam),
            "mu": torch.stack(mu),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.every, self.points = int(state["every"]), []
        if "updates" in state:
            parts = (state["updates"].tolist(), state["lam"].unbind(0), state["mu"].unbind(0))
            self.points = [(int(u), lam, mu) for u, lam, mu in zip(*parts, strict=True)]
