"""Golden cases of real and generated data under learned ratios, and of FairBatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from evenloop.samplers.averaged import Ema
from evenloop.samplers.cells import CellIndex
from evenloop.samplers.fairbatch import FairBatchSampler
from evenloop.samplers.outer import RatioObjective, row_losses
from evenloop.samplers.ratios import RatioController, Ratios, UpdateReport, Validation, cell_counts
from evenloop.samplers.rounding import Pools
from evenloop.worlds.celeba import IMAGENET_MOMENTS, VALUES, celeba_codes, folder_codes, squeeze

Case = dict[str, Any]
F64 = torch.float64


def cells_with(counts: list[list[int]]) -> CellIndex:
    """Real rows with these counts by label and group, and one generated row of every cell."""
    table = torch.tensor(counts)
    labels, groups = torch.meshgrid(*map(torch.arange, table.shape), indexing="ij")
    y = torch.cat([labels.flatten().repeat_interleave(table.flatten()), labels.flatten()])
    z = torch.cat([groups.flatten().repeat_interleave(table.flatten()), groups.flatten()])
    source = torch.cat([torch.zeros(int(table.sum())), torch.ones(table.numel())]).long()
    return CellIndex(y, z, source)


def initial_ratios(case: Case) -> Any:
    """The published program logs mu = 0.5 and starts from a logit of 0.01."""
    cells = cells_with(case["counts_real_by_y_then_z"])
    ratios = Ratios(cells, mu_init=float(torch.sigmoid(torch.tensor(0.01, dtype=F64))))
    shifted = ratios.a + ratios.lam.logsumexp(1, keepdim=True)
    return {
        "lambda_by_y_then_z": ratios.lam.tolist(),
        "lambda_logits_original": shifted.tolist(),
        "mu_reported": Ratios(cells).mu.tolist(),
        "mu_logits": ratios.b[0].tolist(),
        "per_class_batch_quota": ratios.quota(case["batch_size"]).tolist(),
    }


def composition(case: Case) -> Any:
    cells = cells_with(case.get("counts_real") or case["counts_real_train"])
    quota = cells.quota(case["batch_size"])
    lam, mu = torch.tensor(case["lambda_"], dtype=F64), torch.tensor(case["mu"], dtype=F64)
    counts = cell_counts(lam, mu, quota, case["batch_size"], "independent")
    return {
        "real_per_group": counts[0].tolist(),
        "generated_per_group": counts[1].tolist(),
        "total": int(counts.sum()),
        "per_class_batch_quota": quota.tolist(),
    }


def both(real: Case, generated: Case, classes: int, groups: int) -> tuple[Tensor, CellIndex]:
    """Inputs and cells of real rows followed by generated ones."""
    x = torch.tensor(real["x"] + generated["x"], dtype=F64)
    source = [0] * len(real["y"]) + [1] * len(generated["y"])
    y, z = real["y"] + generated["y"], real["z"] + generated["z"]
    return x, CellIndex(y, z, source, classes=classes, groups=groups)


def linear(case: Case) -> nn.Linear:
    weight = torch.tensor(case["weight"], dtype=F64)
    model = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], dtype=F64)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(torch.tensor(case["bias"], dtype=F64))
    return model


def controller(case: Case, lr: float = 0.005) -> RatioController:
    """All 128 + 128 held-out rows, fresh Adam, and the case's ratios."""
    lam = torch.tensor(case["lambda_logits"], dtype=F64).softmax(1)
    mu = torch.tensor(case["mu_logits"], dtype=F64).sigmoid()
    x, cells = both(case["real_val"], case["gen_val"], *lam.shape)
    return RatioController(
        linear(case),
        Ratios(cells, lambda_init=lam, mu_init=mu),
        RatioObjective("eqodds", accuracy_weight=case["k"]),
        Validation(x, cells),
        generator=torch.Generator(),
        draw="all",
        lr=lr,
    )


def hypergradient(case: Case) -> Any:
    control = controller(case)
    held = control.held.cells
    x = control.held.fetch(torch.arange(len(held)), control.model)
    losses = row_losses(control.model(x), held.label)
    shares, pi = control.ratios.shares, held.share.sum(1, keepdim=True)
    count = held.counts.double()
    means = torch.zeros(count.numel(), dtype=F64).index_add(0, held.place, losses.detach())
    means = means.view(count.shape) / count
    report = update(control)
    outer = losses[held.source == 0] @ report_weights(control, losses, held)
    grads = torch.autograd.grad(outer, list(control.model.parameters()))
    return {
        "group_loss_real": report.table.tolist(),
        "group_loss_gen": means[1].tolist(),
        "group_count_real_val": count[0].tolist(),
        "fairness_term": report.gap,
        "accuracy_term": report.accuracy,
        "outer": report.value,
        "inner": float((shares * pi * means).sum()),
        "d_outer_d_w_flat_weight_then_bias": torch.cat([g.flatten() for g in grads]).tolist(),
        "alignment_real": report.aligned[0].tolist(),
        "alignment_gen": report.aligned[1].tolist(),
        "hypergrad_lambda_logits": report.g_a.tolist(),
        "hypergrad_mu_logits": report.g_b[0].tolist(),
        "lambda_after_one_update": report.lam.tolist(),
        "mu_after_one_update": report.mix[0].tolist(),
    }


def report_weights(control: RatioController, losses: Tensor, held: CellIndex) -> Tensor:
    real = held.source == 0
    statistics = losses.detach()[real, None]
    return control.sight.objective.at(statistics, held.cell[real], held.shape).weight.sum(1)


def update(control: RatioController) -> UpdateReport:
    report = control.step()
    assert report is not None
    return report


def trajectory(case: Case) -> Any:
    control = controller(case, case["data_lr"])
    reports = [update(control) for _ in range(case["updates"])]
    return {
        "lambda_after_each_update": [r.lam.tolist() for r in reports],
        "mu_after_each_update": [r.mix[0].tolist() for r in reports],
    }


def joint_training(case: Case, expected: Case) -> Any:
    """Update, batch, one step of gradient descent; the batches are replayed as given."""
    control = controller(case, case["data_lr"])
    x, cells = both(case["real_train"], case["gen_train"], 2, 2)
    steps = []
    for step in expected["steps"]:
        report = update(control)
        rows = torch.tensor(step["batch_indices"])
        loss = row_losses(control.model(x[rows]), cells.label[rows]).mean()
        control.model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in control.model.parameters():
                assert p.grad is not None
                p -= case["model_sgd_lr"] * p.grad
        steps.append(
            {
                "lambda_": report.lam.tolist(),
                "mu": report.mix[0].tolist(),
                "batch_indices": step["batch_indices"],
                "train_loss": loss.item(),
                "weight": control.model.weight.tolist(),
                "bias": control.model.bias.tolist(),
            }
        )
    return {"steps": steps}


def walking(case: Case) -> Any:
    pool = torch.tensor(case["shuffled_pool"])
    pools = Pools(pool, torch.tensor([len(pool)]), torch.Generator(), shuffle=False)
    wanted = np.array([case["size"]])
    return {"cyclic": [pools.draw(wanted).tolist() for _ in range(case["batches"])]}


def image_transform(case: Case) -> Any:
    c0, c1, c2, c3 = case["coefficients"]
    row, column = np.mgrid[:218, :178]
    channels = ((c0 * row + c1 * column) % 256, (c2 * row) % 256, (c3 * column) % 256)
    pixels = np.stack(channels, -1).astype(np.uint8)
    mean, sd = (torch.tensor(v)[:, None, None] for v in IMAGENET_MOMENTS)
    x = (torch.from_numpy(squeeze(Image.fromarray(pixels))) / 255 - mean) / sd
    return {
        "shape": list(x.shape),
        "channel_mean": x.mean((1, 2)).tolist(),
        "channel_std": x.flatten(1).std(1).tolist(),
        "values": [float(x[c, i, j]) for c, i, j in case["points_channel_row_col"]],
    }


def tasks(codes: dict[str, np.ndarray], *names: str) -> Any:
    """[y, z] of every row for tasks such as "y=haircolors,z=agegender"."""
    crossed = codes | {"agegender": 2 * codes["age"] + codes["gender"]}
    out = {}
    for name in names:
        y, z = (part.split("=")[1] for part in name.split(","))
        out[name] = np.stack([crossed[y], crossed[z]], 1).tolist()
    return out


def celeba(case: Case, expected: Case) -> Any:
    return tasks(celeba_codes(case["columns"], np.array(case["rows"])), *expected)


def folders(case: Case, expected: Case) -> Any:
    parts = [name.split("_") for name in case["folders"]]
    found = {n: [p[i] for p in parts] for i, n in enumerate(case["positions"]) if n in VALUES}
    return tasks(folder_codes(found), *expected)


def ema(case: Case) -> Any:
    average, out = Ema(case["decay"]), []
    model = nn.utils.skip_init(nn.Linear, 3, 1, bias=False, dtype=F64)
    for values in case["parameter_after_each_step"]:
        model.weight.data[0] = torch.tensor(values, dtype=F64)
        average.update(model)
        out.append(average.values["weight"][0].tolist())
    return {"ema_after_each_step": out}


def fairbatch(measure: str) -> Callable[[Case], Any]:
    def run(case: Case) -> Any:
        """The published loss takes sigmoid(2 s) for the probability: a logit of 2 s."""
        x, y = torch.tensor(case["x"], dtype=F64), torch.tensor(case["y"])
        sampler = FairBatchSampler(
            CellIndex(y, case["z"]),
            case["batch_size"],
            generator=torch.Generator(),
            measure=measure,  # type: ignore[arg-type]
            alpha=case["alpha"],
            rounding="independent",
        )
        score = x @ torch.tensor(case["weight"], dtype=F64) + case["bias"]
        losses = row_losses(2 * score[:, None], sampler.targets(y))
        path, counts = [sampler.share[[1, 0], 1].tolist()], []
        for _ in range(5):
            sampler.update(losses)
            path.append(sampler.share[[1, 0], 1].tolist())
            counts.append(sampler.counts(case["batch_size"]).reshape(2, 2).tolist())
        return {
            "lambda_y1_and_y0_before_and_after_5_updates": path,
            "first_batch_counts_by_y_then_z": counts[0],  # it moves before its first batch
        }

    return run


CASES: dict[str, Callable[..., Any]] = {
    "initial_ratios_": initial_ratios,
    "batch_composition_": composition,
    "celeba_start_composition_": composition,
    "hypergradient_": hypergradient,
    "ratio_trajectory_": trajectory,
    "joint_training_trace": joint_training,
    "index_selection_without_replacement_": walking,
    "image_transform_": image_transform,
    "celeba_label_mapping": celeba,
    "generated_folder_mapping": folders,
    "ema_weights": ema,
    "fairbatch_update_eqodds": fairbatch("eqodds"),
    "fairbatch_update_eqopp": fairbatch("eqopp"),
    "fairbatch_update_dp": fairbatch("dp"),
}
