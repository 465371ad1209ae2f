"""Cells, FairBatch, balanced and topped-up batches, running averages, reweighting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.groups import GroupIndex
from evenloop.objectives.reweight import Reweight
from evenloop.rng import Rng
from evenloop.samplers.averaged import Averaged, Ema
from evenloop.samplers.balanced import CellBalanced, Rows, top_up
from evenloop.samplers.cells import CellIndex
from evenloop.samplers.fairbatch import FairBatchSampler
from evenloop.samplers.ratios import Ratios
from evenloop.samplers.uniform import Uniform
from evenloop.seams import Batch, Seen
from mix_kit import F64, gen, linear, problem

COUNTS = torch.tensor([[[30, 10], [8, 24]], [[5, 12], [20, 3]]])


def mixed() -> CellIndex:
    grid = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(2))
    rows = grid.repeat_interleave(COUNTS.flatten(), 0)
    return CellIndex(rows[:, 1], rows[:, 2], rows[:, 0])


def real_data() -> tuple[GroupedData, CellIndex]:
    x, cells = problem(80)
    schema = Schema(("0", "1"), (Attribute("z", ("0", "1")),))
    data = GroupedData.of(x[:80], cells.label[:80], {"z": cells.group[:80]}, schema)
    return data, CellIndex(cells.label[:80], cells.group[:80])


# -- cells ------------------------------------------------------------------------------------


def test_cells_cross_group_variables_row_major():
    cells = CellIndex(
        [0, 1, 1], {"sex": [0, 1, 1], "age": [2, 0, 1]}, groups={"sex": ("f", "m"), "age": 3}
    )
    assert cells.group.tolist() == [2, 3, 4]
    assert cells.sizes == (2, 3)
    assert cells.names[2] == "0 | f 2"
    assert cells.empty()[:2] == ("0 | f 0", "0 | f 1")


def test_taking_rows_keeps_all_cells():
    part = mixed().take(torch.tensor([0]))
    assert part.counts.shape == (2, 2, 2)
    assert part.counts.sum() == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([0, 1], [0]), "z has 1 rows, y has 2"),
        (([0, -1], [0, 0]), "y holds code -1"),
        (([], []), "y|empty"),
        (([0.5], [0]), "integer codes"),
        ((["a", "b"], [0, 1]), "y must be integer codes, got list of str such as 'a'; number"),
        (([0, 1], {"sex": ["f", None]}), "sex must be integer codes, got list of str such as 'f'"),
    ],
)
def test_bad_cells_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        CellIndex(*arguments)


def test_code_beyond_the_named_groups_is_refused():
    with pytest.raises(ValueError, match=r"z holds code 2, but its codes are 0..1"):
        CellIndex([0, 0], [0, 2], groups=("a", "b"))


# -- FairBatch --------------------------------------------------------------------------------


def fair(measure="eqodds", cells=None, **options):
    cells = cells or CellIndex([0, 0, 1, 1], [0, 1, 0, 1])
    return FairBatchSampler(cells, 4, generator=gen(), measure=measure, **options)


def test_only_the_label_with_the_wider_gap_moves_towards_the_worse_off():
    sampler = fair()
    sampler.update(torch.tensor([1.0, 1.5, 4.0, 1.0]))
    assert sampler.share.tolist() == [[0.5, 0.5], [0.505, 0.495]]


def test_equal_opportunity_moves_the_positive_label_only():
    sampler = fair("eqopp")
    sampler.update(torch.tensor([9.0, 1.0, 1.0, 1.5]))
    assert sampler.share.tolist() == [[0.5, 0.5], [0.495, 0.505]]


def test_parity_lowers_the_worse_off_share_of_the_negative_label():
    sampler = fair("dp")
    sampler.update(torch.tensor([1.0, 4.0, 1.0, 1.5]))
    assert sampler.share.tolist() == [[0.505, 0.495], [0.5, 0.5]]


def test_shares_stop_at_zero_and_still_sum_to_one():
    sampler = fair(alpha=0.4)
    for _ in range(3):
        sampler.update(torch.tensor([1.0, 1.0, 5.0, 1.0]))
    assert sampler.share[1].tolist() == [1.0, 0.0]


def test_among_three_groups_the_widest_pair_moves():
    cells = CellIndex([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2])
    sampler = FairBatchSampler(cells, 6, generator=gen(), alpha=0.1)
    sampler.update(torch.tensor([1.0, 1.0, 1.0, 2.0, 5.0, 1.0]))
    want = torch.tensor([1 / 3, 1 / 3 + 0.1, 1 / 3 - 0.1], dtype=F64)
    torch.testing.assert_close(sampler.share[1], want)


def test_a_plain_loop_goes_on_drawing_where_it_was_saved():
    _, cells = real_data()

    def fair(seed: int) -> FairBatchSampler:
        return FairBatchSampler(cells, 12, generator=gen(seed))

    def even(seed: int) -> CellBalanced:
        return CellBalanced(cells, generator=gen(seed))

    for make, draw in ((fair, lambda s: s.draw(12)), (even, lambda s: next(s.batches(12)))):
        first, other = make(0), make(1)
        draw(first)
        other.load_state_dict(first.state_dict())
        assert [list(draw(first)) for _ in range(5)] == [list(draw(other)) for _ in range(5)]


def test_only_real_rows_are_drawn_and_totals_are_exact():
    cells = mixed()
    sampler = FairBatchSampler(cells, 12, generator=gen(), batches=5)
    batches = [*sampler]
    assert [len(batch) for batch in batches] == [12] * 5
    assert (cells.source[torch.tensor(batches)] == 0).all()


def test_fit_moves_the_shares_after_the_last_step_of_an_epoch():
    data, cells = real_data()
    sampler = FairBatchSampler(cells, 20, generator=gen())
    groups, model = GroupIndex.of(data, ["z"]), linear(2)
    start = sampler.share.clone()
    for i, rows in enumerate(sampler.epoch(data, groups, batch=20, rng=Rng.of(0))):
        assert torch.equal(sampler.share, start)
        sampler.after(Seen(i, Batch(data.x[rows], data.y[rows], rows, rows), rows, model))
    assert (sampler.share - start).abs().max() == pytest.approx(0.005)
    again = FairBatchSampler(cells, 20, generator=gen())
    again.load_state_dict(sampler.state_dict())
    assert torch.equal(again.share, sampler.share)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"measure": "parity"}, "measure must be"),
        ({"alpha": 0.0}, "alpha must be"),
        ({"positive": 2}, "positive must be"),
    ],
)
def test_bad_fairbatch_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        fair(**options)


def test_losses_that_do_not_fit_are_refused():
    for losses in (torch.ones(3), torch.tensor([1.0, 1.0, 1.0, torch.nan])):
        with pytest.raises(ValueError, match=r"must be 4 numbers|row 3 of cell"):
            fair().update(losses)


# -- fixed mixes ------------------------------------------------------------------------------


@pytest.mark.parametrize("sources", [(0,), (1,), (0, 1)])
def test_balanced_batches_hold_every_cell_alike(sources):
    cells = mixed()
    batches = CellBalanced(cells, generator=gen(), sources=sources).batches(8)
    for _ in range(6):
        rows = next(batches)
        assert torch.bincount(cells.cell[rows], minlength=4).tolist() == [2, 2, 2, 2]
        assert set(cells.source[rows].tolist()) <= set(sources)


def test_balanced_batches_do_without_absent_cells():
    cells = CellIndex([0, 0, 1, 1], [0, 1, 0, 0], classes=2, groups=2)
    rows = next(CellBalanced(cells, generator=gen()).batches(3))
    assert torch.bincount(cells.cell[rows], minlength=4).tolist() == [1, 1, 1, 0]
    with pytest.raises(ValueError, match="no rows of sources"):
        CellBalanced(cells, generator=gen(), sources=(1,))


def test_top_up_fills_groups_to_the_largest_of_their_label():
    cells = mixed()
    rows, short = top_up(cells, gen())
    counts = torch.bincount(cells.place[rows], minlength=8).view(2, 2, 2)
    assert torch.equal(counts[0], COUNTS[0])
    assert counts[1].tolist() == [[0, 12], [16, 0]]  # 20 wanted, 12 there
    assert short.tolist() == [[0, 8], [0, 0]]
    assert len(rows.unique()) == len(rows)


def test_rows_gives_each_once_an_epoch_and_whole_batches():
    data, _ = real_data()
    groups, picked = GroupIndex.of(data, ["z"]), torch.arange(5, 45)
    batches = list(Rows(picked).epoch(data, groups, batch=10, rng=Rng.of(0)))
    assert sorted(torch.cat(batches).tolist()) == picked.tolist()
    longer = list(Rows(picked, length=80).epoch(data, groups, batch=10, rng=Rng.of(0)))
    assert torch.bincount(torch.cat(longer))[5:].tolist() == [2] * 40
    with pytest.raises(ValueError, match="rows is empty"):
        Rows(torch.zeros(0, dtype=torch.long))


# -- averages ---------------------------------------------------------------------------------


def test_average_follows_buffers_and_swaps_in_and_out():
    model, ema = nn.BatchNorm1d(2), Ema(0.5)
    ema.update(model)
    model.running_mean += 4.0
    model.num_batches_tracked += 3
    ema.update(model)
    assert ema.values["running_mean"].tolist() == [2.0, 2.0]
    assert int(ema.values["num_batches_tracked"]) == 3
    with ema.swap(model):
        assert model.running_mean.tolist() == [2.0, 2.0]
    assert model.running_mean.tolist() == [4.0, 4.0]
    again = Ema(0.5)
    again.load_state_dict(ema.state_dict())
    again.copy_to(model)
    assert model.running_mean.tolist() == [2.0, 2.0]


def test_average_refuses_a_bad_decay_and_an_early_use():
    with pytest.raises(ValueError, match="decay must be"):
        Ema(1.0)
    with pytest.raises(RuntimeError, match="average is empty"):
        Ema(0.9).copy_to(linear(2))


def test_averaged_sampler_lets_the_inner_one_decide():
    data, _ = real_data()
    groups, model = GroupIndex.of(data, ["z"]), linear(2)
    averaged = Averaged(Uniform(), Ema(0.9))
    inner = Uniform().epoch(data, groups, batch=20, rng=Rng.of(0))
    for a, b in zip(averaged.epoch(data, groups, batch=20, rng=Rng.of(0)), inner, strict=True):
        assert torch.equal(a, b)
    rows = torch.arange(3)
    averaged.after(Seen(0, Batch(data.x[rows], data.y[rows], rows, rows), rows, model))
    assert torch.equal(averaged.ema.values["weight"], model.weight)
    fresh = Averaged(Uniform(), Ema(0.9))
    fresh.load_state_dict(averaged.state_dict())
    assert torch.equal(fresh.ema.values["weight"], model.weight)


# -- reweighting ------------------------------------------------------------------------------


def test_reweighting_a_uniform_loader_is_the_training_objective_of_the_ratios():
    x, cells = problem(80)
    g = gen(3)
    ratios = Ratios(
        cells,
        lambda_init=[[0.3, 0.7], [0.6, 0.4]],
        mu_init=torch.rand(2, 2, generator=g, dtype=F64),
    )
    target = ratios.shares * ratios.quota(1.0)[:, None]
    given = cells.counts.double().flatten() / len(cells)
    logits = linear(2)(x).detach()
    weighted = Reweight(target, given=given).loss(logits, cells.label, cells.place)
    losses = nn.functional.cross_entropy(logits, cells.label, reduction="none")
    means = torch.zeros(8, dtype=F64).index_add(0, cells.place, losses) / cells.counts.flatten()
    torch.testing.assert_close(weighted, (target.flatten() * means).sum())


def test_a_learned_target_is_asked_after_each_step():
    data, _ = real_data()
    wanted = torch.tensor([0.5, 0.5])
    objective = Reweight(lambda: wanted)
    groups = GroupIndex.of(data, ["z"])
    objective.bind(linear(2), data, groups)
    assert objective.weight.tolist() == pytest.approx([1.0, 1.0])
    wanted.copy_(torch.tensor([0.25, 0.75]))
    rows = torch.arange(2)
    objective.after(Seen(0, Batch(data.x[rows], data.y[rows], rows, rows), rows, linear(2)))
    assert objective.weight.tolist() == pytest.approx([0.5, 1.5])
    again = Reweight(given=torch.tensor([0.5, 0.5]))
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again.weight, objective.weight)


def test_absent_cells_weigh_nothing_and_cannot_be_wanted():
    assert Reweight(given=torch.tensor([0.5, 0.0, 0.5])).weight.tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="wants cell 1"):
        Reweight(torch.tensor([0.5, 0.5]), given=torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="2 shares, none negative"):
        Reweight(torch.tensor([1.5, -0.5]), given=torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="knows no cells"):
        Reweight().loss(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0]))


def test_fairbatch_names_the_row_and_cell_of_a_loss_that_is_not_finite():
    cells = CellIndex([0, 0, 1, 1], [0, 1, 0, 1])
    sampler = FairBatchSampler(cells, 4, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"loss of row 2 of cell '1 \| 0' is not finite \(1 such"):
        sampler.update(torch.tensor([1.0, 1.0, torch.nan, 3.0]))
    with pytest.raises(ValueError, match="losses of all real rows are not finite"):
        sampler.update(torch.full((4,), torch.inf))
    with pytest.raises(ValueError, match=r"must be 4 numbers.*got shape \(3,\)"):
        sampler.update(torch.ones(3))
    assert sampler.share.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    sampler.update(torch.tensor([1.0, 1.0, 1.0, 3.0]))
    assert sampler.share.tolist() == [[0.5, 0.5], [0.495, 0.505]]


@pytest.mark.parametrize("code", [5, -1])
def test_weights_of_no_cell_are_told(code: int) -> None:
    even = Reweight(given=torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="and 2 groups are known"):
        even.loss(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0, code]))
    assert even.loss(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0, 1])).isfinite()


@pytest.mark.parametrize("size", [0, 1, 3, 4.0, True])
def test_a_batch_that_cannot_hold_every_cell_is_refused(size):
    cells = CellIndex([0, 0, 1, 1, 1], [0, 1, 0, 1, 1])
    with pytest.raises(ValueError, match="at least the number of cells, 4"):
        FairBatchSampler(cells, size, generator=gen())
    assert len(FairBatchSampler(cells, 4, generator=gen()).draw(4)) == 4


def test_a_cell_without_real_rows_needs_no_place_in_a_batch():
    cells = CellIndex([0, 0, 1, 1], [0, 1, 0, 1], source=[0, 0, 0, 1])
    assert len(FairBatchSampler(cells, 3, generator=gen()).draw(3)) == 3
