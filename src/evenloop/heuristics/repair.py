"""Which rows to keep so that an attribute no longer tells the label (dataset REPAIR).

Li and Vasconcelos 2019, "REPAIR: Removing Representation Bias by Dataset Resampling": weights
w_i = sigmoid(v_i) and a linear classifier that sees only the attribute play against one another.
With z_i = w_i / mean(w), class prior q_c the weight share of class c, R the z-weighted
cross-entropy of the classifier and H = -mean(z_i ln q_{y_i}):

    bias = 1 - R / H        the classifier descends R, the weights descend the bias

The weight of a row depends on its (class, attribute) cell alone, so both play on the K x G table
of cell counts: a step costs the same for a thousand rows and for a billion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

__all__ = ["Repair", "keep_rows", "repair_weights"]

Keep = Literal["threshold", "top", "top_per_class", "bernoulli", "random"]


@dataclass(frozen=True, slots=True, eq=False)
class Repair:
    """What REPAIR found: `weights` (N,) in (0, 1) of each row and `cells` (K, G) of each cell.

    `prior` (K,) is the weighted share of each class. `bias` is 1 - R / H with R the risk of the
    last step and H the label entropy under the final weights, as the authors report it; at most
    1, about 0 when the attribute tells nothing.
    """

    weights: Tensor
    cells: Tensor
    prior: Tensor
    bias: float


def repair_weights(
    labels: Tensor,
    attribute: Tensor,
    *,
    classes: int | None = None,
    groups: int | None = None,
    epochs: int = 200,
    lr: float = 1e-1,
    lr_weights: float = 2.0,
    momentum: float = 0.9,
    batch: int = 32,
    start: tuple[Tensor, Tensor] | None = None,
) -> Repair:
    """Weights that make the attribute uninformative about the label, solved over cells.

    Steps over all rows of size `lr` (classifier, SGD with momentum) and `lr_weights` (weights,
    plain SGD on each row's v_i); one epoch is one step of each, the weights using the classifier
    as it was before its own step.

    Args:
        labels: (N,) class codes.
        attribute: (N,) codes of the attribute, or of an intersection of attributes.
        classes: number of classes K; the largest label decides by default.
        groups: number of attribute values G; the largest code decides by default.
        epochs: number of steps.
        lr: step size of the classifier.
        lr_weights: step size of each row's v_i. The paper takes 10, at which steps on all rows
            at once go round in circles; at 2 they settle.
        momentum: of the classifier.
        batch: rows over which the mean in R is thought to run when a row's slope is taken: 32 as
            in the paper, N or more for plain steps on all rows. Without it a row's step would
            fade with N.
        start: weight (K, G) and bias (K,) of the classifier; zeros by default.

    Raises:
        ValueError: no rows, lengths differ, codes that are no whole numbers from 0 on, only one
            class, a size is not positive, or the weights run away to one class (possible with
            imbalanced labels and large steps).

    >>> import torch
    >>> label = torch.tensor([0] * 50 + [1] * 50)
    >>> colour = torch.tensor([0] * 45 + [1] * 5 + [0] * 5 + [1] * 45)
    >>> found = repair_weights(label, colour)
    >>> bool(found.cells[0, 1] > found.cells[0, 0])
    True
    """
    k, g = _sizes(labels, attribute, classes, groups)
    if epochs < 1 or batch < 1 or lr <= 0 or lr_weights <= 0 or not 0 <= momentum < 1:
        raise ValueError(
            "epochs, batch, lr and lr_weights must be positive and momentum in [0, 1), got "
            f"{epochs}, {batch}, {lr}, {lr_weights}, {momentum}"
        )
    pace = lr_weights * max(1.0, len(labels) / batch)
    count = torch.bincount(labels * g + attribute, minlength=k * g).view(k, g).double()
    if start is None:
        weight, offset = count.new_zeros(k, g), count.new_zeros(k)
    else:
        weight, offset = start[0].double().clone(), start[1].double().clone()
        if weight.shape != (k, g) or offset.shape != (k,):
            raise ValueError(f"start must have shapes ({k}, {g}) and ({k},)")
    speed_w, speed_b = torch.zeros_like(weight), torch.zeros_like(offset)
    v = torch.zeros_like(count)
    risk = count.new_zeros(())
    for _ in range(epochs):
        log_p = log_softmax(weight + offset[:, None], 0)
        w = torch.sigmoid(v)
        risk, slope = _risk_and_slope(w, count, log_p)
        # classifier: gradient of R = sum_cells count z CE / n under this epoch's weights
        mass = count * w / (count * w).sum()
        grad = log_p.exp() * mass.sum(0) - mass
        speed_w, speed_b = momentum * speed_w + grad, momentum * speed_b + grad.sum(1)
        weight, offset = weight - lr * speed_w, offset - lr * speed_b
        # a row's own slope is its cell's divided by the rows that share it
        v = v - pace * slope / count.clamp_min(1) * w * (1 - w)
    w = torch.sigmoid(v)
    mass = (count * w).sum(1)
    prior = mass / mass.sum()
    if not bool((prior[count.sum(1) > 0] > 1e-6).all()):
        raise ValueError(
            f"the weights ran away to single classes (class shares {prior.tolist()}): without "
            "label entropy the bias has no bottom; lower lr_weights "
            f"(now {lr_weights}) or epochs, or raise lr"
        )
    bias = 1 - risk / torch.special.entr(prior).sum()
    return Repair(w[labels, attribute], w, prior, float(bias))


def _risk_and_slope(w: Tensor, count: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted risk R under cell weights `w` (K, G), and the gradient of the bias in `w`."""
    with torch.enable_grad():
        w = w.detach().requires_grad_()
        mass = count * w / (count * w).sum()
        risk = -(mass * log_p).sum()
        entropy = torch.special.entr(mass.sum(1)).sum()
        bias = 1 - risk / entropy
        (slope,) = torch.autograd.grad(bias, w)
    return risk.detach(), slope


def _sizes(
    labels: Tensor, attribute: Tensor, classes: int | None, groups: int | None
) -> tuple[int, int]:
    if labels.shape != attribute.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"labels and attribute must be two columns of one length, got {tuple(labels.shape)} "
            f"and {tuple(attribute.shape)}"
        )
    for name, codes in (("labels", labels), ("attribute", attribute)):
        if codes.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"{name} must hold codes as int64, got {codes.dtype}; bin a number first, for "
                f"example torch.bucketize({name}, edges)"
            )
    k = int(labels.max()) + 1 if classes is None else classes
    g = int(attribute.max()) + 1 if groups is None else groups
    low = min(int(labels.min()), int(attribute.min()))
    if int(labels.max()) >= k or int(attribute.max()) >= g or low < 0:
        raise ValueError(f"codes must lie in 0..{k - 1} for labels and 0..{g - 1} for groups")
    if len(torch.unique(labels)) < 2:
        raise ValueError("REPAIR needs at least two classes with rows; the labels hold one")
    return k, g


def keep_rows(
    repair: Repair,
    labels: Tensor,
    rule: Keep = "threshold",
    *,
    share: float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Positions, in order, of the rows to keep.

    Args:
        repair: the weights.
        labels: (N,) class codes.
        rule: "threshold" keeps w > 0.5; "top" the `share` with the highest weights;
            "top_per_class" the same within each class; "bernoulli" each row with chance w;
            "random" a random `share` (the control).
        share: part kept, in (0, 1].
        generator: needed by all rules but "threshold", to draw or to break ties.

    >>> import torch
    >>> found = Repair(torch.tensor([0.9, 0.2]), torch.ones(1, 2), torch.ones(1), 0.0)
    >>> keep_rows(found, torch.tensor([0, 0])).tolist()
    [0]
    """
    w = repair.weights
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    if rule == "threshold":
        return (w > 0.5).nonzero().flatten()
    if rule not in ("top", "top_per_class", "bernoulli", "random"):
        raise ValueError(f"unknown rule {rule!r}")
    if generator is None:
        raise ValueError(f"rule {rule!r} draws or breaks ties: pass a generator")
    noise = torch.rand(len(w), generator=generator, device=generator.device).to(w.device)
    if rule == "bernoulli":
        return (noise < w).nonzero().flatten()
    shuffle = noise.argsort()
    order = shuffle if rule == "random" else shuffle[w[shuffle].argsort(descending=True)]
    if rule != "top_per_class":
        return order[: round(share * len(w))].sort().values
    label = labels[order]
    by_class = order[label.argsort(stable=True)]
    count = torch.bincount(labels)
    rank = torch.arange(len(w), device=w.device) - (count.cumsum(0) - count)[labels[by_class]]
    return by_class[rank < (share * count).round()[labels[by_class]]].sort().values
