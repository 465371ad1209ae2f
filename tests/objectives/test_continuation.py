"""The mean over tokens, whole or in parts."""

from __future__ import annotations

import pytest
import torch

from evenloop.data import GroupedData, Schema, Structure
from evenloop.fit import fit
from evenloop.groups import GroupIndex
from evenloop.objectives.continuation import ContinuationLoss
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.samplers.trimmed import Trimmed
from evenloop.seams import Separable
from text_kit import prompts, rows_of, sharp_lm

CELL = torch.zeros(2, dtype=torch.long)


def test_every_token_counts_alike() -> None:
    net, x = sharp_lm(), prompts(2, 4)
    y = rows_of([[1, 2, 3], [4]])
    nats, tokens = net.cost(x, y)
    loss = ContinuationLoss().loss(net(x, y), y, CELL)
    assert loss.item() == pytest.approx(float(nats.sum() / tokens.sum()), rel=1e-5)
    assert ContinuationLoss().units(y).item() == 4
    assert isinstance(ContinuationLoss(), Separable)


def test_a_batch_without_tokens_costs_nothing() -> None:
    y = torch.full((2, 3), -1)
    assert ContinuationLoss().loss(sharp_lm()(prompts(2, 4), y), y, CELL).item() == 0


def test_micro_batches_give_the_gradient_of_the_whole_batch() -> None:
    data = GroupedData.of(
        prompts(16, 5), prompts(16, 6, seed=1), {}, Schema(("a", "b"), structure=Structure(6, 40))
    )
    trained = []
    for part in (None, 3):
        net = sharp_lm()
        recipe = Recipe(lr=0.1, batch=8, epochs=2, micro_batch=part)
        fit(
            net,
            data,
            GroupIndex.of(data),
            recipe=recipe,
            rng=Rng.of(0),
            objective=ContinuationLoss(),
            sampler=Trimmed(),
        )
        trained.append([p.detach() for p in net.parameters()])
    for one, other in zip(*trained, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
