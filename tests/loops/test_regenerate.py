"""Generator feedback: settings, who depends on what, exact drift, interruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evenloop.audit import Audit
from evenloop.data import Attribute, GroupedData, Schema
from evenloop.loop import State, World, run
from evenloop.loops._regenerate import KEY
from evenloop.loops.regenerate import Regenerate
from evenloop.recipe import Recipe
from evenloop.record import Record
from evenloop.rng import Rng
from regenerate_kit import SMALL, Odd, image_world


def smoke() -> tuple[Regenerate, World, Audit]:
    loop = Regenerate(natural=60, reparation="classifier", annotator_floor=0.0, **SMALL)
    return loop, *image_world()


def generations(loop: Regenerate, rounds: int = 3, seed: int = 0) -> list[State]:
    world, _ = image_world()
    state, states = loop.init(world, None, Rng.of(seed)), []
    for g in range(rounds):
        state, _ = loop.step(world, state, g, Rng.of(seed).at("round", g))
        states.append(state)
    return states


def weights(state: State, name: str) -> Tensor:
    if name == "classifier":
        values = state.models[name].state_dict().values()
    else:
        values = state.extra[KEY][name].values()
    return torch.cat([v.flatten().double() for v in values])


class TestWhoDependsOnWhat:
    """Spec oracle 7, on real weights."""

    def test_annotators_never_change(self) -> None:
        states = generations(Regenerate(**SMALL))
        for name in ("label_annotator", "group_annotator"):
            assert all(weights(s, name).equal(weights(states[0], name)) for s in states)

    def test_every_generation_has_new_models_and_seqclass_one_generator(self) -> None:
        chain, fixed = (
            generations(Regenerate(setting=s, **SMALL)) for s in ("seqgen-seqclass", "seqclass")
        )
        assert len({float(weights(s, "generator").sum()) for s in chain}) == 3
        assert len({float(weights(s, "generator").sum()) for s in fixed}) == 1
        assert len({float(weights(s, "classifier").sum()) for s in fixed}) == 3

    def test_cla_star_leaves_generators_alone_and_gen_star_does_not(self) -> None:
        none, cla, gen = (
            generations(Regenerate(reparation=r, **SMALL))
            for r in ("none", "classifier", "generator")
        )
        for g in range(3):
            assert weights(none[g], "generator").equal(weights(cla[g], "generator"))
        assert weights(gen[0], "generator").equal(weights(none[0], "generator"))
        assert not weights(gen[1], "generator").equal(weights(none[1], "generator"))
        assert weights(gen[0], "classifier").equal(weights(none[0], "classifier"))
        assert not weights(cla[0], "classifier").equal(weights(none[0], "classifier"))

    @pytest.mark.parametrize("reparation", ["none", "generator", "both"])
    def test_generators_see_the_last_classifier_only_under_gen_star(self, reparation: Any) -> None:
        loop, (world, _) = Regenerate(reparation=reparation, **SMALL), image_world()
        (first,) = generations(loop, rounds=1)
        other = replace(first, models={"classifier": Odd()})
        made = [
            weights(loop.step(world, state, 1, Rng.of(0).at("round", 1))[0], "generator")
            for state in (first, other)
        ]
        assert made[0].equal(made[1]) == (reparation == "none")

    def test_generators_of_natural_rows_do_not_depend_on_earlier_ones(self) -> None:
        states = generations(Regenerate(synthetic=0.0, **SMALL))
        loop, (world, _) = Regenerate(synthetic=0.0, **SMALL), image_world()
        alone, _ = loop.step(world, loop.init(world, None, Rng.of(0)), 2, Rng.of(0).at("round", 2))
        assert weights(states[2], "generator").equal(weights(alone, "generator"))

    def test_the_first_generator_is_natural_for_every_share(self) -> None:
        first = [generations(Regenerate(synthetic=s, **SMALL), rounds=1)[0] for s in (0.0, 1.0)]
        assert weights(first[0], "generator").equal(weights(first[1], "generator"))

    def test_the_labeller_of_nonseqclass_is_always_the_annotator(self) -> None:
        loop = Regenerate(setting="seqgen-nonseqclass", **SMALL)
        for row in run(loop, *image_world(), rounds=3).rows:
            table = row.counts["population"].table
            assert table.sum() == np.einsum("gcc->", table)


def test_the_population_counts_two_labellers_and_the_groups() -> None:
    rows = run(Regenerate(**SMALL), *image_world(), rounds=2).rows
    counts = rows[1].counts["population"]
    assert counts.groups == ("green", "red")
    assert counts.total == 200
    assert {"margin.green", "sure.red", "generator_loss", "classifier_loss"} <= set(rows[1].values)
    assert {"label_annotator", "group_annotator"} <= set(rows[0].counts)
    assert "label_annotator" not in rows[1].counts


def test_group_drift_is_the_distance_from_the_natural_shares() -> None:
    world, audit = image_world()
    row = run(Regenerate(**SMALL), world, audit, rounds=1).rows[0]
    red = float(world.data.attribute("color").double().mean())
    table = row.counts["population"].table.sum((1, 2))
    assert row.values["group drift"] == pytest.approx(abs(table[1] / table.sum() - red), abs=1e-6)


def test_half_precision_trains_and_draws_and_stays_in_range() -> None:
    world, audit = image_world()
    world = replace(world, recipe=replace(world.recipe, precision="bf16"))
    row = run(Regenerate(reparation="both", **SMALL), world, audit, rounds=2).rows[1]
    assert row.counts["population"].total == 200
    assert row.values["generator_loss"] > 0


def test_curation_is_reported() -> None:
    rows = run(Regenerate(reparation="both", **SMALL), *image_world(), rounds=2).rows
    assert 0 <= rows[1].values["classifier.missing_share"] <= 1
    first = [v for k, v in rows[1].values.items() if k.startswith("generator.first_share.")]
    assert sum(first) == pytest.approx(1)
    assert "generator.missing_share" not in rows[0].values


def test_curation_of_a_generator_that_fits_itself_is_reported() -> None:
    loop = Regenerate(generator="count", generator_batch=25, population=50, reparation="generator")
    values = run(loop, *table_world((10, 20, 30, 40)), rounds=2).rows[1].values
    first = [v for k, v in values.items() if k.startswith("generator.first_share.")]
    np.testing.assert_allclose(first, [0.1, 0.2, 0.3, 0.4], atol=0.12)
    assert 0 < values["generator.missing_share"] < 0.5


def test_a_classifier_that_trains_itself_is_shown_curated_rows() -> None:
    strata = []

    class Told(Reader):
        def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
            super().train_on(x, y, classes=classes, seed=seed)
            strata.append(torch.bincount((x @ torch.tensor([2.0, 1.0])).long(), minlength=4))

    world, audit = table_world((20, 40, 60, 80))
    world = replace(world, net=lambda rng: Told(), recipe=Recipe(batch=20))
    loop = Regenerate(
        generator="count", generator_batch=25, reparation="classifier", budget="1000%"
    )
    row = run(loop, world, audit, rounds=1).rows[0]
    assert strata[-1].tolist() == [50] * 4
    assert row.values["classifier.missing_share"] == 0


@pytest.mark.parametrize(
    ("counts", "ideal", "lost"),
    [
        ((0, 30, 30, 40), None, 1),
        ((0, 30, 30, 40), (0.0, 0.25, 0.25, 0.5), 0),
        ((10, 20, 30, 40), None, 0),
    ],
)
def test_a_stratum_that_is_wanted_and_never_drawn_is_an_alarm(
    counts: Sequence[int], ideal: tuple[float, ...] | None, lost: int
) -> None:
    loop = Regenerate(
        generator="count", generator_batch=24, population=50, reparation="both", ideal=ideal
    )
    alarms = run(loop, *table_world(counts), rounds=2).rows[1].alarms
    for who, quota in (("generator", 6), ("classifier", 32)):
        said = f" rows first drawn for the {who}'s batches was 0 a, of which each was to "
        assert sum(f"{said}hold {quota}" in alarm for alarm in alarms) == lost, alarms
    assert len(alarms) == 2 * lost


def test_validation_rows_only_judge() -> None:
    record = run(Regenerate(validation=60, quality=50, **SMALL), *image_world(), rounds=1)
    assert record.rows[0].counts["validation"].total == 60
    assert record.rows[0].counts["label_annotator"].total == 60
    assert record.rows[0].values["frechet.red"] > 0


class Told(nn.Module):
    """A generator that remembers what it was trained on and draws new numbers all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(192, 2, 8, 8))

    def fit(self, x: Tensor, *, generator: torch.Generator) -> None:
        self.seen[: len(x)] = x

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, 2, 8, 8, generator=generator)


@pytest.mark.parametrize(("draws", "distinct"), [("fresh", 180), ("pool", 180 * (1 - np.exp(-1)))])
def test_a_generators_pool_is_finite_and_drawn_with_replacement(
    draws: Any, distinct: float
) -> None:
    fields = {
        "generator": lambda **shape: Told(),
        "generator_options": {},
        "generator_draws": draws,
    }
    last = generations(Regenerate(**(SMALL | fields)), rounds=2)[1]
    seen = last.extra[KEY]["generator"]["seen"][:180]
    assert len(seen.unique(dim=0)) == pytest.approx(distinct, abs=12)


class Reader(nn.Module):
    """Reads the label from the table's first column and, asked for groups, from the second."""

    def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
        label = bool((x[:, 0].long() == y).all()) and classes == 2
        self.register_buffer("column", torch.tensor([0 if label else 1, classes]))

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("column", torch.tensor([0, 2]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(int(self.column[1]))[x[:, int(self.column[0])].long()]


def table_world(counts: Sequence[int]) -> tuple[World, Audit]:
    """Rows whose two numbers are their label and their group, `counts` of each stratum."""
    strata = torch.arange(4).repeat_interleave(torch.tensor([*counts]))
    x = torch.stack([strata // 2, strata % 2], 1).float()
    schema = Schema(("0", "1"), (Attribute("g", ("a", "b")),))
    data = GroupedData.of(x, strata // 2, {"g": strata % 2}, schema)
    return World(data, ("g",), lambda rng: Reader(), Recipe()), Audit(data, ("g",))


def strata_shares(state: State) -> np.ndarray:
    kept = state.extra[KEY]["generator"]
    cell = (kept["values"][:, 0] * 2 + kept["values"][:, 1]).long()
    share = torch.zeros(4).double().index_add(0, cell, kept["count"].double())
    return (share / share.sum()).numpy()


def drift(loop: Regenerate, counts: Sequence[int], rounds: int, seeds: int) -> np.ndarray:
    """(seeds, rounds, 4) strata shares of the count generators of a chain."""
    world, _ = table_world(counts)
    out = np.zeros((seeds, rounds, 4))
    for seed in range(seeds):
        state, root = loop.init(world, None, Rng.of(seed)), Rng.of(seed)
        for g in range(rounds):
            state, _ = loop.step(world, state, g, root.at("round", g))
            out[seed, g] = strata_shares(state)
    return out


class TestDrift:
    """Spec oracle 8: the count-based generator has closed forms."""

    COUNTS = (10, 20, 30, 40)
    LOOP = Regenerate(generator="count", generator_batch=25, population=1)

    def test_shares_drift_as_in_a_neutral_population(self) -> None:
        p, n, g = np.array(self.COUNTS) / 100, 100, 6
        shares = drift(self.LOOP, self.COUNTS, g + 1, 100)
        np.testing.assert_allclose(shares[:, 0], np.tile(p, (100, 1)), atol=1e-12)
        error = 3.5 * np.sqrt(p * (1 - p) * g / n / 100)
        assert (np.abs(shares[:, g].mean(0) - p) < error).all()
        want = p * (1 - p) * (1 - (1 - 1 / n) ** g)
        np.testing.assert_allclose(shares[:, g].var(0), want, rtol=0.4)
        mixed = 1 - (shares**2).sum(2)
        want = mixed[0, 0] * (1 - 1 / n) ** np.arange(g + 1)
        np.testing.assert_allclose(mixed.mean(0), want, atol=0.012)

    def test_what_vanished_never_returns(self) -> None:
        shares = drift(self.LOOP, [1, 3, 16, 20], 12, 20)
        gone = shares[:, :-1] == 0
        assert gone.any()
        assert (shares[:, 1:][gone] == 0).all()

    def test_a_natural_share_contracts_deviations_and_brings_strata_back(self) -> None:
        loop = replace(self.LOOP, synthetic=0.6)
        shares = drift(loop, [2, 18, 30, 50], 14, 25)
        late = shares[:, 4:]
        spread = np.abs(late - np.array([2, 18, 30, 50]) / 100).mean()
        alone = drift(self.LOOP, [2, 18, 30, 50], 14, 25)[:, 4:]
        assert spread < 0.7 * np.abs(alone - np.array([2, 18, 30, 50]) / 100).mean()
        gone = shares[:, :-1] == 0
        assert (shares[:, 1:][gone] > 0).any()

    def test_deviations_shrink_by_the_generated_share(self) -> None:
        """E(share - natural) in generation g is s^g times the deviation of generation 0."""
        p, start, share = np.array(self.COUNTS) / 100, (70, 10, 10, 10), 0.6
        loop, (world, _) = replace(self.LOOP, synthetic=share), table_world(self.COUNTS)
        away = np.array(start) / 100 - p
        left = np.zeros((80, 3))
        for seed in range(len(left)):
            root = Rng.of(seed)
            state, _ = loop.step(world, loop.init(world, None, root), 0, root.at("round", 0))
            state.extra[KEY]["generator"]["count"].copy_(torch.tensor(start))
            for g in (1, 2, 3):
                state, _ = loop.step(world, state, g, root.at("round", g))
                left[seed, g - 1] = (strata_shares(state) - p) @ away / (away @ away)
        error = left.std(0, ddof=1) / np.sqrt(len(left))
        assert (error < 0.02).all()
        assert (np.abs(left.mean(0) - share ** np.arange(1, 4)) < 3.5 * error).all()

    def test_a_large_budget_meets_the_ideal_in_one_step(self) -> None:
        loop = replace(self.LOOP, reparation="generator", budget="4000%", generator_batch=20)
        shares = drift(loop, self.COUNTS, 2, 3)
        np.testing.assert_allclose(shares[:, 1], 0.25, atol=1e-12)

    def test_an_ideal_other_than_uniform_is_met(self) -> None:
        loop = replace(
            self.LOOP,
            reparation="generator",
            budget="4000%",
            ideal=(0.4, 0.1, 0.4, 0.1),
            generator_batch=20,
        )
        shares = drift(loop, self.COUNTS, 2, 3)
        np.testing.assert_allclose(shares[:, 1], np.tile([0.4, 0.1, 0.4, 0.1], (3, 1)), atol=1e-12)


class Interrupted(Exception):
    """Stands for a kill in the middle of training."""


@pytest.mark.parametrize("stop_at", [3, 5, 7, 9, 12])
def test_interrupted_inside_a_generation_the_rows_are_the_same(tmp_path: Any, stop_at: int) -> None:
    loop, world, audit = smoke()
    loop = replace(loop, generator_epochs=4)

    def opened(name: str, watch: Any = None) -> Record:
        return Record.open(tmp_path / name, {"config": {}, "seed": 0}, watch=watch)

    told = 0

    def stop(*_: Any) -> None:
        nonlocal told
        told += 1
        if told == stop_at:
            raise Interrupted

    run(loop, world, audit, rounds=2, record=opened("whole"))
    with pytest.raises(Interrupted):
        run(loop, world, audit, rounds=2, record=opened("parts", stop))
    run(loop, world, audit, rounds=2, record=opened("parts"))
    texts = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("whole", "parts")]
    assert texts[0] == texts[1]
    assert not list((tmp_path / "parts" / "state").glob("fit-*"))
