"""Shares, whole counts, pools and batches: exact totals, expectation, resuming, processes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from evenloop.data import Attribute, GroupedData, Origin, Schema
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.cells import CellIndex
from evenloop.samplers.ratios import RatioBatchSampler, Ratios, Validation, cell_counts
from evenloop.samplers.rounding import Pools, whole
from evenloop.samplers.trail import Trail
from evenloop.seams import Batch, Seen
from mix_kit import F64, controller, distributed, gen, linear, problem


def uneven() -> CellIndex:
    """Cells of very different sizes, real and generated."""
    counts = torch.tensor([[[40, 7], [9, 24]], [[20, 20], [20, 20]]])
    grid = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(2))
    rows = grid.repeat_interleave(counts.flatten(), 0)
    return CellIndex(rows[:, 1], rows[:, 2], rows[:, 0])


def shares(cells: CellIndex, seed: int) -> Ratios:
    g = gen(seed)
    lam = torch.rand(cells.shape, generator=g, dtype=F64) + 0.05
    mu = torch.rand(cells.shape, generator=g, dtype=F64) * 0.9 + 0.05
    return Ratios(cells, lambda_init=lam / lam.sum(1, keepdim=True), mu_init=mu)


# -- shares -----------------------------------------------------------------------------------


def test_shares_start_at_those_of_the_real_rows():
    ratios = Ratios(uneven())
    want = torch.tensor([[40 / 47, 7 / 47], [9 / 33, 24 / 33]], dtype=F64)
    torch.testing.assert_close(ratios.lam, want)
    assert (ratios.mu == 0.5).all()
    assert ratios.quota(80).tolist() == pytest.approx([47.0, 33.0])


def test_after_any_update_shares_are_shares():
    control = controller(lr=0.5)
    for _ in range(30):
        report = control.step()
        torch.testing.assert_close(report.lam.sum(1), torch.ones(2, dtype=F64))
        assert ((report.mix > 0) & (report.mix < 1)).all()
        assert report.g_a.sum(1).abs().max() < 1e-12


def test_a_constant_on_the_logits_of_a_label_changes_nothing():
    cells = uneven()
    plain, moved = shares(cells, 1), shares(cells, 1)
    moved.a += torch.tensor([[3.0], [-7.0]])
    moved.touch()
    torch.testing.assert_close(plain.lam, moved.lam)
    g_lam, g_mix = torch.rand(2, 2, generator=gen()), torch.rand(2, 2, 2, generator=gen())
    for a, b in zip(plain.pull_back(g_lam, g_mix), moved.pull_back(g_lam, g_mix), strict=True):
        torch.testing.assert_close(a, b)


def test_cell_without_real_rows_has_no_share_and_is_named():
    with pytest.warns(UserWarning, match=re.escape("['1 | 1']")):
        ratios = Ratios(CellIndex([0, 0, 1], [0, 1, 0], classes=2, groups=2))
    assert ratios.lam.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert ratios.target(6).sum() == pytest.approx(6)


def test_cell_without_generated_rows_is_all_real_and_is_named():
    with pytest.warns(UserWarning, match=re.escape("['0 | 1 (source 1)']")):
        ratios = Ratios(CellIndex([0, 0, 0], [0, 1, 0], [0, 0, 1]))
    assert ratios.mu.tolist() == [[0.5, 1.0]]
    assert ratios.pull_back(torch.ones(1, 2), torch.rand(2, 1, 2, generator=gen()))[1][0, 0, 1] == 0


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_one_source_only_stays_so(start):
    control = controller(ratios=Ratios(problem()[1], mu_init=start), lr=0.5)
    for _ in range(3):
        report = control.step()
    assert (report.mix[0] == start).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lambda_min": 0.6}, "lambda_min must be in"),
        ({"mu_min": -0.1}, "mu_min must be in"),
        ({"mu_init": 1.5}, "mu_init must give shares"),
        ({"mu_init": [[0.5]]}, "one share or have shape"),
        ({"lambda_init": "flat"}, "'empirical', 'uniform' or shares"),
        ({"lambda_init": [[1.0, 0.0]]}, "shape"),
        ({"lambda_init": [[0.0, 0.0], [5.0, 1.0]]}, "must sum to one .* got 6 for '1'"),
        ({"learn": ("nu",)}, "learn may hold"),
    ],
)
def test_bad_shares_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        Ratios(uneven(), **options)


def test_good_shares_at_the_borders_are_taken():
    ratios = Ratios(uneven(), lambda_min=0.5, mu_min=0.5, lambda_init="uniform", learn=())
    assert (ratios.lam == 0.5).all()
    assert (ratios.mix == 0.5).all()


def test_mu_zero_in_a_cell_without_generated_rows_is_refused():
    with (
        pytest.warns(UserWarning, match="no rows to draw"),
        pytest.raises(ValueError, match=re.escape("'0 | 1'")),
    ):
        Ratios(CellIndex([0, 0, 0], [0, 1, 0], [0, 0, 1]), mu_init=0.0)


# -- counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["stochastic", "largest_remainder"])
def test_counts_sum_to_the_batch_and_stay_within_one(rounding):
    cells, g = uneven(), gen()
    for seed in range(50):
        ratios = shares(cells, seed)
        counts = cell_counts(ratios.lam, ratios.mu, ratios.quota(37), 37, rounding, g)
        assert int(counts.sum()) == 37
        assert (counts - ratios.target(37)).abs().max() < 1


def test_stochastic_counts_meet_their_targets_on_average():
    target = shares(uneven(), 3).target(21).flatten()
    g, n = gen(), 10_000
    counts = torch.stack([whole(target, 21, "stochastic", g) for _ in range(n)]).double()
    part = target - target.floor()
    error = (part * (1 - part) / n).sqrt().clamp_min(1e-9)
    assert ((counts.mean(0) - target).abs() / error).max() < 4


def test_targets_that_miss_the_total_are_refused():
    with pytest.raises(ValueError, match="sum to 2"):
        whole(torch.tensor([1.0, 1.0]), 3, "stochastic", gen())
    with pytest.raises(ValueError, match="rounding must be"):
        whole(torch.tensor([1.0, 2.0]), 3, "up", gen())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pass generator="):
        cell_counts(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1), 1)


# -- pools ------------------------------------------------------------------------------------


def test_a_pool_gives_every_row_once_before_any_twice():
    pools = Pools(torch.arange(10), torch.tensor([10]), gen())
    rows = np.concatenate([pools.draw(np.array([3])) for _ in range(10)])
    assert np.bincount(rows).tolist() == [3] * 10
    batches = rows.reshape(-1, 3)
    assert all(len(set(batch)) == 3 for batch in batches.tolist())


def test_a_pool_smaller_than_the_request_repeats_and_says_so_once():
    pools = Pools(torch.tensor([5, 6]), torch.tensor([2]), gen())
    with pytest.warns(UserWarning, match="5 rows wanted at once"):
        rows = pools.draw(np.array([5]))
    assert sorted(np.bincount(rows)[5:].tolist()) == [2, 3]
    assert len(pools.draw(np.array([5]))) == 5


def test_drawing_from_an_empty_place_is_refused():
    with pytest.raises(ValueError, match="place 1, which is empty"):
        Pools(torch.tensor([0]), torch.tensor([1, 0]), gen()).draw(np.array([1, 1]))


@pytest.mark.parametrize("size", [6, 400])
def test_with_replacement_rows_are_distinct_in_a_draw_only(size):
    pools = Pools(torch.arange(size), torch.tensor([size]), gen(), replacement=True)
    draws = np.stack([pools.draw(np.array([5])) for _ in range(400)])
    assert all(len(set(draw)) == 5 for draw in draws.tolist())
    count = np.bincount(draws.ravel(), minlength=size)
    expected = 2000 / size
    assert abs(count - expected).max() < 6 * np.sqrt(expected)


# -- batches ----------------------------------------------------------------------------------


def test_batches_follow_the_shares_and_count_what_was_drawn():
    cells = uneven()
    sampler = RatioBatchSampler(cells, shares(cells, 2), 16, generator=gen(), batches=40)
    seen = torch.zeros_like(cells.counts)
    for batch in sampler:
        assert len(batch) == 16
        seen += torch.bincount(cells.place[batch], minlength=8).view(2, 2, 2)
    assert torch.equal(seen, sampler.counts)
    assert (sampler.counts / 40 - sampler.ratios.target(16)).abs().max() < 0.5


def test_real_rows_only_when_mu_is_one():
    cells = uneven()
    sampler = RatioBatchSampler(cells, Ratios(cells, mu_init=1.0), 16, generator=gen(), batches=20)
    assert all((cells.source[batch] == 0).all() for batch in sampler)


def test_relabelling_the_groups_permutes_everything():
    x, cells = problem()
    swapped = CellIndex(cells.label, 1 - cells.group, cells.source)
    reports = []
    for index in (cells, swapped):
        control = controller(ratios=Ratios(index), draw="all", val=Validation(x, index))
        reports.append(control.step())
    for name in ("lam", "mix", "table", "aligned", "g_a", "g_b"):
        torch.testing.assert_close(getattr(reports[0], name), getattr(reports[1], name).flip(-1))


@pytest.mark.parametrize("reuse", [1, 3])
def test_resuming_inside_an_epoch_is_bit_identical(reuse):
    def build() -> tuple[RatioBatchSampler, object]:
        control = controller(per_cell=5, reuse=reuse)
        cells = control.ratios.cells
        return RatioBatchSampler(
            cells, control.ratios, 10, generator=gen(7), controller=control
        ), control

    def run(sampler: RatioBatchSampler, batches: object, n: int) -> list[list[int]]:
        out = []
        for _ in range(n):
            out.append(next(batches))
            sampler.controller.step()
            sampler.trained()
        return out

    first, _ = build()
    stream = iter(first)
    run(first, stream, 5)
    state = first.state_dict()
    rest = run(first, stream, 6)
    second, _ = build()
    second.load_state_dict(state)
    assert run(second, iter(second), 6) == rest
    assert torch.equal(first.ratios.lam, second.ratios.lam)
    assert torch.equal(first.ratios.mix, second.ratios.mix)
    assert torch.equal(first.counts, second.counts)


def test_the_trail_of_the_shares_is_bounded_and_kept():
    control = controller(per_cell=2, lr=0.05)
    trail = Trail(most=10)
    for _ in range(95):
        trail.add(control.step())
    assert [update for update, _, _ in trail.points] == [16, 32, 48, 64, 80]
    assert trail.points[0][1].shape == trail.points[0][2].shape == (2, 2)
    again = Trail()
    again.load_state_dict(trail.state_dict())
    report = control.step()
    for one in (trail, again):
        one.add(report)
    assert [p[0] for p in again.points] == [p[0] for p in trail.points] == [16, 32, 48, 64, 80, 96]
    assert torch.equal(again.points[2][1], trail.points[2][1])
    again.load_state_dict(Trail().state_dict())
    assert again.points == []


class Numbered(Dataset):
    """A thousand numbers."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, i: int) -> int:
        return i


def test_workers_change_no_batch():
    cells = uneven()
    read = []
    for workers in (0, 2):
        sampler = RatioBatchSampler(cells, shares(cells, 2), 16, generator=gen(), batches=6)
        loader = DataLoader(Numbered(), batch_sampler=sampler, num_workers=workers, generator=gen())
        read.append([batch.tolist() for batch in loader])
    assert read[0] == read[1]
    assert len(read[0]) == 6


def test_reading_too_far_ahead_is_refused_and_lag_is_known():
    cells = uneven()
    sampler = RatioBatchSampler(cells, Ratios(cells), 8, generator=gen(), max_staleness=1)
    sampler.draw(8)
    sampler.draw(8)
    assert sampler.lag == 2
    with pytest.raises(RuntimeError, match="max_staleness is 1"):
        sampler.draw(8)
    sampler.trained()
    assert len(sampler.draw(8)) == 8


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 3}, "number of cells, 4"),
        ({"rounding": "up"}, "rounding must be"),
        ({"rank": 2, "world_size": 2}, "rank must be in"),
        ({"batches": 0}, "batches must be"),
        ({"max_staleness": -1}, "max_staleness"),
    ],
)
def test_bad_samplers_are_refused(options, text):
    cells = uneven()
    with pytest.raises(ValueError, match=text):
        RatioBatchSampler(cells, Ratios(cells), **({"batch_size": 8} | options), generator=gen())


def test_ratios_of_other_cells_are_refused():
    with pytest.raises(ValueError, match="ratios are for counts"):
        RatioBatchSampler(uneven(), Ratios(problem(groups=3)[1]), 8, generator=gen())


def test_as_a_sampler_of_fit_it_gives_positions_and_updates_after_steps():
    control = controller(per_cell=5)
    cells = control.ratios.cells
    schema = Schema(("0", "1"), (Attribute("z", ("0", "1")),))
    parts = [
        GroupedData.of(torch.zeros(120, 3), cells.label[:120], {"z": cells.group[:120]}, schema),
        GroupedData.of(
            torch.ones(120, 3),
            cells.label[120:],
            {"z": cells.group[120:]},
            schema,
            origin=Origin.GENERATED,
        ),
    ]
    data = parts[0].append(parts[1])
    index = CellIndex.of(data, ["z"])
    assert torch.equal(index.place, cells.place)
    sampler = RatioBatchSampler(index, control.ratios, 12, generator=gen(), controller=control)
    groups = GroupIndex.of(data, ["z"])
    batches = list(sampler.epoch(data, groups, batch=12, rng=Rng.of(0)))
    assert len(batches) == sampler.steps(len(data), 12) == 10
    again = RatioBatchSampler(index, Ratios(index), 12, generator=gen(5))
    assert torch.equal(batches[0], next(iter(again.epoch(data, groups, batch=12, rng=Rng.of(0)))))
    rows = batches[0]
    batch = Batch(data.x[rows], data.y[rows], groups.cell[rows], rows)
    before = control.ratios.version
    sampler.after(Seen(0, batch, torch.zeros(12, 2), control.model))
    assert control.ratios.version == before + 1
    assert sampler.last is not None
    with pytest.raises(ValueError, match="data has 120 rows"):
        next(iter(sampler.epoch(parts[0], groups, batch=12, rng=Rng.of(0))))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_agree_with_one(tmp_path):
    torch.multiprocessing.spawn(distributed, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(2)]
    for hessian, close in (("identity", 1e-9), ("cg", 1e-4)):  # sums in another order
        control = controller(draw="all", hessian=hessian)
        for _ in range(3):
            report = control.step()
        for rank in ranks:
            torch.testing.assert_close(rank[hessian]["lam"], report.lam, rtol=close, atol=1e-12)
            torch.testing.assert_close(rank[hessian]["mix"], report.mix, rtol=close, atol=1e-12)
            assert rank[hessian]["gap"] == pytest.approx(report.gap, abs=1e-12)
    cells = problem()[1]
    for first, second in zip(ranks[0]["rows"], ranks[1]["rows"], strict=True):
        assert not set(first.tolist()) & set(second.tolist())
        assert torch.equal(
            torch.bincount(cells.place[first], minlength=8),
            torch.bincount(cells.place[second], minlength=8),
        )
    both = [rank["trained"] for rank in ranks]
    alone = trained_on(torch.cat([part["rows"] for part in both], 1))
    for name, want in alone.items():
        for part in both:
            torch.testing.assert_close(part[name], want, rtol=1e-7, atol=1e-12)


def trained_on(batches: Tensor) -> dict[str, Tensor]:
    """The loop of `mix_kit.trained_together` in one process, on batches (steps, rows)."""
    x, cells = problem()
    model = linear(2)
    control = controller(model, inner_data="train_batch", per_cell=4, lr=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for rows in batches:
        one_loss = torch.nn.functional.cross_entropy(model(x[rows]), cells.label[rows])
        optimizer.zero_grad()
        one_loss.backward()
        optimizer.step()
        control.step(rows)
    return {"lam": control.ratios.lam, "mix": control.ratios.mix, "weight": model.weight.detach()}
