"""Golden cases of the measures: group metrics, excess gaps, calibration, shares, run averages.

Two of the originals score a rate without items 0; ours calls it missing. `filled` writes their 0
into our estimates, and a gap of filled rates is taken here, because the library has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenloop.bound import feedback_bound
from evenloop.counts import Counts, Moments
from evenloop.groups import GroupIndex
from evenloop.intervals import band
from evenloop.measures import (
    Estimate,
    Parity,
    accuracy,
    accuracy_parity,
    bias,
    demographic_parity,
    divergence,
    equal_opportunity,
    equalized_odds,
    excess_gap,
    expected_calibration_error,
    false_negative_rate,
    false_positive_rate,
    precision,
    predicted_share,
    predictive_parity,
    recall,
    selection_rate,
    true_negative_rate,
    true_positive_rate,
    true_share,
)

Case = dict[str, Any]
Rates = dict[str, tuple[Callable[[Counts], Estimate], Callable[[Counts], Parity] | None]]
RATES: Rates = {
    "Accuracy": (accuracy, accuracy_parity),
    "Selection rate": (lambda c: selection_rate(c, 1), demographic_parity),
    "tpr": (lambda c: true_positive_rate(c, 1), equal_opportunity),
    "tnr": (lambda c: true_negative_rate(c, 1), None),
    "fpr": (lambda c: false_positive_rate(c, 1), None),
    "fnr": (lambda c: false_negative_rate(c, 1), None),
}


def counted(truth: Any, predicted: Any, group: Any, classes: int | tuple[str, ...] = 2) -> Counts:
    cell = torch.as_tensor(group)
    names = tuple(str(g) for g in range(int(cell.max()) + 1))
    return Counts.of(
        torch.as_tensor(predicted), torch.as_tensor(truth), GroupIndex(cell, names), classes
    )


def filled(estimate: Estimate) -> NDArray[np.float64]:
    return np.where(estimate.support > 0, estimate.value, 0.0)


def gaps(estimate: Estimate, parity: Parity | None = None) -> tuple[float, float]:
    """Difference and ratio over groups: the library's where every group has the rate."""
    if parity is not None and estimate.estimable.all():
        return parity.difference().value, parity.ratio().value
    return apart(filled(estimate))


def apart(rate: NDArray[np.float64]) -> tuple[float, float]:
    return float(np.ptp(rate)), float(rate.min() / rate.max()) if rate.max() > 0 else np.nan


def as_text(found: dict[str, float]) -> dict[str, float | str]:
    return {key: "nan" if np.isnan(value) else value for key, value in found.items()}


def metrics(case: Case) -> Any:
    if "counts_g_y_p" in case:
        table = np.array(case["counts_g_y_p"])
        counts = Counts(table, tuple(map(str, range(len(table)))), ("0", "1"))
    else:
        counts = counted(case["y_true"], case["y_pred"], case["group"])
    found: dict[str, float] = {}

    def add(name: str, rate: NDArray[np.float64], both: tuple[float, float], whole: float) -> None:
        found[f"difference_{name}"], found[f"ratio_{name}"] = both
        found[f"group_min_{name}"], found[f"group_max_{name}"] = rate.min(), rate.max()
        found[f"overall_{name}"] = whole
        found.update({f"group_{g}_{name}": rate[i] for i, g in enumerate(counts.groups)})

    for name, (measure, notion) in RATES.items():
        estimate = measure(counts)
        both = gaps(estimate, notion(counts) if notion else None)
        add(name, filled(estimate), both, filled(measure(counts.pooled()))[0])
    size = counts.support.astype(float)
    add("Count", size, apart(size), size.sum())
    odds = equalized_odds(counts)
    if all(RATES[rate][0](counts).estimable.all() for rate in ("tpr", "fpr")):
        found["derived_eodds_difference"] = odds.difference().value
        found["derived_eodds_ratio"] = odds.ratio().value
    else:
        found["derived_eodds_difference"] = max(found["difference_tpr"], found["difference_fpr"])
        found["derived_eodds_ratio"] = np.fmin(found["ratio_tpr"], found["ratio_fpr"])
    return as_text(found)


def fairness_metric(case: Case) -> Any:
    """Micro averages over classes are accuracy under four names, as its faults are listed."""
    predicted = torch.tensor(case["logits_N_C"]).argmax(1)
    counts = counted(case["y_true"], predicted, case["group"])
    parity = accuracy_parity(counts)
    per_group = zip(counts.groups, accuracy(counts).value, strict=True)
    shared = {
        f"count_{klass}_{group}": counts.table[g, k].sum()
        for g, group in enumerate(counts.groups)
        for k, klass in enumerate(counts.classes)
    }
    values = {
        "": accuracy(counts.pooled()).value[0],
        "ratio": parity.ratio().value,
        "diff": parity.difference().value,
        "equalized_odds": equalized_odds(counts).difference().value,
        "demographic_parity": demographic_parity(counts).difference().value,
    } | dict(per_group)
    return {
        name: {_key(name, key): value for key, value in values.items()} | shared
        for name in ("recall", "accuracy", "precision", "f1")
    }


def _key(name: str, key: str) -> str:
    if key in ("ratio", "diff"):
        return f"{key}_{name}"
    return f"{name}_{key}" if key else name


def group_rates(case: Case) -> Any:
    counts = counted(case["y_true"], case["y_pred"], case["group"])
    odds, parity = equalized_odds(counts), demographic_parity(counts)
    found: dict[str, Any] = {
        "equal_opportunity_gap": gaps(recall(counts, 1), equal_opportunity(counts))[0],
        "equalized_odds_difference": odds.difference().value,
        "equalized_odds_ratio": odds.ratio().value,
        "demographic_parity_difference": parity.difference().value,
        "demographic_parity_ratio": parity.ratio().value,
        "selection_rate_class1": by_group(selection_rate(counts, 1)),
    }
    for k in range(2):
        found[f"precision_class{k}"] = by_group(precision(counts, k))
        found[f"recall_class{k}"] = by_group(recall(counts, k))
        gap = gaps(precision(counts, k), predictive_parity(counts, classes=[k]))[0]
        found[f"predictive_parity_gap_class{k}"] = gap
    return found


def by_group(estimate: Estimate) -> dict[str, float]:
    return dict(zip(estimate.groups, filled(estimate).tolist(), strict=True))


def calibration(case: Case) -> Any:
    probabilities = torch.tensor(case["probabilities"], dtype=torch.float64)
    truth = torch.tensor(case["y_true"])
    confidence, predicted = probabilities.clamp(max=0.9999).max(1)
    hit = (predicted == truth).double()
    classes = probabilities.shape[1]

    def error(bins: int, cell: torch.Tensor, groups: int) -> list[float]:
        names = tuple(f"{g}|{b}" for g in range(groups) for b in range(bins))
        index = GroupIndex(cell * bins + (confidence * bins).long(), names)
        pair = (Moments.of(confidence, index), Moments.of(hit, index))
        return [float(v) for v in expected_calibration_error(*pair, bins=bins).value]

    everyone = torch.zeros_like(truth)
    return {
        "ece_10_bins": error(10, everyone, 1)[0],
        "ece_5_bins": error(5, everyone, 1)[0],
        "ece_10_bins_per_true_class": error(10, truth, classes),
    }


def excess(case: Case) -> Any:
    dense, sparse = (torch.tensor(case[f"{kind}_logits"]) for kind in ("dense", "sparse"))
    cell = GroupIndex(
        torch.tensor(case["groups"]), tuple(str(g) for g in range(case["num_groups"]))
    )
    truth = torch.tensor(case["targets"])
    before, after = (
        Counts.of(logits.argmax(1), truth, cell, logits.shape[1]) for logits in (dense, sparse)
    )
    lost = (dense.argmax(1) == truth).double() - (sparse.argmax(1) == truth).double()
    found = excess_gap(before, after, tolerance=case["tolerance"], lost=Moments.of(lost, cell))
    return {
        "dense_avg_acc": accuracy(before.pooled()).value[0],
        "dense_group_acc": accuracy(before).value,
        "sparse_avg_acc": accuracy(after.pooled()).value[0],
        "sparse_group_acc": accuracy(after).value,
        "avg_gap": found.overall,
        "group_gap": found.loss.value,
        "violation_with_tolerance": found.excess.value - found.tolerance,
        "gap_std_unbiased": np.nanstd(found.loss.value, ddof=1),
        "median_excess_gap": np.nanmedian(found.excess.value),
        "max_excess_gap": found.worst.value,
        "pairwise_disparity": found.pairwise.value,
    }


def strata_kl(case: Case) -> Any:
    assert case["ideal"].startswith("uniform over"), case["ideal"]
    return {"kl_counts_vs_ideal": divergence(case["counts"]).kl}


def class_fraction(case: Case) -> Any:
    classes, tracked = tuple(case["classes"]), case["tracked_class"]
    rows = len(case["targets"])
    counts = counted(case["targets"], case["predictions"], [0] * rows, classes)
    return {
        "accuracy": accuracy(counts).value[0],
        "frac_imbalance_class_bias": bias(counts, tracked).absolute().value[0],
        "frac_imbalance_class_pred": predicted_share(counts, tracked).value[0],
        "frac_imbalance_class_targ": true_share(counts, tracked).value[0],
    }


def lines(case: Case) -> Any:
    found = band([run["preds"] for run in case["runs"]], align="shortest", ddof=0)
    baseline = float(np.mean([run["targ"] for run in case["runs"]]))
    bound = feedback_bound(
        n0=case["n0"],
        human=case["m"],
        model=case["k"],
        delta=float(found.mean[0]) - baseline,
        rounds=len(found.mean) - 1,
    )
    return {
        "bias_line": found.mean,
        "bias_std": found.sd,
        "baseline": baseline,
        "theory_line": baseline + bound,
    }


CASES: dict[str, Callable[[Case], object]] = {
    "metrics_": metrics,
    "strata_kl_": strata_kl,
    "fairness_metric_": fairness_metric,
    "group_rates_": group_rates,
    "expected_calibration_error": calibration,
    "evaluation_metrics_": excess,
    "stat/class_fraction": class_fraction,
    "plot/lines": lines,
}
