"""Before the first round: the net, the seams, the audit and the world are tried on each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenloop.audit import Audit
from evenloop.data import Attribute, GroupedData, Schema
from evenloop.loop import World, run
from evenloop.loops.relabel import Relabel
from evenloop.models import build
from evenloop.objectives.group_dro import GroupDRO
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform
from evenloop.seams import Objective, Sampler
from evenloop.trial import check_net, check_same_kind, check_seams, shared_rows
from stand_ins import SCHEMA, blobs, small_world

LOOP = Relabel(n0=20, human=2, machine=4)


def of(net: Callable[[Rng], Any]) -> World:
    return replace(small_world()[0], net=net)


class TestNet:
    """One logit a class for the rows there are."""

    @pytest.mark.parametrize(
        ("net", "error", "message"),
        [
            (lambda r: nn.Linear(4, 1), ValueError, r"gives shape \(2, 1\) .* needed is \(2, 2\)"),
            (lambda r: nn.Linear(4, 5), ValueError, r"gives shape \(2, 5\)"),
            (lambda r: nn.Sequential(nn.Linear(4, 2), nn.Flatten(0)), ValueError, r"shape \(4,\)"),
            (lambda r: nn.LSTM(4, 2), TypeError, "net gives a tuple for 2 rows"),
            (lambda r: nn.Linear(3, 2), ValueError, r"net does not take rows of shape \(4,\)"),
            (lambda r: nn.Embedding(3, 2), ValueError, "net does not take rows"),
            (nn.Linear, TypeError, r"cannot be built from a stream .*; write net=lambda rng:"),
            (lambda: nn.Linear(4, 2), TypeError, "cannot be built from a stream"),
            (lambda r: None, TypeError, "net gave a NoneType where a torch.nn.Module is needed"),
        ],
    )
    def test_an_output_nothing_can_be_read_from(
        self, net: Callable[[Rng], Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            check_net(of(net))
        with pytest.raises(error, match=message):
            run(LOOP, of(net), small_world()[1], rounds=1)

    @pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16"])
    def test_nets_of_any_precision_pass(self, precision: Any) -> None:
        world = small_world()[0]
        assert check_net(replace(world, recipe=replace(world.recipe, precision=precision)))

    def test_one_row_and_no_row_pass(self) -> None:
        world = small_world()[0]
        for n in (1, 0):
            assert check_net(replace(world, data=world.data.take(range(n))))

    def test_batch_norm_and_models_that_train_themselves_pass(self) -> None:
        check_net(of(lambda r: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))))
        check_net(of(lambda r: build("sklearn-forest", features=4, classes=2, seed=r.seed)))

    def test_a_net_that_draws_leaves_the_global_generator_alone(self) -> None:
        class Noisy(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) + torch.randn(len(x), 2)

        before = torch.random.get_rng_state()
        check_net(of(lambda r: Noisy(4, 2)))
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_an_error_without_a_word_is_told_by_its_kind(self) -> None:
        class Mute(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise ValueError

        with pytest.raises(ValueError, match=r"does not take rows .* \(ValueError\)"):
            check_net(of(lambda r: Mute()))

    def test_a_net_is_called_what_the_user_calls_it(self) -> None:
        with pytest.raises(ValueError, match=r"^net='mine' gives shape"):
            check_net(of(lambda r: nn.Linear(4, 1)), "net='mine'")


class Steps(Sampler):
    """A sampler of a user's own, whole."""

    def steps(self, rows: int, batch: int) -> int:
        return -(-rows // batch)

    def epoch(self, data: Any, groups: Any, *, batch: int, rng: Rng) -> Iterator[Tensor]:
        return iter(torch.arange(len(data)).split(batch))


class Plain(Objective):
    """An objective of a user's own, whole."""

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, y)


class Duck:
    """Has a loss and nothing else."""

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        return outputs.sum()


class TestSeams:
    """Builders that give what training calls."""

    def test_a_users_own_seams_pass(self) -> None:
        world = replace(small_world()[0], sampler=Steps, objective=Plain)
        check_seams(world)
        assert len(run(LOOP, world, small_world()[1], rounds=1).rows) == 1
        check_seams(replace(world, sampler=Uniform, objective=GroupDRO))

    def test_a_seam_that_lacks_something_is_named(self) -> None:
        world = replace(small_world()[0], objective=Duck)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"objective gave a Duck, which has no .*bind.*after"):
            run(LOOP, world, small_world()[1], rounds=1)

    def test_a_sampler_without_steps_cannot_be_made(self) -> None:
        class Half(Sampler):
            def epoch(self, data: Any, groups: Any, *, batch: int, rng: Rng) -> Iterator[Tensor]:
                return iter(())

        world = replace(small_world()[0], sampler=Half)  # type: ignore[type-abstract]
        with pytest.raises(TypeError, match=r"abstract .*steps"):
            run(LOOP, world, small_world()[1], rounds=1)


def coded(schema: Schema, x: Tensor | None = None) -> GroupedData:
    data = blobs(40, seed=3)
    codes = {a.name: torch.zeros(40) for a in schema.attributes}
    return GroupedData.of(data.x if x is None else x, data.truth, codes, schema)


class TestSameKind:
    """One code means one thing in the world and in the audit."""

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (coded(replace(SCHEMA, classes=("yes", "no"))), r"classes are \('no', 'yes'\) and"),
            (
                coded(Schema(("no", "yes"), (Attribute("sex", ("m",)), SCHEMA.attributes[1]))),
                r"values of attribute 'sex' are \('f', 'm'\) and \('m',\)",
            ),
            (coded(SCHEMA, torch.zeros(40, 5)), r"x is \(4,\) .* and \(5,\)"),
            (coded(SCHEMA, torch.zeros(40, 4).double()), r"float32 .* torch\.float64"),
        ],
    )
    def test_another_encoding_is_refused(self, data: GroupedData, message: str) -> None:
        with pytest.raises(ValueError, match=f"{message}.*encode both files together"):
            run(LOOP, small_world()[0], Audit(data, ("sex",)), rounds=1)

    def test_a_group_that_is_no_column_is_named_on_either_side(self) -> None:
        world, audit = small_world()
        with pytest.raises(
            ValueError, match=r"World\.by=\('sx',\) has no attribute 'sx'; .* 'sex'"
        ):
            check_same_kind(replace(world, by=("sx",)), audit)
        with pytest.raises(
            ValueError, match=r"Audit\.by=\('race',\) .* are: age, label, sex, truth"
        ):
            check_same_kind(world, replace(audit, by=("race",)))

    def test_other_groups_of_one_encoding_pass(self) -> None:
        world, audit = small_world()
        check_same_kind(world, replace(audit, by=("age", "truth")))


class TestShared:
    """Rows that are on both sides."""

    def test_rows_of_the_world_in_the_audit_are_counted_and_told_once(self) -> None:
        world, _ = small_world()
        data = world.data.take(range(30)).append(blobs(400).take(range(10)))
        assert shared_rows(world.data, data) == 30
        record = run(LOOP, world, Audit(data, ("sex",)), rounds=2)
        assert record.rows[0].alarms[0].startswith("30 of the 40 audit rows are rows of the world")
        assert record.rows[1].alarms == ()

    def test_rows_kept_apart_are_not_told(self) -> None:
        world, audit = small_world()
        assert shared_rows(world.data, audit.data) == 0
        assert run(LOOP, world, audit, rounds=1).rows[0].alarms == ()

    def test_one_number_of_two_sources_is_not_one_row(self) -> None:
        assert shared_rows(blobs(400, seed=1), blobs(300, seed=2)) == 0

    def test_generated_rows_are_nobodys(self) -> None:
        x, schema = torch.zeros(3, 1), Schema(("no", "yes"))
        made = GroupedData.of(x, [0, 0, 0], {}, schema, row=torch.full((3,), -1))
        assert shared_rows(made, made) == 0
        assert shared_rows(made.take([]), made) == 0
