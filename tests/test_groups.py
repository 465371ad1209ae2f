"""Cells: a batch without a group first, a batch of one row second."""

from __future__ import annotations

import pytest
import torch

from evenloop.counts import Counts, Moments
from evenloop.data import GroupedData
from evenloop.groups import GroupIndex, ranks_within
from evenloop.rng import Rng
from stand_ins import blobs

ABC = ("a", "b", "c")


def test_a_batch_without_group_1() -> None:
    groups = GroupIndex(torch.tensor([2, 0, 2]), ABC)
    values = torch.tensor([1.0, 2.0, 5.0])
    assert groups.count().tolist() == [1, 0, 2]
    assert groups.sum(values).tolist() == [2.0, 0.0, 6.0]
    assert torch.allclose(groups.mean(values), torch.tensor([2.0, torch.nan, 3.0]), equal_nan=True)


def test_a_batch_of_one_row() -> None:
    groups = GroupIndex(torch.tensor([1]), ABC)
    assert groups.count().tolist() == [0, 1, 0]
    assert groups.top(torch.tensor([3.0]), torch.tensor([2, 2, 2])).tolist() == [0]


def test_no_row() -> None:
    groups = GroupIndex(torch.tensor([], dtype=torch.long), ABC)
    assert groups.count().tolist() == [0, 0, 0]


def test_an_intersection_is_row_major_and_complete() -> None:
    data = blobs(50)
    groups = GroupIndex.of(data, ("sex", "age"))
    assert groups.names == ("f a", "f b", "f c", "m a", "m b", "m c")
    assert torch.equal(groups.cell, data.attribute("sex") * 3 + data.attribute("age"))


def test_labels_and_truth_are_columns_too() -> None:
    data: GroupedData = blobs(10)
    flipped = data.relabel(1 - data.truth, round=1)
    assert torch.equal(GroupIndex.of(flipped, ("truth",)).cell, data.truth)
    assert torch.equal(GroupIndex.of(flipped, ("label",)).cell, 1 - data.truth)
    assert GroupIndex.of(data).names == ("all",)


def test_an_unknown_column_names_those_there_are() -> None:
    with pytest.raises(KeyError, match="sex, age"):
        GroupIndex.of(blobs(3), ("gender",))


def test_top_and_draw_take_what_there_is() -> None:
    groups = GroupIndex(torch.tensor([0, 0, 2, 2, 2]), ABC)
    score = torch.tensor([1.0, 2.0, 5.0, 4.0, 5.0])
    assert groups.top(score, torch.tensor([1, 3, 2])).tolist() == [1, 2, 4]
    drawn = groups.draw(torch.tensor([5, 5, 2]), Rng.of(0).gen())
    assert groups.take(drawn).count().tolist() == [2, 0, 2]


def test_draw_is_uniform_inside_a_cell() -> None:
    groups = GroupIndex(torch.zeros(4, dtype=torch.long), ("a",))
    drawn = torch.cat([groups.draw(torch.tensor([1]), Rng.of(s).gen()) for s in range(2000)])
    share = torch.bincount(drawn, minlength=4) / 2000
    assert bool(((share - 0.25).abs() < 4 * (0.25 * 0.75 / 2000) ** 0.5).all())


def test_ranks() -> None:
    assert ranks_within(torch.tensor([0, 0, 1, 3, 3, 3]), 4).tolist() == [0, 1, 0, 0, 1, 2]


def test_the_mean_is_differentiable() -> None:
    values = torch.ones(3, requires_grad=True)
    GroupIndex(torch.tensor([0, 0, 1]), ("a", "b")).mean(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 0.5, 1.0]


class TestCounts:
    """Counts merge; every group keeps its place."""

    groups = GroupIndex(torch.tensor([0, 0, 2]), ABC)

    def test_every_group_and_class_has_its_place(self) -> None:
        seen = Counts.of(torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0]), self.groups, 3)
        assert seen.table.shape == (3, 3, 3)
        assert seen.support.tolist() == [2, 0, 1]
        assert seen.table[0, 1].tolist() == [1, 1, 0]

    def test_merging_is_counting_together(self) -> None:
        predicted, truth = torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0])
        whole = Counts.of(predicted, truth, self.groups, 2)
        parts = [
            Counts.of(predicted[i], truth[i], self.groups.take(i), 2)
            for i in (torch.tensor([0]), torch.tensor([1, 2]))
        ]
        assert ((parts[0] + parts[1]).table == whole.table).all()

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="predicted has 2 rows, truth 3, groups 3"):
            Counts.of(torch.zeros(2).long(), torch.zeros(3).long(), self.groups, 2)
        one = Counts.of(torch.zeros(3).long(), torch.zeros(3).long(), self.groups, 2)
        with pytest.raises(ValueError, match="cannot be added"):
            one + one.pooled()

    @pytest.mark.parametrize("wrong", [-1, 3])
    def test_a_code_that_is_no_class_is_refused_and_named(self, wrong: int) -> None:
        good, bad = torch.tensor([1, 0, 2]), torch.tensor([1, wrong, 2])
        ends = rf"{min(1, wrong)}\.\.{max(2, wrong)}, classes are 0\.\.2"
        with pytest.raises(ValueError, match=f"predicted holds {ends}"):
            Counts.of(bad, good, self.groups, 3)
        with pytest.raises(ValueError, match=f"truth holds {ends}"):
            Counts.of(good, bad, self.groups, 3)
        assert Counts.of(good, good, self.groups, 3).total == 3

    def test_codes_of_any_whole_kind_count_the_same(self) -> None:
        predicted, truth = torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0])
        want = Counts.of(predicted, truth, self.groups, 300).table
        for kind in (torch.uint8, torch.int32, torch.bool):
            found = Counts.of(predicted.to(kind), truth.to(kind), self.groups, 300).table
            assert (found == want).all()
            assert found.dtype == want.dtype

    def test_no_rows_are_counted_as_none(self) -> None:
        none = torch.zeros(0).long()
        seen = Counts.of(none, none, GroupIndex(none, ABC), 2)
        assert seen.table.tolist() == [[[0, 0], [0, 0]]] * 3

    def test_moments_of_an_absent_group_are_zero(self) -> None:
        moments = Moments.of(torch.tensor([1.0, 2.0, 3.0]), self.groups)
        assert moments.table.tolist() == [[2, 3, 5], [0, 0, 0], [1, 3, 9]]
        assert (moments + moments).table[0].tolist() == [4, 6, 10]
