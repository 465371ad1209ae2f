"""How many labels tell a gap: the size of an audit, planned before labels are bought.

Two rates of n_a and n_b independent items differ by d. With z the normal quantiles of the wanted
error rates and p the mean rate, the two-sided test tells the gap when (Fleiss, Levin and Paik
2003, section 4.2, here for unequal sizes)

    d >= z_{1 - level/2} sqrt(p (1-p) (1/n_a + 1/n_b))
         + z_{power} sqrt(p_a (1-p_a) / n_a + p_b (1-p_b) / n_b)

The result is for a fixed split drawn at random; labels chosen by a model's uncertainty are not a
random sample of their group, and say nothing about its rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, comb, inf, sqrt
from statistics import NormalDist

import torch
from torch import Tensor

__all__ = ["LabelPlan", "detectable_gap", "label_plan", "labels_per_group", "quota_to_plan"]


def labels_per_group(
    gap: float, *, rate: float = 0.5, level: float = 0.05, power: float = 0.8
) -> int:
    """Labels needed in each of two groups to tell a gap of `gap` between their rates.

    Args:
        gap: absolute difference of the two rates, in (0, 1].
        rate: the mean of the two rates; 0.5 is the worst case.
        level: two-sided error when there is no gap.
        power: chance to see the gap when it is there.

    >>> labels_per_group(0.1), labels_per_group(0.05)
    (392, 1569)
    """
    _check(gap=gap, level=level, power=power)
    a, b = _rates(gap, rate)
    z0, z1 = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    mean = (a + b) / 2
    root = z0 * sqrt(2 * mean * (1 - mean)) + z1 * sqrt(a * (1 - a) + b * (1 - b))
    return max(2, ceil((root / gap) ** 2))


def detectable_gap(
    n_a: int, n_b: int, *, rate: float = 0.5, level: float = 0.05, power: float = 0.8
) -> float:
    """Smallest gap that n_a and n_b labels can tell; infinite if either is 0 or no gap is enough.

    >>> round(detectable_gap(392, 392), 3)
    0.1
    """
    _check(level=level, power=power)
    if min(n_a, n_b) < 1:
        return inf
    z0, z1 = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)

    def told(gap: float) -> bool:
        a, b = _rates(gap, rate)
        mean = (a + b) / 2
        no_gap = sqrt(mean * (1 - mean) * (1 / n_a + 1 / n_b))
        return gap >= z0 * no_gap + z1 * sqrt(a * (1 - a) / n_a + b * (1 - b) / n_b)

    if not told(1.0):
        return inf
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if told(middle) else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """What to label so that every pair of groups can be told apart by `gap`.

    `need` labels in each group, `have` now, `missing` to go; `reachable` says whether the pool's
    groups hold that many; `told` is the gap that the labels at hand can tell for each group
    against the largest of the others.
    """

    gap: float
    need: int
    groups: tuple[str, ...]
    have: tuple[int, ...]
    missing: tuple[int, ...]
    reachable: tuple[bool, ...]
    told: tuple[float, ...]

    def text(self) -> str:
        """One line for each group."""
        lines = [f"{self.need} labels per group tell a gap of {self.gap:g}"]
        for i, name in enumerate(self.groups):
            short = "" if self.reachable[i] else ", more than the pool holds"
            told = f"{self.told[i]:.3f}" if self.told[i] < inf else "none"
            lines.append(
                f"  {name}: {self.have[i]} labelled, {self.missing[i]} to go{short}; "
                f"tells a gap of {told} now"
            )
        return "\n".join(lines)


def label_plan(
    gap: float,
    groups: tuple[str, ...],
    have: Tensor,
    pool: Tensor,
    *,
    rate: float = 0.5,
    level: float = 0.05,
    power: float = 0.8,
    adjust: bool = True,
) -> LabelPlan:
    """The plan for G groups with `have` (G,) labels and `pool` (G,) items still unlabelled.

    Args:
        gap: the gap that matters.
        groups: names of the groups.
        have: (G,) labels at hand.
        pool: (G,) unlabelled items.
        rate, level, power: as in `labels_per_group`.
        adjust: share `level` over all pairs of groups (Bonferroni).

    >>> plan = label_plan(0.2, ("f", "m"), torch.tensor([20, 90]), torch.tensor([30, 900]))
    >>> plan.need, plan.missing, plan.reachable
    (97, (77, 7), (False, True))
    """
    if not len(groups) == len(have) == len(pool) or len(groups) < 2:
        raise ValueError(
            f"a plan needs two groups or more and one count each, got {len(groups)} groups, "
            f"{len(have)} and {len(pool)} counts"
        )
    each = level / comb(len(groups), 2) if adjust else level
    need = labels_per_group(gap, rate=rate, level=each, power=power)
    held, free = [int(n) for n in have], [int(n) for n in pool]
    missing = tuple(max(0, need - n) for n in held)
    second, largest = sorted(held)[-2:]
    most = held.index(largest)  # a group tells no gap from itself
    others = (second if i == most else largest for i in range(len(held)))
    told = tuple(
        detectable_gap(n, m, rate=rate, level=each, power=power)
        for n, m in zip(held, others, strict=True)
    )
    reachable = tuple(m <= f for m, f in zip(missing, free, strict=True))
    return LabelPlan(gap, need, groups, tuple(held), missing, reachable, told)


def quota_to_plan(plan: LabelPlan) -> Tensor | None:
    """(G,) shares that drive a query towards the plan, for `balanced_selection`; None when met.

    >>> quota_to_plan(label_plan(0.2, ("f", "m"), torch.tensor([67, 87]), torch.tensor([99, 99])))
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    missing = torch.tensor(plan.missing, dtype=torch.float64)
    return missing / missing.sum() if float(missing.sum()) > 0 else None


def _rates(gap: float, rate: float) -> tuple[float, float]:
    """Two rates `gap` apart around `rate`, moved inside [0, 1] where they stick out."""
    if not 0 < rate < 1:
        raise ValueError(f"rate must be in (0, 1), got {rate}")
    centre = min(max(rate, gap / 2), 1 - gap / 2)
    return centre - gap / 2, centre + gap / 2


def _check(**fields: float) -> None:
    for name, value in fields.items():
        if not 0 < value < 1 and not (name == "gap" and value == 1):
            raise ValueError(f"{name} must be in (0, 1), got {value}")
