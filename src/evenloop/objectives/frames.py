"""The loss of role frames: how unlikely the annotators' frames are.

Reference: Yatskar, Zettlemoyer and Farhadi, Situation Recognition (CVPR 2016); the noisy or over
annotators follows their published code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.roles import Layout, Potentials, Slots
from evenloop.roles.potentials import log_any
from evenloop.seams import Objective

__all__ = ["FrameLoss"]


class FrameLoss(Objective):
    """Mean over rows of -log(1 - prod_ref (1 - p_ref)) in nats, p_ref the reference's probability.

    With one reference that is its negative log-likelihood. Any subset of a row's further references
    may be absent (-1 throughout).

    Args:
        slots: where the potentials lie; found at the model's `layout` when training starts.

    >>> slots = Slots.of(Layout(("baking",), (("agent",),), ((("man", "woman"),),)))
    >>> potentials = Potentials(torch.zeros(1, 1), torch.zeros(1, 2))
    >>> FrameLoss(slots).loss(potentials, torch.tensor([[0, 1]]), torch.zeros(1))
    tensor(0.6931)
    """

    def __init__(self, slots: Slots | None = None) -> None:
        self._slots = slots

    def bind(self, model: nn.Module, data: GroupedData, groups: GroupIndex) -> None:
        """Find the layout.

        Raises:
            ValueError: the model has none, or labels are not as wide as its frames.
        """
        layout = getattr(model, "layout", None)
        if not isinstance(layout, Layout):
            raise ValueError(
                f"{type(model).__name__} has no layout of verbs and roles; train frames with "
                "net=crf"
            )
        if data.y.dim() != 2 or data.y.shape[1] < 2 or (data.y.shape[1] - 1) % layout.max_roles:
            raise ValueError(
                f"labels of shape {tuple(data.y.shape)} are no frames of {layout.max_roles} roles: "
                "a verb and then the nouns of each reference"
            )
        self._slots = Slots.of(layout).to(data.y.device)

    def loss(  # type: ignore[override]
        self, outputs: Potentials, y: Tensor, cell: Tensor
    ) -> Tensor:
        """The scalar loss of potentials of B images and their labels (B, 1 + F * R)."""
        assert self._slots is not None
        return -log_any(outputs, y, self._slots).mean()

    def units(self, y: Tensor) -> Tensor:
        """Scalar: rows, which the loss is the mean over."""
        return torch.tensor(float(len(y)), device=y.device)
