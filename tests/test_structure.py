"""Labels of several codes through the house: data, fit, loop, audit, record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evenloop import measures, metrics
from evenloop.accumulation import update_events
from evenloop.audit import Audit
from evenloop.config import RunConfig
from evenloop.counts import Moments
from evenloop.data import NOTHING, Attribute, GroupedData, Structure
from evenloop.fit import fit
from evenloop.groups import GroupIndex
from evenloop.loop import World, chain, run
from evenloop.loops.acquire import Acquire
from evenloop.loops.prune import Prune
from evenloop.loops.relabel import Relabel
from evenloop.models import build, seeded
from evenloop.objectives.group_dro import GroupDRO
from evenloop.readings import padded
from evenloop.recipe import Recipe
from evenloop.record import Record
from evenloop.report.arms import Arms, sections_of
from evenloop.report.sections import feedback, groups, samples, texts, writing
from evenloop.report.study import Study
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform
from evenloop.seams import LabelRule
from structured_kit import PAIRS, PairLoss, Pairs, Parity, pairs

RECIPE = Recipe(lr=0.5, batch=16, epochs=4)


def new() -> Pairs:
    return seeded(Pairs, 3)


def world(n: int = 200) -> World:
    def net(rng: Rng) -> torch.nn.Module:
        return seeded(Pairs, rng.seed)

    return World(pairs(n), ("side",), net, RECIPE, objective=PairLoss)


def audit() -> Audit:
    return Audit(pairs(80, seed=1), ("side",), reading=Parity())


LOOP = Relabel(n0=40, human=5, machine=15, label_rule="sample", track="odd")


def test_labels_keep_their_shape_and_may_hold_nothing() -> None:
    data = pairs(4)
    assert data.y.shape == (4, 3)
    assert data.y[:, 2].tolist() == [NOTHING] * 4
    again = data.relabel(torch.full((4, 3), 2), round=3)
    grown = data.append(again)
    assert grown.y[4:].tolist() == [[2, 2, 2]] * 4
    assert torch.equal(grown.truth[4:], data.truth)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(4).long(), r"y must have shape \(4, 3\)"),
        (torch.full((4, 3), 5), "y holds 5..5, but its codes are 0..4"),
        (torch.full((4, 3), -2), "y holds -2..-2"),
    ],
)
def test_labels_of_another_kind_are_refused(y: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairs(4).relabel(y, round=1)


def test_groups_by_label_are_refused_and_by_attribute_are_not() -> None:
    data = pairs(4)
    assert GroupIndex.of(data, ["side"]).size == 2
    with pytest.raises(ValueError, match="by=truth needs labels that are classes"):
        GroupIndex.of(data, ["truth"])


def test_padding_fills_and_says_what_does_not_fit() -> None:
    structure = Structure(3, 9)
    assert padded(torch.tensor([[4]]), structure).tolist() == [[4, -1, -1]]
    assert padded(torch.tensor([[4, 1, 2, -1]]), structure).tolist() == [[4, 1, 2]]
    with pytest.raises(ValueError, match="a label of 4 places was written where 3 fit"):
        padded(torch.tensor([[4, 1, 2, 3]]), structure)


def test_parts_of_a_batch_give_the_gradient_of_the_whole() -> None:
    data = pairs(50)
    nets = []
    for micro in (None, 7):
        net = new()
        recipe = Recipe(
            lr=0.5, momentum=0.9, batch=16, epochs=2, precision="fp64", micro_batch=micro
        )
        done = fit(
            net, data, GroupIndex.of(data), recipe=recipe, rng=Rng.of(0), objective=PairLoss()
        )
        nets.append((net.heads.weight, done.losses))
    assert torch.allclose(nets[0][0], nets[1][0], rtol=0, atol=1e-12)
    assert np.allclose(nets[0][1], nets[1][1], rtol=0, atol=1e-12)


def test_published_accumulation_steps_at_its_own_times_and_rates() -> None:
    data = pairs(22)
    net = new()
    recipe = Recipe(
        lr=0.5, batch=4, micro_batch=2, epochs=1, schedule="linear", accumulation="published"
    )
    done = fit(net, data, GroupIndex.of(data), recipe=recipe, rng=Rng.of(0), objective=PairLoss())
    assert done.steps == len(update_events(11, 2, order="published"))
    ours, order = (
        new(),
        list(
            Uniform().epoch(
                data, GroupIndex.of(data), batch=2, rng=Rng.of(0).at("epoch", 0).at("sampler")
            )
        ),
    )
    sgd = torch.optim.SGD(ours.parameters(), lr=0.5)
    for event in update_events(11, 2, lr=0.5, order="published"):
        sgd.zero_grad()
        for part in event.micro_batches:
            assert isinstance(order[part], torch.Tensor)
            rows = data.take(order[part])
            (PairLoss().loss(ours(rows.x, rows.y), rows.y, rows.y) / 2).backward()  # type: ignore[no-untyped-call]
        sgd.param_groups[0]["lr"] = event.lr
        sgd.step()
    assert torch.allclose(net.heads.weight, ours.heads.weight, rtol=0, atol=1e-6)


def test_published_accumulation_needs_parts_and_a_linear_rate() -> None:
    for fields in (
        {"micro_batch": 2},
        {"schedule": "linear"},
        {"schedule": "linear", "micro_batch": 6, "batch": 16},
        {"schedule": "linear", "micro_batch": 2, "final_lr": 0.1},
    ):
        with pytest.raises(ValueError, match="accumulation='published' needs schedule='linear'"):
            Recipe(accumulation="published", **fields)  # type: ignore[arg-type]
    fine = Recipe(accumulation="published", schedule="linear", micro_batch=4, batch=16)
    assert fine.batch_taken == 4
    with pytest.raises(ValueError, match="micro_batch must be 1 or more, or None, got 0"):
        Recipe(micro_batch=0)


def test_parts_are_refused_where_the_objective_looks_at_the_whole_batch() -> None:
    rows = GroupedData.of(torch.eye(4), [0, 1, 0, 1], {}, type(PAIRS)(("a", "b")))
    net = build("logistic", features=4, classes=2, seed=0)
    with pytest.raises(ValueError, match="micro_batch=2 needs an objective that is a mean"):
        fit(
            net,
            rows,
            GroupIndex.of(rows),
            recipe=Recipe(micro_batch=2),
            rng=Rng.of(0),
            objective=GroupDRO(),
        )


class TestRun:
    """The loop from its first rows to its record."""

    def test_counts_statistics_and_comparisons_are_those_of_the_written_labels(self) -> None:
        record = run(LOOP, world(), audit(), rounds=3)
        assert [row.sizes["train"] for row in record.rows] == [40, 60, 80]
        row = record.rows[-1]
        assert row.counts["audit"].total == 80
        assert row.counts["train"].total == 80
        assert row.sizes["relabelled"] == 30
        truth = pairs(80, seed=1).truth
        first = row.moments["audit.first code.truth"].table.sum(0)
        assert first[:2].tolist() == [80.0, float(truth[:, 0].sum())]
        odd = row.moments["audit.second if odd.truth"].table.sum(0)
        assert odd[0] == int((truth[:, 0] % 2).sum())
        assert row.moments["train.first code"].table[:, 0].sum() == 80
        assert row.moments["audit.right"].groups == ("left", "right")
        assert row.moments["audit.right.all"].groups == ("all",)
        assert row.moments["audit.loss.all"].table[0, 0] == 80

    def test_the_model_learns(self) -> None:
        first = run(LOOP, world(), audit(), rounds=1).rows[0].moments["audit.right.all"].table[0]
        assert first[1] / first[0] > 0.3  # chance is 0.2

    def test_a_run_continued_is_the_run_uninterrupted(self, tmp_path: Path) -> None:
        manifest = {"config": {}, "seed": 0}
        whole = Record.open(tmp_path / "whole", manifest)
        run(LOOP, world(), audit(), rounds=4, record=whole)
        for rounds in (2, 4):
            run(
                LOOP,
                world(),
                audit(),
                rounds=rounds,
                record=Record.open(tmp_path / "cut", manifest),
            )
        lines = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("whole", "cut")]
        assert lines[0] == lines[1]

    def test_rows_to_show_are_in_words(self, tmp_path: Path) -> None:
        record = Record.open(tmp_path, {"config": {}, "seed": 0})
        run(LOOP, world(), audit(), rounds=2, record=record)
        kept = torch.load(tmp_path / "samples" / "00001.pt", weights_only=True)
        assert len(kept["shown"]) == len(kept["y"]) == len(kept["hidden"])
        assert kept["shown_truth"][0] == " ".join(map(str, kept["truth"][0, :2].tolist()))

    def test_argmax_and_sampled_labels_differ(self) -> None:
        argmax = Relabel(n0=40, human=5, machine=15, label_rule="argmax")
        a = run(argmax, world(), audit(), rounds=1).rows[0].counts["audit"].table
        b = run(LOOP, world(), audit(), rounds=1).rows[0].counts["audit"].table
        assert not np.array_equal(a, b)


class TestWrongInput:
    """Each guard stops what is wrong and passes what is right."""

    def test_rules_of_texts_need_texts(self) -> None:
        classes = World(
            GroupedData.of(torch.eye(90), [0, 1] * 45, {}, type(PAIRS)(("a", "b"))),
            (),
            lambda rng: build("logistic", features=90, classes=2, seed=rng.seed),
            RECIPE,
        )
        with pytest.raises(ValueError, match="label_rule=nucleus writes texts or frames"):
            Relabel(label_rule="nucleus").init(classes, None, Rng.of(0))
        assert len(Relabel(label_rule="sample").init(classes, None, Rng.of(0)).data) == 50

    @pytest.mark.parametrize(("field", "value"), [("threshold", 0.5), ("top_up", 3)])
    def test_what_only_class_labels_have_is_refused(self, field: str, value: float) -> None:
        loop = Relabel(**{"track": "odd", field: value})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"{field}={value} needs class labels"):
            loop.init(world(), None, Rng.of(0))

    def test_loops_that_need_classes_refuse_them_before_anything_runs(self) -> None:
        for loop in (Acquire(initial=20, query=5), chain(LOOP, Prune(tolerance=0.1))):
            with pytest.raises(ValueError, match="needs labels that are classes"):
                run(loop, world(), audit(), rounds=1)
        assert len(run(chain(LOOP), world(), audit(), rounds=1).rows) == 1

    def test_a_rule_that_is_a_function_is_for_classes(self) -> None:
        loop = Relabel(label_rule=lambda probs, generator: probs.argmax(1))
        with pytest.raises(ValueError, match="a function only where labels are classes"):
            loop.init(world(), None, Rng.of(0))

    def test_a_net_that_does_not_write_is_named(self) -> None:
        def net(rng: Rng) -> torch.nn.Module:
            return build("logistic", features=5, classes=2, seed=rng.seed)

        with pytest.raises(TypeError, match="does not write labels"):
            audit().written(net(Rng.of(0)), lambda model, x: x, pairs(5))

    def test_an_audit_of_structured_labels_needs_a_reading(self) -> None:
        with pytest.raises(ValueError, match="need a reading="):
            Audit(pairs(5))

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"kind": "best"}, "label_rule has no 'best'"),
            ({"temperature": 0.0}, "temperature must be above 0"),
            ({"top_p": 0.0}, r"top_p is a probability in \(0, 1\]"),
            ({"beams": 0}, "beams must be a whole number from 1 on"),
            ({"max_new_tokens": 1.5}, "max_new_tokens must be a whole number"),
            ({"length_penalty": float("nan")}, "length_penalty must be finite, got nan"),
        ],
    )
    def test_rules_are_checked(self, fields: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            LabelRule(**fields)  # type: ignore[arg-type]


def test_losses_of_an_epoch_are_means_over_units_not_over_batches() -> None:
    class Doubled(PairLoss):
        """Counts a row of the left side twice."""

        def units(self, y: torch.Tensor) -> torch.Tensor:
            return (2.0 - y[:, 0] % 2).sum()

    data, net = pairs(10), new()
    recipe = Recipe(lr=1e-12, batch=4, epochs=1)
    done = fit(net, data, GroupIndex.of(data), recipe=recipe, rng=Rng.of(0), objective=Doubled())
    order = torch.cat(
        list(
            Uniform().epoch(
                data, GroupIndex.of(data), batch=4, rng=Rng.of(0).at("epoch", 0).at("sampler")
            )
        )  # type: ignore[arg-type]
    )
    parts = [data.take(order[start : start + 4]) for start in (0, 4, 8)]
    losses = [float(PairLoss().loss(net(p.x, p.y), p.y, p.y).detach()) for p in parts]
    units = [float(Doubled().units(p.y)) for p in parts]
    assert np.isclose(done.losses[0], np.average(losses, weights=units), rtol=1e-5)


class TestBias:
    """The difference of two means of the same items, each over those it applies to."""

    def test_it_is_the_paired_difference_where_both_apply_to_all(self) -> None:
        one = GroupIndex(torch.zeros(3).long(), ("all",))
        said, given = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, 3.0, 3.0])
        table = Moments.of_bias(said, given, one).table
        assert np.allclose(table, Moments.of(said - given, one).table)

    @pytest.mark.parametrize("k", [2, 3, 10])
    def test_limits_hold_where_it_applies_to_few_items(self, k: int) -> None:
        rng, inside = np.random.default_rng(k), 0
        groups = GroupIndex(torch.zeros(200).long(), ("all",))
        for _ in range(600):
            said, given = np.full(200, np.nan), rng.normal(0.0, 1.0, 200)
            said[rng.choice(200, k, replace=False)] = rng.normal(0.5, 1.0, k)
            moments = Moments.of_bias(torch.tensor(said), torch.tensor(given), groups)
            limits = measures.mean(moments)
            assert limits.support[0] == k
            inside += bool(limits.low[0] <= 0.5 <= limits.high[0])
        assert inside / 600 > 0.92

    def test_one_item_has_a_value_and_no_limits(self) -> None:
        one = GroupIndex(torch.zeros(3).long(), ("all",))
        said = torch.tensor([1.0, torch.nan, torch.nan])
        found = measures.mean(Moments.of_bias(said, torch.zeros(3), one))
        assert (found.value[0], found.support[0]) == (1.0, 1)
        assert np.isnan(found.low[0])

    def test_its_spread_is_that_of_repeated_draws_where_they_do_not(self) -> None:
        rng = np.random.default_rng(1)
        said, given = rng.normal(1.0, 1.0, 3_000), rng.normal(0.5, 2.0, 3_000)
        said[rng.random(3_000) < 0.4] = np.nan
        given[rng.random(3_000) < 0.2] = np.nan
        one = GroupIndex(torch.zeros(3_000).long(), ("all",))
        n, total, squares = Moments.of_bias(torch.tensor(said), torch.tensor(given), one).table[0]
        assert n == min((~np.isnan(said)).sum(), (~np.isnan(given)).sum())
        assert np.isclose(total / n, np.nanmean(said) - np.nanmean(given))
        draws = [rng.integers(0, 3_000, 3_000) for _ in range(400)]
        again = [np.nanmean(said[d]) - np.nanmean(given[d]) for d in draws]
        error = np.sqrt((squares / n - (total / n) ** 2) / n)
        assert np.isclose(error, np.std(again), rtol=0.15)

    def test_a_group_that_one_side_never_applies_to_has_none(self) -> None:
        groups = GroupIndex(torch.tensor([0, 1]), ("a", "b"))
        said, given = torch.tensor([1.0, 1.0]), torch.tensor([torch.nan, 0.0])
        assert Moments.of_bias(said, given, groups).table[:, 0].tolist() == [0.0, 1.0]


class TestTable:
    """The long table of a run whose labels have structure."""

    def test_statistics_are_given_by_group_and_for_all_with_limits_and_counts(self) -> None:
        record = run(LOOP, world(), audit(), rounds=1)
        table = metrics.frame({0: record}, track=1, groups=True).set_index(["metric", "group"])
        bias = table.loc[("bias of first code", "all")]
        said, given = (
            table.loc[(f"{w} first code", "all"), "value"] for w in ("predicted", "true")
        )
        assert np.isclose(bias["value"], said - given)
        assert bias["low"] < bias["value"] < bias["high"]
        assert bias["n"] == 80
        odd = int((pairs(80, seed=1).truth[:, 0] % 2).sum())
        assert table.loc[("bias of second if odd", "all"), "n"] <= odd
        assert (
            table.loc[("first code", "left"), "n"] + table.loc[("first code", "right"), "n"] == 40
        )
        assert {"all", "left", "right"} <= set(table.loc["right"].index)


class TestReport:
    """The two sections that only such runs have."""

    @staticmethod
    def study(folder: Path) -> Study:
        record = Record.open(folder / "seed-0", {"config": {}, "seed": 0})
        run(LOOP, world(), audit(), rounds=2, record=record)
        config = RunConfig(
            world={"name": "pairs"},
            loop=[{"relabel": {}}],
            net={"name": "pairs"},
            recipe={},
            track="odd",
            by=["side"],
            test_size=80,
            rounds=2,
        )
        table = metrics.frame({0: record}, track=1, groups=True)
        return Study(folder, config, {0: record}, table, 1)

    def test_statistics_and_scores_are_drawn_and_said(self, tmp_path: Path) -> None:
        section = writing.build(self.study(tmp_path))
        assert section is not None
        assert len(section.figures) == 2 + 2  # two statistics, the score and the log loss
        assert section.summary[0].startswith("Bias of first code (written minus people's): ")
        assert section.tables[0].rows[0][:2] == ("first code", "0")

    def test_what_never_occurs_has_no_panel_and_is_named(self, tmp_path: Path) -> None:
        study = self.study(tmp_path)
        names = {"predicted first code", "true first code", "first code"}
        never = study.table["metric"].isin(names)
        flat = study.table.assign(value=study.table["value"].where(~never, 0.0))
        section = writing.build(replace(study, table=flat))
        assert section is not None
        assert len(section.figures) == 1 + 2
        assert section.text[-1].endswith("given and trained on: first code.")
        assert section.summary[0].startswith("Bias of second if odd")
        assert "Not drawn" not in " ".join(writing.build(study).text)  # type: ignore[union-attr]

    def test_two_means_of_a_score_share_a_panel(self, tmp_path: Path) -> None:
        study = self.study(tmp_path)
        again = study.table[study.table["metric"] == "right"].assign(metric="right, mean of verbs")
        moments = {**study.first.moments, "audit.right, mean of verbs.all": None}
        first = replace(study.first, moments=moments)
        records = {0: Record(rows=[first, *study.records[0].rows[1:]])}
        section = writing.build(
            replace(study, table=pd.concat([study.table, again]), records=records)
        )
        assert section is not None
        assert len(section.figures) == 2 + 2
        (panel,) = [f for f in section.figures if "of verbs" in f]
        assert "of images" in panel

    def test_distances_that_nobody_can_estimate_have_no_panel(self, tmp_path: Path) -> None:
        study = self.study(tmp_path)
        far = study.table["metric"].isin(groups.GAPS)
        none = study.table.assign(value=study.table["value"].where(~far))
        sections = groups.build(study), groups.build(replace(study, table=none))
        counts = [sum("Distance between" in f for f in s.figures) for s in sections if s]
        assert counts == [1, 0]

    def test_accuracy_is_called_agreement(self, tmp_path: Path) -> None:
        study = self.study(tmp_path)
        drawn = feedback.build(study), groups.build(study)
        words = " ".join(f for s in drawn if s is not None for f in (*s.figures, *s.text))
        assert "Agreement with people: both even or odd" in words
        assert "Agreement with people's class by side" in words.replace("&#x27;", "'")
        assert "Accuracy" not in words

    def test_a_sweep_calls_it_so_too(self, tmp_path: Path) -> None:
        study = self.study(tmp_path)
        found = sections_of(Arms("pairs", {"one": study, "other": study}, ("bias",)))
        titles = [section.title for section in found]
        assert "Agreement with people's class, group by group" in titles
        assert "Who was helped" not in titles
        (by_group,) = [s for s in found if s.title.startswith("Agreement")]
        assert by_group.summary[0].startswith("Against 'one' agreement with people's class gained")

    def test_rows_are_shown_in_words_and_hidden_ones_folded(self, tmp_path: Path) -> None:
        study = self.study(tmp_path)
        section = texts.build(study)
        assert section is not None
        items = [item for group in section.texts for item in group["items"]]
        assert {item["hidden"] for item in items} == {True, False}
        assert {item["by"] for item in items} >= {"people", "model, round 1"}
        assert samples.build(study) is None

    def test_other_studies_have_neither(self, tmp_path: Path) -> None:
        study = self.study(tmp_path)
        plain = study.table[~study.table["metric"].str.startswith("bias of")]
        assert writing.build(replace(study, table=plain)) is None


def test_a_ratio_counts_items_and_has_the_spread_of_a_ratio_of_means() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 9, 4_000).astype(float)
    values = rng.normal(weights, 1.0)
    one = GroupIndex(torch.zeros(4_000).long(), ("all",))
    table = Moments.of_ratio(torch.tensor(values), torch.tensor(weights), one).table[0]
    mean = table[1] / table[0]
    assert np.isclose(mean, (weights * values).sum() / weights.sum())
    error = np.sqrt((table[2] / table[0] - mean**2) / table[0])
    draws = [rng.integers(0, 4_000, 4_000) for _ in range(400)]
    ratios = [(weights[d] * values[d]).sum() / weights[d].sum() for d in draws]
    assert np.isclose(error, np.std(ratios), rtol=0.15)


def test_items_without_weight_and_absent_groups_have_no_say() -> None:
    groups = GroupIndex(torch.tensor([0, 0]), ("a", "b"))
    table = Moments.of_ratio(torch.tensor([1.0, 9.0]), torch.tensor([3.0, 0.0]), groups).table
    assert table.tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]


def test_right_rules_pass() -> None:
    assert LabelRule("beam", 0.5, 1.0, 3, -0.5, 1).beams == 3


def test_groups_of_one_value_keep_their_rows_for_all() -> None:
    one_sided = pairs(40).take(pairs(40).attribute("side") == 0)
    schema = type(PAIRS)(PAIRS.classes, (Attribute("side", ("left",)),), PAIRS.structure)
    data = GroupedData.of(one_sided.x, one_sided.truth, {"side": [0] * len(one_sided)}, schema)
    found = Audit(data, ("side",), reading=Parity())
    _, moments = found.written(new(), lambda net, x: net.write(x, LabelRule(), Rng.of(0)), data)
    assert moments["audit.right.all"].groups == ("all",)


def test_masks_of_every_kind_take_their_rows() -> None:
    data = pairs(4)
    mask = [False, False, True, True]
    for given in (mask, np.array(mask), torch.tensor(mask)):
        assert data.take(given).row.tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"a mask must have shape \(4,\), got \(3,\)"):
        data.take(np.array(mask[:3]))
