"""What a round of prune says of its nets: which meet the tolerance, and which cannot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.loop import World
from evenloop.loops._prune import Seen, _stuck
from evenloop.loops.prune import Prune
from evenloop.models import seeded
from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.reference import Reference
from evenloop.recipe import Recipe
from evenloop.surgery.int8 import Int8Weights


def linear(weight: Tensor) -> nn.Module:
    layer = seeded(lambda: nn.Linear(2, 2, bias=False), 0)
    assert isinstance(layer, nn.Linear)
    layer.weight.data.copy_(weight)
    return nn.Sequential(layer)


def seen(sides: tuple[str, ...]) -> tuple[World, Seen]:
    """Two rows that the identity gets right, one each of the groups left and right."""
    schema = Schema(("a", "b"), (Attribute("side", sides),))
    data = GroupedData.of(torch.eye(2), torch.tensor([0, 1]), {"side": torch.arange(2)}, schema)
    world = World(data, ("side",), lambda rng: linear(torch.eye(2)), Recipe(epochs=2))
    return world, Seen.of(world, data, linear(torch.eye(2)))


def prune(**fields: Any) -> Prune:
    return Prune(0.5, tolerance=0.1, prune_until=1, select="feasible", **fields)


def test_no_net_is_said_to_meet_the_tolerance_where_a_group_has_no_rows() -> None:
    for sides, meets in ((("left", "right"), True), (("left", "right", "centre"), False)):
        world, rows = seen(sides)
        assert rows.judge(world, prune())(linear(torch.eye(2))) == (meets, 1.0)


@pytest.mark.parametrize(
    ("fields", "meets"), [({}, True), ({"int8": True}, False), ({"structure": "int8"}, False)]
)
def test_a_net_is_judged_as_it_will_be_kept(fields: dict[str, Any], meets: bool) -> None:
    """Rounding takes the 0.003 from a row of the size 1, and with it the second item."""
    net = linear(torch.tensor([[1.0, 0.0], [1.0, 0.003]]) - torch.tensor([[0.0, 0.0], [0.1, 0.0]]))
    world, rows = seen(("left", "right"))
    before = net[0].weight.clone()  # type: ignore[index]
    assert rows.judge(world, prune(**fields))(net)[0] is meets
    assert torch.equal(net[0].weight, before)  # type: ignore[index]
    Int8Weights().finish(net)
    assert not torch.equal(net[0].weight, before)  # type: ignore[index]


def traced(multipliers: Tensor, violations: Tensor) -> Any:
    one = torch.ones(2)
    inner = AccuracyGap(Reference(torch.tensor(0.9), torch.tensor(0.3), one, one, 50 * one), 0.1)
    return SimpleNamespace(
        inner=inner, multipliers=lambda: multipliers, violations=lambda: violations
    )


def test_a_violation_that_stays_raises_an_alarm_through_a_proportional_term() -> None:
    """The second group's violation ends; the first one's does not, and its multiplier swings."""
    step = torch.arange(36.0)
    swing = 3 * torch.sin(step)
    path = torch.stack([0.2 * step + swing + 4, 6 - 0.1 * step + swing], 1)
    assert path[-1, 0] < path[:, 0].max()  # so a look at single steps would miss it
    violated = torch.stack([0.05 + 0.02 * torch.sin(step), 0.1 - 0.005 * step], 1)
    (alarm,) = _stuck(traced(path, violated), prune(dual_kp=80.0))
    assert "by: 0;" in alarm
    assert _stuck(traced(path, violated - 0.2), prune(dual_kp=80.0)) == []
    assert _stuck(traced(-0.2 * path.cumsum(0) + 200, violated), prune(dual_kp=80.0)) == []
