"""Fresh and mixed batches: sizes, labels, what depends on what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evenloop.data import GroupedData, Schema
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.fresh import Fresh, Mixed, mixed_sizes
from evenloop.samplers.quota import Quota, Tally


def natural(n: int) -> tuple[GroupedData, GroupIndex]:
    x = torch.full((n, 1), 5, dtype=torch.uint8)
    data = GroupedData.of(x, [1] * n, {}, Schema(("no", "yes")))
    return data, GroupIndex.of(data, ["label"])


def draw(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 1, generator=generator)


def stratum(x: Tensor) -> Tensor:
    return (x[:, 0] * 4).long().clamp(max=3)


@pytest.mark.parametrize("blocks", [1, 3])
def test_fresh_batches_follow_the_natural_sizes(blocks):
    data, groups = natural(22)
    fresh = Fresh(draw, stratum, classes=2, groups=2, blocks=blocks)
    made = list(fresh.epoch(data, groups, batch=5, rng=Rng.of(0)))
    assert [len(b) for b in made] == [5, 5, 5, 5, 2]
    assert fresh.steps(22, 5) == 5
    for b in made:
        assert b.index is None
        assert b.cell.equal(stratum(b.x))
        assert b.y.equal(b.cell // 2)


def test_curated_batches_are_as_long_as_plain_ones_and_counted():
    data, groups = natural(22)
    tally = Tally(4)
    fresh = Fresh(draw, stratum, 2, 2, quota=Quota(budget="400%", tally=tally), blocks=2)
    made = list(fresh.epoch(data, groups, batch=8, rng=Rng.of(0)))
    plain = list(Fresh(draw, stratum, 2, 2).epoch(data, groups, batch=8, rng=Rng.of(0)))
    assert [len(b) for b in made] == [len(b) for b in plain] == [8, 8, 6]
    assert tally.read()["batches"] == 3
    assert all(torch.bincount(b.cell, minlength=4).min() >= 1 for b in made)
    fixed = Fresh(draw, stratum, 2, 2, quota=Quota(budget="400%"), fixed_steps=3)
    assert [len(b) for b in fixed.epoch(data, groups, batch=8, rng=Rng.of(0))] == [8, 8, 8]
    state = fresh.state_dict()
    other = Fresh(draw, stratum, 2, 2, quota=Quota(tally=Tally(4)))
    other.load_state_dict(state)
    assert other.state_dict()["tally"].equal(state["tally"])
    assert Fresh(draw, stratum, 2).state_dict() == {}


def test_finish_sees_images_and_strata():
    data, groups = natural(4)
    fresh = Fresh(draw, stratum, 2, 2, finish=lambda x, cell: torch.cat([x, cell[:, None]], 1))
    (batch,) = fresh.epoch(data, groups, batch=4, rng=Rng.of(0))
    assert batch.x[:, 1].equal(batch.cell.float())


@pytest.mark.parametrize(("share", "made"), [(0.0, [0, 0, 0]), (0.25, [2, 2, 2]), (1.0, [8, 8, 8])])
def test_mixed_batches_keep_the_generated_count_in_a_short_last_batch(share, made):
    data, groups = natural(20)
    batches = list(Mixed(draw, share).epoch(data, groups, batch=8, rng=Rng.of(0)))
    counts = [int((b.x[:, 0] != 5 / 255).sum()) for b in batches]
    assert counts == made
    assert [len(b) - c for b, c in zip(batches, counts, strict=True)] == [
        min(8 - made[0], rows) for rows in (8, 8, 4)
    ]


def test_mixed_strata_come_from_the_data_and_the_annotators():
    data, groups = natural(8)
    (batch,) = Mixed(draw, 0.5, stratum).epoch(data, groups, batch=8, rng=Rng.of(0))
    assert batch.cell[:4].equal(stratum(batch.x[:4]))
    assert batch.cell[4:].tolist() == [1] * 4
    (plain,) = Mixed(draw, 0.5).epoch(data, groups, batch=8, rng=Rng.of(0))
    assert not plain.cell.any()


@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_mixed_batches_drawn_together_are_as_many_and_as_mixed(blocks):
    data, groups = natural(20)
    asked: list[int] = []

    def counted(n: int, generator: torch.Generator) -> Tensor:
        asked.append(n)
        return draw(n, generator)

    mixed = Mixed(counted, 0.5, stratum, blocks=blocks)
    batches = list(mixed.epoch(data, groups, batch=8, rng=Rng.of(0)))
    assert [int((b.x[:, 0] != 5 / 255).sum()) for b in batches] == [4, 4, 4]
    assert asked == {1: [4, 4, 4], 2: [8, 4], 7: [12]}[blocks]
    assert len(torch.cat([b.x[:4] for b in batches]).unique()) == 12


def test_an_arm_without_generated_rows_never_draws():
    def refuse(n: int, generator: torch.Generator) -> Tensor:
        raise AssertionError("drawn")

    data, groups = natural(8)
    assert len(list(Mixed(refuse, 0.0).epoch(data, groups, batch=4, rng=Rng.of(0)))) == 2


def test_two_shares_see_the_same_natural_order():
    x = torch.arange(16, dtype=torch.uint8)[:, None]
    data = GroupedData.of(x, [0] * 16, {}, Schema(("no", "yes")))
    groups = GroupIndex.of(data)
    none, half = (
        next(iter(Mixed(draw, s).epoch(data, groups, batch=8, rng=Rng.of(3)))) for s in (0.0, 0.5)
    )
    assert half.x[4:].equal(none.x[:4])


def test_bad_parameters_are_named():
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"share in \[0, 1\]"):
            mixed_sizes(8, share)
    with pytest.raises(ValueError, match="blocks must be at least 1"):
        Fresh(draw, stratum, 2, blocks=0)
    with pytest.raises(ValueError, match="blocks must be at least 1"):
        Mixed(draw, 0.5, blocks=0)
    assert mixed_sizes(10, 0.7) == (7, 3)
