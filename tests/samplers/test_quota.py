"""STAR batches: quotas, fill rules, determinism, and the closed forms against simulation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.quota import (
    Quota,
    Stratified,
    Tally,
    budget_of,
    quotas,
    stratified_batch,
)
from evenloop.samplers.quota_plan import binomial, plan_reparation


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tape:
    """A source that plays given strata in order; a sample is its position on the tape."""

    def __init__(self, strata: list[int]) -> None:
        self.strata = torch.tensor(strata)
        self.at = 0

    def draw(self, n: int) -> Tensor:
        self.at += n
        return torch.arange(self.at - n, self.at)

    def stratum(self, x: Tensor) -> Tensor:
        return self.strata[x]


def play(script: list[int], **kw: object) -> Stratified:
    tape = Tape(script)
    return stratified_batch(tape.draw, tape.stratum, generator=gen(), **kw)  # type: ignore[arg-type]


def mix(p: list[float], seed: int = 0):
    g = gen(seed)
    weights = torch.tensor(p)
    return lambda n: torch.multinomial(weights, n, replacement=True, generator=g)


def test_first_rows_of_every_stratum_are_kept_and_the_rest_is_new():
    made = play([0, 0, 0, 0, 1, 0, 1, 0, 0, 0], batch=6, strata=2, budget=2)
    assert sorted(made.x[0].tolist()) == [0, 1, 2, 4, 6, 8]
    assert made.first.tolist() == [[6, 2]]
    assert made.missing.tolist() == [1]


def test_a_batch_without_stratum_one():
    made = play([0] * 12, batch=4, strata=2, budget=1)
    assert made.first.tolist() == [[5, 0]]
    assert made.missing.tolist() == [2]
    assert made.cell[0].tolist() == [0, 0, 0, 0]


def test_a_batch_of_one_row():
    made = play([1, 1], batch=1, strata=2, budget=0)
    assert made.x.shape == (1, 1)
    assert made.missing.tolist() == [1]


def test_surplus_uses_the_first_draw_in_draw_order_and_draws_nothing_more():
    tape = Tape([0, 0, 0, 0, 0, 1, 0, 0])
    made = stratified_batch(
        tape.draw, tape.stratum, batch=6, strata=2, budget=2, fill="surplus", generator=gen()
    )
    assert tape.at == 8
    assert sorted(made.x[0].tolist()) == [0, 1, 2, 3, 4, 5]


def test_repeat_fills_short_strata_with_their_own_rows():
    made = play([0, 0, 0, 0, 0, 1, 0, 0], batch=6, strata=2, budget=2, fill="repeat")
    assert sorted(made.x[0].tolist()) == [0, 1, 2, 5, 5, 5]
    assert made.missing.tolist() == [2]


def test_repeat_cannot_repeat_what_is_absent():
    made = play([0] * 20, batch=6, strata=2, budget=2, fill="repeat")
    assert sorted(made.x[0].tolist()) == [0, 1, 2, 8, 9, 10]


def test_reject_keeps_drawing_until_quotas_are_full():
    strata = [0] * 8 + [0, 1] + [0, 0] + [1, 1]
    made = play(strata, batch=6, strata=2, budget=2, fill="reject", tries=3)
    assert sorted(made.x[0].tolist()) == [0, 1, 2, 9, 12, 13]
    assert made.missing.tolist() == [0]
    assert made.first.tolist() == [[8, 0]]


def test_reject_gives_up_after_its_tries_and_says_how_many_are_missing():
    made = play([0] * 40, batch=6, strata=2, budget=2, fill="reject", tries=3)
    assert made.missing.tolist() == [3]
    assert made.x.shape == (1, 6)


@pytest.mark.parametrize("fill", ["unfiltered", "surplus", "reject", "repeat"])
def test_blocks_are_separate_batches_of_their_own_rows(fill):
    draw = mix([0.7, 0.2, 0.08, 0.02])
    seen: list[Tensor] = []

    def numbered(n: int) -> Tensor:
        seen.append(draw(n))
        start = sum(len(s) for s in seen[:-1])
        return torch.arange(start, start + n)

    made = stratified_batch(
        numbered,
        lambda x: torch.cat(seen)[x],
        batch=32,
        strata=4,
        budget=8,
        fill=fill,
        blocks=5,
        generator=gen(),
    )
    assert made.x.shape == (5, 32)
    first = torch.cat(seen)[: 5 * 40].view(5, 40)
    for r in range(5):
        assert torch.bincount(first[r], minlength=4).tolist() == made.first[r].tolist()
        own = made.x[r][made.x[r] < 200]
        assert ((own >= 40 * r) & (own < 40 * r + 40)).all()
        if fill != "repeat":
            assert len(set(made.x[r].tolist())) == 32
    assert (torch.cat(seen)[made.x] == made.cell).all()


def test_blocks_agree_with_a_slow_loop_over_rows():
    draw = mix([0.5, 0.3, 0.15, 0.05], 3)
    cells = draw(3 * 25)
    made = stratified_batch(
        lambda n: torch.arange(n) if n == 75 else torch.full((n,), -1),
        lambda x: torch.where(x < 0, 0, cells[x.clamp_min(0)]),
        batch=20,
        strata=4,
        budget=5,
        blocks=3,
        generator=gen(),
    )
    for r in range(3):
        quota, want = [5] * 4, []
        for i in range(25 * r, 25 * r + 25):
            if quota[cells[i]] > 0:
                quota[cells[i]] -= 1
                want.append(i)
        assert sorted(i for i in made.x[r].tolist() if i >= 0) == want
        assert int(made.missing[r]) == 20 - len(want)


def test_permuting_rows_inside_a_stratum_changes_only_which_are_kept():
    strata = [0, 0, 0, 1, 1, 0, 2, 0]
    a = play(strata, batch=6, strata=3, budget=0 + 2, fill="surplus")
    b = play([0, 0, 0, 1, 1, 0, 2, 0][::-1], batch=6, strata=3, budget=2, fill="surplus")
    assert a.first.tolist() == b.first.tolist()
    assert a.missing.tolist() == b.missing.tolist()


def test_a_large_budget_meets_the_ideal_exactly():
    made = stratified_batch(
        mix([0.1, 0.2, 0.7]),
        lambda x: x,
        batch=20,
        strata=3,
        budget=400,
        ideal=[0.5, 0.25, 0.25],
        generator=gen(),
    )
    assert torch.bincount(made.cell[0], minlength=3).tolist() == [10, 5, 5]


def test_same_generator_same_batches():
    made = [
        stratified_batch(
            mix([0.6, 0.4]), lambda x: x, batch=9, strata=2, budget=3, blocks=2, generator=gen(1)
        )
        for _ in range(2)
    ]
    assert made[0].x.equal(made[1].x)


def test_batches_are_shuffled_within_their_block():
    made = play(list(range(2)) * 100, batch=64, strata=2, budget=64, fill="surplus")
    assert made.x[0].tolist() != sorted(made.x[0].tolist())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ideal": [0.5, 0.6]}, "sum to 1, got 1.1"),
        ({"ideal": [1.5, -0.5]}, "at least 0"),
        ({"ideal": [float("nan"), 1.0]}, "finite"),
        ({"ideal": [1.0]}, "one share for each of 2 strata"),
        ({"budget": -1}, "budget must be"),
        ({"budget": "many"}, "budget must be"),
        ({"budget": "-5%"}, "budget must be"),
        ({"budget": True}, "budget must be"),
        ({"fill": "magic"}, "fill must be one of"),
        ({"tries": -1}, "tries must be at least 0"),
        ({"blocks": 0}, "blocks at least 1"),
        ({"batch": 0}, "batch and strata must be at least 1"),
    ],
)
def test_bad_parameters_are_named(change, match):
    kw = {"batch": 4, "strata": 2, "budget": 1} | change
    with pytest.raises(ValueError, match=match):
        play([0, 1] * 10, **kw)
    play([0, 1] * 10, batch=4, strata=2, budget=1, ideal=[0.4, 0.6], tries=0, blocks=1)


def test_a_source_of_wrong_size_is_named():
    with pytest.raises(ValueError, match="asked for 5 rows and gave 3"):
        stratified_batch(
            lambda n: torch.zeros(3), lambda x: x, batch=4, strata=2, budget=1, generator=gen()
        )
    with pytest.raises(ValueError, match=r"stratum must return shape \(5,\)"):
        stratified_batch(
            torch.zeros, lambda x: x[:, None], batch=4, strata=2, budget=1, generator=gen()
        )


def test_budget_in_rows_and_per_cent():
    assert budget_of("25%", 256) == 64
    assert budget_of("0%", 256) == 0
    assert budget_of(64, 8) == 64


def test_quota_of_an_ideal_is_not_lost_to_rounding():
    assert quotas(10, 10, [0.1] * 10).tolist() == [1] * 10
    assert quotas(3, 4).tolist() == [0, 0, 0, 0]


CASES = [
    (256, 64, [0.16, 0.30, 0.34, 0.20], 15.73, [0.2095, 0.2684, 0.2709, 0.2512]),
    (256, 0, [0.25] * 4, 11.04, None),
    (256, 64, [0.25] * 4, 0.185, None),
    (32, 8, [0.10, 0.30, 0.45, 0.15], 6.37, [0.1442, 0.3068, 0.3395, 0.2095]),
    (64, 16, [0.50, 0.14, 0.30, 0.06], 16.13, None),
    (256, 64, [0.02, 0.02, 0.48, 0.48], 115.2, [0.034, 0.034, 0.466, 0.466]),
    (256, 256, [0.16, 0.30, 0.34, 0.20], 0.036, None),
]


@pytest.mark.parametrize(("batch", "budget", "share", "missing", "final"), CASES)
def test_the_closed_forms_of_the_paper_rule(batch, budget, share, missing, final):
    plan = plan_reparation(share, batch=batch, budget=budget)
    assert plan.missing == pytest.approx(missing, rel=0.004, abs=0.0005)
    if final:
        assert plan.final.tolist() == pytest.approx(final, abs=6e-5 if final[0] > 0.1 else 6e-4)
    assert float(plan.final.sum()) == pytest.approx(1)


@pytest.mark.parametrize("fill", ["unfiltered", "surplus", "reject", "repeat"])
def test_the_plan_agrees_with_simulation(fill):
    share = [0.5, 0.14, 0.3, 0.06]
    plan = plan_reparation(share, batch=32, budget=8, fill=fill, tries=3)
    made = stratified_batch(
        mix(share, 5),
        lambda x: x,
        batch=32,
        strata=4,
        budget=8,
        fill=fill,
        tries=3,
        blocks=3000,
        generator=gen(),
    )
    got = torch.bincount(made.cell.flatten(), minlength=4) / made.cell.numel()
    assert got.tolist() == pytest.approx(plan.final.tolist(), abs=0.004)
    assert float(made.missing.double().mean()) == pytest.approx(plan.missing, abs=0.12)


def test_a_stratum_that_cannot_be_filled_is_announced():
    plan = plan_reparation([0.0, 0.01, 0.99], batch=60, budget=15)
    assert plan.unfillable() == [0, 1]
    absent, rare = plan.warnings(["red 1", "red 0", "green"])
    assert "No budget can fill" in absent
    assert "red 0" in rare
    assert "budget of about 1941" in rare
    assert plan_reparation([0.3, 0.3, 0.4], batch=60, budget=30).warnings() == []


def test_repeats_are_announced_as_what_they_are():
    options = {"batch": 256, "budget": 64, "fill": "repeat"}
    plan = plan_reparation([0.05, 0.001, 0.0, 0.949], **options)
    assert plan.unfillable() == [2]
    often, rare, never = plan.warnings(["red 0", "red 1", "green 0", "green 1"])
    # 64 places for 320 x 5% = 16 rows.
    assert "its rows are repeated in the 100.00% that hold any" in often
    assert "each stands for about 4.0 places; expect 27.158%" in often
    assert "budget of" not in often.split(";", 1)[1]
    # 1 - 0.999^320 of batches hold any; log(1/2) / log(0.999) = 693 rows do half of the time.
    assert "repeated in the 27.40% that hold any" in rare
    assert "A budget of about 437 draws it half of the time." in rare
    assert "repeated" not in never
    assert "No budget can fill" in never
    assert plan_reparation([0.25, 0.25, 0.2, 0.3], **options).warnings() == []


def test_what_repeats_are_expected_to_do_is_what_they_do():
    share = [0.05, 0.001, 0.949]
    plan = plan_reparation(share, batch=256, budget=64, fill="repeat")
    made = stratified_batch(
        mix(share), lambda x: x, batch=256, strata=3, fill="repeat", blocks=4000, generator=gen()
    )
    held = made.first > 0
    assert held.double().mean(0).tolist() == pytest.approx(plan.drawn.tolist(), abs=0.03)
    places = 85 / made.first[:, 0].double().mean()
    assert f"about {plan.quota[0] * plan.drawn[0] / plan.kept[0]:.1f} places" in plan.warnings()[0]
    assert float(places) == pytest.approx(float(85 / plan.kept[0]), abs=0.1)


def test_a_budget_that_is_drawn_again_need_not_be_as_large():
    options = {"batch": 60, "budget": 15, "tries": 4}
    once = plan_reparation([0.01, 0.99], **options).warnings()[0]
    again = plan_reparation([0.01, 0.99], fill="reject", **options).warnings()[0]
    assert "A budget of about 2941 fills" in once
    assert "A budget of about 589 fills" in again


@pytest.mark.parametrize("fill", ["unfiltered", "surplus", "reject", "repeat"])
@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda x: x + 1, r"stratum must return numbers in \[0, 2\), got 1 to 2"),
        (lambda x: x - 1, r"stratum must return numbers in \[0, 2\), got -1 to 0"),
        (lambda x: x.double(), "stratum must return whole numbers, int64; got torch.float64"),
        (lambda x: x > 0, "stratum must return whole numbers, int64; got torch.bool"),
    ],
)
def test_strata_that_are_none_are_named(fill, wrong, match):
    options = {"batch": 8, "strata": 2, "fill": fill, "generator": gen()}
    with pytest.raises(ValueError, match=match):
        stratified_batch(mix([0.5, 0.5]), wrong, **options)
    made = stratified_batch(mix([0.5, 0.5]), lambda x: x.int(), **options)
    assert made.cell.shape == (1, 8)


def test_plan_refuses_shares_that_are_not_a_distribution():
    with pytest.raises(ValueError, match="sum to 1"):
        plan_reparation([0.5, 0.6], batch=8)
    assert plan_reparation([0.5, 0.5], batch=8).budget == 2


def test_binomial_sums_to_one_at_size():
    assert binomial(1000, torch.tensor([0.0, 1e-4, 0.3, 1.0])).sum(1).tolist() == pytest.approx(
        [1.0] * 4
    )


def rows(n: int, minority: int) -> tuple[GroupedData, GroupIndex]:
    schema = Schema(("no", "yes"), (Attribute("g", ("a", "b")),))
    g = torch.arange(n) < minority
    data = GroupedData.of(torch.zeros(n, 1), [0] * n, {"g": g.long()}, schema)
    return data, GroupIndex.of(data, ["g"])


def test_quota_sampler_balances_groups_of_a_data_set():
    data, groups = rows(400, 60)
    tally = Tally(2)
    sampler = Quota(budget="300%", tally=tally, blocks=3)
    batches = list(sampler.epoch(data, groups, batch=20, rng=Rng.of(1)))
    assert len(batches) == sampler.steps(400, 20) == 20
    share = torch.cat([groups.cell[b] for b in batches]).double().mean()
    read = tally.read()
    plan = plan_reparation([0.85, 0.15], batch=20, budget=60)
    assert abs(float(share) - float(plan.final[1])) < 0.03
    assert read["batches"] == 20
    assert read["first_share"][1] == pytest.approx(0.15, abs=0.03)


def test_quota_sampler_with_an_absent_group_and_repeatable_draws():
    data, groups = rows(50, 0)
    one, two = (list(Quota().epoch(data, groups, batch=8, rng=Rng.of(2))) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(one, two, strict=True))
    assert [len(b) for b in one] == [8] * 7


def test_quota_sampler_state_keeps_the_tally():
    data, groups = rows(40, 10)
    a, b = Quota(tally=Tally(2)), Quota(tally=Tally(2))
    list(a.epoch(data, groups, batch=8, rng=Rng.of(0)))
    b.load_state_dict(a.state_dict())
    assert a.tally
    assert b.tally
    assert b.tally.read() == a.tally.read()
    assert Quota().state_dict() == {}


def test_quota_sampler_checks_its_parameters_early():
    with pytest.raises(ValueError, match="sum to 1"):
        Quota(ideal=(0.5, 0.2))
    with pytest.raises(ValueError, match="budget must be"):
        Quota(budget="lots")
    assert Quota(ideal=(0.5, 0.5)).budget == "25%"
