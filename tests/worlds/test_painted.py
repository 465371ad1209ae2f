"""Pictures painted when they are taken: the same numbers as painted at once, for less memory."""

from __future__ import annotations

import pytest
import torch

from evenloop.data import GroupedData, Schema
from evenloop.fit import predict
from evenloop.worlds.coloured import ColoredMNIST
from evenloop.worlds.painted import Painted, paint

GREY = torch.randint(
    0, 256, (50, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
GROUP = torch.arange(50) % 2
INDEX = torch.tensor([3, 1, 49, 3])


@pytest.fixture(params=[2, 3])
def both(request: pytest.FixtureRequest) -> tuple[Painted, torch.Tensor]:
    return Painted(GREY, GROUP, request.param), paint(GREY, GROUP, request.param)


def test_a_batch_is_ordinary_pictures(both):
    lazy, whole = both
    assert type(lazy[INDEX]) is torch.Tensor
    assert lazy[INDEX].equal(whole[INDEX])
    assert lazy[GROUP == 1].equal(whole[GROUP == 1])
    assert lazy[-1].equal(whole[-1])


def test_taking_rows_paints_nothing_and_shares_the_planes(both):
    lazy, whole = both
    for taken, want in (
        (lazy.index_select(0, INDEX), whole[INDEX]),
        (lazy[5:40:3], whole[5:40:3]),
        (lazy.index_select(0, INDEX)[1:].to("cpu"), whole[INDEX][1:]),
    ):
        assert isinstance(taken, Painted)
        assert taken.plane is GREY
        assert taken.shape == want.shape
        assert taken.equal(want)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.float() / 255,
        lambda x: x.to(torch.float64),
        lambda x: x[:, 0],
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: torch.cat([x, x[:3]]),
        lambda x: torch.stack([x[0], x[1]]),
        lambda x: x[INDEX, 1],
        lambda x: x.flatten(1).sum(1),
        lambda x: torch.as_tensor(x) + 1,
        lambda x: x.select(1, 0),
    ],
)
def test_any_other_operation_is_that_of_the_pictures(both, operation):
    lazy, whole = both
    made = operation(lazy)
    assert not isinstance(made, Painted)
    assert made.dtype == operation(whole).dtype
    assert made.equal(operation(whole))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_views_in_every_mode(both, mode):
    lazy, whole = both
    with mode():
        for made, want in (
            (torch.split(lazy, 20), torch.split(whole, 20)),
            (lazy.chunk(3), whole.chunk(3)),
            ([*lazy], [*whole]),
            ([lazy[:, 1], lazy[0]], [whole[:, 1], whole[0]]),
            ([lazy[4:9].float(), lazy.flatten(1)], [whole[4:9].float(), whole.flatten(1)]),
            ([lazy[INDEX], lazy.permute(1, 0, 2, 3)], [whole[INDEX], whole.permute(1, 0, 2, 3)]),
        ):
            assert len(made) == len(want)
            assert all(a.equal(b) for a, b in zip(made, want, strict=True))


def test_arrays_lists_and_an_empty_selection(both):
    lazy, whole = both
    assert (lazy.numpy() == whole.numpy()).all()
    assert lazy[:2].tolist() == whole[:2].tolist()
    assert lazy.index_select(0, INDEX[:0]).float().shape == (0, *whole.shape[1:])
    assert repr(lazy).startswith("Painted((50,")


def test_writing_is_refused_and_reading_into_another_tensor_is_not(both):
    lazy, whole = both
    with pytest.raises(TypeError, match="read-only"):
        lazy.mul_(2)
    with pytest.raises(TypeError, match="read-only"):
        lazy[0] = 1
    room = lazy.new_empty(whole.shape)
    room[:] = lazy
    assert type(room) is torch.Tensor
    assert room.equal(whole)


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="must be \\(M, H, W\\)"):
        Painted(GREY[:, None], GROUP)
    with pytest.raises(ValueError, match="groups"):
        Painted(GREY, GROUP[:3])
    with pytest.raises(ValueError, match="2 or 3"):
        Painted(GREY, GROUP, 4)
    assert Painted(GREY, GROUP[:3], row=torch.arange(3)).shape == (3, 3, 7, 7)


def test_data_takes_appends_and_predicts_as_with_painted_pictures(both):
    lazy, whole = both
    schema = Schema(("no", "yes"))
    one, other = (GroupedData.of(x, GROUP, {}, schema) for x in (lazy, whole))
    assert isinstance(one.take(INDEX).x, Painted)
    assert one.take(INDEX).x.equal(other.take(INDEX).x)
    assert one.append(one.take(INDEX)).x.equal(other.append(other.take(INDEX)).x)
    net = torch.nn.Sequential(torch.nn.Flatten(), _Sum())
    assert predict(net, one.x, batch=7).equal(predict(net, other.x, batch=7))


class _Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double().sum(1, keepdim=True)


def test_a_coloured_set_holds_one_grey_plane_a_picture():
    data = ColoredMNIST(base="digits8").load()
    x = data.x
    assert isinstance(x, Painted)
    assert x.held == len(data) * (8 * 8 + 8 + 1)
    assert data.take(torch.arange(900)).x.plane is x.plane
