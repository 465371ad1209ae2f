"""Golden cases of the worlds: class counts after the original's imbalance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from evenloop.data import GroupedData, Schema
from evenloop.rng import Rng
from evenloop.worlds.prepare import imbalanced


def imbalance(inputs: dict[str, Any]) -> Any:
    counts = torch.tensor(inputs["counts"])
    truth = torch.arange(len(counts)).repeat_interleave(counts)
    source = GroupedData.of(torch.zeros(len(truth), 1), truth, {}, Schema(tuple(inputs["classes"])))
    kept, taken = imbalanced(
        source, track=inputs["imbalanced_class"], factor=inputs["factor"], rng=Rng.of(0)
    )
    selected = kept.truth.bincount(minlength=len(counts)).tolist()
    assert selected == list(taken.taken)
    return {"selected_counts": selected, "total": len(kept)}


CASES: dict[str, Callable[[dict[str, Any]], Any]] = {"imbalance/": imbalance}
