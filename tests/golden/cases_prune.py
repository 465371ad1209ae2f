"""Golden cases of pruning under constraints: schedule, masks, buffers, states, trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.duals import DualAscent, Multipliers
from evenloop.objectives.equalized_loss import EqualizedLoss
from evenloop.objectives.reference import Reference, group_count, group_ids, group_mean, item_losses
from evenloop.objectives.ring import GroupRing
from evenloop.surgery.layers import masked_batch_norm
from evenloop.surgery.magnitude import magnitude_masks
from evenloop.surgery.schedule import Cubic, pruned_count

AMPLE = 10**6  # items of every group, so that no buffer is larger than its group


def schedule(inputs: dict[str, Any]) -> Any:
    cubic = Cubic(
        inputs["sparsity_final"],
        inputs["init_pruning_epoch"],
        inputs["last_pruning_epoch"],
        inputs["pruning_frequency"],
        inputs["sparsity_initial"],
    )
    return {
        "sparsity": [cubic.sparsity(t) for t in inputs["epochs"]],
        "should_sparsify": [cubic.fires(t) for t in inputs["epochs"]],
    }


def masks(inputs: dict[str, Any]) -> Any:
    weight = torch.tensor(inputs["weight"])
    mask, found = torch.ones_like(weight), []
    updates = inputs["additive_updates_after_each_prune"]
    for sparsity, update in zip(inputs["sparsities"], updates, strict=True):
        mask = magnitude_masks({"": weight}, {"": mask}, sparsity)[""].float()
        found.append(mask.flatten())
        weight = weight + torch.tensor(update)
    return {
        "masks_flat_row_major": [m.int().tolist() for m in found],
        "active": [int(m.sum()) for m in found],
    }


def rounding(inputs: dict[str, Any]) -> Any:
    # The original takes the ceiling of the floating product, one weight too many at times; ours
    # is exact.
    return {
        "pruned": [math.ceil(s * n) for s, n in inputs["cases"]],
        "exact_ceiling": [pruned_count(s, n) for s, n in inputs["cases"]],
    }


def buffer(inputs: dict[str, Any]) -> Any:
    sizes, whole = inputs["groups_per_attribute"], inputs["intersectional"]
    groups = math.prod(sizes) if whole else sum(sizes)
    ring, after = GroupRing(torch.full((groups,), inputs["memory"])), []
    for step in inputs["steps"]:
        cell = group_ids(torch.tensor(step["attributes"]), sizes, intersectional=whole)
        ring.push(torch.tensor(step["metric"], dtype=torch.float), cell)
        full, mean = ring.full, ring.mean()
        after.append(
            {
                "contents_oldest_first": [row.tolist() for row in ring.contents()],
                "fill": ring.fill.tolist(),
                "query_counts": (ring.fill * full).tolist(),
                "query_means": mean.tolist(),
                "query_avg_over_full_groups": float(mean.sum() / full.sum().clamp(min=1)),
            }
        )
    return {"after_each_step": after}


def means(inputs: dict[str, Any]) -> Any:
    sizes, whole = inputs["groups_per_attribute"], inputs["intersectional"]
    cell = group_ids(torch.tensor(inputs["attributes"]), sizes, intersectional=whole)
    groups = math.prod(sizes) if whole else sum(sizes)
    mean, count = group_mean(torch.tensor(inputs["values"]), cell, groups)
    return {"mean": mean.tolist(), "count": count.int().tolist()}


def _reference(inputs: dict[str, Any]) -> Reference:
    return Reference(
        torch.tensor(inputs["dense_avg_acc"]),
        torch.tensor(inputs["dense_avg_loss"]),
        torch.tensor(inputs["dense_group_acc"]),
        torch.tensor(inputs["dense_group_loss"]),
        torch.full((inputs["num_groups"],), AMPLE),
    )


def _problem(inputs: dict[str, Any]) -> AccuracyGap | EqualizedLoss:
    options: dict[str, Any] = {
        "buffer_size": inputs["buffer_memory"],
        "average": "macro",
        "average_gradient": "detached" if inputs.get("detach_average") else "full",
        "dual": DualAscent(inputs.get("dual_sgd", {"lr": 0.0})["lr"]),
    }
    if inputs["tolerance"] is None:
        absolute = inputs["absolute_value"]
        return EqualizedLoss(_reference(inputs), absolute=absolute, **options)
    return AccuracyGap(_reference(inputs), inputs["tolerance"], **options)


def _listed(values: Tensor, where: Tensor) -> tuple[list[int], list[float]]:
    return where.nonzero().flatten().tolist(), values[where].tolist()


def states(inputs: dict[str, Any]) -> Any:
    problem, found = _problem(inputs), []
    for batch in inputs["batches"]:
        logits, y = torch.tensor(batch["logits"]), torch.tensor(batch["targets"])
        cell = torch.tensor(batch["groups"])
        losses = item_losses(logits, y)
        proxy, count = problem.proxies(losses, cell)
        violation, known = problem.measure(logits, y, cell, group_count(cell, len(count)))
        primal, dual = _listed(proxy, count > 0), _listed(violation, known)
        found.append(
            {
                "loss": float(losses.mean()),
                "primal_indices": primal[0],
                "primal_violation": primal[1],
                "dual_indices": dual[0],
                "dual_violation": dual[1],
            }
        )
    return {
        "per_batch": found,
        "num_constraints_observed_before_last_pruning_epoch": _early(inputs),
    }


def _early(inputs: dict[str, Any]) -> int:
    """Groups with an estimate after one batch before `start`: mitigation is off."""
    batch = inputs["batches"][0]
    options = {"buffer_size": inputs["buffer_memory"], "start": 1}
    problem = (
        EqualizedLoss(_reference(inputs), **options)
        if inputs["tolerance"] is None
        else AccuracyGap(_reference(inputs), inputs["tolerance"], **options)
    )
    columns = (batch["logits"], batch["targets"], batch["groups"])
    problem.loss(*(torch.tensor(c) for c in columns))
    return int(problem.has_estimate.sum())


def multipliers(inputs: dict[str, Any]) -> Any:
    size = inputs["num_constraints"]
    rule = DualAscent(inputs["dual_lr"], restart=inputs["restart_on_strictly_feasible"])
    dual, path = Multipliers(size, rule, inequality=inputs["type"] == "inequality"), []
    for step in inputs["steps"]:
        violation, known = torch.zeros(size), torch.zeros(size, dtype=torch.bool)
        at = torch.tensor(step["indices"], dtype=torch.long)
        violation[at], known[at] = torch.tensor(step["violation"], dtype=torch.float), True
        path.append(dual.ascend(violation, known).tolist())
    return {"multipliers_after_each_step": path}


def proportional(inputs: dict[str, Any]) -> Any:
    rule = DualAscent(inputs["dual_lr"], inputs["kp"], inputs["ki"], inputs["ema"])
    dual = Multipliers(inputs["num_constraints"], rule)
    known = torch.ones(inputs["num_constraints"], dtype=torch.bool)
    steps = inputs["violations_all_constraints"]
    return {
        "multipliers_after_each_step": [
            dual.ascend(torch.tensor(violation), known).tolist() for violation in steps
        ]
    }


def training(inputs: dict[str, Any]) -> Any:
    x, y = torch.tensor(inputs["X"]), torch.tensor(inputs["y"])
    group, problem = torch.tensor(inputs["group"]), _problem(inputs)
    weight = nn.Parameter(torch.tensor(inputs["initial_weight"]))
    optimizer, path = torch.optim.SGD([weight], **inputs["primal_sgd"]), []
    for rows in inputs["batches"]:
        optimizer.zero_grad()
        logits = x[rows] @ weight.T
        value = problem.loss(logits, y[rows], group[rows])
        value.backward()
        optimizer.step()
        dual = _listed(problem.violation, problem.has_estimate)
        path.append(
            {
                "loss": item_losses(logits.detach(), y[rows]).mean(),
                "lagrangian": value.detach(),
                "dual_indices": dual[0],
                "dual_violation": dual[1],
                "multipliers": problem.multipliers.tolist(),
                "weight": weight.tolist(),
            }
        )
    return {"per_step": path}


def batch_norm(inputs: dict[str, Any]) -> Any:
    x, active = torch.tensor(inputs["x"]), torch.tensor(inputs["active_channels"]).float()
    norm = nn.BatchNorm2d(x.shape[1], eps=inputs["eps"], momentum=inputs["momentum"])
    names = ("weight", "bias", "running_mean", "running_var")
    norm.load_state_dict({name: torch.tensor(inputs[name]) for name in names}, strict=False)
    norm.train(inputs["training"])
    out = masked_batch_norm(x, norm, active)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return {
        "output": out.tolist(),
        "running_mean_after": norm.running_mean.tolist(),
        "running_var_after": norm.running_var.tolist(),
    }


CASES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "sparsity_schedule": schedule,
    "iterated_magnitude_masks": masks,
    "prune_count_rounding": rounding,
    "cyclic_buffer": buffer,
    "group_mean": means,
    "ceag_state": states,
    "equalized_loss_state": states,
    "multiplier_trajectory": multipliers,
    "pi_multiplier_trajectory": proportional,
    "ceag_training_trajectory": training,
    "equalized_loss_training_trajectory": training,
    "masked_batch_norm": batch_norm,
}
