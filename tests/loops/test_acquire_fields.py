"""What an `Acquire` refuses, what passes, and what its notes say of the group."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acquire_kit import SCHEMA, go, world
from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.loop import World
from evenloop.loops._acquire import probe_accuracy
from evenloop.loops._acquire_watch import enrichment_notes, tied
from evenloop.loops.acquire import Acquire
from evenloop.models import build
from evenloop.rng import Rng


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"initial": 0}, "initial must be at least 1"),
        ({"query": -1}, "query must be at least 1"),
        ({"draws": 0}, "draws must be"),
        ({"draws": 1}, "'bald' reads how draws differ and draws=1 makes one.*set draws=20"),
        ({"draws": 1, "heuristic": "epig", "posterior": "ensemble"}, "draws=1 makes one"),
        ({"pool_subsample": 5, "query": 10}, "pool_subsample=5"),
        ({"heuristic": "batch-bald", "balance": "group"}, "chooses items together"),
        ({"heuristic": "badge", "stochastic": "rank"}, "chooses items together"),
        ({"balance": "group", "stochastic": "rank"}, "set one of them"),
        ({"heuristic": "random", "stochastic": "rank"}, "draws by score"),
        ({"noise": {"blue": 0.1, "red": 1.5}}, r"noise of group 'red' must be in \[0, 1\].*1.5"),
        ({"noise": {"red": math.nan}}, "noise of group 'red'.*nan"),
        ({"cost": {"red": -1.0}}, "cost of group 'red' must be a number of at least 0.*-1"),
        ({"cost": {"red": math.inf}}, "cost of group 'red'.*inf"),
        ({"delay": {"red": -1}}, "delay of group 'red'.*-1"),
        ({"temperature": 0.0}, "temperature must be a positive number, got 0"),
        ({"temperature": math.nan}, "temperature must be a positive number, got nan"),
        ({"plan_gap": 1.5}, r"plan_gap must be in \[0, 1\].*1.5"),
        ({"adv_weight": -0.1}, "adv_weight must be a number of at least 0.*-0.1"),
        ({"adv_weight": math.nan}, "adv_weight must be.*nan"),
        ({"adv_alpha": -1.0}, "adv_alpha must be.*-1"),
        ({"adv_clip": 0.0}, "adv_clip must be a positive number, got 0"),
        ({"adv_dropout": 1.0}, r"adv_dropout must be in \[0, 1\)"),
        ({"spend": -1.0}, "spend must be a number of at least 0.*-1"),
        ({"stop_below": math.nan}, "stop_below must be.*nan"),
        ({"stop_below": -0.1}, "stop_below must be.*-0.1"),
        ({"stop_below": 0.1, "heuristic": "random"}, "'random' has none; set stop_below=0"),
        ({"stop_below": 0.1, "heuristic": "epig"}, "'epig' has none; set stop_below=0"),
        ({"stop_rows": -1}, "stop_rows must be at least 0"),
        ({"stop_plateau": 2}, "set stop_rows=200"),
        ({"stop_worst": 0.8}, "set stop_rows=200"),
        ({"stop_worst": 0.8, "stop_rows": 50, "trains": False}, "set stop_rows=200"),
        ({"stop_worst": 1.5, "stop_rows": 50}, "stop_worst must be.*an accuracy"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Acquire(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"noise": {"red": 1.0, "blue": 0.0}, "cost": {"red": 0.0}, "delay": {"red": 0}},
        {"temperature": 0.01, "plan_gap": 1.0, "adv_weight": 0.0, "adv_alpha": 0.0},
        {"adv_clip": 0.1, "adv_dropout": 0.5, "adv_weight": 2.0},
        {"spend": 0.0, "stop_below": 0.1, "heuristic": "margin"},
        {"stop_worst": 1.0, "stop_rows": 50},
        {"heuristic": "random", "stop_below": 0.0},
        {"heuristic": "entropy", "draws": 1},
        {"heuristic": "random", "draws": 1},
    ],
    ids=str,
)
def test_good_fields(fields: dict[str, Any]) -> None:
    assert Acquire(**fields).query == 100


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"initial": 200, "query": 101}, "need more than the 300 rows"),
        ({"initial": 200, "query": 50, "stop_rows": 51}, "stop_rows=51"),
        (
            {"initial": 30, "query": 10, "stop_rows": 40, "stop_worst": 0.9},
            "stop_worst=0.9 needs 10 validation rows of every group, 'red' has",
        ),
        ({"noise": {"rad": 0.1}}, "noise names no group: 'rad'; did you mean 'red'"),
        (
            {"initial": 5, "query": 5, "adv_weight": 0.1, "adv_head": "haed"},
            "adv_head names no module of the model: 'haed'; did you mean 'head'",
        ),
        (
            {"initial": 5, "query": 5, "balance_by": ("color",)},
            "no attribute 'color'; did you mean 'colour'",
        ),
        ({"initial": 5, "query": 5, "adv_weight": 0.1, "adv_attributes": ("c",)}, "no attribute"),
    ],
)
def test_what_the_world_contradicts_is_told_before_any_work(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, KeyError), match=message):
        Acquire(**fields).init(world(), None, Rng.of(0))


def test_groups_are_needed_only_by_what_uses_them() -> None:
    bare = world(by=())
    with pytest.raises(ValueError, match="balance=group: needs an attribute"):
        Acquire(initial=30, query=10, balance="group").init(bare, None, Rng.of(0))
    with pytest.raises(ValueError, match="probe=50: needs an attribute"):
        Acquire(initial=30, query=10, probe=50).init(bare, None, Rng.of(0))
    assert len(Acquire(initial=30, query=10).init(bare, None, Rng.of(0)).data) == 30


def test_an_adversary_needs_attributes_that_training_groups_by() -> None:
    bare = world(by=())
    for fields in ({"adv_attributes": ("colour",)}, {"balance_by": ("colour",)}):
        loop = Acquire(initial=30, query=10, adv_weight=0.1, **fields)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"names 'colour', which differs .* add it to by"):
            loop.init(bare, None, Rng.of(0))
        assert len(loop.init(world(), None, Rng.of(0)).data) == 30


def test_an_adversary_at_a_module_that_is_there_passes() -> None:
    loop = Acquire(initial=30, query=10, adv_weight=0.1, adv_head="head", adv_dropout=0.5)
    assert len(loop.init(world(), None, Rng.of(0)).data) == 30


def test_the_adversarys_dropout_reaches_its_head() -> None:
    for share, layers in ((0.5, 1), (0.0, 0)):
        loop = Acquire(initial=30, query=10, adv_weight=0.1, adv_hidden=(4,), adv_dropout=share)
        place = world()
        objective = loop._adversary(place, place.data)
        assert objective is not None
        objective.bind(place.net(Rng.of(0)), place.data, place.groups(place.data))
        dropped = [m for m in objective.heads.modules() if isinstance(m, torch.nn.Dropout)]
        assert [m.p for m in dropped] == [share] * layers
        objective.release()


def test_a_cell_called_rare_keeps_its_own_enrichment() -> None:
    labelled = GroupIndex(torch.tensor([0] * 6 + [1] * 4), ("common", "rare"))
    values, _ = enrichment_notes("bald", torch.tensor([90, 10]), labelled, torch.ones(10))
    assert values["enrichment.rare"] == pytest.approx(4.0)
    assert values["enrichment.common"] == pytest.approx(6 / 9)
    three = GroupIndex(torch.tensor([0] * 6 + [1] * 3 + [2]), ("common", "rare", "scarce"))
    values, _ = enrichment_notes("bald", torch.tensor([80, 10, 10]), three, torch.ones(10))
    assert values["enrichment.rare"] == pytest.approx(3.0)
    assert values["rare.enrichment"] == pytest.approx(2.0)


@pytest.mark.parametrize(("shown", "chance"), [("letter", True), ("colour", False)])
def test_a_probe_of_the_class_alone_is_at_chance(shown: str, chance: bool) -> None:
    """The letter tells the colour in 90 %, and features that hold it say nothing more."""
    generator = torch.Generator().manual_seed(0)
    letter = torch.randint(0, 2, (2000,), generator=generator)
    colour = letter ^ (torch.rand(2000, generator=generator) < 0.1).long()
    held = letter if shown == "letter" else colour
    x = torch.randn(2000, 3, generator=generator) / 10
    x[:, 0] += held
    data = GroupedData.of(x, letter, {"colour": colour}, SCHEMA)
    net = build("logistic", features=3, classes=2, seed=0)
    found = probe_accuracy(net, data, GroupIndex.of(data, ("colour",)), Rng.of(0))
    assert abs(found - 0.5) < 0.12 if chance else found > 0.95


class Functional(nn.Module):
    """A net whose dropout is a call, not a layer."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.layer, self.rate = nn.Linear(3, 2), rate

    def forward(self, x: Tensor) -> Tensor:
        dropped = nn.functional.dropout(x, self.rate, self.training)
        logits: Tensor = self.layer(dropped)
        return logits


class NoLinear(nn.Module):
    """A net without a layer to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def with_net(net: nn.Module | str, **options: Any) -> World:
    def made(rng: Rng) -> nn.Module:
        if isinstance(net, nn.Module):
            return net
        return build(net, features=3, classes=2, seed=rng.seed, **options)

    return replace(world(), net=made)


@pytest.mark.parametrize(
    ("place", "fields", "message"),
    [
        (with_net("logistic"), {}, "'bald' with posterior='dropout' needs a net with dropout"),
        (with_net("mlp"), {"heuristic": "variance"}, "and MLP has none: no two draws would"),
        (with_net("logistic"), {"heuristic": "batch-bald"}, "needs a net with dropout"),
        (with_net("logistic"), {"heuristic": "epig"}, "needs a net with dropout"),
        (with_net("sklearn-tree"), {}, "needs a net with dropout.*Estimator has none"),
        (with_net("dropout-mlp", dropout=0.0), {}, "needs a net with dropout of a rate above 0"),
        (with_net(Functional(0.0)), {}, "needs a net with dropout"),
        (with_net(NoLinear()), {"posterior": "dropconnect"}, "needs a net with a linear layer"),
        (with_net(NoLinear()), {"posterior": "laplace"}, "needs a net with a linear head"),
        (with_net(NoLinear()), {"posterior": "laplace", "heuristic": "entropy"}, "linear head"),
    ],
)
def test_a_net_whose_draws_are_all_equal_is_told_before_any_work(
    place: World, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Acquire(initial=30, query=10, **fields).init(place, None, Rng.of(0))


@pytest.mark.parametrize(
    ("place", "fields"),
    [
        (with_net("dropout-mlp"), {}),
        (with_net(Functional(0.5)), {}),
        (with_net("logistic"), {"posterior": "ensemble"}),
        (with_net("logistic"), {"posterior": "dropconnect"}),
        (with_net("logistic"), {"posterior": "laplace"}),
        (with_net("logistic"), {"heuristic": "entropy"}),
        (with_net("logistic"), {"heuristic": "badge"}),
        (with_net("sklearn-tree"), {"heuristic": "random"}),
    ],
)
def test_a_net_that_the_heuristic_can_read_passes(place: World, fields: dict[str, Any]) -> None:
    loop = Acquire(initial=30, query=10, draws=3, **fields)
    assert len(loop.init(place, None, Rng.of(0)).data) == 30


def test_scores_that_all_tie_are_told() -> None:
    same, few = torch.zeros(5, dtype=torch.float64), torch.tensor([4, 2])
    (told,) = tied("bald", same, few, top=True)
    assert "5 of 5 items have the score 0" in told
    assert "is chance, drawn with the run's" in told
    (told,) = tied("bald", same + torch.arange(5) * 1e-18, few, top=True)
    assert "is rounding errors of the arithmetic" in told
    (told,) = tied("margin", torch.tensor([0.5, 1.0, 1.0, 1.0]), torch.tensor([1, 3]), top=True)
    assert "3 of 4 items have the score 1" in told


@pytest.mark.parametrize(
    ("scores", "chosen", "top"),
    [
        ([0.0, 0.1, 0.2], [2], True),  # one is highest
        ([1.0, 1.0, 0.2], [0, 1], True),  # the tied ones are all asked about
        ([1.0, 1.0, 0.2], [0], False),  # quotas or a draw: only a tie of all says nothing
        ([0.0, 1e-9], [1], True),  # small, and more than rounding
        ([1.0, 1.0], [0, 1], True),  # nothing is left to choose from
        ([], [], True),
    ],
)
def test_scores_that_decide_raise_no_alarm(
    scores: list[float], chosen: list[int], top: bool
) -> None:
    places = torch.tensor(chosen, dtype=torch.long)
    assert tied("bald", torch.tensor(scores, dtype=torch.float64), places, top=top) == ()


def test_a_heuristic_without_scores_has_no_ties() -> None:
    assert tied("badge", torch.zeros(5), torch.tensor([1]), top=True) == ()


def test_a_run_whose_scores_tie_says_so() -> None:
    blind = with_net(NoLinear())
    blind = replace(blind, recipe=replace(blind.recipe, epochs=0))  # both classes stay as likely
    loop = Acquire(initial=30, query=10, heuristic="margin", draws=1)
    with pytest.warns(UserWarning, match="samples=1"):
        row = go(loop, rounds=2, where=blind).rows[1]
    assert [a for a in row.alarms if "margin cannot tell the items of this query apart" in a]
    row = go(Acquire(initial=30, query=10), rounds=2).rows[1]
    assert not [a for a in row.alarms if "cannot tell" in a]
