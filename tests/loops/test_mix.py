"""Mixing as a loop: every method trains, ratios cross rounds, held-out rows stay out."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from evenloop.audit import Audit
from evenloop.data import GroupedData, Origin
from evenloop.groups import GroupIndex
from evenloop.loop import Loop, World, run
from evenloop.loops.mix import METHODS, Mix
from evenloop.models import Pixels, build, seeded
from evenloop.rng import Rng
from evenloop.samplers.cells import CellIndex
from stand_ins import small_world

QUICK = {"generator": "smoothed", "made_rows": 30, "per_cell": 4}


def smoke() -> tuple[Loop, World, Audit]:
    world, audit = small_world(300)
    return Mix(**QUICK, rows=100, ema=0.9), world, audit


def step(loop: Mix, world: World, rounds: int = 1):
    state, notes = loop.init(world, None, Rng.of(0)), None
    for r in range(rounds):
        state, notes = loop.step(world, state, r, Rng.of(3).at("round", r))
    return state, notes


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_says_what_it_did(method):
    world, audit = small_world(300)
    record = run(Mix(method=method, **QUICK), world, audit, rounds=2)
    last = record.rows[-1]
    assert last.values["method"] == method
    assert last.counts["audit"].total == 75
    assert last.sizes["generated"] == 120
    assert last.counts["held out"].total > 0
    assert last.counts["generated"].total == 24  # the held-out ones: a fifth of each cell's 30
    if method in ("ratios", "frozen", "fixed", "real_ratios", "fairbatch"):
        shares = [v for k, v in last.values.items() if k.startswith("lambda ")]
        assert sum(shares) == pytest.approx(2.0)


def test_ratios_move_with_learning_only():
    world, _ = small_world(300)
    moved = step(Mix(**QUICK, ratio_lr=0.1), world)[1].values
    fixed = step(Mix(**QUICK, method="fixed", mu_init=0.3), world)[1].values
    assert [v for k, v in fixed.items() if k.startswith("mu ")] == pytest.approx([0.3] * 4)
    assert all(v != 0.5 for k, v in moved.items() if k.startswith("mu "))
    assert moved["updates"] == 22


def test_features_that_are_reused_still_move_the_shares():
    world, _ = small_world(300)
    options = {**QUICK, "ratio_lr": 0.1, "inner_data": "train_batch"}
    cheap, exact = (step(Mix(**options, reuse=reuse), world)[1].values for reuse in (0, 1))
    mu = [k for k in cheap if k.startswith("mu ")]
    assert all(cheap[k] != 0.5 for k in mu)
    assert [cheap[k] for k in mu] != [exact[k] for k in mu]  # 0 leaves it to inner_data: 2


def test_frozen_ends_with_the_ratios_its_scout_learned():
    world, _ = small_world(300)
    first, one = step(Mix(**QUICK, method="frozen", ratio_lr=0.1), world)
    second, two = Mix(**QUICK, method="frozen", ratio_lr=0.1).step(world, first, 1, Rng.of(9))
    shares = [
        {k: v for k, v in notes.values.items() if k[:2] in ("mu", "la")} for notes in (one, two)
    ]
    assert shares[0] == shares[1]
    assert any(v not in (0.5, 1.0) for k, v in shares[0].items() if k.startswith("mu "))
    assert second.models["classifier"] is not first.models["classifier"]


def test_real_ratios_draw_no_generated_row():
    world, _ = small_world(300)
    assert (
        step(Mix(**QUICK, method="real_ratios"), world)[1].values["share of generated rows drawn"]
        == 0
    )


def test_held_out_rows_are_a_share_of_every_cell_and_stay_held_out():
    world, _ = small_world(400)
    loop = Mix(**QUICK, validation=0.25)
    first, _ = step(loop, world)
    second, _ = loop.step(world, first, 1, Rng.of(8))
    held = first.extra["mix"]["held"]
    assert torch.equal(held, second.extra["mix"]["held"])
    cells = CellIndex.of(first.data, ["sex"])
    share = torch.bincount(cells.place[held], minlength=8) / cells.counts.flatten()
    assert ((share >= 0.25) & (share < 0.3)).all()


def test_generated_rows_are_made_from_training_rows_alone():
    world, _ = small_world(400)
    state, _ = step(Mix(generator="smoothed", made_rows=50, noise=0.0, per_cell=4), world)
    made = state.data.origin == int(Origin.GENERATED)
    held = torch.zeros(len(state.data), dtype=torch.bool)
    held[state.extra["mix"]["held"]] = True
    real_held = {tuple(row) for row in state.data.x[held & ~made].tolist()}
    real_trained = {tuple(row) for row in state.data.x[~held & ~made].tolist()}
    new = {tuple(row) for row in state.data.x[made].tolist()}
    assert new <= real_trained
    assert not new & real_held


def test_generated_rows_of_the_world_are_used():
    world, audit = small_world(400)
    data = world.data
    half = data.take(torch.arange(150))
    made = GroupedData.of(
        half.x + 0.1,
        half.y,
        {a.name: half.attribute(a.name) for a in data.schema.attributes},
        data.schema,
        origin=Origin.GENERATED,
    )
    record = run(Mix(per_cell=4), replace(world, data=data.append(made)), audit, rounds=1)
    assert record.rows[0].sizes["generated"] == 150
    assert 0.3 < record.rows[0].values["share of generated rows drawn"] < 0.7


def test_images_are_made_by_a_conditional_vae():
    world, _ = small_world(300)
    data = world.data
    pixels = (data.y * 90 + 60 * data.attribute("sex"))[:, None, None, None].expand(-1, 1, 8, 8)
    image = GroupedData.of(
        pixels.to(torch.uint8),
        data.y,
        {a.name: data.attribute(a.name) for a in data.schema.attributes},
        data.schema,
    )

    def net(rng: Rng) -> torch.nn.Module:
        return seeded(
            lambda: torch.nn.Sequential(
                Pixels(torch.nn.Flatten(), (0.5,), (0.5,)), torch.nn.Linear(64, 2)
            ),
            rng.seed,
        )

    options = {"widths": [16, 32], "latent": 4}
    loop = Mix(
        generator="vae", made_rows=20, generator_epochs=40, generator_options=options, per_cell=4
    )
    state, _ = step(loop, replace(world, data=image, net=net))
    made = state.data.take((state.data.origin == int(Origin.GENERATED)).nonzero().flatten())
    assert len(made) == 80
    shade = GroupIndex.of(made, ("label", "sex")).mean(made.x.float().mean((1, 2, 3)))
    assert shade[0] < shade[1] < shade[3]
    with pytest.raises(ValueError, match="generator=vae makes uint8 images"):
        step(replace(loop, generator_options={}), world)


def test_the_average_is_what_is_audited():
    world, _ = small_world(300)
    state, _ = step(Mix(**QUICK, ema=0.99), world)
    raw, averaged = state.models["raw"], state.models["classifier"]
    assert not torch.equal(next(raw.parameters()).detach(), next(averaged.parameters()).detach())
    assert not any(m._forward_hooks for m in raw.modules())


def test_the_reference_is_the_real_only_model_of_the_same_seed():
    world, audit = small_world(300)
    compared = run(Mix(**QUICK, against="real"), world, audit, rounds=2)
    alone = run(Mix(**QUICK, method="real"), world, audit, rounds=2)
    for both, real in zip(compared.rows, alone.rows, strict=True):
        assert both.counts["audit.reference"].total == 75
        assert (both.counts["audit.reference"].support == real.counts["audit"].support).all()
    assert (compared.rows[0].counts["audit"].table != alone.rows[0].counts["audit"].table).any()


def test_a_second_round_trains_on_from_the_first():
    world, _ = small_world(300)
    loop = Mix(**QUICK)
    first, _ = step(loop, world)
    before = [p.clone() for p in first.models["classifier"].parameters()]
    second, _ = loop.step(world, first, 1, Rng.of(8))
    assert all(
        torch.equal(a, b)
        for a, b in zip(before, first.models["classifier"].parameters(), strict=True)
    )
    apart = Mix(**QUICK, restart=True).step(world, first, 1, Rng.of(8))[0]
    near, far = (
        sum(
            float((a - b).detach().norm())
            for a, b in zip(before, s.models["classifier"].parameters(), strict=True)
        )
        for s in (second, apart)
    )
    assert near < far


@pytest.mark.parametrize("restart", [True, False])
def test_no_generated_row_copies_one_that_is_held_out_after_a_restart(restart):
    world, _ = small_world(400)
    loop = Mix(generator="smoothed", made_rows=30, noise=0.0, per_cell=4, restart=restart)
    first, _ = step(loop, world)
    second, _ = loop.step(world, first, 1, Rng.of(8))
    made = second.data.origin == int(Origin.GENERATED)
    held = torch.zeros(len(second.data), dtype=torch.bool)
    held[second.extra["mix"]["held"]] = True
    new = {tuple(row) for row in second.data.x[made].tolist()}
    assert int(made.sum()) == 120
    assert not new & {tuple(row) for row in second.data.x[held & ~made].tolist()}
    again = torch.equal(second.extra["mix"]["held"], first.extra["mix"]["held"])
    assert again is not restart
    assert set(second.data.born[made].tolist()) == {int(restart)}


def answers(model: nn.Module, rows: GroupedData) -> list[list[int]]:
    """How often each cell is given each label."""
    said = model(rows.x).argmax(1)
    return [torch.bincount(said[rows.y * 2 + rows.attribute("sex") == i], minlength=2).tolist()
            for i in range(4)]  # fmt: skip


def test_generated_rows_are_judged_by_a_model_that_did_not_train_on_them():
    world, _ = small_world(300)
    state, notes = step(Mix(**QUICK, against="real"), world)
    made = state.data.origin == int(Origin.GENERATED)
    everyone = state.data.take(made.nonzero().flatten())
    told = notes.counts["generated"].table.sum(1).tolist()
    assert told == answers(state.models["reference"], everyone)
    assert notes.counts["held out.reference"].total == notes.counts["held out"].total
    state, notes = step(Mix(**QUICK, ema=0.99), world)  # the average is audited, and so it judges
    held = state.data.take(state.extra["mix"]["held"])
    held = held.take((held.origin == int(Origin.GENERATED)).nonzero().flatten())
    told = notes.counts["generated"].table.sum(1).tolist()
    assert told == answers(state.models["classifier"], held)
    assert "held out.reference" not in notes.counts


class Memory:
    """Progress of long fits in memory; the power fails at save number `fails`."""

    def __init__(self, fails: int = 0) -> None:
        self.kept: dict[str, dict] = {}
        self.saves, self.fails = 0, fails

    def load(self, name: str) -> dict | None:
        return self.kept.get(name)

    def save(self, name: str, progress: dict) -> None:
        self.kept[name] = copy.deepcopy(progress)
        self.saves += 1
        if self.saves == self.fails:
            raise InterruptedError

    def drop(self, name: str) -> None:
        self.kept.pop(name)

    def epoch(self, name: str, epoch: int, epochs: int, rows: int) -> None:
        pass


@pytest.mark.parametrize("method", ["ratios", "fairbatch", "balanced", "frozen"])
def test_resuming_inside_a_long_fit_changes_nothing(method):
    world, _ = small_world(300)
    recipe = replace(world.recipe, epochs=4, checkpoint_seconds=0)
    loop = Mix(**QUICK, method=method, ema=0.9)
    whole, notes = step(loop, replace(world, recipe=recipe, keep=Memory()))
    broken = replace(world, recipe=recipe, keep=Memory(fails=2))
    with pytest.raises(InterruptedError):
        step(loop, broken)
    resumed, again = step(loop, broken)
    assert notes.values == again.values
    for a, b in zip(
        whole.models["classifier"].parameters(),
        resumed.models["classifier"].parameters(),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_cell_without_real_rows_is_an_alarm_not_an_end():
    world, audit = small_world(400)
    gone = (world.data.y == 1) & (world.data.attribute("sex") == 1)
    kept = world.data.take((~gone).nonzero().flatten())
    record = run(Mix(**QUICK), replace(world, data=kept), audit, rounds=1)
    assert any("no real training rows in ['yes | m']" in a for a in record.rows[0].alarms)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "magic"}, "method must be one of"),
        ({"validation": 0.0}, "validation must be a share"),
        ({"ema": 1.0}, "ema must be"),
        ({"made_rows": 0}, "made_rows must be"),
        ({"rows": -1}, "rows must not be negative, got -1"),
        ({"reuse": -1}, "reuse must not be negative, got -1"),
        ({"method": "fairbatch", "fairness": "worst_cell"}, "fairbatch knows"),
        ({"accuracy_weight": -1.0}, "accuracy_weight"),
        ({"method": "fixed", "mu_min": 0.2}, "method=fixed keeps the shares"),
        ({"method": "fixed", "lambda_min": 0.2}, "method=fixed keeps the shares"),
    ],
)
def test_bad_fields_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        Mix(**options)


def test_fixed_keeps_the_shares_it_is_given():
    world, _ = small_world(300)
    given = ((0.3, 0.7), (0.6, 0.4))
    values = step(Mix(**QUICK, method="fixed", mu_init=0.9, lambda_init=given), world)[1].values
    assert [v for k, v in values.items() if k.startswith("mu ")] == pytest.approx([0.9] * 4)
    lam = [v for k, v in values.items() if k.startswith("lambda ")]
    assert lam == pytest.approx([0.3, 0.7, 0.6, 0.4])


def headless(rng: Rng) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(4, 2), nn.Tanh()), rng.seed)


def tree(rng: Rng) -> nn.Module:
    return build("sklearn-tree", features=4, classes=2, seed=rng.seed)


@pytest.mark.parametrize(
    ("loop", "change", "text"),
    [
        (Mix(), {"by": ("truth",)}, "needs by= with at least one attribute"),
        (Mix(fairness="dp", positive="maybe"), {}, "no class 'maybe'"),
        (Mix(method="pooled"), {}, "needs generated rows"),
        (Mix(generator="vae"), {}, "generator=vae makes uint8 images, x is torch.float32"),
        (Mix(lambda_min=0.7), {}, re.escape("lambda_min must be in [0, 1/2], got 0.7")),
        (Mix(mu_init=2.0), {}, re.escape("mu_init must give shares in [0, 1]")),
        (Mix(method="fixed", lambda_init=((1.0,),)), {}, "lambda_init must be shares of shape"),
        (Mix(), {"net": headless}, "head='auto' finds no linear layer that produces the model's"),
        (Mix(method="pooled", generator="smoothed"), {"net": tree}, "this net fits itself"),
    ],
)
def test_worlds_that_do_not_fit_are_refused(loop, change, text):
    world, _ = small_world(300)
    with pytest.raises(ValueError, match=text):
        loop.init(replace(world, **change), None, Rng.of(0))


def test_a_batch_smaller_than_the_number_of_cells_is_refused():
    world, _ = small_world(300)
    small = replace(world, recipe=replace(world.recipe, batch=3))
    with pytest.raises(ValueError, match="smaller than the 4 cells"):
        Mix().init(small, None, Rng.of(0))


def test_batches_in_parts_suit_held_out_alignments_only():
    world, _ = small_world(300)
    parts = replace(world, recipe=replace(world.recipe, batch=16, micro_batch=4))
    _, notes = step(Mix(**QUICK, ratio_lr=0.1), parts)
    assert notes.values["updates"] == 22
    with pytest.raises(ValueError, match="micro_batch=4 takes batch=16 in parts"):
        Mix(inner_data="train_batch").init(parts, None, Rng.of(0))


def test_worlds_that_fit_are_taken():
    world, _ = small_world(300)
    for loop in (Mix(lambda_min=0.4, mu_init=0.9), Mix(generator="smoothed", method="topped_up")):
        assert len(loop.init(world, None, Rng.of(0)).data) == len(world.data)
    alone = replace(world, net=tree)
    assert Mix(method="real").init(alone, None, Rng.of(0)).extra == {}
