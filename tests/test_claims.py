"""The feedback claim: the bound over a record, verdicts by hand, rates of false alarms, power."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from evenloop.bound import feedback_bound, feedback_factor
from evenloop.claims import FeedbackClaim, Verdict, feedback_steps, spent
from evenloop.counts import Counts
from evenloop.record import Row
from evenloop.shares import Measured, share_bias
from feedback_kit import counts, row

FACTOR = feedback_factor(n0=100, human=10, model=40, rounds=8)


def factors(rows: Sequence[Row], train_on: str = "all") -> list[float]:
    return [s.factor for s in feedback_steps(rows, 1, train_on=train_on)]  # type: ignore[arg-type]


class TestSteps:
    """The recursion over a record."""

    def test_the_factor_is_the_theorem_s(self) -> None:
        rows = [row(t, 0.3, 0.25) for t in range(9)]
        np.testing.assert_allclose(factors(rows), FACTOR, rtol=1e-12)

    def test_only_the_latest_rows(self) -> None:
        rows = [row(t, 0.3, 0.25) for t in range(4)]
        assert factors(rows, "latest") == pytest.approx([1, 1.8, 1 + 0.8 * 1.8, 1 + 0.8 * 2.44])

    @pytest.mark.parametrize("train_on", ["all", "latest"])
    def test_a_constant_gap_stays_on_its_bound(self, train_on: str) -> None:
        """The recursion of the labels by hand, with a labeller that adds .05 to its own."""
        learnt, biases, n = 0.25, [0.05], 100
        for _ in range(6):
            new = (10 * 0.25 + 40 * (learnt + 0.05)) / 50
            learnt = new if train_on == "latest" else (n * learnt + 50 * new) / (n + 50)
            n += 50
            biases.append(learnt + 0.05 - 0.25)
        rows = [row(t, 0.3, 0.25) for t in range(7)]
        np.testing.assert_allclose(biases, 0.05 * np.array(factors(rows, train_on)), rtol=1e-12)

    def test_rounds_of_other_sizes(self) -> None:
        """A round in which people took every row: e = (1 - 50 / 200) e."""
        rows = [row(0, 0.3, 0.25), row(1, 0.3, 0.25), row(2, 0.3, 0.25)]
        rows[2] = replace(rows[2], sizes={"train": 200, "world": 160, "relabelled": 40})
        assert factors(rows) == pytest.approx([1, 1 + 40 / 150, 1 + 0.75 * 40 / 150])

    def test_a_round_that_added_nothing_keeps_the_factor(self) -> None:
        rows = [row(0, 0.3, 0.25), row(1, 0.3, 0.25)]
        rows.append(replace(rows[1], round=2))
        for train_on in ("all", "latest"):
            found = factors(rows, train_on)
            assert found[2] == found[1]

    def test_the_gap_is_to_the_rows_really_trained_on(self) -> None:
        plain = row(0, 0.4, 0.25)
        other = replace(plain, counts={**plain.counts, "trained": counts(0.35, 100, 0.35)})
        gaps = [next(iter(feedback_steps([r], 1))).gap.value for r in (plain, other)]
        assert gaps == pytest.approx([0.15, 0.05])

    def test_both_bounds_keep_the_sign_of_their_tolerance(self) -> None:
        rows = [row(0, 0.2, 0.25), row(1, 0.45, 0.25)]
        last = [*feedback_steps(rows, 1)][1]
        assert last.first_bound == pytest.approx(-0.05 * FACTOR[1])
        assert last.largest_bound == pytest.approx(0.2 * FACTOR[1])

    def test_it_is_carried_on_from_a_step(self) -> None:
        rows = [row(t, 0.3 + 0.01 * t, 0.25) for t in range(6)]
        whole = [*feedback_steps(rows, 1)]
        assert [*feedback_steps(rows[3:], 1, since=whole[3])] == whole[4:]

    def test_without_an_audit_nothing_is_known(self) -> None:
        rows = [row(t, 0.3, 0.25) for t in range(2)]
        rows = [replace(r, counts={"train": r.counts["train"]}) for r in rows]
        assert {v.says for v in FeedbackClaim(1).verdicts(rows)} == {"n/a", "inconclusive"}


class TestVerdict:
    """One round, by hand."""

    def test_round_0_is_not_judged(self) -> None:
        verdict = FeedbackClaim(1).verdict([row(0, 0.3, 0.25)], 0)
        assert (verdict.says, verdict.slack) == ("n/a", 0)
        assert FeedbackClaim(1).alarm([row(0, 0.9, 0.25)]) is None

    def test_limits_by_hand(self) -> None:
        rows = [row(0, 0.3, 0.25), row(1, 0.8, 0.25)]
        verdict = FeedbackClaim(1).verdict(rows, 1)
        first = share_bias(rows[0].counts["audit"], 1, level=spent(0))
        later = share_bias(rows[1].counts["audit"], 1, level=spent(1))
        assert verdict.slack == pytest.approx(0.05 * FACTOR[1] - 0.55)
        assert verdict.low == pytest.approx(FACTOR[1] * first.low - later.high)
        assert verdict.high == pytest.approx(FACTOR[1] * first.high - later.low)
        assert verdict.says == "exceeds"

    def test_four_mistakes_in_a_thousand_after_a_perfect_round_are_not_a_crossing(self) -> None:
        rows = [row(0, 0.25, 0.25), row(1, 0.254, 0.25)]
        assert FeedbackClaim(1).verdict(rows, 1).says == "inconclusive"

    def test_the_running_bound_is_left_only_where_no_gap_explains_the_bias(self) -> None:
        grown = [row(0, 0.26, 0.25), row(1, 0.8, 0.25)]
        learnt = [row(0, 0.26, 0.25), row(1, 0.8, 0.8)]
        says = [FeedbackClaim(1, "running").verdict(rows, 1).says for rows in (grown, learnt)]
        assert says == ["within", "exceeds"]

    def test_far_below_the_bound_is_within(self) -> None:
        rows = [row(0, 0.65, 0.25), row(1, 0.3, 0.25)]
        for tolerance in ("first", "running"):
            assert FeedbackClaim(1, tolerance).verdict(rows, 1).says == "within"  # type: ignore[arg-type]

    def test_errors_of_independent_measurements(self) -> None:
        verdict = Verdict.of(1, Measured(0.1, 0.0, 9), Measured(0.05, 0.01, 9))
        assert verdict.low == pytest.approx(0.05 - 1.959964 * 0.01)
        assert verdict.says == "within"

    def test_spending_never_exceeds_five_per_cent(self) -> None:
        # bias and gap of every round
        assert sum(2 * (1 - spent(t)) for t in range(100_000)) < 0.05


class TestAlarm:
    """What a person reads, and the state carried between rounds."""

    def test_it_says_what_was_measured_and_no_cause(self) -> None:
        rows = [row(0, 0.3, 0.25), row(1, 0.8, 0.25)]
        text = FeedbackClaim(1).alarm(rows)
        assert text is not None
        for part in ("round 1", "+0.550", f"{0.05 * FACTOR[1]:.3f}", "n=1000", "+0.050"):
            assert part in text
        assert not re.search("because|grown|premise", text)

    def test_carrying_the_state_changes_nothing(self) -> None:
        rng = np.random.default_rng(0)
        runs = [[row(t, rng.uniform(0.2, 0.9), 0.3) for t in range(6)] for _ in range(2)]
        for tolerance in ("first", "running"):
            one = FeedbackClaim(1, tolerance)  # type: ignore[arg-type]
            for t in range(6):
                for rows in runs:  # two runs in turn: what is carried must not leak
                    fresh = FeedbackClaim(1, tolerance)  # type: ignore[arg-type]
                    assert one.alarm(rows[: t + 1]) == fresh.alarm(rows[: t + 1])
            assert [one.verdict(runs[0], t) for t in range(1, 6)] == one.verdicts(runs[0])[1:]

    def test_a_round_reads_only_its_own_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[int] = []
        claim, rows = FeedbackClaim(1), [row(t, 0.3, 0.25) for t in range(30)]
        before = share_bias

        def counted(counts: Counts, klass: int, *, level: float) -> object:
            read.append(1)
            return before(counts, klass, level=level)

        monkeypatch.setattr("evenloop.claims.share_bias", counted)
        for t in range(30):
            claim.alarm(rows[: t + 1])
        assert len(read) == 30


def simulated(
    rng: np.random.Generator, predicted: Sequence[float], learnt: Sequence[float], n: int
) -> list[Row]:
    """Rows of one run: n audit items, each round said by independent coins of the given shares."""
    truth = rng.random(n) < 0.25
    rows = []
    for t, (share, labels) in enumerate(zip(predicted, learnt, strict=True)):
        said = rng.random(n) < share
        table = np.bincount(2 * truth + said, minlength=4).reshape(1, 2, 2)
        made = row(t, 0.3, labels)
        rows.append(replace(made, counts={**made.counts, "audit": _named(table)}))
    return rows


def _named(table: np.ndarray) -> Counts:
    return Counts(table, ("all",), ("no", "yes"))


class TestRates:
    """Share of simulated runs that raise an alarm at any round; seeded, so it cannot flicker."""

    RUNS = 300

    def alarms(self, gaps: Sequence[float], tolerance: str, n: int = 400) -> float:
        path, labels = [0.25], 100
        for gap in gaps[:-1]:
            path.append((labels * path[-1] + 10 * 0.25 + 40 * (path[-1] + gap)) / (labels + 50))
            labels += 50
        said = [share + gap for share, gap in zip(path, gaps, strict=True)]
        rng, found = np.random.default_rng(5), 0
        for _ in range(self.RUNS):
            claim = FeedbackClaim(1, tolerance)  # type: ignore[arg-type]
            rows = simulated(rng, said, path, n)
            found += any(v.says == "exceeds" for v in claim.verdicts(rows))
        return found / self.RUNS

    @pytest.mark.parametrize("tolerance", ["first", "running"])
    @pytest.mark.parametrize("gap", [0.0, 0.1])
    def test_under_the_theorem_s_premise_alarms_are_rare(self, gap: float, tolerance: str) -> None:
        nominal = 0.05 + 4 * (0.05 * 0.95 / self.RUNS) ** 0.5
        assert self.alarms([gap] * 8, tolerance) <= nominal

    def test_a_labeller_whose_gap_grows_is_found(self) -> None:
        gaps = [0.02, 0.1, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3]
        assert self.alarms(gaps, "first") > 0.9
        assert self.alarms(gaps, "running") <= 0.05


def test_the_bound_is_the_one_of_the_command_line() -> None:
    rows = [row(t, 0.3, 0.25) for t in range(9)]
    mine = [step.first_bound for step in feedback_steps(rows, 1)]
    wanted = feedback_bound(n0=100, human=10, model=40, delta=0.05, rounds=8)
    np.testing.assert_allclose(mine, wanted, rtol=1e-12)
    assert all(a < b for a, b in pairwise(mine))
