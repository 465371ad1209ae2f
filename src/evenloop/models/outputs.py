"""The same net with another number of outputs: an annotator of groups beside one of labels."""

from __future__ import annotations

from torch import nn

from evenloop.heads import find_head
from evenloop.models import seeded

__all__ = ["with_outputs"]


def with_outputs(model: nn.Module, outputs: int, *, seed: int) -> nn.Module:
    """`model` with a linear head of `outputs` numbers; the head is new only if that changes it.

    Raises:
        ValueError: the model has no linear head.

    >>> from evenloop.models import build
    >>> with_outputs(build("logistic", features=4, classes=2, seed=0), 7, seed=1).head.out_features
    7
    """
    head = find_head(model)
    if not isinstance(head, nn.Linear):
        raise ValueError(
            f"the model's head is a {type(head).__name__}; only a linear one can widen"
        )
    if head.out_features == outputs:
        return model
    width, bias = head.in_features, head.bias is not None
    new = seeded(lambda: nn.Linear(width, outputs, bias), seed)
    for module in model.modules():
        for name, child in module.named_children():
            if child is head:
                setattr(module, name, new)
    return model
