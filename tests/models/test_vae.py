"""VAEs and generators: shapes, noise, conditions, samples, the two-method protocol."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evenloop.fit import private_noise
from evenloop.models import seeded
from evenloop.models.count_generator import CountGenerator
from evenloop.models.generators import (
    FitsItself,
    Generates,
    build_generator,
    check_samples,
)
from evenloop.models.vae import Vae, conditioned, conv_vae
from evenloop.models.vae_layers import Folded, SubPixel
from evenloop.rng import Rng


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(cells: int = 0) -> Vae:
    return seeded(lambda: conv_vae(2, 8, widths=(4, 8), latent=3, cells=cells), 0)


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("vae28", 28, {}),
        ("vae64", 64, {}),
        ("vae64-deep", 64, {}),
        ("conv-vae", 16, {"latent": 4}),
        ("mlp-vae", 9, {"widths": (20, 10)}),
    ],
)
def test_bytes_and_floats_give_the_same_reconstruction(name, side, options):
    vae = build_generator(name, (3, side, side), seed=0, options=options).eval()
    x = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=gen())
    a, b = vae(x), vae(x.float() / 255)
    assert a.logits.shape == a.target.shape == (2, 3, side, side)
    assert a.logits.equal(b.logits)
    assert a.mu.shape == a.logvar.shape == (2, vae.latent)


def test_noise_only_in_training_and_from_the_private_stream():
    vae, x = tiny(), torch.full((1, 2, 8, 8), 0.5)
    assert vae.eval()(x).logits.equal(vae(x).logits)
    vae.train()
    rng = Rng.of(1)
    with private_noise(rng, "cpu"):
        a, b = vae(x).logits, vae(x).logits
    with private_noise(rng, "cpu"):
        again = vae(x).logits
    assert a.equal(again)
    assert not a.equal(b)


def test_samples_are_images_and_repeat_with_their_generator():
    vae = tiny().train()
    a, b = vae.sample(600, gen(3)), vae.sample(600, gen(3))
    assert a.equal(b)
    assert vae.training
    check_samples(a, (2, 8, 8))
    assert vae.sample(0, gen()).shape == (0, 2, 8, 8)


def test_conditional_vae_reads_its_cell_and_samples_by_share():
    vae = tiny(cells=4).eval()
    x = torch.zeros(2, 2, 8, 8, dtype=torch.uint8)
    made = vae(conditioned(x, torch.tensor([0, 3])))
    assert made.target.shape == (2, 2, 8, 8)
    assert not made.logits[0].equal(made.logits[1])
    assert vae(conditioned(x / 255, torch.tensor([0, 3]))).logits.allclose(made.logits)
    vae.count_cells(torch.tensor([1, 1, 2]))
    assert vae.share.tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert vae.sample(5, gen()).shape == (5, 2, 8, 8)
    assert vae.sample(0, gen()).shape == (0, 2, 8, 8)
    fixed = vae.sample(3, gen(), torch.tensor([1, 1, 2]))
    assert fixed.shape == (3, 2, 8, 8)
    with pytest.raises(ValueError, match=r"shape \(3,\) and the VAE 4 cells"):
        vae.sample(3, gen(), torch.tensor([1]))
    with pytest.raises(ValueError, match="the VAE no cells"):
        tiny().sample(1, gen(), torch.tensor([0]))


def test_other_pixel_types_are_refused():
    with pytest.raises(TypeError, match=r"uint8 or floating in \[0, 1\]"):
        tiny()(torch.zeros(1, 2, 8, 8, dtype=torch.long))


@pytest.mark.parametrize(
    ("name", "shape", "options", "match"),
    [
        ("vae28", (3, 32, 32), {}, "size must be 28"),
        ("vae64", (3, 28, 28), {}, "size must be 64"),
        ("vae128", (3, 28, 28), {}, "size must be 128"),
        ("conv-vae", (1, 10, 10), {}, "multiple of 4"),
        ("conv-vae", (1, 8, 12), {}, "must be square"),
        ("conv-vae", (1, 8, 8), {"latent": 0}, "latent must be"),
        ("conv-vae", (1, 8, 8), {"latant": 3}, "latant"),
        ("vae82", (3, 28, 28), {}, "did you mean 'vae28'"),
        ("count", (3, 28, 28), {}, "use 'conv-vae' for images"),
        ("conv-vae", (5,), {}, "reads images"),
        ("mlp-vae", (5,), {}, "reads images"),
        ("mlp-vae", (1, 8, 8), {"widths": ()}, "at least one hidden layer"),
        ("mlp-vae", (1, 8, 8), {"widths": (4, 0)}, "widths\\[1\\] must be"),
    ],
)
def test_bad_generators_are_named(name, shape, options, match):
    with pytest.raises(ValueError, match=match):
        build_generator(name, shape, seed=0, options=options)


def test_first_weights_depend_on_the_seed_alone():
    a, b, c = (build_generator("conv-vae", (1, 8, 8), seed=s) for s in (1, 1, 2))
    assert a.mu.weight.equal(b.mu.weight)
    assert not a.mu.weight.equal(c.mu.weight)


def test_the_count_generator_samples_its_shares_and_keeps_them():
    counter = build_generator("count", (2,), seed=0)
    assert isinstance(counter, FitsItself)
    assert isinstance(counter, Generates)
    assert not isinstance(tiny(), FitsItself)
    rows = torch.tensor([[0.0, 1.0]] * 30 + [[2.0, 2.0]] * 10)
    counter.fit(rows, generator=gen())
    drawn = counter.sample(20_000, gen(1))
    assert float((drawn[:, 0] == 2).double().mean()) == pytest.approx(0.25, abs=0.01)
    other = CountGenerator(2)
    other.load_state_dict(counter.state_dict())
    assert other.sample(50, gen(2)).equal(counter.sample(50, gen(2)))


def test_the_count_generator_refuses_nothing_and_other_widths():
    counter = CountGenerator(2)
    with pytest.raises(ValueError, match="call fit first"):
        counter.sample(1, gen())
    with pytest.raises(ValueError, match=r"must be \(N, 2\) with N > 0"):
        counter.fit(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="features must be at least 1"):
        CountGenerator(0)


def test_a_users_own_needs_two_methods():
    class Mean(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(features))

        def fit(self, x: Tensor, *, generator: torch.Generator) -> None:
            self.mean = x.mean(0)

        def sample(self, n: int, generator: torch.Generator) -> Tensor:
            return self.mean + torch.randn(n, len(self.mean), generator=generator)

    own = build_generator(lambda channels, size, features: Mean(features), (3,), seed=0)
    assert isinstance(own, FitsItself)
    with pytest.raises(TypeError, match=r"sample\(n, generator\)"):
        build_generator(lambda channels, size, features: nn.Linear(2, 2), (3,), seed=0)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.zeros(2, 1, 4, 5), "shape"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "floating"),
        (torch.full((2, 1, 4, 4), float("nan")), "NaN"),
        (torch.full((2, 1, 4, 4), 1.5), r"pixels must be in \[0, 1\]"),
    ],
)
def test_samples_of_wrong_shape_or_range_are_named(x, match):
    with pytest.raises(ValueError, match=match):
        check_samples(x, (1, 4, 4))
    check_samples(torch.ones(2, 1, 4, 4), (1, 4, 4))
    check_samples(torch.full((2, 3), 7.0), (3,))


def test_the_subpixel_layer_is_the_transposed_convolution():
    layer = seeded(lambda: SubPixel(5, 3), 0).double()
    x = torch.randn(2, 5, 4, 6, generator=gen(), dtype=torch.float64)
    want = nn.functional.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1)
    assert layer(x).allclose(want, atol=1e-12)
    assert set(layer.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("name", ["vae28", "vae64"])
def test_the_folded_decoder_is_its_layers_in_value_and_gradient(name):
    side = int(name[-2:])
    vae = build_generator(name, (3, side, side), seed=0).double()
    folded, z = vae.decoder, torch.randn(40, vae.latent, generator=gen(), dtype=torch.float64)
    assert isinstance(folded, Folded)
    made = {}
    for key, decoder in (("folded", folded), ("plain", nn.Sequential(*folded))):
        vae.zero_grad()
        image = decoder(z)
        image.sin().sum().backward()
        made[key] = [image.detach(), *(p.grad.clone() for p in folded.parameters())]
    for a, b in zip(made["folded"], made["plain"], strict=True):
        assert a.allclose(b, rtol=1e-10, atol=1e-12)
    for rows in (0, 1, vae.latent + 1, vae.latent + 2):
        assert folded(z[:rows]).allclose(made["plain"][0][:rows], atol=1e-12)


def test_an_option_is_named_as_the_user_knows_it():
    with pytest.raises(ValueError, match="'conv-vae' has no option 'latnt'; did you mean 'latent'"):
        build_generator("conv-vae", (1, 8, 8), seed=0, options={"latnt": 3})
    with pytest.raises(ValueError, match="'count' has no option 'latent'; there are: none"):
        build_generator("count", (3,), seed=0, options={"latent": 3})
    assert build_generator("conv-vae", (1, 8, 8), seed=0, options={"latent": 3}).latent == 3


def test_a_factory_of_ones_own_is_told_the_shape():
    def narrow(*, channels, size):
        return build_generator("conv-vae", (channels, *size), seed=0)

    def wide(*, channels, size, features):
        assert features is None
        return narrow(channels=channels, size=size)

    with pytest.raises(ValueError, match="'narrow' does not take 'features'; a factory is called"):
        build_generator(narrow, (1, 8, 8), seed=0)
    assert build_generator(wide, (1, 8, 8), seed=0).shape == (1, 8, 8)
