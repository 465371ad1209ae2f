"""Workers that read ahead: how old the shares are that a batch was drawn with."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from evenloop.samplers.ratios import RatioBatchSampler, RatioController
from mix_kit import F64, controller, gen, linear, problem

BATCHES, AHEAD = 9, 4  # two workers with two batches each


def loop(
    workers: int, batches: int = BATCHES, stop: int | None = None, **options: object
) -> tuple[RatioBatchSampler, RatioController, list[int], list[int], DataLoader]:
    """A plain loop with workers: the lag of every update, and updates done at every draw."""
    x, cells = problem()
    model = linear(2)
    control = controller(model, per_cell=2, lr=0.1)
    sampler = RatioBatchSampler(
        cells, control.ratios, 8, generator=gen(), batches=batches, **options
    )
    drawn_at: list[int] = []
    draw = sampler.draw

    def noted(batch: int) -> object:
        drawn_at.append(control.updates)
        return draw(batch)

    sampler.draw = noted  # type: ignore[method-assign]
    loader = DataLoader(
        TensorDataset(x, cells.label), batch_sampler=sampler, num_workers=workers, generator=gen(),
    )  # fmt: skip
    lags = []
    for inputs, labels in loader:
        nn.functional.cross_entropy(model(inputs), labels).backward()
        report = control.step(lag=sampler.lag - 1)
        sampler.trained()
        assert report is not None
        assert report.as_dict()["lag"] == report.lag
        lags.append(report.lag)
        if stop is not None and len(lags) == stop:
            break
    return sampler, control, lags, drawn_at, loader


def test_without_workers_every_batch_follows_the_newest_shares():
    sampler, _, lags, drawn_at, _ = loop(0, max_staleness=0)
    assert lags == [0] * BATCHES
    assert drawn_at == list(range(BATCHES))
    assert sampler.lag == 0


def test_with_two_workers_the_lag_says_when_an_update_takes_effect():
    sampler, _, lags, drawn_at, _ = loop(2)
    assert lags == [min(AHEAD, BATCHES - 1 - i) for i in range(BATCHES)]
    for i, lag in enumerate(lags):  # update i + 1 came after batch i
        first = next((b for b, done in enumerate(drawn_at) if done >= i + 1), BATCHES)
        assert first == i + 1 + lag
    assert sampler.lag == 0


def test_reading_ahead_is_refused_where_no_staleness_is_allowed():
    with pytest.raises(RuntimeError, match="max_staleness is 0: use fewer workers"):
        loop(2, max_staleness=0)
    assert loop(2, max_staleness=AHEAD)[2][0] == AHEAD


def test_batches_that_nobody_trained_on_are_forgotten_with_their_pass():
    sampler, _, _, _, loader = loop(2, stop=2)
    assert sampler.lag > 0
    sampler.batches = 1
    for inputs, _ in loader:
        assert inputs.dtype == F64
        assert sampler.lag == 1
        sampler.trained()
    assert sampler.lag == 0


def test_a_sampler_resumed_inside_an_epoch_knows_no_lag():
    sampler = loop(0, stop=3)[0]
    state = sampler.state_dict()
    other = RatioBatchSampler(sampler.cells, sampler.ratios, 8, generator=gen(), batches=BATCHES)
    other.load_state_dict(state)
    rest = [torch.tensor(batch) for batch in other]
    assert len(rest) == BATCHES - 3
    assert other.lag == len(rest)  # this loop did not say that it trained
