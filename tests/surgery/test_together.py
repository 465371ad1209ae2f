"""Several surgeries in order."""

from __future__ import annotations

import pytest
import torch

from evenloop.models import build
from evenloop.surgery.int8 import Int8Weights, round_to_int8
from evenloop.surgery.magnitude import GradualMagnitudePruning
from evenloop.surgery.schedule import Cubic
from evenloop.surgery.together import Together


def test_the_net_is_pruned_first_and_rounded_at_the_end() -> None:
    net = build("mlp", features=8, classes=2, hidden=(16,), seed=0)
    pruning = GradualMagnitudePruning(None, Cubic(0.5, 0, 0, initial=0.5))
    both = Together(pruning, Int8Weights())
    both.begin(net, 0)
    both.apply(net)
    weight = net.get_submodule("body.0").weight
    assert isinstance(weight, torch.Tensor)
    half = weight.detach().clone()
    assert half.count_nonzero() == 64
    both.finish(net)
    assert torch.equal(weight, round_to_int8(half))

    fresh = GradualMagnitudePruning(None, Cubic(0.5, 0, 0, initial=0.5))
    Together(fresh, Int8Weights()).load_state_dict(both.state_dict())
    assert torch.equal(fresh.masks["body.0"], pruning.masks["body.0"].bool())


def test_nothing_together_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one surgery"):
        Together()
