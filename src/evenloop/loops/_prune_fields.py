"""What the fields of `prune` may be, and which of them contradict each other.

Private to `evenloop.loops.prune`. The parts check their own arguments too; here the message names
the field as the user wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from evenloop.objectives.accuracy_gap import Average, MemoryKind
from evenloop.objectives.duals import AverageGradient
from evenloop.recipe import Recipe
from evenloop.surgery.layers import FIRST_CONV, LAST_LINEAR
from evenloop.surgery.semi_structured import MOST

if TYPE_CHECKING:
    from evenloop.loops.prune import Prune

__all__ = ["check_fields"]

CHOICES: dict[str, tuple[Any, ...]] = {
    "method": ("none", "equalized_loss", "accuracy_gap"),
    "structure": ("unstructured", "2:4", "channel", "int8"),
    "scope": ("layer", "global", "erk"),
    "average": get_args(Average),
    "average_gradient": (None, *get_args(AverageGradient)),
    "memory": get_args(MemoryKind),
    "select": ("last", "feasible"),
    "int8": (False, True, "dynamic"),
}
SHARES = ("dual_ema", "dual_momentum")  # in [0, 1)


def check_fields(loop: Prune) -> None:
    """Raise ValueError unless every field of `loop` is in range and fits the others."""
    for name, known in CHOICES.items():
        if (value := getattr(loop, name)) not in known:
            listed = ", ".join("null" if k is None else str(k) for k in known)
            raise ValueError(f"{name} must be one of {listed}, got {value!r}")
    _check_pruning(loop)
    _check_constraint(loop)
    _check_multipliers(loop)
    if loop.rows is not None and loop.rows < 1:
        raise ValueError(f"rows must be at least 1, or None for all, got {loop.rows}")
    if not 0 <= loop.distil <= 1:
        raise ValueError(f"distil must be in [0, 1], got {loop.distil}")
    known_fields = Recipe.__dataclass_fields__
    for key in loop.tune:
        if key not in known_fields:
            raise ValueError(f"tune has no field {key!r}; a recipe has: {', '.join(known_fields)}")


def _check_pruning(loop: Prune) -> None:
    if not loop.levels:
        raise ValueError("sparsity needs at least one value, got none")
    for level in loop.levels:
        if not 0 <= level < 1:
            raise ValueError(
                f"sparsity must be in [0, 1), the share of weights to remove, got {level}"
            )
        if loop.structure == "2:4" and level > MOST:
            raise ValueError(
                f'structure="2:4" removes at most half of the weights, got sparsity={level}; '
                "use sparsity=0.5"
            )
    if not 0 <= loop.sparsity_start <= min(loop.levels):
        raise ValueError(
            f"sparsity_start must be in [0, sparsity={min(loop.levels)}], as pruned weights do not "
            f"come back, got {loop.sparsity_start}; use 0"
        )
    if loop.prune_until < 0:
        raise ValueError(
            f"prune_until must be an epoch >= 0 (0 prunes at once), got {loop.prune_until}"
        )
    if loop.prune_every < 1:
        raise ValueError(f"prune_every must be at least 1 epoch, got {loop.prune_every}")
    if loop.structure != "unstructured" and loop.scope != "layer":
        raise ValueError(
            f"scope is for structure=unstructured, got scope={loop.scope} with "
            f"structure={loop.structure}; leave scope out"
        )
    if loop.structure == "int8" and set(loop.keep_dense) != {FIRST_CONV, LAST_LINEAR}:
        raise ValueError(
            f"structure=int8 rounds every layer, got keep_dense={tuple(loop.keep_dense)}; leave "
            "keep_dense out"
        )


def _check_constraint(loop: Prune) -> None:
    if loop.method == "accuracy_gap" and loop.tolerance is None:
        raise ValueError(
            "method='accuracy_gap' needs tolerance=, the excess accuracy gap you accept "
            "(0.01 is one percentage point)"
        )
    if loop.tolerance is not None and not 0 <= loop.tolerance < 1:
        raise ValueError(f"tolerance must be a fraction in [0, 1), got {loop.tolerance}")
    if loop.two_sided and (loop.method != "accuracy_gap" or loop.average_gradient == "bounded"):
        raise ValueError(
            "two_sided=true is for method=accuracy_gap with average_gradient full or detached, "
            f"got method={loop.method}, average_gradient={loop.average_gradient}"
        )
    if loop.method == "equalized_loss" and loop.average_gradient == "bounded":
        raise ValueError(
            "average_gradient=bounded needs multipliers >= 0, those of method=equalized_loss have "
            "no sign; use full or detached"
        )
    if loop.select == "feasible" and loop.tolerance is None:
        raise ValueError("select=feasible needs tolerance=, which it is about")
    if not 0 <= loop.margin <= (loop.tolerance or 0):
        raise ValueError(
            f"margin must be in [0, tolerance={loop.tolerance}], got {loop.margin}; it needs "
            "a tolerance to stay below"
        )
    if not 0 <= loop.floor <= 1:
        raise ValueError(f"floor must be in [0, 1], a weight of the mean loss, got {loop.floor}")
    start: Any = loop.constrain_from
    if start not in ("pruning_end", "start") and not (type(start) is int and start >= 0):
        raise ValueError(
            f"constrain_from must be pruning_end, start, or an epoch >= 0, got {start!r}"
        )
    size: Any = loop.buffer_size
    if size not in ("auto", None) and not (type(size) is int and size >= 1):
        raise ValueError(f'buffer_size must be an integer >= 1, "auto" or None, got {size!r}')


def _check_multipliers(loop: Prune) -> None:
    for name in ("dual_lr", "dual_kp"):
        if not 0 <= (value := getattr(loop, name)) < float("inf"):
            raise ValueError(f"{name} must be finite and >= 0, got {value}")
    for name in SHARES:
        if not 0 <= (value := getattr(loop, name)) < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}")
    if loop.dual_cap is not None and not loop.dual_cap > 0:
        raise ValueError(f"dual_cap must be positive, or None for no cap, got {loop.dual_cap}")
    if loop.dual_kp and loop.dual_momentum:
        raise ValueError(
            "give dual_kp or dual_momentum, not both, got "
            f"dual_kp={loop.dual_kp}, dual_momentum={loop.dual_momentum}"
        )
