"""Held-out features for one update after another, and the head they come from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evenloop.samplers.head import HeadTap
from evenloop.samplers.ratios import Validation
from mix_kit import controller, linear, net, problem


def test_reused_features_of_an_unchanged_model_are_those_of_new_passes():
    x, cells = problem()
    passes = []

    def rows_fetched(rows: Tensor) -> Tensor:
        passes.append(len(rows))
        return x[rows]

    control = controller(reuse=3, per_cell=6, val=Validation(rows_fetched, cells))
    del passes[:]  # the search for the head
    for _ in range(3):
        control.step()
    assert passes == [48, 16, 16]  # then a third of the 6 rows of 8 places
    rows, features, logits = control.held.look(
        control.held.draw()[0], control.sight.tap, lambda rows: rows
    )
    assert len(rows) == 48
    assert (cells.source[rows].diff() >= 0).all()
    torch.testing.assert_close(features, x[rows])
    torch.testing.assert_close(logits, control.model(x[rows]))


def test_reused_features_meet_the_present_head():
    control = controller(reuse=2, per_cell=4)
    control.step()
    with torch.no_grad():
        control.model.weight.mul_(-3.0)
    _, features, logits = control.held.look(
        control.held.draw()[0], control.sight.tap, lambda rows: rows
    )
    torch.testing.assert_close(logits, control.model(features))


def test_only_the_cheap_way_reuses_unless_asked():
    assert controller().held.reuse == 1
    assert controller(inner_data="train_batch").held.reuse == 2
    assert controller(inner_data="train_batch", draw="all").held.reuse == 1
    assert controller(inner_data="train_batch", reuse=1).held.reuse == 1


def test_head_is_found_by_what_it_produces():
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.unused = linear(2), linear(2)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            return self.head(x)

    model = Branched()
    tap = HeadTap(model)
    tap.look(problem()[0])
    assert tap.head is model.head
    assert HeadTap(model, "unused").head is model.unused


def test_closing_takes_the_watch_off_the_model():
    control = controller(net())
    assert control.model[4]._forward_hooks
    control.close()
    assert not control.model[4]._forward_hooks


def test_model_without_a_head_is_refused():
    model = nn.Sequential(linear(2), nn.Tanh())
    with pytest.raises(ValueError, match="head='auto' finds no linear layer"):
        controller(model)
    with pytest.warns(UserWarning, match="the model's output is not what"):
        assert controller(model, head="0").step() is not None
