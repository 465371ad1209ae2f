"""The pool without a pass over it: the same as the slow way, and as cheap for a larger world."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from evenloop.counts import Counts
from evenloop.data import Attribute, GroupedData, Origin, Schema
from evenloop.groups import GroupIndex
from evenloop.loop import World
from evenloop.loops._acquire_pool import draw_cells, first_free, shelf_of
from evenloop.loops.acquire import Acquire
from evenloop.recipe import Recipe
from evenloop.rng import Rng

SCHEMA = Schema(("no", "yes"), (Attribute("g", ("a", "b", "absent")),))


def rows(n: int, rare: float = 0.2) -> GroupedData:
    """`n` rows whose identities are shuffled."""
    gen = torch.Generator().manual_seed(n)
    y = torch.randint(0, 2, (n,), generator=gen)
    g = (torch.rand(n, generator=gen) < rare).long()
    row = torch.randperm(n, generator=gen)
    return GroupedData.of(torch.zeros(n, 2), y, {"g": g}, SCHEMA, row=row)


def with_generated(n: int) -> GroupedData:
    made = GroupedData.of(torch.zeros(7, 2), [0] * 7, {"g": [0] * 7}, SCHEMA, origin=Origin(2))
    return made.append(rows(n))


@pytest.mark.parametrize("taken", [0, 1, 40, 99, 100])
def test_the_shelf_says_what_a_pass_over_the_world_says(taken: int) -> None:
    data = with_generated(100)
    labelled = rows(100).row[torch.randperm(100, generator=Rng.of(1).gen())[:taken]]
    shelf = shelf_of(data)
    places = shelf.taken(torch.cat([labelled, labelled[:3], torch.tensor([-1])]))
    free = data.without(labelled)
    free = free[data.row[free] >= 0]
    assert torch.equal(shelf.free(places), free)
    assert torch.equal(first_free(shelf, places, 9), free[:9])
    for columns in ((), ("g",), ("truth", "g")):
        cells = GroupIndex.of(data, columns)
        assert torch.equal(shelf.by(data, columns).free(places), cells.take(free).count())
        slow = Counts.of(data.truth[free], data.truth[free], cells.take(free), SCHEMA.classes)
        assert (shelf.pool_counts(data, columns, places).table == slow.table).all()


def test_a_shelf_is_made_once_for_a_world_and_goes_with_it() -> None:
    import gc
    import weakref

    data = rows(20)
    shelf = shelf_of(data)
    assert shelf_of(data) is shelf
    assert shelf_of(rows(20)) is not shelf
    gone = weakref.ref(shelf)
    del data, shelf
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("taken", [0, 50, 160, 198])
def test_draws_are_distinct_free_and_as_many_as_there_are(taken: int) -> None:
    data = rows(200)
    shelf = shelf_of(data)
    used = shelf.taken(data.row[:taken])
    cells = shelf.by(data, ("g",))
    left = cells.free(used)
    for wanted in (0, 1, 30, 500):
        quota = torch.tensor([wanted, wanted, wanted])
        asked = draw_cells(cells, used, quota, Rng.of(wanted).gen())
        assert len(asked.unique()) == len(asked)
        assert not torch.isin(asked, used).any()
        got = cells.index.take(asked).count()
        assert torch.equal(got, torch.minimum(left, quota))


def test_cells_are_interlaced() -> None:
    data = rows(200)
    cells = shelf_of(data).by(data, ("g",))
    asked = draw_cells(cells, torch.zeros(0).long(), torch.tensor([3, 2, 1]), Rng.of(0).gen())
    assert cells.index.cell[asked].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(("taken", "k"), [(5, 4), (90, 4), (38, 40)])
def test_every_free_row_is_drawn_as_often(taken: int, k: int) -> None:
    """Chi-square over the free rows, by passing over taken rows and by listing free ones."""
    data = rows(97)  # a size that no batch divides
    shelf = shelf_of(data)
    used = shelf.taken(data.row[:taken])
    cells, hits = shelf.by(data, ()), torch.zeros(97)
    runs = 4000
    generator = Rng.of(3).gen()
    for _ in range(runs):
        hits[draw_cells(cells, used, torch.tensor([k]), generator)] += 1
    free = shelf.free(used)
    assert hits.sum() == hits[free].sum() == runs * k
    share = k / len(free)
    spread = ((hits[free] / runs - share) ** 2 / (share * (1 - share) / runs)).sum()
    degrees = len(free) - 1
    assert spread < degrees + 5 * (2 * degrees) ** 0.5


class Sizes(TorchDispatchMode):
    """The largest tensor that any operation read or made, but for views and row look-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        looked_up = any(name in str(func) for name in ("index.Tensor", "index_select"))
        if not func.is_view and not looked_up:
            seen = [a for a in (*args, out) if isinstance(a, Tensor)]
            self.most = max([self.most, *(a.numel() for a in seen)])
        return out


@pytest.mark.parametrize(
    "fields",
    [
        {"heuristic": "random"},
        {"heuristic": "random", "balance": "group"},
        {"heuristic": "random", "balance": "cell"},
        {"heuristic": "random", "plan_gap": 0.2},
        {"pool_subsample": 100, "draws": 2},
    ],
    ids=str,
)
def test_a_round_touches_nothing_as_large_as_the_pool(fields: dict[str, Any]) -> None:
    from evenloop.models import build

    data = rows(20_000)
    world = World(
        data,
        ("g",),
        lambda rng: build("dropout-mlp", features=2, classes=2, hidden=(4,), seed=0),
        Recipe(epochs=1, lr=0.01),
    )
    loop = Acquire(**{"initial": 50, "query": 20, "probe": 40, "stop_rows": 30, **fields})
    state = loop.init(world, None, Rng.of(0))
    state, _ = loop.step(world, state, 0, Rng.of(1))
    state, _ = loop.step(world, state, 1, Rng.of(2))  # what is derived once is derived here
    with Sizes() as sizes:
        loop.step(world, state, 2, Rng.of(3))
    assert 0 < sizes.most < 4000


def test_the_watch_sees_a_pass_over_the_pool() -> None:
    data = rows(20_000)
    with Sizes() as sizes:
        data.without(data.row[:5])
    assert sizes.most >= 20_000
