"""What a reparation budget can and cannot repair, before a run.

With independent draws the number of rows of stratum k in a first draw of B + b rows is binomial,
so what STAR keeps, what it has to fill and the mix it ends with have closed forms. The strata
shares come from the data, from a generated population, or from a guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evenloop.samplers.quota import Fill, budget_of, check_rule, quotas, stratified_batch

__all__ = ["Plan", "binomial", "plan_reparation"]

SIMULATED_BATCHES = 4000


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Expected outcome of curating batches: everything (K,) float64 is by stratum.

    Attributes:
        batch, budget: rows of a batch and rows drawn beyond it.
        share: (K,) strata shares of the source.
        quota: (K,) int64 rows kept at most.
        full: (K,) chance that the stratum reaches its quota by filtered draws, no row repeated.
        drawn: (K,) chance that filtered draws hold the stratum at all.
        kept: (K,) expected rows kept of filtered draws.
        final: (K,) expected share in the finished batch.
        missing: expected rows of a batch that the fill rule has to supply.
        ideal: (K,) target shares.
        fill: the fill rule.
        turns: how often `budget` rows are drawn and filtered.
        exact: False where `final` was simulated (the rule "surplus" has no closed form).
    """

    batch: int
    budget: int
    share: Tensor
    quota: Tensor
    full: Tensor
    drawn: Tensor
    kept: Tensor
    final: Tensor
    missing: float
    ideal: Tensor
    fill: Fill
    turns: int = 1
    exact: bool = True

    def unfillable(self, chance: float = 0.001) -> list[int]:
        """Strata whose quota is filled in less than `chance` of the batches.

        "repeat" fills the quota of every stratum that is drawn at all.
        """
        return self._rarer(self.drawn if self.fill == "repeat" else self.full, chance)

    def warnings(self, names: Sequence[str] | None = None) -> list[str]:
        """One sentence for each stratum that this budget does not repair, or not by its own rows.

        >>> plan = plan_reparation([0.01, 0.99], batch=256, budget=64, fill="repeat")
        >>> print(plan.warnings(["red", "green"])[0][-69:])
        each stands for about 38.4 places; expect 48.015% instead of 50.000%.
        """
        names = names or [str(k) for k in range(len(self.quota))]
        return [
            f"stratum {names[k]} ({self.share[k]:.3%} of the source) reaches its quota of "
            f"{int(self.quota[k])} of {self.batch} in {self.full[k]:.2%} of batches with budget "
            f"{self.budget}; {self._repeats(k)}expect {self.final[k]:.3%} instead of "
            f"{self.ideal[k]:.3%}. {self._advice(k)}".rstrip()
            for k in self._rarer(self.full, 0.001)
        ]

    def _rarer(self, happens: Tensor, chance: float) -> list[int]:
        return ((happens < chance) & (self.quota > 0)).nonzero().flatten().tolist()

    def _repeats(self, k: int) -> str:
        """What "repeat" does about a stratum that is short of its quota."""
        if self.fill != "repeat" or self.share[k] == 0:
            return ""
        places = float(self.quota[k] * self.drawn[k] / self.kept[k])
        return (
            f"its rows are repeated in the {self.drawn[k]:.2%} that hold any, where each stands "
            f"for about {places:.1f} places; "
        )

    def _advice(self, k: int) -> str:
        share = float(self.share[k])
        if share == 0:
            return "No budget can fill a stratum the source never makes."
        if self.fill == "repeat":
            if self.drawn[k] >= 0.5:
                return ""
            needed = math.ceil(math.log(0.5) / math.log1p(-share)) - self.batch
            return f"A budget of about {max(needed, 0)} draws it half of the time."
        needed = int(self.quota[k] / share) - self.batch + 1
        return f"A budget of about {-(-max(needed, 0) // self.turns)} fills it half of the time."


def binomial(n: int, p: Tensor) -> Tensor:
    """(K, n + 1) float64 probabilities of 0..n successes in n trials, for `p` (K,) in [0, 1].

    >>> binomial(2, torch.tensor([0.5, 0.0])).round(decimals=12).tolist()
    [[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]]
    """
    p = p.double()[:, None]
    hits = torch.arange(n + 1, dtype=torch.float64)
    choose = torch.lgamma(hits.new_tensor(n + 1.0)) - torch.lgamma(hits + 1)
    choose = choose - torch.lgamma(n - hits + 1)
    return torch.exp(choose + torch.xlogy(hits, p) + torch.xlogy(n - hits, 1 - p))


def plan_reparation(
    share: Sequence[float] | Tensor,
    *,
    batch: int,
    budget: int | str = "25%",
    ideal: Sequence[float] | Tensor | None = None,
    fill: Fill = "unfiltered",
    tries: int = 8,
) -> Plan:
    """Expected result of `stratified_batch` on a source with strata shares `share` (K,).

    For "unfiltered": E[missing] = B - sum_k E[min(q_k, Bin(B + b, p_k))] and the final share of k
    is (E[min(q_k, Bin(B + b, p_k))] + E[missing] p_k) / B. "reject" is the same with
    B + b (1 + tries) draws, "repeat" keeps q_k whenever the stratum occurs at all.

    Raises:
        ValueError: the shares are negative or do not sum to 1, or a parameter of
            `stratified_batch` is not valid.

    >>> plan = plan_reparation([0.16, 0.30, 0.34, 0.20], batch=256, budget=64)
    >>> round(plan.missing, 2), plan.final.round(decimals=4).tolist()
    (15.73, [0.2095, 0.2684, 0.2709, 0.2512])
    """
    p = torch.as_tensor(share, dtype=torch.float64)
    extra, quota = budget_of(budget, batch), quotas(batch, len(p), ideal)
    check_rule(fill, tries, 1)
    if bool((p < 0).any()) or abs(float(p.sum()) - 1) > 1e-6:
        raise ValueError(f"share must hold shares of at least 0 that sum to 1, got {p.tolist()}")
    turns = 1 + (tries if fill == "reject" else 0)
    draws = batch + extra * turns
    chance = binomial(draws, p)
    counts = torch.arange(draws + 1, dtype=torch.float64)
    kept = (chance * torch.minimum(counts, quota[:, None].double())).sum(1)
    full = (chance * (counts >= quota[:, None])).sum(1)
    missing = float(batch - kept.sum())
    if fill == "surplus":
        final = _simulated(p, batch, extra, ideal)
    else:
        filtered = quota * (1 - chance[:, 0]) if fill == "repeat" else kept
        final = (filtered + (batch - filtered.sum()) * p) / batch
    target = torch.full_like(p, 1 / len(p)) if ideal is None else torch.as_tensor(ideal).double()
    some, exact = 1 - chance[:, 0], fill != "surplus"
    return Plan(
        batch, extra, p, quota, full, some, kept, final, missing, target, fill, turns, exact
    )


def _simulated(p: Tensor, batch: int, extra: int, ideal: Sequence[float] | Tensor | None) -> Tensor:
    """(K,) mean final shares of many curated batches; the same for the same arguments."""
    g = torch.Generator().manual_seed(0)
    made = stratified_batch(
        lambda n: torch.multinomial(p, n, replacement=True, generator=g),
        lambda x: x,
        batch=batch,
        strata=len(p),
        generator=g,
        budget=extra,
        ideal=ideal,
        fill="surplus",
        blocks=SIMULATED_BATCHES,
    )
    return torch.bincount(made.cell.flatten(), minlength=len(p)) / made.cell.numel()
