"""One table of group rates made by the library in three ways: bare, with limits, as data frames.

Called by `bench_regenerate`. The study's table has no limits, so the first is the like for like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from evenloop.counts import Counts
from evenloop.groups import GroupIndex
from evenloop.measures import rate_table
from evenloop.rates import group_gaps, group_rates

__all__ = ["tables"]


def tables(
    truth: Tensor, guess: Tensor, group: Tensor
) -> Iterator[tuple[str, Callable[[], object]]]:
    """What makes the table, by name, from (N,) labels, predictions and groups in {0, 1}."""
    index = GroupIndex(group, ("green", "red"))
    arrays = truth.numpy(), guess.numpy(), group.numpy()

    def counted() -> Counts:
        return Counts.of(guess, truth, index, 2)

    yield "Counts.of and rate_table, no limits", lambda: rate_table(counted(), level=None)
    yield "Counts.of and rate_table, with limits", lambda: rate_table(counted())
    yield "group_rates and group_gaps", lambda: (group_rates(*arrays), group_gaps(*arrays))
