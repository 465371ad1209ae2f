"""Models by name: what is refused, what is built, and where initial weights come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from evenloop.models import Pixels, build, names, seeded
from evenloop.models.shape import image, positive, width_of

IMAGES = ["baidunet9", "resnet18", "resnet20", "resnet56-conv", "small-cnn", "simple-cnn", "lenet"]


@pytest.mark.parametrize("name", [*IMAGES, "mlp", "logistic"])
def test_every_classifier_ends_in_its_head(name: str) -> None:
    net = build(name, channels=3, size=32, classes=7, seed=0).eval()
    seen: list[torch.Tensor] = []
    assert isinstance(net.head, nn.Linear)
    net.head.register_forward_hook(lambda layer, given, out: seen.append(given[0]))
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert seen[0].shape == (2, net.head.in_features)


@pytest.mark.parametrize("name", [*IMAGES, "mlp", "logistic"])
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    shape = {"channels": 3, "size": 32, "classes": 4}
    before = torch.get_rng_state()
    first, again, other = (build(name, **shape, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(first.parameters(), again.parameters(), other.parameters(), strict=True)
    same = [(torch.equal(a, b), torch.equal(a, c)) for a, b, c in pairs]
    assert all(equal for equal, _ in same)
    assert not all(equal for _, equal in same)


def test_seeded_leaves_the_global_generator_where_it_was() -> None:
    before = torch.get_rng_state()
    net = seeded(lambda: nn.Linear(3, 2), 11)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        assert torch.equal(net.weight, nn.Linear(3, 2).weight)


def test_seeded_puts_the_generator_back_when_the_factory_fails() -> None:
    def broken() -> nn.Module:
        torch.rand(3)
        raise RuntimeError("no net today")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no net today"):
        seeded(broken, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'baidunet'; did you mean 'baidunet9'\?"):
        build("baidunet", channels=3, size=32, classes=10)
    with pytest.raises(ValueError, match="unknown model 'zzz'; there are: baidunet9, "):
        build("zzz", classes=10)
    assert names() == sorted(names())


def test_an_unknown_option_is_met_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'mlp' has no option 'hiden'; did you mean 'hidden'\?"):
        build("mlp", features=3, classes=2, hiden=(4,))
    with pytest.raises(ValueError, match="'lenet' has no option 'width'; there are: none"):
        build("lenet", channels=3, size=32, classes=2, width=4)
    with pytest.raises(ValueError, match="has no option 'classes_'; there are: hidden"):
        build("mlp", features=3, classes=2, classes_=3)
    net = build("mlp", features=3, classes=2, hidden=(4, 5), seed=0)
    assert [tuple(p.shape) for p in net.parameters()][::2] == [(4, 3), (5, 4), (2, 5)]


def test_a_users_factory_gets_the_shape_and_its_options() -> None:
    def factory(*, features: int, classes: int, bias: bool, **shape: object) -> nn.Module:
        assert shape == {"channels": None, "size": None}
        return nn.Linear(features, classes, bias=bias)

    net = build(factory, features=3, classes=2, bias=False, seed=0)
    assert isinstance(net, nn.Linear)
    assert net.bias is None


def test_a_factory_must_return_a_module() -> None:
    with pytest.raises(TypeError, match=r"model <lambda> must be a torch\.nn\.Module, got int"):
        build(lambda **shape: 3, classes=2)  # type: ignore[arg-type,return-value]


def test_images_need_a_shape_and_rows_need_a_width() -> None:
    with pytest.raises(ValueError, match="baidunet9 reads images and got channels=None"):
        build("baidunet9", features=12, classes=2)
    with pytest.raises(ValueError, match="mlp: features is missing"):
        build("mlp", classes=2)
    with pytest.raises(ValueError, match="features=5 does not match the 12 numbers"):
        build("mlp", features=5, channels=3, size=2, classes=2)
    assert (
        build("mlp", features=12, channels=3, size=2, classes=2, seed=0).body[0].in_features == 12
    )
    assert build("logistic", channels=3, size=(2, 5), classes=2, seed=0).head.in_features == 30


@pytest.mark.parametrize(
    ("name", "least"),
    [("baidunet9", 8), ("small-cnn", 8), ("simple-cnn", 16), ("resnet18", 9), ("resnet20", 5)],
)
def test_images_have_a_least_side_at_which_one_row_still_trains(name: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"{name}: size must be at least {least} pixels"):
        build(name, channels=1, size=(least, least - 1), classes=2)
    net = build(name, channels=1, size=least, classes=2, seed=0).train()
    net(torch.ones(1, 1, least, least)).sum().backward()


def test_lenet_takes_32_pixels_only() -> None:
    with pytest.raises(ValueError, match="lenet: size must be 32, got 28x28"):
        build("lenet", channels=1, size=28, classes=2)
    assert build("lenet", channels=1, size=32, classes=2, seed=0)(torch.ones(1, 1, 32, 32)).shape


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, None])
def test_counts_are_whole_and_positive(bad: object) -> None:
    with pytest.raises(ValueError, match="net: classes must be an integer of at least 1, got"):
        positive("net", classes=bad)
    positive("net", classes=1)


@pytest.mark.parametrize("name", [*IMAGES, "mlp", "logistic"])
def test_every_net_wants_a_class(name: str) -> None:
    with pytest.raises(ValueError, match="classes must be an integer of at least 1, got 0"):
        build(name, channels=3, size=32, classes=0)
    assert build(name, channels=3, size=32, classes=1, seed=0).head.out_features == 1


def test_shapes_are_read_in_both_forms() -> None:
    assert image("net", 3, 8) == (3, 8, 8)
    assert image("net", 3, (8, 9)) == (3, 8, 9)
    assert width_of("net", 3, (8, 9), None) == 216
    assert width_of("net", None, None, 4) == 4
    with pytest.raises(ValueError, match="size must be an integer of at least 1, got 0"):
        image("net", 3, (8, 0))


@pytest.mark.parametrize("size", [8, 9, 15, 28, 33, (8, 40)])
def test_the_small_net_takes_any_image(size: int | tuple[int, int]) -> None:
    _, height, width = image("small-cnn", 2, size)
    net = build("small-cnn", channels=2, size=size, classes=3, seed=0)
    assert net(torch.ones(2, 2, height, width)).shape == (2, 3)


def test_stacked_nets_answer_as_each_alone() -> None:
    nets = [
        Pixels(build("mlp", channels=1, size=4, classes=3, hidden=(5,), seed=s), [0.5], [0.2])
        for s in range(3)
    ]
    x = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4)
    parameters, buffers = torch.func.stack_module_state(nets)

    def one(weights: dict[str, torch.Tensor], held: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(nets[0], (weights, held), (x,))

    together = torch.func.vmap(one)(parameters, buffers)
    torch.testing.assert_close(together, torch.stack([net(x) for net in nets]))


@pytest.mark.parametrize("name", ["mlp", "dropout-mlp"])
@pytest.mark.parametrize("hidden", ["16", 16, [0], [8, "4"], [2.0], [True], None])
def test_hidden_layers_are_a_list_of_widths(name: str, hidden: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: hidden must list the width .* write hidden="):
        build(name, features=3, classes=2, hidden=hidden, seed=0)
    for good in ([16], (8, 4)):
        assert build(name, features=3, classes=2, hidden=good, seed=0).head.in_features == good[-1]


def test_a_count_that_is_no_matter_of_the_data_is_told_so() -> None:
    with pytest.raises(ValueError, match=r"width must be .* got 0; set width to a whole number"):
        build("dropout-cnn", channels=1, size=8, classes=2, width=0, seed=0)
    with pytest.raises(ValueError, match=r"classes must .* set classes to what the data holds"):
        build("dropout-cnn", channels=1, size=8, classes=0, seed=0)
