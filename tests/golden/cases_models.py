"""Golden cases of the image classifiers: epochs, optimiser paths and forwards of label feedback."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evenloop.models import build
from evenloop.optimizer import build_optimizer
from evenloop.recipe import RECIPES, Recipe, paper_epochs, rate


def epochs(inputs: dict[str, Any]) -> Any:
    return [paper_epochs(n, inputs["arch"], inputs["underfit"]) for n in inputs["train_set_sizes"]]


def baidunet_path(inputs: dict[str, Any]) -> Any:
    name = "baidunet9-underfit" if inputs["underfit"] else "baidunet9"
    recipe = replace(RECIPES[name], batch=inputs["batch_size"])
    n = inputs["train_set_size"]
    assert recipe.steps_per_epoch(n) == inputs["steps_per_epoch"]
    assert recipe.epochs_for(n) == inputs["epochs"]
    rates = [
        rate(step, recipe.steps(n), recipe.steps_per_epoch(n), recipe)
        for step in range(recipe.steps(n))
    ]
    first = rates[: len(inputs["summed_gradients"])]
    return {
        f"lr_times_batch_first_{len(first)}_steps": first,
        "weights_after_each_step": weights(inputs, recipe, first),
        # The original counts its steps from 1.
        "lr_times_batch_at_probe_steps": [rates[step - 1] for step in inputs["lr_probe_steps"]],
    }


def resnet_path(inputs: dict[str, Any]) -> Any:
    recipe = replace(RECIPES["resnet18-compat"], batch=inputs["batch_size"])
    total = inputs["total_steps"]
    rates = [rate(s, total, total, recipe) for s in range(len(inputs["summed_gradients"]))]
    return {
        "lr_times_batch_used_at_each_step": rates,
        "weights_after_each_step": weights(inputs, recipe, rates),
    }


def weights(inputs: dict[str, Any], recipe: Recipe, rates: list[float]) -> list[list[float]]:
    """Our mean-loss steps on the gradients of the original's summed loss."""
    parameter = nn.Parameter(torch.tensor(inputs["initial_weights"]))
    optimizer = build_optimizer([parameter], recipe)
    path = []
    for summed, now in zip(inputs["summed_gradients"], rates, strict=True):
        parameter.grad = torch.tensor(summed) / recipe.batch
        optimizer.param_groups[0]["lr"] = now
        optimizer.step()
        path.append(parameter.tolist())
    return path


def forward(model: str) -> Callable[[dict[str, Any]], Any]:
    def case(inputs: dict[str, Any]) -> Any:
        net = build(model, channels=3, size=32, classes=10, seed=0).eval()
        fill(net, inputs["parameter_order"], inputs["shift_s"])
        shape = [int(n) for n in re.findall(r"\d+", _shape(inputs["input"]))]
        flat = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        x = torch.sin(0.013 * flat + inputs["shift_s"]).float().view(shape)
        with torch.inference_mode():
            logits = net(x)
        targets = inputs.get("targets", [0] * len(x))
        return {
            "logits": logits.tolist(),
            "loss": cross_entropy(logits, torch.tensor(targets), reduction="none").tolist(),
            "n_parameters": sum(p.numel() for p in net.parameters()),
        }

    return case


def _shape(text: str) -> str:
    """The written shape of the input, or that of the case it repeats."""
    found = re.search(r"shape ([\dx]+)", text)
    return found[1] if found else "2x3x32x32"


@torch.no_grad()
def fill(net: nn.Module, order: list[str], shift: float) -> None:
    """The sine weights of the golden file, parameter by parameter in its order."""
    parameters = list(net.parameters())
    assert [list(p.shape) for p in parameters] == [
        [int(n) for n in re.findall(r"\d+", line.split("[")[1])] for line in order
    ]
    for j, (line, parameter) in enumerate(zip(order, parameters, strict=True)):
        flat = torch.arange(parameter.numel(), dtype=torch.float64)
        parameter.copy_(_values(flat, j, line, parameter, shift).view_as(parameter))


def _values(flat: Tensor, j: int, line: str, parameter: Tensor, shift: float) -> Tensor:
    if parameter.dim() > 1:
        fan_in = parameter.numel() / len(parameter)
        return torch.sin(0.37 * flat + 0.11 * j + shift) * (2 / fan_in) ** 0.5
    wave = 0.1 * torch.sin(0.53 * flat + 0.07 * j + shift)
    return 1 + wave if ".weight" in line else wave


CASES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "epochs/": epochs,
    "optim/baidunet": baidunet_path,
    "optim/resnet": resnet_path,
    "forward/baidunet9": forward("baidunet9"),
    "forward/resnet18_cifar": forward("resnet18"),
}
