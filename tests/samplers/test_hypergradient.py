"""Closed-form hypergradients against differentiation, finite differences and exact toys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evenloop.samplers.cells import CellIndex
from evenloop.samplers.control import RatioController
from evenloop.samplers.hypergradient import (
    head_hessian_product,
    ratio_gradients,
    share_gradient,
    solve,
)
from evenloop.samplers.outer import RatioObjective, residuals, row_losses
from evenloop.samplers.shares import Ratios
from evenloop.samplers.validation import Validation
from mix_kit import F64, controller, gen, linear, net, problem

# Forward-mode differentiation scripts its own formulas, which torch now deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")


def cell_losses(logits: Tensor, cells: CellIndex) -> Tensor:
    """(S, C, G) mean losses."""
    total = torch.zeros(cells.counts.numel(), dtype=F64)
    total = total.index_add(0, cells.place, row_losses(logits, cells.label))
    return total.view(cells.counts.shape) / cells.counts


def training_loss(w: Tensor, a: Tensor, b: Tensor, x: Tensor, cells: CellIndex) -> Tensor:
    """F(w; a, b) for a linear model with flat weights, as the paper writes it."""
    outputs = len(w) // (x.shape[1] + 1)
    logits = x @ w[:-outputs].view(outputs, -1).T + w[-outputs:]
    lam, mu = a.softmax(1), b.sigmoid()
    means = cell_losses(logits, cells)
    pi = cells.share.sum(1, keepdim=True)
    return (pi * lam * (mu * means[0] + (1 - mu) * means[1])).sum()


def outer_loss(w: Tensor, x: Tensor, cells: CellIndex, k: float) -> Tensor:
    outputs = len(w) // (x.shape[1] + 1)
    means = cell_losses(x @ w[:-outputs].view(outputs, -1).T + w[-outputs:], cells)[0]
    return (means.max(1).values - means.min(1).values).max() + k * (cells.share * means).sum()


@pytest.mark.parametrize(("outputs", "classes", "groups"), [(1, 2, 2), (2, 2, 3), (3, 3, 2)])
def test_gradients_are_those_of_one_small_training_step(outputs, classes, groups):
    x, cells = problem(classes=classes, groups=groups)
    model = linear(outputs)
    w = torch.cat([model.weight.flatten(), model.bias]).detach()
    g = gen(3)
    a = torch.randn(classes, groups, generator=g, dtype=F64)
    b = torch.randn(classes, groups, generator=g, dtype=F64)
    ratios = Ratios(cells, lambda_init=a.softmax(1), mu_init=b.sigmoid())
    control = control_of(model, ratios, x, cells, k=2.0)
    report = control.step()

    def after_step(a: Tensor, b: Tensor, eta: float) -> Tensor:
        v = w.clone().requires_grad_()
        (slope,) = torch.autograd.grad(training_loss(v, a, b, x, cells), v)
        return outer_loss(w - eta * slope, x, cells, 2.0)

    eta, h = 1e-4, 1e-3
    for logits, got in ((a, report.g_a), (b, report.g_b[0])):
        for i in range(logits.numel()):
            step = torch.zeros(logits.numel(), dtype=F64)
            step[i] = h
            moved = [
                after_step(a + s * step.view_as(a), b, e)
                if logits is a
                else after_step(a, b + s * step.view_as(b), e)
                for s in (1, -1)
                for e in (eta, -eta)
            ]
            slope = (moved[0] - moved[1] - moved[2] + moved[3]) / (4 * h * eta)
            assert slope.item() == pytest.approx(got.flatten()[i].item(), rel=1e-4, abs=1e-8)


def control_of(model, ratios, x, cells, k):
    objective = RatioObjective(accuracy_weight=k)
    val = Validation(x, cells)
    return RatioController(model, ratios, objective, val, generator=gen(), draw="all")


def test_head_closed_form_is_jvp_is_double_backward():
    model = net(3).eval()
    x, cells = problem(classes=3)
    by_head = control_of(model, Ratios(cells), x, cells, 3.0).step()
    names = ["4.weight", "4.bias"]
    by_func = RatioController(
        model,
        Ratios(cells),
        RatioObjective(accuracy_weight=3.0),
        Validation(x, cells),
        generator=gen(),
        draw="all",
        parameters=names,
    ).step()
    torch.testing.assert_close(by_head.aligned, by_func.aligned, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(by_head.g_a, by_func.g_a, rtol=1e-10, atol=1e-12)

    head = [p for n, p in model.named_parameters() if n in names]
    means = cell_losses(model(x), cells)
    gap = (means[0].max(1).values - means[0].min(1).values).max()
    outer = gap + 3 * (cells.share * means[0]).sum()
    v = torch.autograd.grad(outer, head, retain_graph=True)
    for place in range(means.numel()):
        own = torch.autograd.grad(means.flatten()[place], head, retain_graph=True)
        dot = sum((p * q).sum() for p, q in zip(own, v, strict=True))
        assert dot.item() == pytest.approx(by_head.aligned.flatten()[place].item(), rel=1e-10)


def test_all_parameters_differ_from_the_head_alone():
    model = net().eval()
    every = [n for n, _ in model.named_parameters()]
    whole = controller(model, draw="all", parameters=every).step()
    head = controller(model, draw="all").step()
    assert not torch.allclose(whole.aligned, head.aligned)


@pytest.mark.parametrize("outputs", [1, 3])
def test_hessian_product_is_the_double_derivative(outputs):
    x, cells = problem(classes=max(outputs, 2))
    model = linear(outputs)
    w = torch.cat([model.weight.flatten(), model.bias]).detach()
    weight = torch.rand(len(x), generator=gen(), dtype=F64)

    def loss(w: Tensor) -> Tensor:
        logits = x @ w[:-outputs].view(outputs, -1).T + w[-outputs:]
        return (weight * row_losses(logits, cells.label)).sum()

    dense = torch.autograd.functional.hessian(loss, w)
    product = head_hessian_product(x, model(x).detach(), weight)
    v = torch.randn(len(w), generator=gen(4), dtype=F64)
    torch.testing.assert_close(product(v), dense @ v, rtol=1e-9, atol=1e-10)


def test_solvers_agree_on_a_positive_matrix():
    g = gen()
    m = torch.randn(6, 6, generator=g, dtype=F64)
    h = m @ m.T / 6 + torch.eye(6, dtype=F64)
    v = torch.randn(6, generator=g, dtype=F64)
    want = torch.linalg.solve(h + 0.1 * torch.eye(6, dtype=F64), v)
    with pytest.raises(ValueError, match="Neumann series grows: rate=100 is too large"):
        solve(lambda u: u, torch.ones(3), "neumann", rate=100.0)
    for method, options in (("exact", {}), ("cg", {"steps": 6}), ("neumann", {"steps": 400})):
        got = solve(lambda u: h @ u, v, method, damping=0.1, **options)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)
    assert solve(lambda u: h @ u, v) is v


@pytest.mark.parametrize("bad", [{"method": "newton"}, {"method": "cg", "steps": 0}])
def test_solver_refuses_nonsense(bad):
    with pytest.raises(ValueError, match="got"):
        solve(lambda u: u, torch.ones(2), **bad)


def test_hessian_options_reach_the_update():
    reports = {h: controller(draw="all", hessian=h).step() for h in ("identity", "cg", "exact")}
    assert not torch.allclose(reports["identity"].aligned, reports["exact"].aligned)
    close = controller(draw="all", hessian="cg", hessian_options={"steps": 30}).step()
    torch.testing.assert_close(close.aligned, reports["exact"].aligned, rtol=1e-6, atol=1e-9)


def test_two_source_formulas_are_the_general_pull_back():
    _, cells = problem(classes=3, groups=4)
    g = gen()
    lam = torch.rand(3, 4, generator=g, dtype=F64)
    lam = lam / lam.sum(1, keepdim=True)
    mu = torch.rand(3, 4, generator=g, dtype=F64)
    ratios = Ratios(cells, lambda_init=lam, mu_init=mu)
    aligned = torch.randn(2, 3, 4, generator=g, dtype=F64)
    pi = cells.share.sum(1)
    g_share = share_gradient(pi, aligned)
    g_a, g_b = ratios.pull_back((ratios.mix * g_share).sum(0), ratios.lam * g_share)
    want_a, want_b = ratio_gradients(lam, mu, pi, aligned[0], aligned[1])
    torch.testing.assert_close(g_a, want_a)
    torch.testing.assert_close(g_b[0], want_b)
    assert g_a.sum(1).abs().max() < 1e-14


def test_pull_back_with_floors_and_three_sources_is_the_derivative():
    _, cells = problem(classes=2, groups=3, sources=3)
    ratios = Ratios(cells, lambda_min=0.1, mu_min=0.05)
    g = gen(2)
    ratios.a += torch.randn(ratios.a.shape, generator=g, dtype=F64)
    ratios.b += torch.randn(ratios.b.shape, generator=g, dtype=F64)
    ratios.touch()
    c_lam = torch.randn(2, 3, generator=g, dtype=F64)
    c_mix = torch.randn(3, 2, 3, generator=g, dtype=F64)
    got = ratios.pull_back(c_lam, c_mix)
    for logits, slope in ((ratios.a, got[0]), (ratios.b, got[1])):
        flat = logits.view(-1)
        for i in range(flat.numel()):
            values = []
            for h in (1e-6, -2e-6):
                flat[i] += h
                ratios.touch()
                values.append(float((c_lam * ratios.lam).sum() + (c_mix * ratios.mix).sum()))
            flat[i] += 1e-6
            ratios.touch()
            numeric = (values[0] - values[1]) / 2e-6
            assert numeric == pytest.approx(float(slope.view(-1)[i]), abs=1e-8)
    assert ratios.lam.min() >= 0.1
    assert ratios.mix.min() >= 0.05


def test_residuals_are_the_derivative_of_the_losses():
    for outputs in (1, 3):
        logits = torch.randn(5, outputs, generator=gen(), dtype=F64).requires_grad_()
        y = torch.tensor([0, 1, 1, 0, 1])
        (want,) = torch.autograd.grad(row_losses(logits, y).sum(), logits)
        torch.testing.assert_close(residuals(logits.detach(), y), want)


# The exact toy: losses |w - c|^2 / 2, one label, two groups, centres 0 and 2, shares .9 and .1.
def toy_slope(ratios: Ratios, k: float) -> Tensor:
    centre = torch.tensor([[0.0, 2.0]], dtype=F64)
    w = (ratios.lam * centre).sum()
    losses = (w - centre).flatten() ** 2 / 2
    outer = RatioObjective(accuracy_weight=k).at(
        losses[:, None], torch.arange(2), (1, 2), torch.tensor([[0.9, 0.1]], dtype=F64)
    )
    v = (outer.weight.sum(1) * (w - centre.flatten())).sum()
    g_lam = share_gradient(torch.ones(1, dtype=F64), ((w - centre) * v)[None])[0]
    return ratios.pull_back(g_lam, torch.zeros(1, 1, 2, dtype=F64))[0]


@pytest.mark.parametrize(("k", "optimum"), [(5.0, 0.3), (20.0, 0.15), (100.0, 0.11)])
def test_toy_descends_to_its_known_optimum(k, optimum):
    ratios = Ratios(CellIndex([0] * 10, [0] * 9 + [1]))
    extra = 50  # steps after arriving, so that passing by does not count
    for _ in range(6000):
        ratios.a -= 0.05 * toy_slope(ratios, k)
        ratios.touch()
        extra -= abs(float(ratios.lam[0, 1]) - optimum) < 1e-6
        if not extra:
            break
    assert float(ratios.lam[0, 1]) == pytest.approx(optimum, abs=1e-6)


def test_toy_hovers_around_its_kink_when_accuracy_weighs_little():
    ratios, seen = Ratios(CellIndex([0] * 10, [0] * 9 + [1])), []
    for i in range(1500):
        ratios.a -= 0.05 * toy_slope(ratios, 1.0)
        ratios.touch()
        if i >= 1000:
            seen.append(float(ratios.lam[0, 1]))
    assert max(abs(value - 0.5) for value in seen) < 0.04


def test_toy_generated_data_off_centre_loses_its_share():
    lam, mu, delta = torch.tensor([[0.7, 0.3]]), torch.tensor([[0.5, 0.6]]), 0.4
    w, centre, v = 0.6, torch.tensor([[0.0, 2.0]]), -0.8
    aligned_real = (w - centre) * v
    aligned_generated = (w - centre - torch.tensor([[0.0, delta]])) * v
    _, g_b = ratio_gradients(lam, mu, torch.ones(1), aligned_real, aligned_generated)
    assert g_b[0, 0] == 0
    assert g_b[0, 1].item() == pytest.approx(-0.3 * 0.6 * 0.4 * v * delta)
    assert g_b[0, 1] > 0  # descent lowers mu where generated rows pull the way that helps
