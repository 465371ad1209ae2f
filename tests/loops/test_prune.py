"""Prune: rounds, methods, structures, what is noted, and borders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from evenloop.audit import Audit
from evenloop.claims import ExcessGapClaim
from evenloop.data import Attribute, GroupedData, Schema
from evenloop.fit import predict
from evenloop.loop import World, chain, run
from evenloop.loops.prune import Prune
from evenloop.loops.relabel import Relabel
from evenloop.models import build
from evenloop.recipe import Recipe
from evenloop.record import Record
from evenloop.rng import Rng
from evenloop.surgery.export import save_weights
from evenloop.surgery.int8 import round_to_int8

TUNE = {"lr": 0.1, "momentum": 0.9, "epochs": 4}
SEXES = ("f", "m", "x")


def rows(n: int, seed: int) -> GroupedData:
    """Three classes of noisy points; two attributes, the first one uneven."""
    gen = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=gen)
    sex = (torch.rand(n, generator=gen) * 2.5).long().clamp(max=2)
    side = torch.randint(2, (n,), generator=gen)
    noise = torch.randn(n, 8, generator=gen) * (0.4 + 0.4 * sex[:, None])
    x = torch.eye(8)[y] * 2 + noise
    schema = Schema(
        ("a", "b", "c"), (Attribute("sex", SEXES), Attribute("side", ("left", "right")))
    )
    return GroupedData.of(x, y, {"sex": sex, "side": side}, schema)


def net(rng: Rng) -> nn.Module:
    return build("mlp", features=8, classes=3, hidden=(24, 24), seed=rng.seed)


def setting(**fields: Any) -> tuple[Prune, World, Audit]:
    values: dict[str, Any] = {"tolerance": 0.02, "prune_until": 2, "tune": TUNE} | fields
    world = World(rows(240, 0), ("sex",), net, Recipe(lr=0.3, batch=30, epochs=3))
    return Prune(**values), world, Audit(rows(150, 1), ("sex",))


def smoke() -> tuple[Prune, World, Audit]:
    return setting(sparsity=(0.5, 0.8), rows=120, buffer_size=10)


def test_round_0_is_dense_and_the_others_have_their_sparsities() -> None:
    record = run(*setting(sparsity=(0.5, 0.8)), rounds=4)
    assert [row.values["stage"] for row in record.rows] == ["dense", *["sparse"] * 3]
    assert [row.values["sparsity"] for row in record.rows] == [0.0, 0.5, 0.8, 0.8]
    for row, density in zip(record.rows[1:], (0.5, 0.2, 0.2), strict=True):
        layers = json.loads(str(row.values["layers"]))
        assert set(layers) == {"body.0", "body.2"}
        assert all(value == pytest.approx(density, abs=0.01) for value in layers.values())
    assert record.rows[0].moments["fit.lost"].table[:, 2].sum() == 0


def test_both_nets_are_counted_on_the_same_rows() -> None:
    loop, world, audit = setting(sparsity=0.9)
    row = run(loop, world, audit, rounds=2).rows[1]
    for split, n in (("fit", 240), ("audit", 150)):
        dense, sparse = row.counts[f"{split}.reference"], row.counts[split]
        assert dense.total == sparse.total == n
        hits = [c.table.trace(axis1=1, axis2=2) for c in (dense, sparse)]
        assert row.moments[f"{split}.lost"].table[:, 1].tolist() == (hits[0] - hits[1]).tolist()


def test_a_pruned_weight_is_zero_in_the_model_that_is_kept() -> None:
    loop, world, _ = setting(sparsity=0.8)
    state = loop.init(world, None, Rng.of(0))
    for round in range(2):
        state, notes = loop.step(world, state, round, Rng.of(0).at(round))
    sparse = state.models["classifier"]
    for name, mask in state.extra["masks"].items():
        weight = sparse.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        assert bool((weight[~mask] == 0).all())
    assert notes.values["density"] < 0.4
    assert state.models["reference"] is not sparse


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "none", "tolerance": None},
        {"method": "equalized_loss", "dual_lr": 1e-3},
        {"method": "equalized_loss", "absolute": True, "average": "macro", "buffer_size": 5},
        {"constrain_from": "start", "buffer_size": None, "dual_kp": 1.0},
        {"constrain_from": 1, "average_gradient": "detached", "distil": 0.5},
        {"intersectional": False},
        {"structure": "int8"},
        {"structure": "int8", "select": "feasible", "distil": 0.5, "intersectional": False},
        {"select": "feasible", "int8": True, "method": "none"},
        {"select": "feasible", "int8": "dynamic"},
        {"structure": "2:4", "sparsity": 0.5},
        {"two_sided": True, "memory": "average"},
        {"method": "equalized_loss", "memory": "average", "dual_lr": 1e-3},
        {"scope": "erk", "prune_until": 0},
        {"method": "none", "distil": 1.0},
    ],
)
def test_every_way_of_pruning_runs(fields: dict[str, Any]) -> None:
    loop, world, audit = setting(**({"sparsity": 0.7} | fields))
    record = run(loop, replace(world, by=("sex", "side")), audit, rounds=2)
    path = record.rows[1].values.get("multipliers")
    assert (path is None) == (fields.get("method") == "none")
    if path is not None:
        groups = json.loads(str(path))["groups"]
        joint = fields.get("intersectional", True)
        assert groups[:2] == (["f left", "f right"] if joint else ["sex=f", "sex=m"])


def test_the_methods_start_from_the_same_dense_net_and_see_the_same_batches() -> None:
    ways = ({"method": "none"}, {"method": "accuracy_gap", "tolerance": 0.99})
    first, second = (run(*setting(sparsity=0.8, **way), rounds=2, seed=3).rows for way in ways)
    for name in ("fit", "audit", "fit.reference"):
        assert (first[1].counts[name].table == second[1].counts[name].table).all()


@pytest.mark.slow
def test_the_constraint_lowers_the_largest_gap_where_plain_tuning_exceeds_it() -> None:
    digits, tolerance = load_digits(), 0.015
    x = torch.tensor(digits.data / 16).float()
    data = GroupedData.of(x, digits.target, {}, Schema(tuple(map(str, range(10)))))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    world = World(
        data.take(order[:1300]),
        ("truth",),
        lambda rng: build("mlp", features=64, classes=10, hidden=(64, 64), seed=rng.seed),
        Recipe(optimizer="adam", lr=3e-3, batch=64, epochs=15),
    )
    audit = Audit(data.take(order[1300:]), ("truth",))
    tune = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "epochs": 25, "schedule": "multistep"}
    found = {"none": 0.0, "accuracy_gap": 0.0}
    for method in ("none", "accuracy_gap"):
        for seed in (0, 1):
            loop = Prune(0.95, method, tolerance, tune, dual_lr=0.05, prune_until=8)
            rows = run(loop, world, audit, rounds=2, seed=seed).rows
            found[method] += ExcessGapClaim(tolerance, "fit").measured(rows, 1).value / 2
    assert found["none"] > tolerance
    assert found["accuracy_gap"] < found["none"]


def test_a_margin_is_kept_from_the_multipliers_but_not_from_the_judgement() -> None:
    ways = ({"tolerance": 0.03, "margin": 0.03}, {"tolerance": 0.0})
    first, second = (run(*setting(sparsity=0.8, **way), rounds=2).rows[1] for way in ways)
    assert first.values["multipliers"] == second.values["multipliers"]
    assert (first.values["tolerance"], second.values["tolerance"]) == (0.03, 0.0)


def test_an_epoch_that_meets_the_tolerance_is_kept_instead_of_the_last() -> None:
    """Of the last third of tuning, and only where the last epoch itself is worse or outside."""
    shared = {"sparsity": 0.9, "tune": TUNE | {"epochs": 12}, "tolerance": 0.03}
    last, best = (
        run(*setting(select=select, **shared), rounds=2, seed=1).rows[1]
        for select in ("last", "feasible")
    )
    claim = [ExcessGapClaim(0.03, "fit").measured([row], 0).value for row in (last, best)]
    assert "kept_epoch" not in last.values
    assert 8 <= float(best.values["kept_epoch"]) <= 12
    if best.values["kept_epoch"] == 12:
        assert claim[0] == claim[1]
    else:
        assert claim[1] <= 0.03 + 1e-9
    easy = setting(select="feasible", **(shared | {"tolerance": 0.99}))
    row = run(*easy, rounds=2, seed=1).rows[1]
    accuracy = row.counts["fit"].table.trace(axis1=1, axis2=2).sum()
    assert accuracy >= last.counts["fit"].table.trace(axis1=1, axis2=2).sum()
    assert ExcessGapClaim(0.99, "fit").verdict([row], 0).says == "within"


def test_nets_before_the_last_pruning_event_are_never_chosen() -> None:
    loop, world, audit = setting(select="feasible", sparsity=0.9, prune_until=3, tolerance=0.99)
    row = run(loop, world, audit, rounds=2).rows[1]
    layers = json.loads(str(row.values["layers"]))
    assert row.values["kept_epoch"] == 4
    assert all(value == pytest.approx(0.1, abs=0.01) for value in layers.values())


def test_a_pruned_net_is_rounded_and_judged_as_it_is_kept() -> None:
    loop, world, _ = setting(sparsity=0.7, int8=True)
    state = loop.init(world, None, Rng.of(0))
    for round in range(2):
        state, notes = loop.step(world, state, round, Rng.of(0).at(round))
    kept = state.models["classifier"]
    assert set(state.extra["masks"]) == {"body.0", "body.2"}
    for name, mask in state.extra["masks"].items():
        weight = kept.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        assert torch.allclose(round_to_int8(weight), weight, atol=1e-7)
        assert all(len(channel.unique()) <= 255 for channel in weight)
        assert bool((weight[~mask] == 0).all())
    right = int((predict(kept, state.data.x).argmax(1) == state.data.y).sum())
    assert notes.counts["fit"].table.trace(axis1=1, axis2=2).sum() == right


def test_a_net_that_rounds_its_inputs_is_audited_so_and_resumed_so(tmp_path: Path) -> None:
    loop, world, audit = setting(structure="int8", int8="dynamic")

    def opened(name: str) -> Record:
        return Record.open(tmp_path / name, {"config": {}, "seed": 0})

    whole = run(loop, world, audit, rounds=3, record=opened("whole"))
    run(loop, world, audit, rounds=2, record=opened("part"))
    run(loop, world, audit, rounds=3, record=opened("part"))
    for name in ("rows.jsonl", "state/models-2.pt"):
        first, second = ((tmp_path / run_ / name).read_bytes() for run_ in ("whole", "part"))
        assert first == second
    kept = whole.load_state(world.data)
    assert kept is not None
    rounding = loop.nets(world)["classifier"](Rng.of(0))
    rounding.load_state_dict(kept.models["classifier"])
    held_out = rows(150, 1)  # what `setting` audits
    right = (predict(rounding.eval(), held_out.x).argmax(1) == held_out.truth).sum()
    assert int(right) == whole.rows[2].counts["audit"].table.trace(axis1=1, axis2=2).sum()


def test_a_net_that_rounds_its_inputs_is_for_prune_by_itself() -> None:
    loop, world, audit = setting(int8="dynamic")
    life = chain(Relabel(n0=100, human=10, machine=20), loop)
    with pytest.raises(ValueError, match="use int8=true"):
        run(life, world, audit, rounds=1)
    assert chain(loop.__class__(tolerance=0.1), Relabel()).nets(world) == {}


def test_channels_are_pruned_under_the_same_bound() -> None:
    pytest.importorskip("torch_pruning")
    loop, world, audit = setting(sparsity=0.5, structure="channel", int8=True)
    row = run(loop, world, audit, rounds=2).rows[1]
    layers = json.loads(str(row.values["layers"]))
    assert all(density == pytest.approx(0.5) for density in layers.values())
    assert "multipliers" in row.values


def test_in_a_chain_every_round_prunes_what_it_is_given() -> None:
    loop, world, audit = setting(sparsity=0.6)
    life = chain(Relabel(n0=100, human=10, machine=20), loop)
    record = run(life, world, audit, rounds=3)
    for row in record.rows:
        assert row.values["1.prune.stage"] == "sparse"
        assert row.counts["1.prune.fit"].total == row.sizes["train"]
        assert ExcessGapClaim(0.02, "fit").verdict(record.rows, row.round).support > 0


def test_killed_between_epochs_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def opened(name: str, watch: Any = None) -> Record:
        return Record.open(tmp_path / name, {"config": {}, "seed": 0}, watch=watch)

    def every_epoch(record: Record) -> None:
        loop, world, audit = setting(
            sparsity=0.8, buffer_size=7, dual_kp=1.0, dual_lr=0.5, select="feasible"
        )
        saved = replace(world.recipe, checkpoint_seconds=0.0)
        run(loop, replace(world, recipe=saved), audit, rounds=2, record=record)

    def kill(name: str, epoch: int, epochs: int, rows: int) -> None:
        # The save of an epoch follows its report, so this dies with epoch 2 of tuning on disk.
        if name.endswith("tune") and epoch == 3:
            raise Killed

    every_epoch(opened("whole"))
    with pytest.raises(Killed):
        every_epoch(opened("parts", kill))
    every_epoch(opened("parts"))
    for name in ("rows.jsonl", "state/models-1.pt"):
        whole, parts = ((tmp_path / run_ / name).read_bytes() for run_ in ("whole", "parts"))
        assert whole == parts


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_checkpoint_takes_the_place_of_training(tmp_path: Path, ending: str) -> None:
    trained = net(Rng.of(5))
    save_weights(trained, tmp_path / f"dense.{ending}")
    loop, world, audit = setting(dense=str(tmp_path / f"dense.{ending}"))
    state, _ = loop.step(world, loop.init(world, None, Rng.of(0)), 0, Rng.of(0))
    for name, value in state.models["classifier"].state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])
    assert len(run(loop, world, audit, rounds=2).rows) == 2


@pytest.mark.parametrize("method", ["accuracy_gap", "equalized_loss"])
def test_a_constraint_without_groups_is_refused_and_plain_tuning_needs_none(method: str) -> None:
    loop, world, _ = setting(method=method)
    with pytest.raises(ValueError, match=f"method='{method}' compares groups, and by is empty"):
        loop.init(replace(world, by=()), None, Rng.of(0))
    plain, _, _ = setting(method="none")
    assert len(plain.init(replace(world, by=()), None, Rng.of(0)).data) == 240


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    save_weights(build("mlp", features=8, classes=3, hidden=(9,), seed=0), tmp_path / "other.pt")
    loop, world, _ = setting(dense=str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match=r"another architecture: body\.0\.weight"):
        loop.init(world, None, Rng.of(0))
    with pytest.raises(ValueError, match="is no file"):
        setting(dense="nowhere.pt")[0].init(world, None, Rng.of(0))


def test_a_group_without_training_rows_is_named_and_never_satisfied() -> None:
    loop, world, audit = setting(sparsity=0.5)
    present = (world.data.attribute("sex") != 1).nonzero().flatten()
    record = run(loop, replace(world, data=world.data.take(present)), audit, rounds=2)
    assert "no training rows, not estimable: m" in record.rows[0].alarms
    assert ExcessGapClaim(0.9, "fit").verdict(record.rows, 1).says == "inconclusive"


def test_groups_that_are_the_target_are_allowed_and_said() -> None:
    loop, world, audit = setting(sparsity=0.5)
    record = run(loop, replace(world, by=("truth",)), audit, rounds=1)
    assert record.rows[0].values["groups_are_the_target"] == "truth"
    assert "groups_are_the_target" not in run(loop, world, audit, rounds=1).rows[0].values


def test_a_tolerance_out_of_reach_raises_an_alarm() -> None:
    loop, world, audit = setting(
        sparsity=0.97, tolerance=0.0, dual_lr=1e-5, prune_until=1, tune=TUNE | {"epochs": 12}
    )
    alarms = run(loop, world, audit, rounds=2).rows[1].alarms
    assert any("may be infeasible at this sparsity" in alarm for alarm in alarms)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\)"),
        ({"sparsity": (0.5, -0.1)}, "got -0.1"),
        ({"sparsity": ()}, "at least one value"),
        ({"tolerance": None}, "needs tolerance="),
        ({"tolerance": -0.1}, "tolerance must be a fraction"),
        ({"margin": -0.1}, r"margin must be in \[0, tolerance=0.02\], got -0.1"),
        ({"margin": 0.03}, "margin must be in"),
        ({"method": "none", "tolerance": None, "margin": 0.01}, "it needs a tolerance"),
        ({"tune": {"lrate": 0.1}}, "tune has no field 'lrate'"),
        ({"distil": 1.5}, "distil must be in"),
        ({"prune_until": -1}, "prune_until must be an epoch >= 0"),
        ({"prune_every": 0}, "prune_every must be at least 1 epoch, got 0"),
        ({"sparsity": (0.5, 0.8), "sparsity_start": 0.6}, r"sparsity_start must be in .*=0.5\]"),
        ({"sparsity_start": -0.1}, "sparsity_start must be in .* got -0.1"),
        ({"constrain_from": -1}, "constrain_from must be .* an epoch >= 0, got -1"),
        ({"constrain_from": "end"}, "constrain_from must be pruning_end, start"),
        ({"floor": 1.5}, r"floor must be in \[0, 1\]"),
        ({"average": "mean"}, "average must be one of population, macro, got 'mean'"),
        ({"average_gradient": "none"}, "average_gradient must be one of null, full"),
        ({"memory": "all"}, "memory must be one of ring, average"),
        ({"method": "gap"}, "method must be one of none, equalized_loss, accuracy_gap"),
        ({"structure": "filter"}, "structure must be one of unstructured, 2:4, channel, int8"),
        ({"scope": "2:4"}, "scope must be one of layer, global, erk"),
        ({"select": "best"}, "select must be one of last, feasible"),
        ({"buffer_size": 0}, 'buffer_size must be an integer >= 1, "auto" or None, got 0'),
        ({"buffer_size": "all"}, "buffer_size must be"),
        ({"structure": "channel", "scope": "global"}, "scope is for structure=unstructured"),
        ({"structure": "int8", "keep_dense": ("body.0",)}, "int8 rounds every layer"),
        ({"int8": "static"}, "int8 must be one of False, True, dynamic, got 'static'"),
        ({"method": "equalized_loss", "average_gradient": "bounded"}, "have no sign; use full"),
        ({"dual_lr": -1.0}, "dual_lr must be finite and >= 0, got -1.0"),
        ({"dual_kp": float("inf")}, "dual_kp must be finite"),
        ({"dual_ema": 1.0}, r"dual_ema must be in \[0, 1\)"),
        ({"dual_momentum": -0.1}, "dual_momentum must be in"),
        ({"dual_cap": 0.0}, "dual_cap must be positive"),
        ({"dual_kp": 1.0, "dual_momentum": 0.5}, "dual_kp=1.0, dual_momentum=0.5"),
        ({"two_sided": True, "method": "none"}, "two_sided=true is for method=accuracy_gap"),
        ({"two_sided": True, "average_gradient": "bounded"}, "two_sided=true is for"),
        ({"select": "feasible", "method": "none", "tolerance": None}, "select=feasible needs"),
        ({"rows": 0}, "rows must be at least 1"),
        ({"structure": "2:4", "sparsity": (0.5, 0.6)}, "at most half of the weights"),
    ],
)
def test_impossible_fields_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        setting(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        {"prune_until": 0, "prune_every": 2, "sparsity": (0.5, 0.8), "sparsity_start": 0.5},
        {"constrain_from": 0, "floor": 1.0, "average": "macro", "average_gradient": "full"},
        {"constrain_from": "start", "memory": "average", "select": "feasible", "scope": "erk"},
        {"structure": "channel", "buffer_size": 1, "keep_dense": ()},
        {"structure": "int8", "keep_dense": ("last_linear", "first_conv"), "buffer_size": None},
        {"method": "equalized_loss", "average_gradient": "detached", "dual_cap": 0.1},
        {"dual_lr": 0.0, "dual_kp": 2.0, "dual_ema": 0.9},
        {"dual_momentum": 0.9},
    ],
)
def test_possible_fields_are_taken(right: dict[str, Any]) -> None:
    loop, world, _ = setting(**right)
    assert all(getattr(loop, name) == value for name, value in right.items())
    assert loop.recipe(world.recipe).epochs == 4


def test_a_rounded_net_is_tuned_on_with_the_masks_it_has() -> None:
    """Weights of one size but for a large one a row round to 0, as those pruned are."""
    loop, world, _ = setting(sparsity=0.5, int8=True, tune=TUNE | {"lr": 1e-6}, prune_until=1)
    state = loop.init(world, None, Rng.of(0))
    state, _ = loop.step(world, state, 0, Rng.of(0).at(0))
    weight = state.models["reference"].get_submodule("body.2").weight
    assert isinstance(weight, torch.Tensor)
    weight.data[:, 0] = 1e4
    state, _ = loop.step(world, state, 1, Rng.of(0).at(1))
    first, kept = state.extra["masks"], state.models["classifier"].get_submodule("body.2").weight
    assert isinstance(kept, torch.Tensor)
    assert bool((kept[first["body.2"]] == 0).any())
    state, _ = loop.step(world, state, 2, Rng.of(0).at(2))
    for name, mask in state.extra["masks"].items():
        assert torch.equal(mask, first[name]), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"constrain_from": 4}, "constrain_from=4 leaves none of the 4 epochs of tuning under"),
        ({"prune_until": 4}, "prune_until=4 leaves none of the 4 epochs"),
        ({"rows": 1000}, "rows=1000 is more than the 240 rows"),
        ({"buffer_size": 99}, r"buffer_size=99 is larger than group '.' \(\d+ training rows\)"),
    ],
)
def test_what_the_world_contradicts_is_refused(fields: dict[str, Any], message: str) -> None:
    loop, world, _ = setting(**fields)
    with pytest.raises(ValueError, match=message):
        loop.init(world, None, Rng.of(0))
