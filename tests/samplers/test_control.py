"""The ratio update in a stranger's loop: what it needs, leaves alone, refuses and costs."""

from __future__ import annotations

import gc
import re

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from evenloop.samplers.cells import CellIndex
from evenloop.samplers.outer import RatioObjective
from evenloop.samplers.ratios import RatioBatchSampler, RatioController, Ratios, Validation
from mix_kit import F64, controller, gen, linear, net, problem


def one_step(model: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# -- properties -------------------------------------------------------------------------------


def test_generated_rows_equal_to_real_ones_leave_mu_alone():
    x, cells = problem()
    half = len(x) // 2
    control = controller(draw="all", val=Validation(torch.cat([x[:half], x[:half]]), cells))
    assert control.step().g_b.abs().max() < 1e-14


def test_with_mu_one_generated_rows_do_not_matter_for_lambda():
    x, cells = problem()
    reports = []
    for scale in (1.0, 50.0):
        val = Validation(torch.cat([x[:120], x[120:] * scale]), cells)
        control = controller(ratios=Ratios(cells, mu_init=1.0), draw="all", val=val)
        reports.append(control.step())
    torch.testing.assert_close(reports[0].g_a, reports[1].g_a, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(6))
def test_without_accuracy_the_worse_off_group_gains_share(seed):
    ratios = Ratios(problem(seed=seed)[1], mu_init=1.0)
    control = controller(linear(2, seed), seed, ratios, draw="all", accuracy_weight=0.0)
    report = control.step()
    gaps = (report.table[:, 1] - report.table[:, 0]).abs()
    label = int(gaps.argmax())
    worse = int(report.table[label].argmax())
    assert report.g_a[label, worse] < 0  # descent raises it


def test_only_the_widest_pair_enters_without_accuracy():
    loss = torch.tensor([1.0, 2.0, 5.0, 1.0, 1.5, 1.2])
    outer = RatioObjective(accuracy_weight=0.0).at(loss[:, None], torch.arange(6), (2, 3))
    assert outer.weight[:, 0].tolist() == [-1.0, 0.0, 1.0, 0.0, 0.0, 0.0]


def test_equal_cells_give_no_gradient():
    _, cells = problem()
    val = Validation(torch.ones(len(cells), 3, dtype=F64), cells)
    control = controller(linear(2), draw="all", accuracy_weight=0.0, val=val)
    report = control.step()
    within = control.sight.objective.at(torch.ones(8, 1), torch.arange(8) % 4, (2, 2))
    assert report.g_a.abs().max() < 1e-14
    assert within.weight.abs().max() == 0


def test_a_large_accuracy_weight_is_all_there_is():
    slopes = [controller(draw="all", accuracy_weight=k).step().g_a / k for k in (1e6, 1e9)]
    objective = RatioObjective(fairness_weight=0.0, accuracy_weight=1.0)
    alone = controller(draw="all", objective=objective).step().g_a
    torch.testing.assert_close(slopes[1], alone, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(slopes[0], alone, rtol=1e-4, atol=1e-6)


def test_mode_weights_gradients_and_buffers_are_as_before():
    model = net()
    model[3].eval()  # a frozen part stays frozen
    before = {n: v.clone() for n, v in model.state_dict().items()}
    control = controller(model)
    control.step()
    assert [m.training for m in model] == [True, True, True, False, True]
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_freeze_norm_leaves_eval_mode_as_published():
    model = net()
    controller(model, freeze_norm=True).step()
    assert not model.training


def test_nothing_grows_over_a_thousand_updates():
    control = controller(per_cell=2)
    counts = []
    for step in range(1, 1001):
        control.step()
        if step in (100, 1000):
            gc.collect()
            counts.append(sum(type(o) is Tensor for o in gc.get_objects()))
    assert counts[0] == counts[1]
    assert control.ratios.a.grad_fn is None
    assert not control.ratios.lam.requires_grad


def test_the_first_update_is_informative():
    control = controller(draw="all")
    assert control.step().g_b.abs().max() > 1e-4


# -- options ----------------------------------------------------------------------------------


def test_every_and_warmup_say_when():
    control = controller(every=3, warmup=2)
    assert [control.step() is not None for _ in range(9)] == [
        False, False, True, False, False, True, False, False, True,
    ]  # fmt: skip


def test_schedule_and_sgd_set_the_step():
    control = controller(draw="all", optimizer="sgd", lr=0.1, schedule=lambda t: 1.0 / (1 + t))
    for factor in (1.0, 0.5):
        before = control.ratios.a.clone()
        report = control.step()
        torch.testing.assert_close(control.ratios.a, before - 0.1 * factor * report.g_a)


def test_entropy_pulls_towards_uniform():
    control = controller(entropy=100.0, optimizer="sgd", lr=0.01, draw="all")
    control.ratios.a[0, 0] += 1.0
    control.ratios.touch()
    before = float(control.ratios.lam[0, 0])
    assert before > 0.5
    assert control.step().lam[0, 0] < before


def test_training_batch_alignments_equal_those_of_a_second_pass():
    x, cells = problem()
    model = linear(2)
    rows = torch.arange(120, 240)[torch.randperm(120, generator=gen())[:60]]
    control = controller(model, inner_data="train_batch", draw="all")
    model(x[rows]).sum().backward()
    got = control.step(rows)
    other = RatioController(
        model,
        Ratios(cells),
        RatioObjective(accuracy_weight=2.0),
        Validation(
            torch.cat([x[cells.source == 0], x[rows]]),
            CellIndex(
                torch.cat([cells.label[cells.source == 0], cells.label[rows]]),
                torch.cat([cells.group[cells.source == 0], cells.group[rows]]),
                torch.cat([torch.zeros(120).long(), cells.source[rows]]),
            ),
        ),
        generator=gen(),
        draw="all",
    )
    want = other.step()
    torch.testing.assert_close(got.aligned[1], want.aligned[1], equal_nan=True)


def test_cells_absent_from_the_batch_keep_their_running_alignment():
    x, cells = problem()
    model = linear(2)
    control = controller(model, inner_data="train_batch", draw="all")
    model(x).sum().backward()
    full = control.step(torch.arange(len(x)))
    rows = (cells.place == 3).nonzero().flatten()
    model(x[rows]).sum().backward()
    partial = control.step(rows)
    same = torch.ones(8, dtype=torch.bool)
    same[3] = False
    assert torch.equal(partial.aligned.flatten()[same], full.aligned.flatten()[same])


def test_a_first_batch_of_one_row_moves_only_what_it_knows():
    x, _ = problem()
    model = linear(2)
    control = controller(model, inner_data="train_batch", draw="all")
    model(x[:1]).sum().backward()
    report = control.step(torch.tensor([0]))
    assert report.aligned.isnan().sum() == 7
    assert report.g_a.abs().max() < 1e-15
    assert report.g_b.abs().max() < 1e-15


@pytest.mark.parametrize("draw", ["stratified", "uniform", "all"])
def test_every_draw_holds_every_cell(draw):
    control = controller(draw=draw, per_cell=3, size=20)
    for _ in range(5):
        rows = control.held.draws.draw()
        places = torch.bincount(control.held.cells.place[rows], minlength=8)
        assert (places > 0).all()
        assert len(rows) == {"stratified": 24, "uniform": 40, "all": 240}[draw]


def test_a_hopeless_uniform_draw_says_what_to_do():
    y = torch.cat([torch.zeros(3000), torch.ones(1)]).long()
    cells = CellIndex(y, torch.zeros_like(y))
    model = linear(2)
    control = RatioController(
        model, Ratios(cells), RatioObjective(), Validation(torch.zeros(3001, 3, dtype=F64), cells),
        generator=gen(), draw="uniform", size=1,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="draw='stratified'"):
        control.step()


def test_held_out_cell_without_real_rows_is_named_and_passed_over():
    x, cells = problem()
    keep = ~((cells.place == 1) | (cells.place == 5))
    held = cells.take(keep.nonzero().flatten())
    with pytest.warns(UserWarning, match=re.escape("['0 | 1']")):
        control = RatioController(
            linear(2), Ratios(cells), RatioObjective(), Validation(x[keep], held), generator=gen()
        )
    report = control.step()
    assert report.table.isnan().tolist() == [[False, True], [False, False]]
    assert report.g_a[0].abs().max() < 1e-15
    assert report.g_a[1].abs().max() > 0


def test_validation_takes_datasets_and_functions():
    x, cells = problem()
    reports = []
    for source in (x, TensorDataset(x, cells.label), lambda rows: x[rows]):
        reports.append(controller(draw="all", val=Validation(source, cells)).step())
    assert torch.equal(reports[0].g_a, reports[1].g_a)
    assert torch.equal(reports[0].g_a, reports[2].g_a)


def test_mixed_precision_features_are_widened():
    x, cells = problem()
    with torch.autocast("cpu", torch.bfloat16):
        control = RatioController(
            net(dtype=torch.float32), Ratios(cells), RatioObjective(),
            Validation(x.float(), cells), generator=gen(),
        )  # fmt: skip
        report = control.step()
    assert control.sight.tap.look(x[:2].float())[1].dtype == torch.float32
    assert report.aligned.isfinite().all()


def test_a_loop_in_mixed_precision_moves_the_shares_by_its_own_features():
    x, cells = problem()
    model = net(dtype=torch.float32)
    model[3].eval()  # dropout draws from torch's own generator
    control = controller(
        model, val=Validation(x.float(), cells), inner_data="train_batch", per_cell=8
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rows = torch.arange(len(x))[::3]
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x[rows].float()), cells.label[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report = control.step(rows)
    assert report.update == 3
    assert report.aligned.isfinite().all()
    assert not torch.equal(report.lam, Ratios(cells).lam)


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hessian", ["identity", "neumann"])
def test_nan_loss_names_the_cell(hessian):
    x, cells = problem()
    x[cells.place == 2] = torch.nan
    control = controller(val=Validation(x, cells), hessian=hessian)
    with pytest.raises(ValueError, match=re.escape("'1 | 0' is not finite at update 1")):
        control.step()


def test_a_model_that_diverged_names_no_single_cell():
    x, cells = problem()
    control = controller(val=Validation(torch.full_like(x, torch.nan), cells))
    with pytest.raises(ValueError, match="held-out loss of all cells is not finite at update 1"):
        control.step()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"every": 0}, "every must be"),
        ({"warmup": -1}, "warmup"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"per_cell": 0}, "per_cell"),
        ({"draw": "some"}, "draw must be"),
        ({"inner_data": "both"}, "inner_data must be"),
        ({"optimizer": "lbfgs"}, "optimizer must be"),
        ({"head": "nothing"}, "head=.nothing. is not a linear layer of the model, which has: "),
        ({"parameters": ["nothing"]}, "parameters= names .*which the model does not have"),
        ({"parameters": ["weight"], "hessian": "cg"}, "works with hessian='identity'"),
        ({"parameters": ["weight"], "reuse": 2}, "reuse=1"),
        ({"hessian": "foo"}, "hessian must be one of"),
        ({"hessian": "cg", "hessian_options": {"stepz": 3}}, r"may hold .*got \['stepz'\]"),
        ({"hessian": "cg", "hessian_options": {"steps": 0}}, "steps must be >= 1"),
        ({"hessian": "neumann", "hessian_options": {"rate": 0.0}}, "rate must be positive"),
        ({"reuse": 0}, "reuse must be at least 1, got 0"),
        ({"reuse": 2, "draw": "all"}, "works with draw='stratified', got draw='all'"),
    ],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        controller(**options)


def test_training_batch_needs_rows_and_a_pass():
    control = controller(inner_data="train_batch")
    with pytest.raises(ValueError, match="needs rows="):
        control.step()
    with pytest.raises(RuntimeError, match="no training pass"):
        control.step(torch.arange(3))
    control.model(problem()[0][:3]).sum().backward()
    with pytest.raises(ValueError, match="rows has 4 entries, the batch just trained 3"):
        control.step(torch.arange(4))


def test_a_source_that_is_not_held_out_could_not_move():
    x, cells = problem()
    real = (cells.source == 0).nonzero().flatten()
    held = Validation(x[real], CellIndex(cells.label[real], cells.group[real]))
    with pytest.raises(ValueError, match=r"no rows of source 1.*train_batch.*learn=\('lambda',\)"):
        controller(val=held)
    before = (ratios := Ratios(cells, learn=("lambda",))).lam
    controller(val=held, ratios=ratios).step()
    assert not torch.equal(ratios.lam, before)
    keep = (cells.place != 5).nonzero().flatten()
    with pytest.warns(UserWarning, match=r"no held-out rows of source 1 in \['0 \| 1'\]"):
        controller(val=Validation(x[keep], cells.take(keep)))


def test_held_out_rows_and_cells_that_do_not_fit_are_refused():
    x, cells = problem()
    for wrong in (x[:-1], torch.cat([x, x])):
        with pytest.raises(ValueError, match=f"x has {len(wrong)} rows, cells {len(cells)}"):
            Validation(wrong, cells)

    class Dicts(torch.utils.data.Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, row):
            return {"x": x[row]}

    with pytest.raises(ValueError, match="collate to dict, not to a tensor"):
        Validation(Dicts(), cells).fetch(torch.arange(2))


def test_other_cells_in_validation_are_refused():
    x, cells = problem(groups=3)
    with pytest.raises(ValueError, match="val has"):
        RatioController(
            linear(2), Ratios(problem()[1]), RatioObjective(), Validation(x, cells), generator=gen()
        )


# -- a stranger's loop ------------------------------------------------------------------------


def test_a_plain_loop_with_accumulation_shrinks_the_gap():
    x, cells = problem(400, seed=4)
    x[(cells.cell == 1)] *= -1.0  # one group is harder
    held_x, held = problem(400, seed=5)
    held_x[(held.cell == 1)] *= -1.0
    gaps = {}
    for learn in ((), ("lambda", "mu")):
        model = linear(2)
        ratios = Ratios(cells, learn=learn)
        control = RatioController(
            model, ratios, RatioObjective(accuracy_weight=0.0), Validation(held_x, held),
            generator=gen(), draw="all", lr=0.05,
        )  # fmt: skip
        sampler = RatioBatchSampler(cells, ratios, 32, generator=gen(), batches=120)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for i, batch in enumerate(sampler):
            (nn.functional.cross_entropy(model(x[batch]), cells.label[batch]) / 2).backward()
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()
            report = control.step(lag=sampler.lag - 1)
            sampler.trained()
            assert report.lag == 0
        gaps[learn] = report.gap
    assert gaps[("lambda", "mu")] < 0.9 * gaps[()]
