"""What the study of the letters found, on two of its seeds and half of its rounds."""

from __future__ import annotations

import pytest

from evenloop.build import assemble
from evenloop.config import load
from evenloop.loop import run

SEEDS = (10, 11)


def enrichment(kind: str, heuristic: str) -> list[float]:
    """Of the rare cells after two purchases, by seed."""
    found = []
    for seed in SEEDS:
        job = assemble(load("acquire-cpu", [f"kind={kind}", f"heuristic={heuristic}"]), seed)
        record = run(job.loop, job.world, job.audit, rounds=3, seed=seed)
        found.append(float(record.rows[-1].values["rare.enrichment"]))
    return found


@pytest.mark.slow
def test_bald_buys_the_rare_cells_of_a_skewed_correlation_more_often_than_chance() -> None:
    bald, chance = enrichment("spurious", "bald"), enrichment("spurious", "random")
    assert all(b > 1.5 * c for b, c in zip(bald, chance, strict=True))


@pytest.mark.slow
def test_entropy_buys_a_rare_group_more_often_than_chance_and_bald_less_than_entropy() -> None:
    entropy, bald = enrichment("minority", "entropy"), enrichment("minority", "bald")
    assert all(value > 1 for value in entropy)
    assert all(b < e for b, e in zip(bald, entropy, strict=True))
