"""How the outer objective moves when the shares move: closed forms on a linear head, and beyond.

By the implicit function theorem the derivative of O(w*) by a share is minus the inner product of
the share's loss gradient with H^-1 grad O, H the Hessian of the training objective. With H replaced
by the identity (Dr-Fairness, Roh et al., TMLR 2023) it is the derivative of O after one small
gradient step. Neumann, conjugate gradients and exact solves are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp

from evenloop.samplers.outer import Outer, RatioObjective, residuals, row_losses

__all__ = [
    "Hessian",
    "alignment",
    "check_options",
    "head_alignment",
    "head_direction",
    "head_hessian_product",
    "outer_weights",
    "ratio_gradients",
    "share_gradient",
    "solve",
]

Hessian = Literal["identity", "neumann", "cg", "exact"]


def outer_weights(
    loss: Tensor,
    cell: Tensor,
    objective: RatioObjective,
    shape: tuple[int, int],
    share: Tensor | None = None,
) -> tuple[Tensor, Outer]:
    """(n,) derivative of the outer objective by each row's loss, and the objective itself.

    Args:
        loss: (n,) losses of real validation rows.
        cell: (n,) codes label * G + group.
        objective: one whose gap is of the loss on the row's own label.
        shape: (C, G).
        share: (C, G) true shares of the cells; those among the rows when None.

    >>> objective = RatioObjective(accuracy_weight=3.0)
    >>> alpha, outer = outer_weights(
    ...     torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), objective, (1, 2)
    ... )
    >>> alpha.tolist(), float(outer.value)
    ([0.5, 0.5, 2.0], 12.0)
    """
    outer = objective.at(loss[:, None], cell, shape, share)
    return outer.weight.sum(1), outer


def head_direction(features: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (O, H) and bias (O,) gradient from features (n, H) and logit gradients (n, O)."""
    return slope.T @ features, slope.sum(0)


def head_alignment(
    features: Tensor,
    logits: Tensor,
    y: Tensor,
    place: Tensor,
    v_w: Tensor,
    v_b: Tensor,
    places: int,
) -> tuple[Tensor, Tensor]:
    """Sum (places,) and count (places,) of the directional derivative of every row's loss.

    Their ratio is the alignment <grad L[place], v>: positive if training there lowers O.

    Args:
        features: (n, H) inputs of the head; `logits` (n, O) its outputs.
        y: (n,) labels.
        place: (n,) int64 in [0, places): the cell, or source * C * G + cell.
        v_w: (O, H) and `v_b` (O,): the direction.
        places: length of the result.

    >>> h, logits, y = torch.ones(2, 1), torch.zeros(2, 1), torch.tensor([0, 1])
    >>> v_w, v_b = torch.ones(1, 1), torch.ones(1)
    >>> total, count = head_alignment(h, logits, y, torch.tensor([0, 2]), v_w, v_b, 3)
    >>> total.tolist(), count.tolist()
    ([1.0, 0.0, -1.0], [1.0, 0.0, 1.0])
    """
    along = (residuals(logits, y) * (features @ v_w.T + v_b)).sum(1)
    return _segments(along, place, places)


def _segments(values: Tensor, place: Tensor, places: int) -> tuple[Tensor, Tensor]:
    both = torch.stack([values, torch.ones_like(values)], 1)
    out = both.new_zeros(places, 2).index_add_(0, place, both)
    return out[:, 0], out[:, 1]


def share_gradient(pi: Tensor, aligned: Tensor) -> Tensor:
    """(S, C, G) derivative of O by the share of each source and group inside its label.

    `pi` (C,) label shares, `aligned` (S, C, G) alignments.
    """
    return -pi[:, None] * aligned


def ratio_gradients(
    lam: Tensor, mu: Tensor, pi: Tensor, aligned_real: Tensor, aligned_generated: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients on the logits of `lam` and `mu`, both (C, G), for two sources without floors.

    q = mu Dr + (1 - mu) Ds;  g_a = -pi lam (q - sum_z lam q);  g_b = -pi lam mu (1 - mu) (Dr - Ds).
    `Ratios.pull_back` is the general form.

    >>> lam, mu = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5]])
    >>> d = torch.tensor([[1.0, 3.0]])
    >>> g_a, g_b = ratio_gradients(lam, mu, torch.ones(1), d, torch.zeros(1, 2))
    >>> g_a.tolist(), g_b.tolist()
    ([[0.25, -0.25]], [[-0.125, -0.375]])
    """
    weight = pi[:, None] * lam
    q = mu * aligned_real + (1 - mu) * aligned_generated
    g_a = -weight * (q - (lam * q).sum(1, keepdim=True))
    return g_a, -weight * mu * (1 - mu) * (aligned_real - aligned_generated)


def head_hessian_product(
    features: Tensor, logits: Tensor, weight: Tensor
) -> Callable[[Tensor], Tensor]:
    """Product with H, the Hessian of sum(weight * loss) by the head.

    Args:
        features: (n, H); logits: (n, O); weight: (n,) of each row in the training objective.

    The vectors are flat: the head's weights, then its bias.
    """
    outputs = logits.shape[1]
    prob = torch.sigmoid(logits) if outputs == 1 else logits.softmax(1)

    def product(v: Tensor) -> Tensor:
        v_w, v_b = v[:-outputs].view(outputs, -1), v[-outputs:]
        moved = features @ v_w.T + v_b
        curved = prob * moved
        if outputs == 1:
            curved = curved * (1 - prob)
        else:
            curved = curved - prob * curved.sum(1, keepdim=True)
        g_w, g_b = head_direction(features, weight[:, None] * curved)
        return torch.cat([g_w.flatten(), g_b])

    return product


def solve(
    product: Callable[[Tensor], Tensor],
    v: Tensor,
    method: Hessian = "identity",
    *,
    steps: int = 10,
    damping: float = 1e-3,
    rate: float = 0.1,
) -> Tensor:
    """An approximation of (H + damping)^-1 v, flat like `v`; H given by its product.

    `identity`: v itself. `neumann`: rate * sum_{j <= steps} (1 - rate (H + damping))^j v, which
    needs rate below 2 / (largest eigenvalue + damping). `cg`: `steps` of conjugate gradients.
    `exact`: a dense solve, for heads of at most a few thousand parameters.

    Raises:
        ValueError: an unknown method, steps below 1, a negative damping, a rate that is not
            positive, or one with which the Neumann series grows.

    >>> h = torch.tensor([2.0, 4.0])
    >>> solve(lambda v: h * v, torch.tensor([2.0, 4.0]), "exact", damping=0.0).tolist()
    [1.0, 1.0]
    """
    check_options(method, {"steps": steps, "damping": damping, "rate": rate})
    if method == "identity":
        return v
    if method == "neumann":
        term = total = v
        for _ in range(steps):
            term = term - rate * (product(term) + damping * term)
            total = total + term
        if bool(term.norm() > 1.001 * v.norm()):  # not for NaN, whose cell the caller names
            raise ValueError(
                f"the Neumann series grows: rate={rate:g} is too large for this Hessian; lower "
                "rate in hessian_options, or take hessian='cg'"
            )
        return rate * total
    if method == "cg":
        return _conjugate_gradients(lambda u: product(u) + damping * u, v, steps)
    identity = torch.eye(len(v), dtype=v.dtype, device=v.device)
    dense = torch.stack([product(row) for row in identity], 1) + damping * identity
    solved: Tensor = torch.linalg.solve(dense, v)
    return solved


def check_options(method: str, options: Mapping[str, float]) -> None:
    """Raise `ValueError` unless `solve` takes this method with these options."""
    if method not in get_args(Hessian):
        raise ValueError(f"hessian must be one of {get_args(Hessian)}, got {method!r}")
    if unknown := sorted(set(options) - {"steps", "damping", "rate"}):
        raise ValueError(f"hessian_options may hold steps, damping and rate, got {unknown}")
    steps, damping = options.get("steps", 1), options.get("damping", 0.0)
    if not steps >= 1 or not damping >= 0:
        raise ValueError(f"steps must be >= 1 and damping >= 0, got {steps} and {damping}")
    if not options.get("rate", 1.0) > 0:
        raise ValueError(f"rate must be positive, got {options['rate']}")


def _conjugate_gradients(product: Callable[[Tensor], Tensor], v: Tensor, steps: int) -> Tensor:
    x, r = torch.zeros_like(v), v
    p, rr = r, r @ r
    tiny = torch.finfo(v.dtype).tiny
    for _ in range(steps):
        hp = product(p)
        step = rr / (p @ hp).clamp_min(tiny)
        x, r = x + step * p, r - step * hp
        new = r @ r
        p, rr = r + (new / rr.clamp_min(tiny)) * p, new
    return x


def alignment(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    outer_x: Tensor,
    outer_slope: Callable[[Tensor], Tensor],
    inner_x: Tensor,
    inner_y: Tensor,
    place: Tensor,
    places: int,
    *,
    reduce: Callable[[Tensor], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Alignment sums and counts as `head_alignment`, for any subset of a model's parameters.

    One reverse pass gives v = grad O, one forward-mode pass the derivative of every row's loss
    along it; never a pass per cell.

    Args:
        model: called as model(x) -> (n, O) logits.
        parameters: the subset w is restricted to, by name.
        outer_x: (m, ...) real validation inputs.
        outer_slope: logits (m, O) -> derivative of O by the logits (m, O).
        inner_x: (n, ...) rows whose alignment is asked, with labels `inner_y` and `place`.
        places: length of the results.
        reduce: sums each tensor of v over processes in place, for distributed rows.
    """
    weights = {name: p.detach() for name, p in parameters.items()}

    def logits_of(w: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(model, w, (x,))
        return out if out.ndim == 2 else out[:, None]

    with torch.no_grad():  # the transforms differentiate; no second graph is built around them
        logits, pull = vjp(  # type: ignore[misc]
            lambda w: logits_of(w, outer_x), weights
        )
        (v,) = pull(outer_slope(logits))
        if reduce is not None:
            for part in v.values():
                reduce(part)
        _, along = jvp(  # type: ignore[misc]
            lambda w: row_losses(logits_of(w, inner_x), inner_y), (weights,), (v,)
        )
        return _segments(along, place, places)
