"""The head of anyone's module: found, named, refused with what to do."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from evenloop.samplers.head import HeadTap
from evenloop.samplers.ratios import Ratios, Validation
from mix_kit import F64, controller, gen, linear, problem


class Own(nn.Module):
    """A user's module: two branches, a head that is not the last layer, a cold softmax."""

    def __init__(self, kind: str = "plain", outputs: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(linear(4, 2), nn.Tanh())
        self.classifier = linear(outputs, 3, features=4)
        self.projector = linear(8, 4, features=4)
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        features = self.body(x)
        logits, shown = self.classifier(features), self.projector(features)
        if self.kind == "dictionary":
            return {"logits": logits, "shown": shown}
        return logits / 2 if self.kind == "cold" else logits


class Convolved(nn.Module):
    """No linear layer at all."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.utils.skip_init(nn.Conv1d, 3, 2, 1, dtype=F64)
        with torch.no_grad():
            self.last.weight.copy_(torch.randn(2, 3, 1, generator=gen(), dtype=F64))
            self.last.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x[:, :, None]).squeeze(2)


def test_the_head_of_a_module_of_ones_own_is_found_by_what_it_produces():
    control = controller(Own())
    assert control.sight.tap.head is control.model.classifier
    assert control.step() is not None


def test_a_layer_or_its_name_may_be_given():
    model = Own()
    reports = [controller(model, head=h).step() for h in ("classifier", model.classifier, "auto")]
    assert all(torch.equal(r.g_a, reports[0].g_a) for r in reports)


def test_a_name_that_is_no_linear_layer_is_refused_with_those_there_are():
    text = re.escape(
        "head='body.1' is not a linear layer of the model, which has: 'body.0', 'classifier', "
        "'projector'; set head= to"
    )
    with pytest.raises(ValueError, match=text):
        controller(Own(), head="body.1")
    with pytest.raises(ValueError, match=re.escape("head=Linear(")):
        controller(Own(), head=linear(2))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Own("cold"), "finds no linear layer that produces the model's output; its linear layers: "
         "'body.0', 'classifier', 'projector'. Set head= to the one that gives the logits, or "
         "parameters="),
        (Own("dictionary"), "the model's output, which is a dict; its linear layers: 'body.0'"),
        (Convolved(), "its linear layers: none. Set head="),
    ],
)  # fmt: skip
def test_a_head_that_cannot_be_found_is_said_with_candidates_and_what_to_set(
    model: nn.Module, text: str
):
    with pytest.raises(ValueError, match=re.escape(text)):
        controller(model)


def test_a_net_without_linear_layers_is_differentiated_by_its_parameters():
    report = controller(Convolved(), parameters=["last.weight", "last.bias"]).step()
    assert report.aligned.isfinite().all()
    same = linear(2)
    model = Convolved()
    with torch.no_grad():
        same.weight.copy_(model.last.weight[:, :, 0])
        same.bias.zero_()
    torch.testing.assert_close(report.g_a, controller(same).step().g_a)


def test_a_head_whose_output_is_changed_is_warned_about_once():
    with pytest.warns(UserWarning, match="the model's output is not what the layer given as head="):
        control = controller(Own("cold"), head="classifier")
    assert control.step() is not None  # and no second warning: those are errors here


def test_a_head_outside_of_the_pass_or_of_another_size_is_refused():
    model = nn.ModuleDict({"used": linear(2), "idle": linear(2)})
    model.forward = model["used"].forward
    with pytest.raises(ValueError, match=re.escape("one of: 'used', 'idle'")):
        HeadTap(model, "idle").look(problem()[0])
    x, cells = problem(classes=3)
    ratios, val = Ratios(cells), Validation(x, cells)
    with pytest.raises(ValueError, match="the head has 2 outputs for 3 classes: set head="):
        controller(linear(2), ratios=ratios, val=val)
    assert controller(linear(1)).step() is not None  # one output is enough for two classes
