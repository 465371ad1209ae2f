"""What a generator makes of the groups: label and group shares, annotators' margins, drift.

Statistics of a generated population as in Wyllie, Shumailov and Papernot, "Fairness Feedback
Loops" (FAccT 2024). They are measured through annotators: a drift in them is a drift of what the
annotators see, not of people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from evenloop.groups import GroupIndex

__all__ = ["Absorbed", "Population", "absorbed", "population"]

MARGIN = 0.5
Absorbed = Literal["none", "constant 0", "constant 1", "group rule"]


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Counts and shares of a generated sample of n rows with C labels and G groups.

    `strata` (C * G,) int64 counts label x group, the group varying fastest; `label_share` (C,)
    and `group_share` (G,) are shares of it. `margin` (G,) is the mean distance between the two
    largest group probabilities over rows annotated as that group whose distance is at least 0.5,
    `sure` (G,) int64 their number; a group without such rows has margin nan.
    """

    strata: Tensor
    label_share: Tensor
    group_share: Tensor
    margin: Tensor
    sure: Tensor


def population(label_logits: Tensor, group_logits: Tensor, *, groups: int) -> Population:
    """Statistics of n generated rows from the annotators' logits (n, C) and (n, G).

    Raises:
        ValueError: the numbers of rows differ, or `groups` is not the width of `group_logits`.

    >>> two = torch.tensor([[9.0, 0.0], [0.0, 9.0], [0.0, 9.0], [0.0, 0.1]])
    >>> made = population(two, two, groups=2)
    >>> made.strata.tolist(), made.group_share.tolist(), made.sure.tolist()
    ([1, 0, 0, 3], [0.25, 0.75], [1, 2])
    """
    if len(label_logits) != len(group_logits) or group_logits.shape[1] != groups:
        raise ValueError(
            f"label_logits {tuple(label_logits.shape)} and group_logits "
            f"{tuple(group_logits.shape)} must have the same rows, and {groups} groups"
        )
    classes = label_logits.shape[1]
    label, group = label_logits.argmax(1), group_logits.argmax(1)
    strata = torch.bincount(label * groups + group, minlength=classes * groups)
    table = strata.view(classes, groups).double()
    top = group_logits.double().softmax(1).topk(2, dim=1).values
    distance = top[:, 0] - top[:, 1]
    sure = distance >= MARGIN
    by_group = GroupIndex(group[sure], tuple(map(str, range(groups))))
    return Population(
        strata,
        table.sum(1) / table.sum(),
        table.sum(0) / table.sum(),
        by_group.mean(distance[sure]),
        by_group.count(),
    )


def absorbed(table: Tensor, *, tolerance: float = 0.02) -> Absorbed:
    """Which absorbing state a classifier is in, from its counts (G, 2, 2): truth by prediction.

    "constant 0" and "constant 1": at least 1 - `tolerance` of every present group gets that
    label; "group rule": the label is decided by the group; otherwise "none". The end states of
    collapsed chains in the study's released runs.

    Raises:
        ValueError: the table is not (G, 2, 2), or holds no item.

    >>> absorbed(torch.tensor([[[0, 50], [0, 50]], [[49, 1], [50, 0]]]))
    'group rule'
    """
    if table.ndim != 3 or table.shape[1:] != (2, 2) or not int(table.sum()):
        raise ValueError(f"table must be (G, 2, 2) with items, got {tuple(table.shape)}")
    table = table.double()
    support = table.sum((1, 2))
    selected = (table[:, :, 1].sum(1) / support)[support > 0]
    ones, zeros = selected >= 1 - tolerance, selected <= tolerance
    if bool(ones.all()):
        return "constant 1"
    if bool(zeros.all()):
        return "constant 0"
    return "group rule" if bool((ones | zeros).all()) else "none"
