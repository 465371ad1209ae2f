"""Magnitude pruning: counts, nesting, fused against parametrised masks, state, borders."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evenloop.models import build, seeded
from evenloop.seams import Surgery
from evenloop.surgery.layers import masked_batch_norm
from evenloop.surgery.magnitude import (
    GradualMagnitudePruning,
    _kth_smallest,
    erk_sparsities,
    magnitude_masks,
)
from evenloop.surgery.parametrised import fuse_masks, parametrise_masks
from evenloop.surgery.schedule import Cubic, pruned_count


def once(sparsity: float) -> Cubic:
    return Cubic(sparsity, 0, 0, initial=sparsity)


def convnet() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * 16, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        ),
        0,
    )


def faint() -> nn.Module:
    """The net with a filter that falls first, and a norm that would shift what is left of it."""
    model = convnet()
    model[2].weight.data[1] *= 1e-6  # type: ignore[index]
    model[3].bias.data.fill_(1.0)  # type: ignore[index]
    return model


def batch(seed: int) -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(16, 1, 8, 8, generator=gen), torch.randint(3, (16,), generator=gen)


@pytest.mark.parametrize("scope", ["layer", "global", "erk"])
def test_masks_are_nested_and_counts_exact(scope: Any) -> None:
    model, cubic = convnet(), Cubic(0.9, 0, 5)
    surgery = GradualMagnitudePruning(model, cubic, scope=scope)
    before = {name: mask.clone() for name, mask in surgery.masks.items()}
    size = {name: mask.numel() for name, mask in before.items()}
    for epoch in range(7):
        surgery.update(epoch)
        for name, mask in surgery.masks.items():
            assert (mask <= before[name]).all()
            before[name] = mask.clone()
        left, s = surgery.active(), cubic.sparsity(epoch)
        if scope == "layer":
            assert left == {n: size[n] - pruned_count(s, size[n]) for n in size}
        elif scope == "global":
            total = sum(size.values())
            assert sum(left.values()) == total - pruned_count(s, total)
        for weight in model.parameters():  # training moves pruned weights too
            weight.data.add_(0.05)
        surgery.apply(model)


def test_at_sparsity_zero_every_mask_is_one() -> None:
    surgery = GradualMagnitudePruning(convnet(), Cubic(0.5))
    assert set(surgery.update(0).values()) == {1.0}


def test_ties_fall_in_order_of_position() -> None:
    weight = {"": torch.tensor([1.0, -1.0, 1.0, 2.0, 1.0])}
    mask = magnitude_masks(weight, {"": torch.ones(5)}, 0.5)[""]
    assert mask.tolist() == [False, False, False, True, True]


def test_a_weight_that_is_left_at_0_falls_after_those_that_are_pruned() -> None:
    weight = {"": torch.tensor([0.0, 0.0, 1.0, 2.0])}
    masks = {"": torch.tensor([1.0, 0.0, 1.0, 1.0])}
    assert magnitude_masks(weight, masks, 0.25)[""].tolist() == [True, False, True, True]
    assert magnitude_masks(weight, masks, 0.5)[""].tolist() == [False, False, True, True]


def test_global_ranking_compares_layers() -> None:
    weight = {"small": torch.tensor([0.1, 0.2]), "large": torch.tensor([3.0, 4.0])}
    masks = magnitude_masks(weight, {n: torch.ones(2) for n in weight}, 0.5, scope="global")
    assert [masks["small"].tolist(), masks["large"].tolist()] == [[False] * 2, [True] * 2]


def test_erk_keeps_the_budget_and_small_layers() -> None:
    shapes = {"a": (256, 256, 3, 3), "b": (16, 16, 1, 1), "c": (64, 3, 7, 7)}
    sparsity = erk_sparsities(shapes, 0.8)
    size = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    kept = sum((1 - sparsity[name]) * size[name] for name in shapes)
    assert kept == pytest.approx(0.2 * sum(size.values()))
    assert sparsity["b"] == 0
    assert sparsity["a"] > sparsity["c"]


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
}


def train_both(
    fused: nn.Module,
    surgery: GradualMagnitudePruning,
    other: nn.Module,
    weights: Sequence[Tensor],
    name: str,
    clip: float | None,
) -> None:
    """12 equal steps of `fused` under `surgery` and of `other`, with `weights` in one order."""
    sides = ((fused, [*fused.parameters()]), (other, weights))
    optimizers = [OPTIMIZERS[name](parameters) for _, parameters in sides]
    surgery.attach(optimizers[0])
    for step in range(12):
        x, y = batch(step)
        for (model, parameters), optimizer in zip(sides, optimizers, strict=True):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            if clip is not None:
                # one order of parameters for both, so that the norms are the same number
                nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
    surgery.finish(fused)


def check_same(model: nn.Module, trained: Mapping[str, Tensor]) -> None:
    for key, value in model.state_dict().items():
        assert torch.equal(value, trained[key]), key


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_fused_masks_train_like_a_masked_forward_pass(name: str, clip: float | None) -> None:
    fused = convnet()
    surgery = GradualMagnitudePruning(fused, once(0.7), batchnorm="plain")
    surgery.update(0)
    parametrised = copy.deepcopy(fused)
    parametrise_masks(parametrised, surgery.masks)
    order = [n for n, _ in fused.named_parameters()]
    raw = dict(parametrised.named_parameters())
    weights = [raw.get(n) for n in order]
    weights = [
        w if w is not None else raw[n.replace("weight", "parametrizations.weight.original")]
        for n, w in zip(order, weights, strict=True)
    ]
    train_both(fused, surgery, parametrised, weights, name, clip)
    fuse_masks(parametrised)
    check_same(fused, parametrised.state_dict())


class Skipping(nn.Module):
    """A norm with channels left out of it, as `masked_batch_norm` says."""

    def __init__(self, norm: nn.BatchNorm2d, active: Tensor) -> None:
        super().__init__()
        self.norm, self.active = norm, active

    def forward(self, x: Tensor) -> Tensor:
        return masked_batch_norm(x, self.norm, self.active)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_fused_masks_train_like_a_masked_norm(name: str, clip: float | None) -> None:
    fused = faint()
    masked = copy.deepcopy(fused)
    surgery = GradualMagnitudePruning(fused, once(0.3))
    surgery.update(0)
    parametrise_masks(masked, surgery.masks)
    active = surgery.masks["2"].flatten(1).any(1).float()
    assert active.tolist() == [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    norm = masked[3]  # type: ignore[index]
    masked[3] = Skipping(norm, active)  # type: ignore[index, operator]
    raw = {
        n.replace("3.norm", "3").replace("parametrizations.weight.original", "weight"): p
        for n, p in masked.named_parameters()
    }
    weights = [raw[n] for n, _ in fused.named_parameters()]
    train_both(fused, surgery, masked, weights, name, clip)
    fuse_masks(masked)
    assert isinstance(norm, nn.BatchNorm2d)
    norm.weight.data.mul_(active)
    norm.bias.data.mul_(active)
    check_same(fused, {n.replace("3.norm", "3"): v for n, v in masked.state_dict().items()})


@pytest.mark.parametrize("batchnorm", ["skip", "plain"])
def test_the_statistics_of_a_dead_channel_stand_still(batchnorm: Any) -> None:
    model = convnet()
    model[2].weight.data[1] *= 1e-6  # type: ignore[index]
    surgery = GradualMagnitudePruning(model, once(0.3), batchnorm=batchnorm)
    norm = model[3]  # type: ignore[index]
    sgd = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    surgery.attach(sgd)
    found = [torch.stack([norm.running_mean, norm.running_var]).clone()]
    for epoch in range(3):
        surgery.update(epoch)
        sgd.zero_grad()
        cross_entropy(model(batch(epoch)[0]), batch(epoch)[1]).backward()
        grads = [norm.weight.grad, norm.bias.grad]
        sgd.step()
        surgery.apply(model)  # twice is the same as once
        found.append(torch.stack([norm.running_mean, norm.running_var]).clone())
        if batchnorm == "skip":
            assert [float(grad[1]) for grad in grads] == [0.0, 0.0]
    dead = [bool((found[t][:, 1] == found[0][:, 1]).all()) for t in (1, 2, 3)]
    assert dead == [batchnorm == "skip"] * 3
    assert all(bool((found[t][:, 0] != found[t - 1][:, 0]).any()) for t in (1, 2, 3))


def test_frozen_statistics_cross_a_checkpoint() -> None:
    model = convnet()
    model[2].weight.data[1] *= 1e-6  # type: ignore[index]
    first = GradualMagnitudePruning(model, once(0.3))
    first.update(0)
    model(batch(0)[0])
    first.apply(model)
    other, second = convnet(), GradualMagnitudePruning(None, once(0.3))
    other.load_state_dict(model.state_dict())
    second.load_state_dict(first.state_dict())
    second.begin(other, 1)
    for net, surgery in ((model, first), (other, second)):
        net(batch(1)[0])
        surgery.apply(net)
    check_same(model, other.state_dict())


def test_attached_to_an_optimiser_pruned_weights_stay_zero() -> None:
    model = convnet()
    surgery = GradualMagnitudePruning(model, once(0.5))
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    surgery.attach(sgd)
    surgery.update(0)
    cross_entropy(model(batch(0)[0]), batch(0)[1]).backward()
    sgd.step()
    conv = model[2]  # type: ignore[index]
    assert int((conv.weight == 0).sum()) == 108
    surgery.finish(model)
    conv.weight.data.add_(1.0)
    sgd.step()
    assert int((conv.weight == 0).sum()) == 0


def test_a_dead_filter_silences_its_batch_norm() -> None:
    model = faint()
    GradualMagnitudePruning(model, once(0.3)).update(0)
    for training in (True, False):
        out = model.train(training)[:4](batch(0)[0])  # type: ignore[index]
        assert out[:, 1].abs().max() == 0
        assert out[:, 0].abs().max() > 0


def test_plain_batch_norm_keeps_its_shift() -> None:
    model = faint()
    GradualMagnitudePruning(model, once(0.3), batchnorm="plain").update(0)
    assert (model[:4](batch(0)[0])[:, 1] == 1).all()  # type: ignore[index]


def test_the_pruned_model_is_an_ordinary_module() -> None:
    model = convnet()
    GradualMagnitudePruning(model, once(0.5)).update(0)
    copied = copy.deepcopy(model).eval()
    fresh = convnet()
    fresh.load_state_dict(model.state_dict())
    x = batch(0)[0]
    assert torch.equal(copied(x), fresh.eval()(x))


def test_masks_cross_a_checkpoint_before_and_after_binding() -> None:
    model = convnet()
    first = GradualMagnitudePruning(model, Cubic(0.8, 0, 3))
    first.update(2)
    state = first.state_dict()
    assert all(mask.dtype == torch.bool for mask in state.values())
    for late in (False, True):
        other = convnet()
        second = GradualMagnitudePruning(None if late else other, Cubic(0.8, 0, 3))
        second.load_state_dict(state)
        second.begin(other, 9)
        assert second.densities() == first.densities()
        layer = next(iter(state))
        assert (other.get_submodule(layer).weight[~state[layer]] == 0).all()  # type: ignore[index]


def test_gradients_of_pruned_weights_are_zero() -> None:
    model = convnet()
    surgery = GradualMagnitudePruning(None, once(0.5))
    surgery.begin(model, 0)
    cross_entropy(model(batch(0)[0]), batch(0)[1]).backward()
    for name, mask in surgery.masks.items():
        grad = model.get_submodule(name).weight.grad
        assert isinstance(grad, Tensor)
        assert 0 < int((mask == 0).sum()) < mask.numel()
        assert (grad[mask == 0] == 0).all()
        assert (grad[mask == 1] != 0).any()


def test_masks_of_another_architecture_are_refused() -> None:
    surgery = GradualMagnitudePruning(convnet(), once(0.5))
    other = GradualMagnitudePruning(build("mlp", features=4, classes=2, seed=0), once(0.5))
    with pytest.raises(ValueError, match=r"the mask of .* another architecture"):
        other.load_state_dict(surgery.state_dict())


def test_layers_with_hardly_a_weight_left_are_warned_about() -> None:
    model = build("mobilenet-v2", channels=3, size=32, classes=5, seed=0)
    with pytest.warns(UserWarning, match="fewer than 3 weights left: features"):
        GradualMagnitudePruning(model, once(0.99)).update(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradualMagnitudePruning(model, once(0.9)).update(0)


def test_unknown_choices_are_refused() -> None:
    surgery: Surgery = GradualMagnitudePruning(scope="global", batchnorm="plain")
    assert surgery.state_dict() == {}
    with pytest.raises(ValueError, match="layer, global, erk"):
        GradualMagnitudePruning(scope="model")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="skip or plain"):
        GradualMagnitudePruning(batchnorm="off")  # type: ignore[arg-type]


def test_pruning_without_a_model_says_so() -> None:
    with pytest.raises(RuntimeError, match="no model yet"):
        GradualMagnitudePruning().update(0)


@pytest.mark.parametrize("shape", ["sorted", "noise", "ties", "spikes"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 1.0])
def test_a_threshold_of_many_weights_is_exact(shape: str, share: float) -> None:
    n = 300_000
    gen = torch.Generator().manual_seed(0)
    score = {
        "sorted": torch.arange(n).float(),
        "noise": torch.rand(n, generator=gen),
        "ties": torch.randint(3, (n,), generator=gen).float(),
        # Every place that is looked at first holds a value unlike the rest.
        "spikes": torch.where(
            torch.arange(n) % (n // 65536) == 0, 9.0, torch.rand(n, generator=gen)
        ),
    }[shape]
    k = max(1, int(share * n))
    assert _kth_smallest(score, k) == float(score.sort().values[k - 1])
