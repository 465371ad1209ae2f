"""What need not be written, being the world's; what is written, being another's."""

from __future__ import annotations

import pytest
import torch

from evenloop.data import COLUMNS, GroupedData, Origin, Schema
from evenloop.known import OF_THE_WORLD, SLICE, KnownRows
from evenloop.worlds.painted import Painted
from stand_ins import SCHEMA, blobs


def generated(n: int) -> GroupedData:
    sex, age = torch.zeros(n), torch.ones(n)
    x = torch.full((n, 4), 9.0)
    return GroupedData.of(
        x, torch.ones(n), {"sex": sex, "age": age}, SCHEMA, origin=Origin.GENERATED
    )


def part(known: KnownRows, data: GroupedData) -> dict[str, torch.Tensor]:
    """As the record writes rows."""
    columns = data.columns()
    return {
        n: c[columns["row"] < 0] if n in OF_THE_WORLD and known.holds(n, columns) else c
        for n, c in columns.items()
    }


def equal(a: GroupedData, b: GroupedData) -> bool:
    return all(torch.equal(a.columns()[name], b.columns()[name]) for name in COLUMNS)


def test_rows_of_the_world_are_known_whatever_their_order() -> None:
    world = blobs(30)
    known = KnownRows(world.take(torch.randperm(30, generator=torch.Generator().manual_seed(0))))
    data = world.take([7, 3, 29]).append(generated(2))
    assert all(known.holds(name, data.columns()) for name in OF_THE_WORLD)
    written = part(known, data)
    assert [len(written[name]) for name in OF_THE_WORLD] == [2, 2, 2]
    assert equal(known.restored([written]), data)


@pytest.mark.parametrize("name", OF_THE_WORLD)
def test_one_changed_value_is_seen_and_read_back(name: str) -> None:
    world = blobs(3 * SLICE)
    column = world.columns()[name].clone()
    column.view(len(column), -1)[-1, -1] += 1
    data = GroupedData.from_columns(SCHEMA, world.columns() | {name: column})
    known = KnownRows(world)
    assert [n for n in OF_THE_WORLD if not known.holds(n, data.columns())] == [name]
    parts = [part(known, world.take([1, 0])), part(known, data), part(known, generated(1))]
    whole = world.take([1, 0]).append(data).append(generated(1))
    assert equal(known.restored(parts), whole)


def test_another_shape_or_type_is_another_value() -> None:
    world = blobs(4)
    for x in (world.x[:, :2], world.x.double()):
        assert not KnownRows(world).holds("x", world.columns() | {"x": x})
    data = GroupedData.from_columns(SCHEMA, world.columns() | {"x": world.x.double()})
    assert equal(KnownRows(world).restored([part(KnownRows(world), data)]), data)


def test_the_sign_of_zero_is_a_difference_where_rows_are_whole_words() -> None:
    world = GroupedData.of(torch.zeros(2, 2), [0, 1], {}, Schema(("no", "yes")))
    assert not KnownRows(world).holds("x", world.with_x(-world.x).columns())


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bool])
def test_rows_of_any_width_and_type_are_compared(width: int, dtype: torch.dtype) -> None:
    x = torch.ones(5, width).to(dtype)
    world = GroupedData.of(x, [0, 1, 0, 1, 0], {}, Schema(("no", "yes")))
    known, data = KnownRows(world), world.take([3, 1, 2])
    assert known.holds("x", data.columns())
    moved = data.x.clone()
    moved[2, -1] = 0
    assert not known.holds("x", data.with_x(moved).columns())


def test_a_row_that_is_not_there_is_nothing_known() -> None:
    world = blobs(10)
    known = KnownRows(world.take(range(5)))
    assert not known.holds("x", world.columns())
    with pytest.raises(ValueError, match="rows this world does not have"):
        known.restored([part(known, world)])
    assert equal(known.restored([part(known, world.take([4]))]), world.take([4]))


def test_generated_rows_of_the_world_are_nobodys() -> None:
    world = blobs(10).append(generated(3))
    known = KnownRows(world)
    data = world.take([9, 12, 0])
    assert known.at(torch.tensor([9, 0, 10, 99])).tolist() == [9, 0, -1, -1]
    assert equal(known.restored([part(known, data)]), data)


def test_no_row_at_all() -> None:
    world = blobs(3)
    none = world.take([])
    assert len(KnownRows(world).restored([part(KnownRows(world), none)])) == 0
    assert KnownRows(none).holds("x", none.columns())


def test_pictures_painted_later_stay_unpainted_while_nobody_changes_them() -> None:
    plane = torch.arange(5, dtype=torch.uint8)[:, None, None]
    painted = Painted(plane, torch.tensor([1, 0, 1, 0, 1]), 2)
    world = GroupedData.of(painted, [0, 1, 0, 1, 0], {}, Schema(("no", "yes")))
    data, known = world.take([4, 2]), KnownRows(world)
    assert known.holds("x", data.columns())
    back = known.restored([part(known, data)])
    assert isinstance(back.x, Painted)
    assert back.x.tolist() == data.x.tolist()
    moved = data.with_x(data.x.flip(1))
    assert not known.holds("x", moved.columns())
    assert known.restored([part(known, moved)]).x.tolist() == moved.x.tolist()
