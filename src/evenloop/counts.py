"""What is stored: integer counts and moments per group, merged by `+`. Rates come later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenloop.groups import GroupIndex

__all__ = ["Counts", "Moments"]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How often truth c met prediction c' in group g: `table` (G, C, C) int64.

    Always all `G` groups and all `C` classes, whatever the batch holds.

    >>> import torch
    >>> from evenloop.groups import GroupIndex
    >>> groups = GroupIndex(torch.tensor([0, 0, 2]), ("a", "b", "c"))
    >>> seen = Counts.of(torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0]), groups, classes=2)
    >>> seen.table[:, 1].tolist(), (seen + seen).total
    ([[1, 1], [0, 0], [0, 0]], 6)
    """

    table: np.ndarray
    groups: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        want = (len(self.groups), len(self.classes), len(self.classes))
        if self.table.shape != want:
            raise ValueError(f"table must have shape {want}, got {self.table.shape}")

    @staticmethod
    def of(
        predicted: Tensor, truth: Tensor, groups: GroupIndex, classes: int | tuple[str, ...]
    ) -> Counts:
        """Counts of predictions (N,) against truth (N,), both class codes, in one `bincount`.

        Raises:
            ValueError: the three lengths differ, or a code is no class.
        """
        names = tuple(map(str, range(classes))) if isinstance(classes, int) else classes
        if not len(predicted) == len(truth) == len(groups):
            raise ValueError(
                f"predicted has {len(predicted)} rows, truth {len(truth)}, groups {len(groups)}"
            )
        c = len(names)
        if len(truth):  # both ranges are read at once: one wait for the device
            ends = torch.stack([*predicted.aminmax(), *truth.aminmax()]).tolist()
            for what, low, high in (("predicted", *ends[:2]), ("truth", *ends[2:])):
                if low < 0 or high >= c:
                    raise ValueError(f"{what} holds {low}..{high}, classes are 0..{c - 1}")
        flat = torch.add(predicted, torch.add(truth, groups.cell, alpha=c), alpha=c)
        table = torch.bincount(flat, minlength=groups.size * c * c)
        return Counts(table.view(groups.size, c, c).cpu().numpy(), groups.names, names)

    def __add__(self, other: Counts) -> Counts:
        if (self.groups, self.classes) != (other.groups, other.classes):
            raise ValueError("counts of other groups or classes cannot be added")
        return Counts(self.table + other.table, self.groups, self.classes)

    def plain(self) -> dict[str, Any]:
        """As lists, for JSON; only the entries above zero where they are few.

        >>> seen = Counts(np.array([[[0, 9], [0, 0]]]), ("all",), ("no", "yes"))
        >>> seen.plain()["at"], Counts.from_plain(seen.plain()).table.tolist()
        ([1], [[[0, 9], [0, 0]]])
        """
        flat = self.table.reshape(-1)
        out: dict[str, Any] = {"groups": self.groups, "classes": self.classes}
        at = flat.nonzero()[0]
        if 2 * len(at) >= len(flat):
            return out | {"table": flat.tolist()}
        return out | {"at": at.tolist(), "n": flat[at].tolist()}

    @staticmethod
    def from_plain(raw: Mapping[str, Any]) -> Counts:
        """The counts that `plain` was made from."""
        groups, classes = tuple(raw["groups"]), tuple(raw["classes"])
        shape = (len(groups), len(classes), len(classes))
        if "table" in raw:
            flat = np.asarray(raw["table"], np.int64)
        else:
            flat = np.zeros(math.prod(shape), np.int64)
            flat[raw["at"]] = raw["n"]
        return Counts(flat.reshape(shape), groups, classes)

    @property
    def total(self) -> int:
        """Number of items counted."""
        return int(self.table.sum())

    @property
    def support(self) -> np.ndarray:
        """(G,) int64 items of each group."""
        return np.asarray(self.table.sum((1, 2)))

    def pooled(self) -> Counts:
        """The same items as one group called "all"."""
        return Counts(self.table.sum(0, keepdims=True), ("all",), self.classes)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Count, sum and sum of squares of one per-item statistic in each group: `table` (G, 3).

    >>> import torch
    >>> from evenloop.groups import GroupIndex
    >>> groups = GroupIndex(torch.tensor([0, 0]), ("a", "b"))
    >>> Moments.of(torch.tensor([1.0, 3.0]), groups).table.tolist()
    [[2.0, 4.0, 10.0], [0.0, 0.0, 0.0]]
    """

    table: np.ndarray
    groups: tuple[str, ...]

    @staticmethod
    def of(values: Tensor, groups: GroupIndex) -> Moments:
        """Moments of per-item `values` (N,), summed in float64."""
        values = values.double()
        columns = (groups.sum(torch.ones_like(values)), groups.sum(values), groups.sum(values**2))
        return Moments(torch.stack(columns, 1).cpu().numpy(), groups.names)

    @staticmethod
    def of_ratio(values: Tensor, weights: Tensor, groups: GroupIndex) -> Moments:
        """Moments whose mean is each group's weighted mean of `values` (N,), and whose spread its.

        Items count, not units of weight: item i enters as R + w_i / w (v_i - R), with R the
        weighted mean and w the mean weight of its group, the linear part of a ratio of two means
        (delta method). An item of weight 0 has no say.

        >>> groups = GroupIndex(torch.tensor([0, 0]), ("all",))
        >>> got = Moments.of_ratio(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0]), groups).table
        >>> got[0, :2].tolist()                      # 2 items, whose mean is 6 / 3
        [2.0, 4.0]
        """
        said = (weights > 0).nonzero().flatten()
        cells = groups.take(said)
        w, v = weights[said].double(), values[said].double()
        mean = (cells.sum(w * v) / cells.sum(w))[cells.cell]
        share = w / cells.mean(w)[cells.cell]
        return Moments.of(mean + share * (v - mean), cells)

    @staticmethod
    def of_bias(written: Tensor, given: Tensor, groups: GroupIndex) -> Moments:
        """Moments whose mean is each group's mean of `written` (N,) minus that of `given` (N,).

        Items to which a statistic does not apply are nan on that side. The count is the smaller
        of the two numbers of items that it applies to; the spread is such that the mean's standard
        error is that of a difference between two means of the same items (delta method). A group
        in which one side applies to no item has none.

        >>> groups = GroupIndex(torch.tensor([0, 0]), ("all",))
        >>> said, given = torch.tensor([1.0, 1.0]), torch.tensor([0.0, torch.nan])
        >>> Moments.of_bias(said, given, groups).table[0, :2].tolist()   # 1 item, mean 1 - 0
        [1.0, 1.0]
        """
        sides = [_Side.of(values.double(), groups) for values in (written, given)]
        n = torch.minimum(sides[0].n, sides[1].n)
        bias = sides[0].mean - sides[1].mean
        variance = groups.sum((sides[0].part - sides[1].part).square())
        squares = n * (n - 1) * variance + n * bias.square()
        table = torch.stack([n, n * bias, squares], 1).where(n[:, None] > 0, 0.0)
        return Moments(table.cpu().numpy(), groups.names)

    def __add__(self, other: Moments) -> Moments:
        if self.groups != other.groups:
            raise ValueError("moments of other groups cannot be added")
        return Moments(self.table + other.table, self.groups)


@dataclass(frozen=True, slots=True)
class _Side:
    """Of one side of a difference: (G,) items that apply, (G,) their mean, (N,) error of each."""

    n: Tensor
    mean: Tensor
    part: Tensor

    @staticmethod
    def of(values: Tensor, groups: GroupIndex) -> _Side:
        applies = ~values.isnan()
        n = groups.sum(applies.double())
        mean = groups.sum(values.nan_to_num()) / n
        # Deviations from a mean of the same items are too small by sqrt((n - 1) / n).
        scale = (n * (n - 1).clamp_min(1)).rsqrt()[groups.cell]
        part = (values.nan_to_num() - mean[groups.cell]) * scale
        return _Side(n, mean, part.where(applies, 0.0))
