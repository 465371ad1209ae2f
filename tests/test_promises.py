"""What loops promise, and that a run of them is checked for it."""

from __future__ import annotations

import pytest

from evenloop import loops
from evenloop.build import assemble
from evenloop.config import load
from evenloop.loop import Loop, chain
from evenloop.loops.prune import Prune
from evenloop.loops.regenerate import Regenerate
from evenloop.loops.relabel import Relabel
from evenloop.promises import AccuracyKept, BiasBounded, Promise, SharesKept


@pytest.mark.parametrize(
    ("loop", "promised"),
    [
        (Relabel(), (BiasBounded("all"),)),
        (Relabel(train_on="latest"), (BiasBounded("latest"),)),
        (Relabel(threshold=0.9), ()),
        (Regenerate(tolerance=0.1), (SharesKept(0.1),)),
        (Regenerate(), ()),
        (Prune(tolerance=0.02), (AccuracyKept(0.02),)),
        (Prune(method="none"), ()),
        (chain(Relabel(), Prune(tolerance=0.02)), (BiasBounded("all"), AccuracyKept(0.02))),
    ],
)
def test_a_loop_says_what_it_promises(loop: Loop, promised: tuple[Promise, ...]) -> None:
    assert loop.promises() == promised


def test_every_loop_can_be_asked() -> None:
    assert all(callable(loops.find(verb).promises) for verb in loops.names())


@pytest.mark.parametrize(
    ("settings", "claims"),
    [
        ([], ["FeedbackClaim", "FeedbackClaim"]),
        (["threshold=0.9"], []),
        (["track=null", "imbalance=0"], []),
    ],
)
def test_a_run_checks_what_its_loop_promises(settings: list[str], claims: list[str]) -> None:
    job = assemble(load("digits", settings), 0)
    assert [type(claim).__name__ for claim in job.claims] == claims
