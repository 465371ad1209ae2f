"""One table of group rates made in three ways: plain arithmetic, measures, and whole data frames.

Called by `bench_regenerate`. The study's table has no limits, so the plain way is the like for
like; it is a function of this file, the library offers the other two, which find limits too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from evenloop import measures
from evenloop.counts import Counts
from evenloop.groups import GroupIndex
from evenloop.rates import group_gaps, group_rates

__all__ = ["tables"]

RATES = (
    measures.selection_rate,
    measures.true_positive_rate,
    measures.true_negative_rate,
    measures.false_positive_rate,
    measures.false_negative_rate,
)


def tables(
    truth: Tensor, guess: Tensor, group: Tensor
) -> Iterator[tuple[str, Callable[[], object]]]:
    """What makes the table, by name, from (N,) labels, predictions and groups in {0, 1}."""
    index = GroupIndex(group, ("green", "red"))
    arrays = truth.numpy(), guess.numpy(), group.numpy()

    def counted() -> Counts:
        return Counts.of(guess, truth, index, 2)

    yield "counts and plain rates", lambda: rates_of(counted())
    yield "counts and measures with limits", lambda: measured_rates(counted())
    yield "group_rates and group_gaps", lambda: (group_rates(*arrays), group_gaps(*arrays))


def measured_rates(counts: Counts) -> list[object]:
    """The same rates as the library's measures, each with limits, and the gaps with theirs."""
    found: list[object] = [measures.accuracy(counts)]
    found += [rate(counts, 1) for rate in RATES]
    for notion in (measures.demographic_parity(counts), measures.equalized_odds(counts)):
        found += [notion.difference(), notion.ratio()]
    return found


def rates_of(counts: Counts) -> np.ndarray:
    """Accuracy, selection rate, TPR, TNR and their gaps and ratios from stored counts."""
    t = counts.table.astype(float)
    n, true = t.sum((1, 2)), t.sum(2)
    rates = np.stack(
        [(t[:, 0, 0] + t[:, 1, 1]) / n, t[:, :, 1].sum(1) / n,
         t[:, 1, 1] / true[:, 1], t[:, 0, 0] / true[:, 0],
         t[:, 0, 1] / true[:, 0], t[:, 1, 0] / true[:, 1]]
    )  # fmt: skip
    high, low = rates.max(1), rates.min(1)
    return np.column_stack([rates, high - low, low / high, low, high])
