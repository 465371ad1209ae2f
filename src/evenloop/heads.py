"""Where a net's features end: its last layer, and what enters it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["features_of", "find_head"]


def find_head(model: nn.Module, name: str | None = None) -> nn.Module:
    """The module called `name`, else the model's `head`, else its last linear layer.

    Raises:
        ValueError: there is no such module.

    >>> find_head(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.LazyLinear(2))).out_features
    2
    """
    if name is not None:
        found: nn.Module | None = dict(model.named_modules()).get(name)
        if found is None:
            raise ValueError(f"the model has no submodule {name!r}; name its last layer")
        return found
    head = getattr(model, "head", None)
    if isinstance(head, nn.Module):
        return head
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError("the model has no linear layer; name the module that its features enter")
    return linear[-1]


@torch.inference_mode()
def features_of(
    model: nn.Module, x: Tensor, *, head: str | None = None, batch: int = 1024
) -> Tensor:
    """(N, F) what enters the head for inputs `x` (N, ...), in evaluation mode, flattened.

    >>> from evenloop.models import build
    >>> net = build("logistic", features=4, classes=2, seed=0)
    >>> features_of(net, torch.zeros(3, 2, 2)).shape
    torch.Size([3, 4])
    """
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        caught.append(args[0].flatten(1))

    device = next((p.device for p in model.parameters()), x.device)
    was_training = model.training
    handle = find_head(model, head).register_forward_pre_hook(catch)
    try:
        model.eval()
        for part in torch.split(x, batch):
            model(part.to(device))
    finally:
        handle.remove()
        model.train(was_training)
    return torch.cat(caught).to(x.device) if caught else x.new_zeros(0, 0, dtype=torch.float32)
