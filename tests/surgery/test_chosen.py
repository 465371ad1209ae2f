"""The best epoch's net that meets a requirement is put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evenloop.models import seeded
from evenloop.surgery.chosen import Chosen


def weight_of(net: nn.Module) -> torch.Tensor:
    return next(net.parameters()).detach()


def trained(weights: list[float], *, limit: float, begin_at: int = 1) -> tuple[float, int | None]:
    """The weight that is kept of one that takes these values epoch by epoch."""
    net = seeded(lambda: nn.Linear(1, 1, bias=False), 0)

    def judge(net: nn.Module) -> tuple[bool, float]:
        return float(weight_of(net)) <= limit, float(weight_of(net))

    chosen = Chosen(judge, begin_at)
    for epoch, weight in enumerate(weights):
        chosen.begin(net, epoch)
        weight_of(net).fill_(weight)
    chosen.finish(net)
    return float(weight_of(net)), chosen.epoch


def test_the_best_that_meets_it_is_kept() -> None:
    assert trained([1.0, 2.0, 5.0, 1.5], limit=3.0) == (2.0, 2)


def test_the_last_is_kept_if_it_is_the_best_or_none_meets_it() -> None:
    assert trained([1.0, 2.0, 2.5], limit=3.0) == (2.5, 3)
    assert trained([4.0, 5.0, 6.0], limit=3.0) == (6.0, None)


def test_earlier_epochs_are_not_looked_at() -> None:
    assert trained([2.0, 1.0, 5.0], limit=3.0, begin_at=2) == (1.0, 2)
    assert trained([2.0, 5.0, 5.0], limit=3.0, begin_at=2) == (5.0, None)


def test_a_resumed_choice_is_the_same() -> None:
    def judge(net: nn.Module) -> tuple[bool, float]:
        value = float(weight_of(net))
        return value <= 3, value

    net = seeded(lambda: nn.Linear(1, 1, bias=False), 0)
    first, second = Chosen(judge, 1), Chosen(judge, 1)
    for epoch, weight in enumerate((1.0, 2.0)):
        first.begin(net, epoch)
        weight_of(net).fill_(weight)
    first.begin(net, 2)
    second.load_state_dict(first.state_dict())
    weight_of(net).fill_(9.0)
    second.finish(net)
    assert float(weight_of(net)) == 2.0
    second.finish(net)
    assert float(weight_of(net)) == 2.0


def test_no_net_before_the_first_epoch() -> None:
    with pytest.raises(ValueError, match="begin_at must be at least 1"):
        Chosen(lambda _: (True, 0.0), 0)
