"""Label feedback: accounting, exact labellers against closed forms, every guard."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from evenloop.audit import Audit
from evenloop.bound import feedback_bound, mean_path
from evenloop.claims import FeedbackClaim, feedback_steps
from evenloop.data import GroupedData, Origin
from evenloop.fit import fit
from evenloop.loop import Loop, State, World, run
from evenloop.loops.relabel import ABSTAIN, Relabel, write_labels
from evenloop.record import Row
from evenloop.rng import Rng
from evenloop.shares import share_bias, share_gap
from stand_ins import Share, blobs, pattern_world, small_world


def smoke() -> tuple[Relabel, World, Audit]:
    return Relabel(n0=40, human=5, machine=20), *small_world()


def train_rate(row: Row) -> float:
    table = row.counts["train"].table.sum(0)
    return float(table[:, 1].sum() / table.sum())


def bias(row: Row) -> float:
    return share_bias(row.counts["audit"], 1).value


class TestExactLabellers:
    """Labellers whose path is known in closed form (spec oracles 2 to 5)."""

    def test_a_constant_gap_attains_the_bound(self) -> None:
        world, audit = pattern_world([1, 0, 0, 0], 400_000, lambda rng: Share(lambda f: f + 0.04))
        record = run(Relabel(n0=4000, human=800, machine=4000), world, audit, rounds=12)
        bound = feedback_bound(n0=4000, human=800, model=4000, delta=0.04, rounds=11)
        # k = 4,000 labels and 4,000 audit items round each share to a quarter of a thousandth.
        np.testing.assert_allclose([bias(row) for row in record.rows], bound, atol=1e-3)

    @pytest.mark.parametrize("share", [[1, 0, 0, 0], [1, 1, 1, 0]])
    def test_a_majority_labeller_ends_where_it_must(self, share: list[int]) -> None:
        world, audit = pattern_world(share, 40_000, lambda rng: Share(lambda f: float(f > 0.5)))
        record = run(Relabel(n0=400, human=40, machine=160), world, audit, rounds=30)
        sizes = {"n0": 400, "human": 40, "model": 160, "rounds": 29}
        trained, _ = mean_path(lambda f: float(f > 0.5), **sizes, population=np.mean(share))
        np.testing.assert_allclose([train_rate(row) for row in record.rows], trained, atol=1e-12)

    def test_a_faithful_labeller_is_healed_by_people_only(self) -> None:
        world, audit = pattern_world([1, 0, 0, 0], 400_000, lambda rng: Share(lambda f: f))
        lucky = world.data.take((world.data.truth == 1).nonzero().flatten()[-1000:])
        start = State(world.data.take(range(3000)).append(lucky), extra={})
        loop = Started(Relabel(n0=4000, human=800, machine=4000), start)
        record = run(loop, world, audit, rounds=8)
        sizes = {"n0": 4000, "human": 800, "model": 4000, "rounds": 7}
        wanted, _ = mean_path(lambda f: f, **sizes, population=0.25, start=0.4375)
        np.testing.assert_allclose([train_rate(row) for row in record.rows], wanted, atol=2e-3)

    def test_the_recursion_holds_for_any_labeller(self) -> None:
        loop, world, audit = smoke()
        record = run(loop, world, audit, rounds=6)
        for before, now in pairwise(record.rows):
            n, m, k = now.sizes["train"], 5, 20
            added = now.counts["train"].table.sum(0) - before.counts["train"].table.sum(0)
            written = added[:, 1].sum()
            wanted = (before.sizes["train"] * train_rate(before) + written) / n
            assert train_rate(now) == pytest.approx(wanted, abs=1e-12)
            assert added.sum() == m + k
        true_share = audit.data.truth.double().mean()
        for row in record.rows:
            gap = share_gap(row.counts["audit"], row.counts["train"], 1).value
            assert bias(row) == pytest.approx(gap + train_rate(row) - float(true_share))

    @pytest.mark.slow
    def test_without_people_a_sampler_is_an_urn(self) -> None:
        """Mean constant; variance p q sum over rounds of k / n_t^2, here over 400 seeds."""
        world, _ = pattern_world([1, 0], 4000, lambda rng: Share(lambda f: f, hard=False))
        loop = Relabel(n0=40, human=0, machine=20, label_rule="sample")
        ends = []
        for seed in range(400):
            root = Rng.of(seed)
            state = loop.init(world, None, root)
            for round in range(6):
                state, _ = loop.step(world, state, round, root.at(round))
            ends.append(float(state.data.y.double().mean()))
        variance, n = 0.0, 40
        for _ in range(5):
            n += 20
            variance += (0.25 - variance) * 20 / n**2
        assert np.mean(ends) == pytest.approx(0.5, abs=4 * (variance / 400) ** 0.5)
        assert np.var(ends) == pytest.approx(variance, rel=4 * (2 / 400) ** 0.5)


class Started(Loop):
    """A loop that begins from a given state."""

    def __init__(self, loop: Relabel, start: State) -> None:
        self.loop, self.start, self.step = loop, start, loop.step
        self.answer = loop.answer

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        return self.start


class TestAccounting:
    """Sizes, provenance and stopping (spec oracles 6 to 8)."""

    def test_sizes_sources_and_stop(self) -> None:
        loop, world, audit = smoke()
        seen: list[State] = []
        record = run(Watched(loop, seen), world, audit, rounds=90)
        reserve = len(world.data) - 40
        assert len(record.rows) == 1 + reserve // 25
        assert record.rows[-1].stop == f"the reserve has {reserve % 25} rows, a round needs 25"
        for t, (row, state) in enumerate(zip(record.rows, seen, strict=True)):
            made = state.data.origin == int(Origin.RELABELLED)
            assert row.sizes["train"] == 40 + 25 * t
            assert row.sizes["relabelled"] == 20 * t == int(made.sum())
            assert len(state.data.row.unique()) == len(state.data)
            people = ~made
            assert torch.equal(state.data.y[people], state.data.truth[people])
            assert not set(audit.data.row.tolist()) & set(state.data.row.tolist())

    def test_old_labels_stay(self) -> None:
        loop, world, audit = smoke()
        seen: list[State] = []
        run(Watched(loop, seen), world, audit, rounds=5)
        for before, after in pairwise(seen):
            n = len(before.data)
            for name, column in after.data.columns().items():
                assert torch.equal(column[:n], before.data.columns()[name])

    def test_the_last_round_labels_nothing_more(self) -> None:
        loop, world, audit = smoke()
        record = run(loop, world, audit, rounds=3)
        assert [row.sizes["train"] for row in record.rows] == [40, 65, 90]
        assert record.rows[-1].stop is None

    def test_human_rounds_only_are_plain_training(self) -> None:
        loop, world, audit = smoke()
        loop = replace(loop, human=25, machine=0)
        seen: list[State] = []
        world = replace(world, keep_order=True)
        run(Watched(loop, seen), world, audit, rounds=3, seed=9)
        rows = world.data.take(range(90))
        rng = Rng.of(9).at("round", 2)
        alone = fit(
            world.net(rng.at("net")),
            rows,
            world.groups(rows),
            recipe=world.recipe,
            rng=rng.at("fit"),
        )
        mine = seen[-1].models["classifier"].state_dict()
        assert all(torch.equal(mine[name], w) for name, w in alone.model.state_dict().items())

    @pytest.mark.parametrize(("rule", "size"), [("subsample", 40), ("latest", 25), ("all", 90)])
    def test_what_is_trained_on(self, rule: str, size: int) -> None:
        loop, world, audit = smoke()
        sizes: list[int] = []

        def counted(model, data, groups, **rest):  # type: ignore[no-untyped-def]
            sizes.append(len(data))
            return fit(model, data, groups, **rest)

        run(replace(loop, train_on=rule), replace(world, trainer=counted), audit, rounds=3)
        assert sizes[-1] == size

    def test_a_subsample_holds_model_labels_in_proportion(self) -> None:
        loop, world, _ = smoke()
        grown = replace(loop, train_on="subsample")
        state = loop.init(world, None, Rng.of(0))
        for round in range(5):
            state, _ = loop.step(world, state, round, Rng.of(0).at(round))
        made = [
            int((grown._training_rows(state.data, Rng.of(s)).origin == 1).sum()) for s in range(300)
        ]
        share = float((state.data.origin == 1).double().mean())
        n, drawn = len(state.data), 40
        deviation = (drawn * share * (1 - share) * (n - drawn) / (n - 1)) ** 0.5
        assert np.mean(made) == pytest.approx(drawn * share, abs=4 * deviation / 300**0.5)


class Watched(Loop):
    """A loop whose states are kept."""

    def __init__(self, loop: Relabel, seen: list[State]) -> None:
        self.loop, self.seen, self.init = loop, seen, loop.init
        self.answer = loop.answer

    def step(self, world: World, state: State, round: int, rng: Rng):  # type: ignore[no-untyped-def]
        state, notes = self.loop.step(world, state, round, rng)
        self.seen.append(state)
        return state, notes


class TestLabelRules:
    """What the model writes."""

    logits = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.1, 0.0]])

    def test_argmax(self) -> None:
        assert write_labels(Relabel(), self.logits, Rng.of(0)).tolist() == [0, 1, 0]

    def test_a_draw_follows_the_probabilities(self) -> None:
        logits = torch.tensor([[0.0, 1.0]]).expand(20_000, 2)
        drawn = write_labels(Relabel(label_rule="sample"), logits, Rng.of(0))
        p = 1 / (1 + np.exp(-1))
        assert float(drawn.double().mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / 2e4) ** 0.5)

    def test_a_cold_draw_is_the_argmax(self) -> None:
        cold = Relabel(label_rule="sample", temperature=1e-4)
        assert write_labels(cold, self.logits, Rng.of(0)).tolist() == [0, 1, 0]

    def test_two_arms_share_their_luck(self) -> None:
        logits = torch.randn(500, 3, generator=Rng.of(1).gen())
        rule = Relabel(label_rule="sample")
        nudged = write_labels(rule, logits + 1e-6, Rng.of(0))
        assert torch.equal(write_labels(rule, logits, Rng.of(0)), nudged)

    def test_below_the_threshold_the_model_abstains(self) -> None:
        written = write_labels(Relabel(threshold=0.7), self.logits, Rng.of(0))
        assert written.tolist() == [0, 1, ABSTAIN]

    def test_a_function_of_the_probabilities(self) -> None:
        def contrary(probs: Tensor, gen: torch.Generator) -> Tensor:
            return probs.argmin(1)

        assert write_labels(Relabel(label_rule=contrary), self.logits, Rng.of(0)).tolist() == [
            1,
            0,
            1,
        ]

    @pytest.mark.parametrize("who", ["human", "drop"])
    def test_who_takes_the_rows_nobody_dared_to_label(self, who: str) -> None:
        loop, world, audit = smoke()
        loop = replace(loop, threshold=0.9, abstained=who)
        record = run(loop, world, audit, rounds=4)
        for before, row in pairwise(record.rows):
            unsure = row.values["abstained"]
            people = row.sizes["world"] - before.sizes["world"]
            assert row.sizes["relabelled"] - before.sizes["relabelled"] == 20 - unsure
            assert people == 5 + (unsure if who == "human" else 0)
        assert sum(row.values.get("abstained", 0) for row in record.rows) > 0


class TestTopUp:
    """More people where the bias is above its bound."""

    def test_more_people_are_asked_when_the_bias_is_above_the_bound(self) -> None:
        """A labeller that is exact in round 0 and then answers class 1 ever more often."""
        world, audit = pattern_world([1, 0, 0, 0], 40_000, Worsening())
        loop = Relabel(n0=400, human=400, machine=400, track=1, top_up=100)
        record = run(loop, world, audit, rounds=4)
        asked = [row.values.get("topped_up", 0) for row in record.rows]
        assert asked[1] == 0
        assert asked[2:] == [100, 100]
        assert "100 more human rows" in record.rows[2].alarms[0]

    def test_nobody_is_asked_while_there_is_slack(self) -> None:
        world, audit = pattern_world([1, 0, 0, 0], 40_000, lambda rng: Share(lambda f: f))
        loop = Relabel(n0=400, human=400, machine=400, track="yes", top_up=100)
        record = run(loop, world, audit, rounds=4)
        assert all(row.values.get("topped_up", 0) == 0 for row in record.rows)


class Worsening:
    """Builds labellers whose gap grows with every model built."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self, rng: Rng) -> Share:
        gap = 0.2 * self.built
        self.built += 1
        return Share(lambda f: 0.25 + gap)


class TestClaim:
    """The claim in a run."""

    def test_a_constant_gap_is_never_an_alarm(self) -> None:
        world, audit = pattern_world([1, 0, 0, 0], 40_000, lambda rng: Share(lambda f: f + 0.05))
        claims = (FeedbackClaim(1), FeedbackClaim(1, "running"))
        loop = Relabel(n0=400, human=80, machine=320)
        record = run(loop, world, audit, rounds=6, claims=claims)
        assert not any(row.alarms for row in record.rows)

    def test_a_growing_gap_crosses_the_curve_of_round_0_and_says_so(self) -> None:
        world, audit = pattern_world([1, 0, 0, 0], 40_000, Worsening())
        loop = Relabel(n0=400, human=80, machine=320)
        record = run(loop, world, audit, rounds=3, claims=(FeedbackClaim(1),))
        assert not record.rows[0].alarms
        assert "is above the feedback bound" in record.rows[1].alarms[0]
        assert "n=4000" in record.rows[1].alarms[0]

    def test_trained_on_the_latest_rows_a_constant_gap_is_on_its_bound(self) -> None:
        """The gap is to the rows really trained on; e_t = k / (m + k) (e_{t-1} + delta)."""
        world, audit = pattern_world([1, 0, 0, 0], 400_000, lambda rng: Share(lambda f: f + 0.05))
        claims = [FeedbackClaim(1, kind, "latest") for kind in ("first", "running")]
        loop = Relabel(n0=4000, human=800, machine=3200, train_on="latest")
        record = run(loop, world, audit, rounds=6, claims=claims)
        assert not any(row.alarms for row in record.rows)
        steps = [*feedback_steps(record.rows, 1, train_on="latest")]
        assert [step.gap.value for step in steps] == pytest.approx([0.05] * 6, abs=1e-3)
        assert [bias(row) for row in record.rows] == pytest.approx(
            [step.first_bound for step in steps], abs=1e-3
        )
        # Taken for a run on all rows its bound would be too low.
        assert FeedbackClaim(1).bound(record.rows, 5).value < bias(record.rows[5])


class TestGuards:
    """Wrong values are named."""

    @pytest.mark.parametrize(
        ("field", "value"),
        [("n0", 0), ("human", -1), ("machine", -2), ("top_up", -1), ("threshold", 1.5),
         ("temperature", 0.0)],
    )  # fmt: skip
    def test_a_bad_field_is_named(self, field: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"{field}.*{value}"):
            Relabel(**{field: value})  # type: ignore[arg-type]

    def test_adding_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="human=0 and machine=0"):
            Relabel(human=0, machine=0)

    @pytest.mark.parametrize("field", ["label_rule", "train_on", "abstained"])
    def test_an_unknown_choice_is_named_with_those_there_are(self, field: str) -> None:
        with pytest.raises(ValueError, match=f"{field} has no 'nobody'; choose from"):
            Relabel(**{field: "nobody"})  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [60.5, True])
    def test_a_size_is_a_whole_number(self, value: object) -> None:
        with pytest.raises(ValueError, match="n0 must be a whole number from 1 on"):
            Relabel(n0=value)  # type: ignore[arg-type]

    def test_topping_up_does_not_follow_the_latest_rows(self) -> None:
        with pytest.raises(ValueError, match="train_on=all or subsample"):
            Relabel(top_up=5, track=1, train_on="latest")
        assert Relabel(top_up=5, track=1, train_on="subsample").top_up == 5

    def test_a_class_to_track_that_is_not_there(self) -> None:
        _, world, audit = smoke()
        with pytest.raises(ValueError, match="no class 'zz'"):
            run(Relabel(track="zz"), world, audit, rounds=1)

    @pytest.mark.parametrize("wrong", [torch.zeros(2).long(), torch.zeros(3), torch.full((3,), 7)])
    def test_a_rule_that_gives_no_codes(self, wrong: Tensor) -> None:
        logits = torch.zeros(3, 2)
        with pytest.raises(ValueError, match="label_rule"):
            write_labels(Relabel(label_rule=lambda probs, gen: wrong), logits, Rng.of(0))

    def test_topping_up_needs_something_to_watch(self) -> None:
        with pytest.raises(ValueError, match="track="):
            Relabel(top_up=5)

    def test_n0_beyond_the_pool(self) -> None:
        _, world, audit = smoke()
        with pytest.raises(ValueError, match=r"n0=290.*300 rows"):
            run(Relabel(n0=290, human=5, machine=20), world, audit, rounds=1)

    def test_n0_that_just_fits(self) -> None:
        _, world, audit = smoke()
        record = run(Relabel(n0=275, human=5, machine=20), world, audit, rounds=9)
        assert [row.sizes["train"] for row in record.rows] == [275, 300]


def test_a_row_keeps_its_world_label_beside_the_model_s() -> None:
    data = blobs(10)
    guess = data.take([1, 2]).relabel(1 - data.truth[1:3], round=3)
    grown: GroupedData = data.append(guess)
    assert grown.truth[10:].tolist() == data.truth[1:3].tolist()
    assert grown.y[10:].tolist() == (1 - data.truth[1:3]).tolist()
