"""What the sweep of a natural share shows on its seeds holds on one it does not report."""

from __future__ import annotations

import pytest

from evenloop import measures
from evenloop.build import assemble
from evenloop.loop import run
from evenloop.study.sweep import load_sweep


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_fifth_of_natural_rows_keeps_a_chain_of_generators_from_collapse() -> None:
    accuracy = {}
    for name, config in load_sweep("natural-share-digits8", ("seeds=[100]",)).arms.items():
        job = assemble(config, 100)
        rows = run(job.loop, job.world, job.audit, rounds=job.rounds, seed=100).rows
        audit = [row.counts["audit"].pooled() for row in rows]
        accuracy[name] = [measures.accuracy(counts).value.item() for counts in audit]
    alone, mixed = accuracy["all synthetic"], accuracy["20% natural"]
    assert alone[0] == mixed[0] > 0.82  # the first generator is good, and the same
    assert alone[-1] < alone[0] - 0.1
    assert mixed[-1] > alone[-1] + 0.05
