"""Golden cases of generator feedback: curation, losses, colouring, mixing, models, populations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evenloop.heuristics.population import population
from evenloop.models import build
from evenloop.models.vae import FACTORIES, Reconstruction, Vae
from evenloop.objectives.vae import PRESETS, Elbo, divergence
from evenloop.samplers.fresh import mixed_sizes
from evenloop.samplers.quota import quotas, stratified_batch
from evenloop.worlds.coloured import assign_like_the_study, darken, luma, paint, replicate

Case = dict[str, Any]


def digits(text: str) -> Tensor:
    return torch.tensor([int(c) for c in text], dtype=torch.long)


def curation(case: Case) -> Any:
    """The tape holds the first draw, then the extra rows; a sample is its place on the tape."""
    cells = [
        digits(case[f"{part}_labels"]) * 2 + digits(case[f"{part}_groups"])
        for part in ("first_draw", "resample")
    ]
    tape, played = torch.cat(cells), [0]

    def draw(n: int) -> Tensor:
        played[0] += n
        return torch.arange(played[0] - n, played[0])

    made = stratified_batch(
        draw,
        lambda x: tape[x],
        batch=case["batch_size"],
        strata=4,
        budget=case["budget"],
        generator=torch.Generator().manual_seed(0),
    )
    kept = made.x[0][made.x[0] < len(cells[0])]
    return {
        "sampled_counts_c0g0_c0g1_c1g0_c1g1": made.first[0].tolist(),
        "quota_per_stratum": int(quotas(case["batch_size"], 4)[0]),
        "resampled": int(made.missing),
        "kept_from_first_draw": sorted(kept.tolist()),
        "final_counts_c0g0_c0g1_c1g0_c1g1": torch.bincount(made.cell[0], minlength=4).tolist(),
        "output_size": made.x.shape[1],
    }


def ramp(shape: list[int], m: int, lo: float, hi: float) -> Tensor:
    k = np.arange(int(np.prod(shape)), dtype=np.int64)
    values = lo + (hi - lo) * (((k * m + 17) % 1009) / 1008)
    return torch.from_numpy(values.astype(np.float32)).view(shape)


def tensor_of(spec: Any, shape: list[int]) -> Tensor:
    if isinstance(spec, dict):
        return ramp(shape, **spec)
    return torch.zeros(shape) if spec == "zeros" else torch.full(shape, float(spec.split()[0]))


def losses(case: Case) -> Any:
    image = case["image_shape"]
    latent = [image[0], case["latent"]]
    recon = tensor_of(case["recon"], image).clamp(0, 1)
    outputs = Reconstruction(
        torch.logit(recon),
        tensor_of(case["target"], image),
        tensor_of(case["mu"], latent),
        tensor_of(case["logvar"], latent),
    )
    made = {
        "bernoulli_vae_sum": PRESETS["bernoulli-sum"],
        "bernoulli_vae_sum_beta_0_25": Elbo(beta=0.25),
        "gaussian_vae_sum_clamped": PRESETS["gaussian-sum"],
        "bce_mean_plus_5e_6_kl_sum": PRESETS["bernoulli-mean"],
        "mse_mean_plus_0_00025_kl_mean": PRESETS["gaussian-mean"],
    }
    values = {name: float(elbo.cost(outputs)) for name, elbo in made.items()}
    return values | {"kl_sum": float(divergence(outputs.mu, outputs.logvar))}


def clamped(case: Case) -> Any:
    return {"gaussian_vae_sum_clamped": losses(case)["gaussian_vae_sum_clamped"]}


def at_the_prior(case: Case) -> Any:
    return {"bernoulli_vae_sum": losses(case)["bernoulli_vae_sum"], "closed_form": "2352*ln 2"}


def coloured_grey(case: Case) -> Any:
    grey = torch.tensor(case["gray"], dtype=torch.uint8)[None]
    image = paint(grey, torch.tensor([case["group"]]))[0]
    return {"rgb": image.permute(1, 2, 0).tolist()}


def coloured_street(case: Case) -> Any:
    rgb = torch.tensor(case["rgb"], dtype=torch.uint8).permute(2, 0, 1)[None]
    image = paint(luma(rgb), torch.tensor([case["group"]]))[0]
    return {"rgb": image.permute(1, 2, 0).tolist()}


def variant(change: Callable[[Tensor, Case], Tensor]) -> Callable[[Case], Any]:
    def run(case: Case) -> Any:
        rgb = torch.tensor(case["rgb"], dtype=torch.uint8).permute(2, 0, 1)[None]
        return {"rgb": change(rgb, case)[0].permute(1, 2, 0).tolist()}

    return run


def assignment(positive: str) -> Callable[[Case], Any]:
    def run(case: Case) -> Any:
        label, group = assign_like_the_study(
            digits(case["digits"]).numpy(),
            threshold=case["threshold"],
            positive=positive,
            p_majority=(case["p_group0_given_y0"], case["p_group0_given_y1"]),
            legacy_seed=case["legacy_numpy_seed"],
        )
        return {"labels": "".join(map(str, label)), "groups": "".join(map(str, group))}

    return run


def assignment_at_size(case: Case) -> Any:
    """Uniform digits from our own stream; the stated tolerance is binomial noise."""
    digit = np.random.Generator(np.random.Philox(5)).integers(0, 10, case["n_digits"])
    label, group = assign_like_the_study(
        digit,
        threshold=case["threshold"],
        positive="high",
        p_majority=(case["p_group0_given_y0"], case["p_group0_given_y1"]),
        legacy_seed=11,
        noise=case["noise"],
    )
    strata = np.bincount(label * 2 + group, minlength=4) / len(label)
    return {
        "n_train": 50_001,
        "strata_fractions_c0g0_c0g1_c1g0_c1g1": strata.tolist(),
        "flip_rate": float((label != (digit >= case["threshold"])).mean()),
        "p_group0_given_y0": float((group[label == 0] == 0).mean()),
        "p_group0_given_y1": float((group[label == 1] == 0).mean()),
    }


def mixing(case: Case) -> Any:
    pairs = [mixed_sizes(batch, share) for batch, share in case["cases"]]
    return {"synthetic": [a for a, _ in pairs], "natural": [b for _, b in pairs]}


def in_their_order(model: nn.Module, shapes: list[list[int]]) -> list[nn.Parameter]:
    """Our parameters in the original's order of registration, told apart by their shapes."""
    ours, order = list(model.parameters()), []
    for shape in shapes:
        place = next(i for i, p in enumerate(ours) if list(p.shape) == shape)
        order.append(ours.pop(place))
    assert not ours
    return order


def formula_weights(model: nn.Module, mult: int, shapes: list[list[int]] | None) -> nn.Module:
    with torch.no_grad():
        order = in_their_order(model, shapes) if shapes else list(model.parameters())
        for j, p in enumerate(order):
            k = np.arange(p.numel(), dtype=np.int64)
            scale = 2 / np.sqrt(np.prod(p.shape[1:])) if p.ndim > 1 else 0.1
            values = ((((k * mult + 31 * j) % 997) / 996) - 0.5) * scale
            p.copy_(torch.from_numpy(values.astype(np.float32)).view(p.shape))
    return model.eval()


def made(name: str, size: int) -> nn.Module:
    """A model whose weights are about to be overwritten; nothing is drawn."""
    with torch.device("meta"):
        model = build(FACTORIES.get(name, name), channels=3, size=size, classes=2)
    return model


def filled(name: str, case: Case) -> nn.Module:
    model = made(name, case["input_shape"][2]).to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    return formula_weights(model, case["mult"], case.get("parameter_shapes"))


def autoencoder(name: str) -> Callable[[Case], Any]:
    def run(case: Case) -> Any:
        vae = filled(name, case)
        assert isinstance(vae, Vae)
        with torch.no_grad():
            mu, logvar = vae.encode(ramp(case["input_shape"], case["m_in"], 0, 1))
            image = vae.decode(ramp([case["input_shape"][0], vae.latent], 23, -2, 2))
        return {
            "parameter_count": sum(p.numel() for p in vae.parameters()),
            "mu_first5": mu.flatten()[:5].tolist(),
            "logvar_first5": logvar.flatten()[:5].tolist(),
            "decoded_shape": list(image.shape),
            "decoded_mean": float(image.mean()),
            "decoded_std": float(image.std()),
            "decoded_first5": image.flatten()[:5].tolist(),
            "decoded_channel_means": image.mean((0, 2, 3)).tolist(),
        }

    return run


def classifier(name: str) -> Callable[[Case], Any]:
    def run(case: Case) -> Any:
        model = filled(name, case)
        with torch.no_grad():
            logits = model(ramp(case["input_shape"], case["m_in"], 0, 1))
        return {
            "parameter_count": sum(p.numel() for p in model.parameters()),
            "output_shape": list(logits.shape),
            "logits": logits.tolist(),
        }

    return run


def parameters(name: str, size: int) -> Callable[[Case], Any]:
    def run(case: Case) -> Any:
        sizes = [p.numel() for p in made(name, size).parameters()]
        return {"parameter_count": sum(sizes), "parameter_tensors": len(sizes)}

    return run


def classifier_steps(case: Case) -> Any:
    model = filled("simple-cnn", case)
    x, y = ramp(case["input_shape"], case["m_in"], 0, 1), digits(case["labels"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return {
        "losses": steps(model, x, optimizer, case, lambda out: nn.functional.cross_entropy(out, y))
    }


def generator_steps(case: Case) -> Any:
    model = filled("vae28", case)
    x = ramp(case["input_shape"], case["m_in"], 0, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    return {"losses": steps(model, x, optimizer, case, PRESETS["bernoulli-sum"].cost)}


def steps(
    model: nn.Module,
    x: Tensor,
    optimizer: torch.optim.Optimizer,
    case: Case,
    loss_of: Callable[[Any], Tensor],
) -> list[float]:
    seen = []
    for _ in range(case["steps"]):
        loss = loss_of(model(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    return seen


def populations(case: Case) -> Any:
    stats = population(
        torch.tensor(case["label_logits"]), torch.tensor(case["group_logits"]), groups=2
    )
    return {
        "label_balance": float(stats.label_share[1]),
        "group_balance": float(stats.group_share[1]),
        "mean_margin_group0": float(stats.margin[0]),
        "mean_margin_group1": float(stats.margin[1]),
    }


CASES: dict[str, Callable[[Case], Any]] = {
    "rep_": curation,
    "loss_a": losses,
    "loss_b": losses,
    "loss_clamp": clamped,
    "loss_kl_zero": at_the_prior,
    "colour_gray_red": coloured_grey,
    "colour_svhn_group": coloured_street,
    "colour_svhn_darken_variant": variant(lambda rgb, case: darken(rgb, case["factor"])),
    "colour_svhn_gray_variant": variant(lambda rgb, case: replicate(rgb)),
    "assign_mnist_": assignment("high"),
    "assign_svhn_": assignment("low"),
    "assign_stats_large": assignment_at_size,
    "mixing_split": mixing,
    "model_colored_mnist_vae": autoencoder("vae28"),
    "model_colored_svhn_vae": autoencoder("vae64"),
    "model_simple_cnn": classifier("simple-cnn"),
    "model_lenet_32px": classifier("lenet"),
    "model_resnet20_64px": classifier("resnet20"),
    "params_celeba_vae_128px": parameters("vae128", 128),
    "params_celeba_vae_64px_unused": parameters("vae64-deep", 64),
    **{f"params_resnet{d}": parameters(f"resnet{d}", 32) for d in (32, 44, 56, 110)},
    "train_steps_classifier": classifier_steps,
    "train_steps_generator": generator_steps,
    "population_stats_": populations,
}
