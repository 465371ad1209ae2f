"""Posterior draws: the cut net against the whole one, batches of any size, and laws."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evenloop.heuristics.laplace import LastLayerLaplace
from evenloop.heuristics.posterior import DropConnect, Ensemble, MCDropout, draw_pool, score_pool
from evenloop.heuristics.split import split
from evenloop.heuristics.uncertainty import bald
from evenloop.models import Pixels, build, seeded
from evenloop.rng import Rng

RNG = Rng.of(3)


class Branching(nn.Module):
    """Decides on types and shapes, drops maps, then numbers, once through the functional form."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.maps = nn.Dropout2d(0.25)
        self.hidden = nn.Linear(6, 12)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError("images wanted")
        maps = self.maps(self.conv(x).relu())
        hidden = self.hidden(maps.mean((2, 3)))
        hidden = F.dropout(hidden, 0.3, training=self.training)
        return self.head(self.drop(hidden.relu()))


class DataDependent(nn.Module):
    """Cannot be traced: its path depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for row in x:
            if float(row.sum()) > 1e9:
                return self.head(x)
        return self.head(self.drop(x))


def images(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 12, 12), generator=generator, dtype=torch.uint8)


@pytest.fixture
def net() -> nn.Module:
    return Pixels(seeded(Branching, 1), [0.5] * 3, [0.2] * 3)


def test_a_transformer_is_drawn_from() -> None:
    def encoder() -> nn.Module:
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        return nn.Sequential(layer, nn.Flatten(), nn.Linear(32, 3))

    x = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(0))
    drawn = draw_pool(MCDropout(seeded(encoder, 0), 6), x, rng=RNG)
    assert drawn.shape == (5, 3, 6)
    assert drawn.std(2).min() > 0


@pytest.mark.parametrize("consistent", [False, True])
def test_the_cut_net_draws_what_full_passes_draw(net: nn.Module, consistent: bool) -> None:
    x = images(20)
    assert split(net.eval(), x[:2]).cached
    fast = draw_pool(MCDropout(net, 6, consistent=consistent), x, rng=RNG)
    full = draw_pool(MCDropout(net, 6, consistent=consistent, cut=False), x, rng=RNG)
    torch.testing.assert_close(fast, full, rtol=0, atol=1e-5)
    assert fast.std(2).min() > 0


@pytest.mark.slow
def test_vgg16_with_a_cached_prefix_scores_as_full_passes_do() -> None:
    vgg = build("vgg16", channels=3, size=32, classes=3, pool=1, hidden=64, seed=0)
    with torch.no_grad():  # as drawn the logits are near 0 and every score is too
        for layer in (*vgg.classifier, vgg.head):  # type: ignore[misc]
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(30)
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rule = partial(bald, kind="logits")
    cut, whole = (score_pool(MCDropout(vgg, 8, cut=c), x, rule, rng=RNG) for c in (True, False))
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-5)
    assert float(whole.min()) > 1e-3
    assert float(whole.max() - whole.min()) > 1e-3


def test_the_prefix_sees_every_item_once(net: nn.Module) -> None:
    seen = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal seen
        seen += len(out)

    net.get_submodule("net.conv").register_forward_hook(count)
    draw_pool(MCDropout(net, 10), images(30), rng=RNG)
    assert seen < 30 + 20  # the items, and the two that tried the cut
    seen = 0
    draw_pool(MCDropout(net, 10, cut=False), images(30), rng=RNG)
    assert seen >= 300


@pytest.mark.parametrize("consistent", [False, True])
def test_any_batch_size_gives_the_same_scores(net: nn.Module, consistent: bool) -> None:
    x = images(23)

    def rule(draws: Tensor) -> Tensor:
        return bald(draws, kind="logits")

    scores = [
        score_pool(MCDropout(net, 5, consistent=consistent, rows=rows), x, rule, rng=RNG)
        for rows in (5, 40, 4096)
    ]
    dense = rule(draw_pool(MCDropout(net, 5, consistent=consistent), x, rng=RNG))
    for score in scores:
        torch.testing.assert_close(score, dense, rtol=0, atol=1e-6)


def test_consistent_draws_treat_copies_alike_and_independent_ones_do_not(net: nn.Module) -> None:
    twice = images(1).repeat(2, 1, 1, 1)
    a, b = draw_pool(MCDropout(net, 8, consistent=True), twice, rng=RNG)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    a, b = draw_pool(MCDropout(net, 8), twice, rng=RNG)
    assert (a - b).abs().max() > 0.01


def test_masks_follow_the_law_of_dropout() -> None:
    layer = nn.Sequential(nn.Dropout(0.3), nn.Flatten())
    draws = draw_pool(MCDropout(layer, 4000), torch.ones(1, 5), rng=RNG)[0]
    assert draws.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    share = (draws == 0).double().mean(1)
    assert ((share - 0.3).abs() < 4 * (0.21 / 4000) ** 0.5).all()
    together = torch.corrcoef(draws)
    assert (together - torch.eye(5)).abs().max() < 0.08


def test_dropped_maps_go_as_a_whole() -> None:
    layer = nn.Sequential(nn.Dropout2d(0.5), nn.Flatten())
    draws = draw_pool(MCDropout(layer, 50), torch.ones(2, 3, 4, 4), rng=RNG)
    maps = draws.view(2, 3, 16, 50)
    assert torch.equal(maps.amin(2), maps.amax(2))
    assert len(maps.unique()) == 2


def test_a_net_that_cannot_be_traced_is_run_whole() -> None:
    net = seeded(DataDependent, 0).eval()
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    assert not split(net, x[:2]).cached
    draws = draw_pool(MCDropout(net, 6), x, rng=RNG)
    assert draws.shape == (7, 2, 6)
    assert draws.std(2).min() > 0


def test_a_size_taken_from_the_input_keeps_the_net_whole() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(x).view(x.size(0), 8))

    net = seeded(Sized, 0).eval()
    x = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0))
    assert not split(net, x[:2]).cached
    assert draw_pool(MCDropout(net, 3), x, rng=RNG).shape == (5, 2, 3)


def test_modes_and_the_models_hooks_are_as_before(net: nn.Module) -> None:
    net.train()
    net.get_submodule("net.conv").eval()
    draw_pool(MCDropout(net, 3), images(4), rng=RNG)
    assert net.training
    assert not net.get_submodule("net.conv").training
    assert not any(m._forward_hooks for m in net.modules())


def test_a_model_without_dropout_and_a_single_draw_warn() -> None:
    plain, x = build("mlp", features=4, classes=2, seed=0), torch.ones(3, 4)
    with pytest.warns(UserWarning, match="no active dropout"):
        draws = draw_pool(MCDropout(plain, 4), x, rng=RNG)
    assert bald(draws, kind="logits").abs().max() < 1e-12
    random = build("dropout-mlp", features=4, classes=2, seed=0)
    with pytest.warns(UserWarning, match="samples=1"):
        draws = draw_pool(MCDropout(random, 1), x, rng=RNG)
    assert bald(draws, kind="logits").abs().max() < 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_pool(MCDropout(random, 2), x, rng=RNG)


def test_of_several_outputs_the_named_one_is_taken() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"groups": x[:, :1], "classes": F.dropout(x, 0.5, training=self.training)}

    draws = draw_pool(MCDropout(Two(), 4, output="classes"), torch.ones(3, 2), rng=RNG)
    assert draws.shape == (3, 2, 4)
    with pytest.raises(TypeError, match="output="):
        draw_pool(MCDropout(Two(), 4), torch.ones(3, 2), rng=RNG)


def test_drop_connect_is_consistent_and_keeps_the_mean_logit_of_a_linear_net() -> None:
    net = build("logistic", features=4, classes=2, seed=0)
    before = [p.clone() for p in net.parameters()]
    x = torch.ones(1, 4).repeat(2, 1)
    draws = draw_pool(DropConnect(net, 3000, p=0.4), x, rng=RNG)
    assert torch.equal(draws[0], draws[1])
    with torch.no_grad():
        spread = draws[0].std(1) / 3000**0.5
        assert ((draws[0].mean(1) - net(x)[0]).abs() < 4 * spread).all()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_drop_connect_runs_the_convolutions_once(net: nn.Module) -> None:
    seen = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal seen
        seen += len(out)

    net.get_submodule("net.conv").register_forward_hook(count)
    draw_pool(DropConnect(net, 10, layers=("net.head",)), images(30), rng=RNG)
    assert seen < 50


def test_an_ensemble_draws_its_members() -> None:
    nets = [build("mlp", features=4, classes=2, seed=s) for s in range(3)]
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    draws = draw_pool(Ensemble(nets), x, rng=RNG)
    with torch.no_grad():
        for t, member in enumerate(nets):
            torch.testing.assert_close(draws[:, :, t], member(x))


@pytest.mark.parametrize("consistent", [False, True])
def test_laplace_draws_have_the_gaussian_law_of_the_last_layer(consistent: bool) -> None:
    net = build("mlp", features=3, classes=2, hidden=(4,), seed=0)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    posterior = LastLayerLaplace.fit(net, x, prior=2.0, samples=4000, consistent=consistent)
    draws = draw_pool(posterior, x[:3], rng=RNG)
    with torch.no_grad():
        mean, hidden = net(x[:3]).double(), net.body(x).double()  # type: ignore[operator]
        probs = net(x).double().softmax(1)
    features = torch.cat([hidden, torch.ones(50, 1)], 1)
    curvature = torch.diag(probs.mean(0)) - probs.T @ probs / 50
    precision = torch.kron(curvature, features.T @ features) + 2 * torch.eye(10)
    covariance = torch.linalg.inv(precision)
    for i in range(3):
        row = torch.kron(torch.eye(2, dtype=torch.float64), features[i : i + 1])
        want = row @ covariance @ row.T
        assert (draws[i].mean(1) - mean[i]).abs().max() < 4 * (want.diagonal().max() / 4000) ** 0.5
        torch.testing.assert_close(torch.cov(draws[i]), want, rtol=0.15, atol=0.02)


def test_consistent_laplace_treats_copies_alike() -> None:
    net = build("logistic", features=3, classes=2, seed=0)
    x = torch.ones(2, 3)
    a, b = draw_pool(LastLayerLaplace.fit(net, x, consistent=True), x, rng=RNG)
    assert torch.equal(a, b)
    a, b = draw_pool(LastLayerLaplace.fit(net, x), x, rng=RNG)
    assert not torch.equal(a, b)


def test_an_index_scores_only_its_items() -> None:
    net = build("dropout-mlp", features=4, classes=2, seed=0)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([7, 2, 5])
    part = draw_pool(MCDropout(net, 3), x, rng=RNG, index=index)
    torch.testing.assert_close(part, draw_pool(MCDropout(net, 3), x[index], rng=RNG))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MCDropout(nn.Identity(), 0), "samples"),
        (lambda: MCDropout(nn.Identity(), rows=0), "rows"),
        (lambda: DropConnect(nn.Linear(1, 1), p=1.0), "p must be"),
        (lambda: DropConnect(nn.Identity(), layers=("a",)), "not linear"),
        (lambda: Ensemble([]), "samples"),
        (lambda: LastLayerLaplace.fit(nn.Sequential(nn.Flatten()), torch.ones(1, 2)), "linear"),
        (lambda: draw_pool(MCDropout(nn.Identity()), torch.ones(0, 2), rng=RNG), "no items"),
    ],
)
@pytest.mark.global_rng  # nn.Linear of the test itself draws its weights
def test_bad_input(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
