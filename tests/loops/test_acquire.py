"""Acquisition: who is asked, who is told, and what a round leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from acquire_kit import SCHEMA, audit, go, states, world
from evenloop.audit import Audit
from evenloop.data import GroupedData, Origin
from evenloop.loop import Loop, State, World
from evenloop.loops.acquire import Acquire
from evenloop.models import build
from evenloop.recipe import Recipe
from evenloop.rng import Rng


def smoke() -> tuple[Loop, World, Audit]:
    return Acquire(initial=30, query=10, draws=4), world(), audit()


@pytest.mark.parametrize(
    "fields",
    [
        {"heuristic": "random"},
        {"heuristic": "bald"},
        {"heuristic": "entropy", "posterior": "laplace"},
        {"heuristic": "margin", "posterior": "ensemble", "draws": 2},
        {"heuristic": "certainty", "posterior": "dropconnect"},
        {"heuristic": "variance", "stochastic": "power", "temperature": 0.5},
        {"heuristic": "batch-bald"},
        {"heuristic": "epig"},
        {"heuristic": "badge"},
        {"heuristic": "core-set"},
        {"balance": "group"},
        {"balance": "cell"},
        {"balance": "predicted-cell"},
        {"balance": "predicted-group"},
        {"plan_gap": 0.3},
        {"pool_subsample": 40},
        {"reset": "rebuild"},
        {"reset": "warm"},
        {"reset": "shrink-perturb"},
        {"initial_mode": "stratified"},
        {"adv_weight": 0.1, "adv_schedule": "linear", "adv_hidden": (4,), "adv_given_class": True},
        {"probe": 60},
        {"heuristic": "random", "balance": "cell"},
        {"heuristic": "random", "balance": "predicted-cell"},
        {"heuristic": "random", "plan_gap": 0.3},
        {"heuristic": "random", "pool_subsample": 40},
        {"balance": "group", "pool_subsample": 40},
        {"noise": {"red": 1.0}, "cost": {"red": 5.0}, "delay": {"red": 1}},
    ],
    ids=str,
)
def test_every_way_buys_q_distinct_rows_of_the_pool(fields: Mapping[str, Any]) -> None:
    loop = Acquire(**{"initial": 30, "query": 10, "draws": 4, **fields})
    place = world()
    for round, state in enumerate(states(loop, 3, place)):
        late = state.extra.get("late", torch.zeros(0, 3).long())
        asked = torch.cat([state.data.row, late[:, 0]])
        assert len(asked) == len(asked.unique()) == 30 + 10 * round
        assert len(place.data.without(asked)) + len(asked) == 300


@pytest.mark.parametrize("heuristic", ["typiclust", "probcover"])
def test_strategies_of_scikit_activeml_buy_too(heuristic: str) -> None:
    pytest.importorskip("skactiveml.pool", reason="needs the extra `active`")
    loop = Acquire(initial=30, query=10, heuristic=heuristic)  # type: ignore[arg-type]
    a, b = (states(loop, 2)[-1].data.row for _ in range(2))
    assert len(a.unique()) == 40
    assert torch.equal(a, b)


def test_the_first_evaluation_is_the_same_whatever_the_strategy() -> None:
    seen = {
        go(Acquire(initial=30, query=10, draws=3, heuristic=h), rounds=1).rows[0].to_json()  # type: ignore[arg-type]
        for h in ("random", "bald", "entropy", "core-set")
    }
    assert len(seen) == 1


def test_a_snapshot_starts_every_training_from_the_same_weights() -> None:
    starts: list[Tensor] = []
    place = world()

    def watch(rng: Rng) -> torch.nn.Module:
        net = place.net(rng)
        starts.append(net.head.weight.clone())  # type: ignore[union-attr, operator]
        return net

    for reset, same in (("snapshot", True), ("rebuild", False)):
        starts.clear()
        states(Acquire(initial=30, query=10, draws=3, reset=reset), 3, replace(place, net=watch))  # type: ignore[arg-type]
        _, first, second, third = starts  # the one before is built to be looked at alone
        assert torch.equal(first, second) is same
        assert torch.equal(second, third) is same


@pytest.mark.parametrize(
    ("fields", "nets"),
    [
        ({"heuristic": "bald"}, 3),
        ({"heuristic": "epig"}, 3),
        ({"heuristic": "badge"}, 1),
        ({"heuristic": "random", "balance": "predicted-cell"}, 1),
    ],
    ids=str,
)
def test_an_ensemble_is_trained_where_more_than_one_net_is_read(
    fields: dict[str, Any], nets: int
) -> None:
    fields = {"initial": 30, "query": 10, **fields}
    for state in states(Acquire(**fields, posterior="ensemble", draws=3), 2):
        assert len(state.models) == nets


def test_nets_nobody_reads_changed_no_figure() -> None:
    """The one net of such an ensemble is what the plain model is, in every recorded number."""
    plain = Acquire(initial=30, query=10, heuristic="core-set")
    rows = [go(replace(plain, posterior=kind)).rows for kind in ("dropout", "ensemble", "laplace")]  # type: ignore[arg-type]
    assert len({tuple(row.to_json() for row in of) for of in rows}) == 1


def test_quotas_buy_each_colour_equally_and_a_missing_colour_is_no_harm() -> None:
    loop = Acquire(initial=30, query=10, heuristic="random", balance="group")
    first, second = (s.data for s in states(loop, 2))
    new = second.attribute("colour")[len(first) :]
    assert torch.bincount(new, minlength=3).tolist() == [5, 5, 0]


class Watched(torch.Tensor):
    """Inputs that count the rows anyone looks at: decoding an image is reading its row."""

    read: int

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        source = next((a for a in args if isinstance(a, cls)), None)
        kwargs = dict(kwargs or {})
        plain = [a.as_subclass(Tensor) if isinstance(a, cls) else a for a in args]
        out = func(*plain, **kwargs)
        if source is None or not isinstance(out, Tensor):
            return out  # its size, type or device: nothing of a row
        if func is Tensor.__getitem__ and out.data_ptr() == source.data_ptr() and len(out):
            view = out.as_subclass(cls)  # a slice from the first row on, not yet read
            view.read = 0
            SEEN.append(0)
            return view
        SEEN.append(len(out))
        return out


SEEN: list[int] = []


def net() -> torch.nn.Module:
    return build("dropout-mlp", features=3, classes=2, hidden=(4,), seed=0)


def watched(n: int = 300) -> World:
    """The world with inputs that are counted when read."""
    place = world(n)
    x = place.data.x.clone().as_subclass(Watched)
    data = GroupedData.from_columns(SCHEMA, place.data.columns() | {"x": x})
    return replace(place, data=data)


@pytest.mark.parametrize("balance", ["none", "group", "cell"])
def test_the_balanced_rule_decodes_the_bought_items_alone(balance: str) -> None:
    loop = Acquire(initial=30, query=10, heuristic="random", balance=balance, trains=False)  # type: ignore[arg-type]
    place, root = watched(), Rng.of(0)
    state = loop.init(place, None, root)
    SEEN.clear()
    asked, *_ = loop.propose(place, state, root.at("round"))
    assert len(asked) == 10
    assert sum(SEEN) == 0
    loop.step(place, state, 1, root.at("round"))
    assert sum(SEEN) == 10


def test_quotas_over_scores_read_no_input_either() -> None:
    loop, place = Acquire(initial=30, query=10, balance="group"), watched()
    state = State(place.data.take(range(30)), {"classifier": net()})
    pool = torch.arange(30, 300)
    SEEN.clear()
    asked = loop._choose(place, state, pool, torch.rand(270, generator=Rng.of(0).gen()), Rng.of(1))
    assert len(asked) == 10
    assert sum(SEEN) == 0


def test_a_rule_that_predicts_reads_inputs() -> None:
    """The counter counts: a rule that needs the classes predicted looks at the whole pool."""
    place = watched()
    loop = Acquire(initial=30, query=10, heuristic="random", balance="predicted-cell")
    state = State(place.data.take(range(30)), {"classifier": net()})
    SEEN.clear()
    loop.propose(place, state, Rng.of(0))
    assert sum(SEEN) >= 270


def test_the_plan_buys_where_labels_are_missing() -> None:
    loop = Acquire(initial=30, query=10, heuristic="random", plan_gap=0.2)
    record = go(loop, rounds=2)
    bought = record.rows[1].counts["bought"].support
    assert bought[1] >= 4


def test_noise_is_written_to_y_alone_and_only_in_its_group() -> None:
    data = states(Acquire(initial=100, query=50, draws=3, noise={"red": 1.0}), 2)[-1].data
    wrong, red = data.y != data.truth, data.attribute("colour") == 1
    assert torch.equal(wrong, red)
    assert (data.origin == 0).all()


def test_delayed_labels_arrive_when_they_are_due() -> None:
    loop = Acquire(initial=30, query=20, heuristic="random", balance="group", delay={"red": 2})
    sizes, waiting = [], []
    for state in states(loop, 4):
        sizes.append(len(state.data))
        waiting.append(len(state.extra.get("late", ())))
    assert sizes[0] == 30
    assert sizes[1] == 30 + 20 - waiting[1]
    assert waiting[1] > 0
    assert sizes[3] + waiting[3] == 30 + 3 * 20
    born = states(loop, 4)[-1].data
    red = (born.attribute("colour") == 1) & (born.born > 0)
    assert set(born.born[red].tolist()) == {3}


def test_costs_add_up_and_stop_the_run() -> None:
    loop = Acquire(initial=30, query=10, heuristic="random", cost={"red": 5.0}, spend=60.0)
    record = go(loop, rounds=9)
    last = record.rows[-1]
    red = int(last.counts["train"].support[1])
    assert last.values["spent"] == last.sizes["train"] + 4 * red
    assert last.stop is not None
    assert "limit is 60" in last.stop


@pytest.mark.parametrize(
    ("fields", "words", "rounds"),
    [
        ({"budget": 50}, "budget of 50", 3),
        ({"query": 200}, "pool is empty", 3),
        ({"stop_below": 99.0}, "below 99", 2),
    ],
)
def test_stop_rules_say_why(fields: dict[str, Any], words: str, rounds: int) -> None:
    record = go(Acquire(**{"initial": 30, "query": 10, "draws": 3, **fields}), rounds=9)
    assert len(record.rows) == rounds
    assert record.rows[-1].stop is not None
    assert words in record.rows[-1].stop


def test_a_plateau_of_the_validation_rows_stops_the_run() -> None:
    # weights that never move: accuracy cannot rise after round 0
    still = replace(world(), recipe=Recipe(lr=1e-12, batch=16, epochs=1))
    loop = Acquire(initial=30, query=10, draws=3, stop_rows=40, stop_plateau=2)
    record = go(loop, rounds=9, where=still)
    assert [row.values["validation.stale"] for row in record.rows] == [0, 1, 2]
    assert record.rows[-1].stop is not None
    assert "not risen" in record.rows[-1].stop


@pytest.mark.parametrize(("worst", "rounds"), [(0.05, 1), (1.0, 3)])
def test_the_worst_group_stops_the_run_when_it_is_good_enough(worst: float, rounds: int) -> None:
    loop = Acquire(initial=30, query=10, draws=3, stop_rows=150, stop_worst=worst)
    record = go(loop, rounds=3)
    assert len(record.rows) == rounds
    counts = record.rows[0].counts["validation"].table
    right = counts.trace(axis1=1, axis2=2) / counts.sum((1, 2)).clip(1)
    assert record.rows[0].values["validation.worst"] == pytest.approx(right[:2].min())
    assert (record.rows[-1].stop is not None) == (worst < 1)


def test_validation_rows_are_paid_for_and_never_trained_on_or_bought() -> None:
    place = world(100)
    loop = Acquire(initial=30, query=10, draws=3, stop_rows=20)
    ends = states(loop, 6, place)
    kept = ends[0].extra["validation"][:, 0]
    assert len(kept.unique()) == 20
    for state in ends:
        assert not torch.isin(state.data.row, kept).any()
        assert state.extra["spent"] == len(state.data) + 20
    assert len(ends[-1].data) == 80
    record = go(replace(loop, budget=60), rounds=9, where=place)
    assert record.rows[-1].sizes["train"] == 40


def test_without_a_stop_rule_every_round_is_run() -> None:
    assert go(Acquire(initial=30, query=10, draws=3), rounds=3).rows[-1].stop is None


def test_uncertainty_is_recorded_by_group() -> None:
    row = go(Acquire(initial=30, query=10, draws=4), rounds=2).rows[1]
    for name in ("pool.bald", "pool.entropy"):
        table = row.moments[name].table
        assert table[:, 0].sum() == 270
        assert row.moments[name].groups[2] == "no green"
        assert table[2].tolist() == [0, 0, 0]
    assert 0 <= float(row.values["auroc.rare"]) <= 1
    assert row.counts["pool"].total == 270
    assert row.counts["bought"].total == 10


def test_a_weight_of_zero_trains_as_if_there_were_no_adversary() -> None:
    a = go(Acquire(initial=30, query=10, draws=3), rounds=2)
    b = go(Acquire(initial=30, query=10, draws=3, adv_hidden=(9,), adv_alpha=3.0), rounds=2)
    assert [r.to_json() for r in a.rows] == [r.to_json() for r in b.rows]


def test_an_adversary_leaves_no_hook_behind() -> None:
    state = states(Acquire(initial=30, query=10, draws=3, adv_weight=0.1), 1)[-1]
    assert not any(m._forward_pre_hooks for m in state.models["classifier"].modules())


def test_generated_rows_of_the_world_are_not_asked_about() -> None:
    place = world(100)
    made = GroupedData.of(
        torch.zeros(50, 3), [0] * 50, {"colour": [0] * 50}, SCHEMA, origin=Origin.GENERATED
    )
    mixed = replace(place, data=made.append(place.data))
    for state in states(Acquire(initial=30, query=70, heuristic="random"), 2, mixed):
        assert (state.data.row >= 0).all()
    assert len(state.data) == 100


def test_a_pool_as_large_as_asked_for_passes() -> None:
    assert len(Acquire(initial=200, query=100).init(world(), None, Rng.of(0)).data) == 200
