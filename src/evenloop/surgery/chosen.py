"""Which epoch's net is kept: the last one, or the best one that meets a requirement.

An active constraint hovers around its bound, so the net of the last epoch meets it or not by luck,
where one a few epochs earlier did. What is asked of a net here is measured on rows of the user's
choice; choosing on rows that are to judge the result would make that judgement worthless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.seams import Surgery

__all__ = ["Chosen"]

Judge = Callable[[nn.Module], tuple[bool, float]]


class Chosen(Surgery):
    """At the end of the fit, puts back the best net of an epoch that met the requirement.

    The nets after each epoch from `begin_at` on and at the end are judged. If none meets the
    requirement, the last one stays.

    Args:
        judge: whether a net meets the requirement, and how good it is (higher is better).
        begin_at: number of finished epochs from which on nets are judged; at least 1.

    Raises:
        ValueError: `begin_at` is below 1.

    >>> net = torch.nn.utils.skip_init(nn.Linear, 1, 1, bias=False)
    >>> chosen = Chosen(lambda net: (net.weight.item() < 2, net.weight.item()), begin_at=1)
    >>> for epoch, weight in enumerate((0.0, 1.0, 3.0)):
    ...     chosen.begin(net, epoch)
    ...     _ = net.weight.data.fill_(weight)
    >>> chosen.finish(net)
    >>> net.weight.item(), chosen.epoch
    (1.0, 2)
    """

    def __init__(self, judge: Judge, begin_at: int) -> None:
        if begin_at < 1:
            raise ValueError(f"begin_at must be at least 1 finished epoch, got {begin_at}")
        self.judge, self.begin_at = judge, begin_at
        self.epoch: int | None = None  # finished epochs of the net that is held
        self._seen, self._best, self._held = 0, float("-inf"), dict[str, Tensor]()

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Judge the net as `epoch` finished epochs left it."""
        self._seen = epoch
        self._look(model, epoch)

    def apply(self, model: nn.Module) -> None:
        """Nothing while training."""

    def finish(self, model: nn.Module) -> None:
        """Judge the last net too, and put the best one back."""
        self._look(model, self._seen + 1)
        if self._held:
            model.load_state_dict(self._held)

    @torch.no_grad()
    def _look(self, model: nn.Module, epochs: int) -> None:
        if epochs < self.begin_at:
            return
        meets, good = self.judge(model)
        if meets and good >= self._best:
            self._best, self.epoch = good, epochs
            self._held = {name: value.clone() for name, value in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """The net that is held, if any, and its worth."""
        return {"held": self._held, "best": self._best, "epoch": self.epoch, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self._held, self._best = dict(state["held"]), state["best"]
        self.epoch, self._seen = state["epoch"], state["seen"]
