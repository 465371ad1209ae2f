"""The loss of frames as an objective: its binding, its units, and that it is minimised."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evenloop.data import GroupedData, Schema, Structure
from evenloop.fit import fit
from evenloop.groups import GroupIndex
from evenloop.models import seeded
from evenloop.models.crf import crf
from evenloop.objectives.frames import FrameLoss
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.roles import Slots
from evenloop.roles.potentials import log_likelihood
from evenloop.seams import LabelRule, Separable
from roles_kit import SMALL, potentials


def frames(y: list[list[int]]) -> GroupedData:
    schema = Schema(("other", "man", "woman"), (), Structure(len(y[0]), SMALL.codes))
    x = torch.randint(256, (len(y), 3, 16, 16), generator=torch.Generator().manual_seed(0))
    return GroupedData.of(x.to(torch.uint8), y, {}, schema)


def net() -> nn.Module:
    small = {"channels": 3, "size": 16, "backbone": "small-cnn", "hidden": 16, "dropout": 0.0}
    return seeded(lambda: crf(layout=SMALL, **small), 0)


def test_one_reference_costs_its_negative_log_likelihood() -> None:
    given, slots = potentials(SMALL, 2), Slots.of(SMALL)
    y = torch.tensor([[0, 1, 1, -1], [2, 0, 3, 0]])
    want = -log_likelihood(given, y, slots).mean()
    torch.testing.assert_close(FrameLoss(slots).loss(given, y, torch.zeros(2)), want)


def test_rows_are_its_units() -> None:
    loss = FrameLoss()
    assert isinstance(loss, Separable)
    assert float(loss.units(torch.zeros(5, 4, dtype=torch.long))) == 5


def test_training_learns_the_frames_by_heart() -> None:
    y = [[0, 1, 1, -1], [1, 0, -1, -1], [2, 0, 3, 0], [0, 2, 0, -1]]
    data = frames(y)
    recipe = Recipe(optimizer="adam", lr=0.01, batch=4, epochs=60)
    done = fit(
        net(), data, GroupIndex.of(data), recipe=recipe, rng=Rng.of(0), objective=FrameLoss()
    )
    assert done.losses[-1] < 0.1 < done.losses[0]
    assert done.model.write(data.x, LabelRule(), Rng.of(0)).tolist() == y


def test_a_model_without_layout_is_refused() -> None:
    data = frames([[0, 1, 1, -1]])
    with pytest.raises(ValueError, match="Identity has no layout"):
        FrameLoss().bind(nn.Identity(), data, GroupIndex.of(data))


def test_labels_of_another_width_are_refused() -> None:
    data = frames([[0, 1, 1]])
    with pytest.raises(ValueError, match="are no frames of 3 roles"):
        FrameLoss().bind(net(), data, GroupIndex.of(data))


def test_three_references_pass() -> None:
    data = frames([[0, 1, 1, -1, 0, 1, -1, -1, -1, -1]])
    FrameLoss().bind(net(), data, GroupIndex.of(data))
