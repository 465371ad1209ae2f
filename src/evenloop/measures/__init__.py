"""Measures: pure functions of stored counts and moments.

Each returns an `Estimate` (a value per group with its limits and count) or a `Gap` (the widest
distance, with what was left out). Nothing here looks at a model, so a new measure works on old
runs.
"""

from evenloop.measures.aggregates import (
    macro,
    mean,
    spread,
    worst_cell_accuracy,
    worst_group_accuracy,
)
from evenloop.measures.calibration import Reliability, expected_calibration_error, reliability
from evenloop.measures.estimate import MIN_SUPPORT, Estimate, Excluded, Gap
from evenloop.measures.excess import (
    ExcessGap,
    Levelling,
    accuracy_loss,
    excess_gap,
    levelling_down,
)
from evenloop.measures.notions import (
    accuracy_parity,
    demographic_parity,
    equal_opportunity,
    equalized_odds,
    predictive_parity,
)
from evenloop.measures.parity import Parity
from evenloop.measures.proportions import (
    OneVsRest,
    accuracy,
    bias,
    cell_accuracy,
    error_rate,
    f1,
    false_negative_rate,
    false_positive_rate,
    precision,
    predicted_share,
    recall,
    selection_rate,
    true_negative_rate,
    true_positive_rate,
    true_share,
)
from evenloop.measures.shares import Divergence, cell_shares, divergence, shares
from evenloop.measures.table import RateTable, rate_table

__all__ = [
    "MIN_SUPPORT",
    "Divergence",
    "Estimate",
    "ExcessGap",
    "Excluded",
    "Gap",
    "Levelling",
    "OneVsRest",
    "Parity",
    "RateTable",
    "Reliability",
    "accuracy",
    "accuracy_loss",
    "accuracy_parity",
    "bias",
    "cell_accuracy",
    "cell_shares",
    "demographic_parity",
    "divergence",
    "equal_opportunity",
    "equalized_odds",
    "error_rate",
    "excess_gap",
    "expected_calibration_error",
    "f1",
    "false_negative_rate",
    "false_positive_rate",
    "levelling_down",
    "macro",
    "mean",
    "precision",
    "predicted_share",
    "predictive_parity",
    "rate_table",
    "recall",
    "reliability",
    "selection_rate",
    "shares",
    "spread",
    "true_negative_rate",
    "true_positive_rate",
    "true_share",
    "worst_cell_accuracy",
    "worst_group_accuracy",
]
