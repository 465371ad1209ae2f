"""Rows with provenance: frozen values over shared buffers."""

from __future__ import annotations

import pytest
import torch

from evenloop.data import Attribute, GroupedData, Origin, Schema
from stand_ins import SCHEMA, blobs

PLAIN = Schema(("no", "yes"))


def rows(*truth: int) -> GroupedData:
    n = len(truth)
    return GroupedData.of(torch.arange(n * 2.0).view(n, 2), truth, {}, PLAIN)


def generated(*truth: int) -> GroupedData:
    x = torch.full((len(truth), 2), -1.0)
    return GroupedData.of(x, truth, {}, PLAIN, origin=Origin.GENERATED, born=2)


class TestAppend:
    """Growth by shared buffers."""

    def test_older_values_keep_their_rows(self) -> None:
        first = rows(0, 1, 1)
        grown = first.append(generated(0))
        again = grown.append(generated(1, 1))
        assert [len(v) for v in (first, grown, again)] == [3, 4, 6]
        assert again.y.tolist() == [0, 1, 1, 0, 1, 1]
        assert grown.y.tolist() == [0, 1, 1, 0]

    def test_two_branches_of_one_value_do_not_mix(self) -> None:
        base = rows(0, 0).append(generated(0))
        left, right = base.append(generated(1, 1)), base.append(generated(0, 0))
        assert left.y.tolist() == [0, 0, 0, 1, 1]
        assert right.y.tolist() == [0, 0, 0, 0, 0]
        assert left.extends(base)
        assert not right.extends(left)

    def test_an_old_value_after_growth_starts_a_branch(self) -> None:
        base = rows(0).append(generated(0))
        long = base.append(generated(*[1] * 50))
        other = base.append(generated(0))
        assert long.extends(base)
        assert not other.extends(long)
        assert not long.extends(other)
        assert long.y.tolist() == [0, 0] + [1] * 50
        assert other.y.tolist() == [0, 0, 0]

    def test_many_small_appends_are_known_to_extend(self) -> None:
        data = rows(0)
        for _ in range(40):
            longer = data.append(generated(1))
            assert longer.extends(data)
            data = longer
        assert data.y.tolist() == [0] + [1] * 40

    def test_nothing_can_be_appended(self) -> None:
        data = rows(0, 1)
        assert data.append(data.take([])).y.tolist() == [0, 1]

    def test_the_users_tensor_is_never_written(self) -> None:
        x = torch.zeros(2, 2)
        data = GroupedData.of(x, [0, 1], {}, PLAIN)
        data.append(generated(1)).append(generated(0))
        assert torch.equal(x, torch.zeros(2, 2))

    def test_another_kind_of_row_is_refused(self) -> None:
        with pytest.raises(ValueError, match="another schema"):
            rows(0).append(blobs(3))
        wide = GroupedData.of(torch.zeros(1, 3), [0], {}, PLAIN)
        with pytest.raises(ValueError, match=r"\(3,\).*cannot be appended to"):
            rows(0).append(wide)


class TestRelabel:
    """Labels change, truth does not."""

    def test_truth_stays_and_the_rest_is_noted(self) -> None:
        data = rows(0, 1).relabel(torch.tensor([1, 1]), round=5)
        assert data.y.tolist() == [1, 1]
        assert data.truth.tolist() == [0, 1]
        assert data.origin.tolist() == [Origin.RELABELLED] * 2
        assert data.born.tolist() == [5, 5]
        assert data.row.tolist() == [0, 1]

    def test_a_generated_row_stays_generated(self) -> None:
        data = generated(0, 1).relabel(torch.tensor([1, 1]), round=5)
        assert data.origin.tolist() == [Origin.GENERATED] * 2

    def test_labels_out_of_range(self) -> None:
        with pytest.raises(ValueError, match=r"y holds 2, but the classes are 0\.\.1"):
            rows(0, 1).relabel(torch.tensor([0, 2]), round=1)
        with pytest.raises(ValueError, match=r"shape \(2,\), got \(1,\)"):
            rows(0, 1).relabel(torch.tensor([0]), round=1)


class TestChanged:
    """Rows that look different now are the same rows."""

    def test_x_changes_and_provenance_stays(self) -> None:
        data = blobs(5).relabel(torch.tensor([0, 1, 0, 1, 0]), round=3)
        moved = data.with_x(data.x + 1)
        assert torch.equal(moved.x, data.x + 1)
        for name in ("y", "truth", "attributes", "origin", "born", "row"):
            assert torch.equal(moved.columns()[name], data.columns()[name])
        assert not moved.extends(data)
        assert moved.append(data).extends(moved)

    def test_an_x_of_another_kind_is_refused(self) -> None:
        data = rows(0, 1)
        for x in (torch.zeros(2, 3), torch.zeros(1, 2), torch.zeros(2, 2, dtype=torch.float64)):
            with pytest.raises(
                ValueError, match=r"x must have shape \(2, 2\) and type torch.float32"
            ):
                data.with_x(x)
        with pytest.raises(ValueError, match="NaN or infinity, first in row 1"):
            data.with_x(torch.tensor([[0.0, 0.0], [0.0, float("nan")]]))

    def test_one_attribute_changes_and_the_others_stay(self) -> None:
        data = blobs(4)
        changed = data.with_attribute("sex", [1, 1, 0, 0])
        assert changed.attribute("sex").tolist() == [1, 1, 0, 0]
        assert torch.equal(changed.attribute("age"), data.attribute("age"))
        assert torch.equal(data.attributes, blobs(4).attributes)
        assert changed.attributes.dtype == torch.int32

    def test_codes_of_another_attribute_are_refused(self) -> None:
        with pytest.raises(ValueError, match="attribute 'sex' holds 2"):
            blobs(2).with_attribute("sex", [0, 2])
        with pytest.raises(ValueError, match=r"attribute 'sex' must have shape \(2,\)"):
            blobs(2).with_attribute("sex", [0])
        with pytest.raises(KeyError, match="no attribute 'gender'"):
            blobs(2).with_attribute("gender", [0, 1])


class TestWithout:
    """What is left of a pool."""

    def test_positions_in_order(self) -> None:
        data = rows(0, 0, 0, 0).take([3, 1, 0, 2])
        assert data.without(torch.tensor([1, 2])).tolist() == [0, 2]

    def test_generated_rows_take_nothing_away(self) -> None:
        assert rows(0, 0).without(torch.tensor([-1, -1])).tolist() == [0, 1]

    def test_rows_that_are_not_there(self) -> None:
        assert rows(0, 0).without(torch.tensor([7])).tolist() == [0, 1]
        assert rows(0, 0).without(torch.tensor([], dtype=torch.long)).tolist() == [0, 1]


class TestBorder:
    """Arrays are checked once, where they enter."""

    def test_nan_pixels(self) -> None:
        with pytest.raises(ValueError, match="NaN or infinity, first in row 1"):
            GroupedData.of(torch.tensor([[0.0], [float("nan")]]), [0, 0], {}, PLAIN)

    def test_labels_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="truth holds -1"):
            GroupedData.of(torch.zeros(1, 1), [-1], {}, PLAIN)

    def test_lengths(self) -> None:
        with pytest.raises(ValueError, match=r"truth must have shape \(2,\)"):
            GroupedData.of(torch.zeros(2, 1), [0], {}, PLAIN)

    def test_attributes_of_another_schema(self) -> None:
        with pytest.raises(ValueError, match="the schema has"):
            GroupedData.of(torch.zeros(1, 1), [0], {"sex": [0]}, PLAIN)

    def test_attribute_codes_out_of_range(self) -> None:
        schema = Schema(("no", "yes"), (Attribute("sex", ("f", "m")),))
        with pytest.raises(ValueError, match="attribute 'sex' holds 2"):
            GroupedData.of(torch.zeros(1, 1), [0], {"sex": [2]}, schema)
        assert len(GroupedData.of(torch.zeros(1, 1), [0], {"sex": [1]}, schema)) == 1

    def test_unknown_names(self) -> None:
        with pytest.raises(KeyError, match=r"no attribute 'sx'.*sex, age"):
            SCHEMA.column("sx")
        with pytest.raises(ValueError, match="no class 'maybe'; the classes are: no, yes"):
            SCHEMA.klass("maybe")
        assert SCHEMA.klass("yes") == SCHEMA.klass(1) == 1
