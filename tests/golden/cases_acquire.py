"""Golden cases of active acquisition: scores, selections, gradient reversal, REPAIR, samplers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evenloop.heuristics.balanced import balanced_selection
from evenloop.heuristics.batch import batch_bald, epig, joint_information
from evenloop.heuristics.posterior import MCDropout, draw_pool
from evenloop.heuristics.repair import keep_rows, repair_weights
from evenloop.heuristics.stochastic import acquisition_probabilities
from evenloop.heuristics.uncertainty import SCORES, Kind, bald, margin, mean_probs
from evenloop.heuristics.uncertainty import predictive_entropy as entropy
from evenloop.objectives.gradient_reversal import GradientReversal, adversarial_loss
from evenloop.rng import Rng
from evenloop.worlds.letters import letter_and_colour

Inputs = dict[str, Any]


def draws_of(inputs: Inputs) -> tuple[Tensor, Kind]:
    logits = "logits_N_C_T" in inputs
    values = inputs["logits_N_C_T" if logits else "probabilities_N_C_T"]
    return torch.tensor(values, dtype=torch.float64), "logits" if logits else "probs"


def score(name: str, inputs: Inputs) -> Any:
    rule = SCORES[name]
    draws, kind = draws_of(inputs)
    scores = rule.of(draws, kind=kind)
    return {
        "scores": scores.tolist(),
        "ranking": rule.urgency(draws, kind=kind).argsort(descending=True, stable=True).tolist(),
        "most_uncertain_is": "highest" if rule.highest_first else "lowest",
    }


def of_mean_logit(rule: Callable[..., Tensor], inputs: Inputs) -> Any:
    """The other library's habit: averaged logits are one draw."""
    draws, kind = draws_of(inputs)
    return {"scores": rule(draws.mean(2, keepdim=True), kind=kind).tolist()}


def balanced(inputs: Inputs) -> Any:
    draws, kind = draws_of(inputs)
    scores, group = bald(draws, kind=kind), torch.tensor(inputs["group"])
    held = torch.bincount(group)
    # the original stops at its smallest group; ours goes on, so its ranking is our beginning
    first = int(held[held > 0].min()) * int((held > 0).sum())
    order = balanced_selection(scores, len(group), group).tolist()
    assert sorted(order) == list(range(len(group)))
    return {
        "bald_scores": scores.tolist(),
        "original_order": order[:first],
        "original_order_length": len(balanced_selection(scores, first, group)),
        "pool_length": len(group),
    }


def grad_criterion(inputs: Inputs) -> Any:
    class_logits = torch.tensor(inputs["class_logits"], dtype=torch.float64)
    group_logits = torch.tensor(inputs["group_logits"], dtype=torch.float64)
    y, group = torch.tensor(inputs["target"]), torch.tensor(inputs["group"])
    train = adversarial_loss(class_logits, group_logits, y, group, inputs["lambda"])
    return {"train_loss": train.item(), "eval_loss": cross_entropy(class_logits, y).item()}


def gradient_reversal(inputs: Inputs) -> Any:
    x = torch.tensor(inputs["x"], dtype=torch.float64)
    w, u, v = (
        nn.Parameter(torch.tensor(inputs[name], dtype=torch.float64))
        for name in ("backbone_W", "class_head_U", "group_head_V")
    )
    features = x @ w.T
    y, group = torch.tensor(inputs["target"]), torch.tensor(inputs["group"])
    by_group = GradientReversal()(features) @ v.T
    loss = adversarial_loss(features @ u.T, by_group, y, group, inputs["lambda"])
    loss.backward()
    grads = {"backbone_W": w, "class_head_U": u, "group_head_V": v}
    out: Inputs = {f"grad_{name}": _grad(p) for name, p in grads.items()}
    return out | {"loss": loss.item()}


def _grad(parameter: nn.Parameter) -> Any:
    assert parameter.grad is not None
    return parameter.grad.tolist()


class TwoOutputs(nn.Module):
    """Classes in the first two columns; a second output that must not be taken."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2], x[:, :1]


def mc_layout(inputs: Inputs) -> Any:
    posterior = MCDropout(TwoOutputs(), samples=inputs["iterations"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the model has no active dropout layer")
        draws = draw_pool(posterior, torch.tensor(inputs["x"], dtype=torch.float64), rng=Rng.of(0))
    return {"output_B_C_T": draws.tolist()}


def mc_average(inputs: Inputs) -> Any:
    draws, kind = draws_of(inputs)
    right = mean_probs(draws, kind=kind)
    other = mean_probs(draws.mean(2, keepdim=True), kind=kind)
    return {
        "argmax_mean_logit": other.argmax(1).tolist(),
        "argmax_mean_prob": right.argmax(1).tolist(),
        "mean_prob": right.tolist(),
        "softmax_of_mean_logit": other.tolist(),
    }


def pair_sampler(inputs: Inputs) -> Any:
    seeds, letter, colour = letter_and_colour(
        inputs["kind"], inputs["p"], inputs["n"], inputs["dataset_seed"]
    )
    names = [["ad"[c], ("blue", "red")[k]] for c, k in zip(letter, colour, strict=True)]
    return {"sample_seeds": seeds.tolist(), "char_color": names}


def epig_scores(inputs: Inputs) -> Any:
    pool, target = (
        torch.tensor(inputs[name], dtype=torch.float64) for name in ("pool_N_C_T", "target_N_C_T")
    )
    return {"scores": epig(pool, target).tolist()}


def stochastic(inputs: Inputs) -> Any:
    scores = torch.tensor(inputs["scores"], dtype=torch.float64)
    rules = ("power", "softmax", "rank")
    return {
        rule: acquisition_probabilities(scores, rule, temperature=inputs["temperature"]).tolist()
        for rule in rules
    }


def batchbald_pairs(inputs: Inputs) -> Any:
    draws, kind = draws_of(inputs)
    n = len(draws)
    pairs = [
        [None if i == j else joint_information(draws[[i, j]], kind=kind) for j in range(n)]
        for i in range(n)
    ]
    first, second = batch_bald(draws, 2, kind=kind).tolist()
    return {
        "bald": bald(draws, kind=kind).tolist(),
        "pair_mutual_information": pairs,
        "greedy_first": first,
        "greedy_second": second,
    }


def repair(inputs: Inputs) -> Any:
    labels, attribute = torch.tensor(inputs["y"]), torch.tensor(inputs["attribute"])
    found = repair_weights(
        labels,
        attribute,
        epochs=inputs["epochs"],
        lr=inputs["lr"],
        lr_weights=inputs["lr_w"],
        momentum=inputs["momentum"],
        batch=len(labels) if inputs["batch"] == "full" else inputs["batch"],
        start=(torch.tensor(inputs["classifier_W0"]), torch.tensor(inputs["classifier_b0"])),
    )
    return {
        "weights": found.weights.tolist(),
        "class_prior_q": found.prior.tolist(),
        "bias": found.bias,
        "keep_threshold_0_5": keep_rows(found, labels).tolist(),
    }


CASES: dict[str, Callable[[Inputs], Any]] = {
    **{f"{name}_probs_": partial(score, name) for name in SCORES},
    "bald_logits": partial(score, "bald"),
    "bald_degenerate": partial(score, "bald"),
    "entropy_logits_meanlogit": partial(of_mean_logit, entropy),
    "margin_logits_meanlogit": partial(of_mean_logit, margin),
    "predictive_entropy_logits": partial(score, "entropy"),
    "balanced_bald_": balanced,
    "grad_criterion_": grad_criterion,
    "gradient_reversal_linear_": gradient_reversal,
    "mc_prediction_layout": mc_layout,
    "mc_average_logits_vs_probs": mc_average,
    "biased_pair_sampler_": pair_sampler,
    "epig": epig_scores,
    "stochastic_acquisition_": stochastic,
    "batchbald_pairs": batchbald_pairs,
    "repair_weights_": repair,
}
