"""Masks as parametrisations: the forward pass multiplies, the raw weight keeps moving.

The other way to hold a mask. It trains to the same function as fused masks and suits tools that
expect `torch.nn.utils.parametrize`; a model parametrised like this can be deep-copied but not
pickled, and costs a multiplication per forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["fuse_masks", "parametrise_masks"]


class _Masked(nn.Module):
    """Multiplies a weight by a 0/1 mask held as a buffer."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def parametrise_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Register every mask (layer name -> same shape as its weight) on `model`, in place.

    Raises:
        AttributeError: the model has no layer of that name.

    >>> import torch
    >>> net = nn.Sequential(torch.nn.utils.skip_init(nn.Linear, 2, 1))
    >>> _ = net[0].weight.data.fill_(1.0)
    >>> parametrise_masks(net, {"0": torch.tensor([[1.0, 0.0]])})
    >>> net[0].weight.tolist()
    [[1.0, 0.0]]
    """
    for name, mask in masks.items():
        layer = model.get_submodule(name)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        parametrize.register_parametrization(layer, "weight", _Masked(mask.to(weight)))


def fuse_masks(model: nn.Module) -> None:
    """Write the masks into the weights and remove the parametrisations, in place.

    >>> import torch
    >>> net = nn.Sequential(torch.nn.utils.skip_init(nn.Linear, 2, 1))
    >>> _ = net[0].weight.data.fill_(1.0)
    >>> parametrise_masks(net, {"0": torch.tensor([[1.0, 0.0]])})
    >>> fuse_masks(net)
    >>> sorted(net.state_dict()), net[0].weight.tolist()
    (['0.bias', '0.weight'], [[1.0, 0.0]])
    """
    for layer in list(model.modules()):
        held = getattr(layer, "parametrizations", None)
        if held is not None and "weight" in held and isinstance(held["weight"][0], _Masked):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
