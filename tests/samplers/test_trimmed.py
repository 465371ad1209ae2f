"""Uniform batches without their padding."""

from __future__ import annotations

import pytest
import torch

from evenloop.data import GroupedData, Schema, Structure
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.trimmed import Trimmed
from evenloop.samplers.uniform import Uniform
from text_kit import prompts

SCHEMA = Schema(("a", "b"), structure=Structure(12, 40))


def texts() -> GroupedData:
    wide = torch.nn.functional.pad(prompts(21, 8, seed=1), (0, 4), value=-1)
    return GroupedData.of(prompts(21, 10), wide, {}, SCHEMA)


@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_are_those_of_uniform_as_wide_as_their_longest_row(drop_last: bool) -> None:
    data, rng = texts(), Rng.of(2)
    groups = GroupIndex.of(data)
    plain = list(Uniform(drop_last).epoch(data, groups, batch=4, rng=rng))
    cut = list(Trimmed(drop_last).epoch(data, groups, batch=4, rng=rng))
    assert len(cut) == Trimmed(drop_last).steps(21, 4) == len(plain)
    for batch, index in zip(cut, plain, strict=True):
        assert batch.index is not None
        assert torch.equal(batch.index, index)
        for ours, column in ((batch.x, data.x), (batch.y, data.y)):
            wide = int((column[index] >= 0).sum(1).max())
            assert torch.equal(ours, column[index, :wide])


def test_a_hole_in_a_label_is_kept() -> None:
    y = torch.tensor([[-1, 3, -1], [2, -1, -1]])
    data = GroupedData.of(prompts(2, 3), y, {}, Schema(("a", "b"), structure=Structure(3, 9)))
    (batch,) = Trimmed().epoch(data, GroupIndex.of(data), batch=2, rng=Rng.of(0))
    assert batch.y.shape == (2, 2)
