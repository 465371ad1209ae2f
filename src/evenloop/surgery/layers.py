"""Which weights may be pruned, and which batch norms listen to them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["FIRST_CONV", "LAST_LINEAR", "Prunable", "followers", "masked_batch_norm", "prunable"]

Prunable = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
FIRST_CONV, LAST_LINEAR = "first_conv", "last_linear"


def prunable(
    model: nn.Module, keep_dense: Sequence[str] = (FIRST_CONV, LAST_LINEAR)
) -> dict[str, Prunable]:
    """Name -> module of every convolution and linear layer whose weight may be masked.

    Biases and batch norms are never pruned. "First" and "last" follow the order in which the
    model registers its modules.

    Args:
        model: any module.
        keep_dense: "first_conv", "last_linear" and module names with wildcards ("stem.*").

    Raises:
        ValueError: a pattern that matches no layer, or nothing left to prune.

    >>> with torch.random.fork_rng():
    ...     net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> list(prunable(net))
    ['0']
    """
    layers: dict[str, Prunable] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (*CONVS, nn.Linear))
    }
    convs = [name for name, module in layers.items() if isinstance(module, CONVS)]
    linears = [name for name, module in layers.items() if isinstance(module, nn.Linear)]
    dense: set[str] = set()
    for pattern in keep_dense:
        if pattern == FIRST_CONV:
            dense.update(convs[:1])
        elif pattern == LAST_LINEAR:
            dense.update(linears[-1:])
        else:
            matched = [name for name in layers if fnmatchcase(name, pattern)]
            if not matched:
                raise ValueError(
                    f"keep_dense {pattern!r} matches no layer; there are: {', '.join(layers)}"
                )
            dense.update(matched)
    left = {name: module for name, module in layers.items() if name not in dense}
    if not left:
        raise ValueError(f"keep_dense {tuple(keep_dense)} leaves no layer to prune")
    return left


def followers(model: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """Name of a convolution without bias -> the batch norm right behind it.

    "Right behind": the next child of the same module, as wide as the convolution's output. A net
    that normalises before it convolves (another module's batch norm reads a sum) is left alone.

    >>> with torch.random.fork_rng():
    ...     net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    >>> list(followers(net))
    ['0']
    """
    found: dict[str, nn.modules.batchnorm._BatchNorm] = {}
    for prefix, parent in model.named_modules():
        for (name, first), (_, second) in pairwise(parent.named_children()):
            if (
                isinstance(first, CONVS)
                and first.bias is None
                and isinstance(second, nn.modules.batchnorm._BatchNorm)
                and second.affine
                and second.num_features == first.out_channels
            ):
                found[f"{prefix}.{name}" if prefix else name] = second
    return found


def masked_batch_norm(x: Tensor, norm: nn.modules.batchnorm._BatchNorm, active: Tensor) -> Tensor:
    """Batch norm that skips channels: `norm(x)` times `active`, their statistics frozen.

    What a fully pruned filter should meet: zero in, zero out, no shift. In training mode the
    running statistics of the active channels move, those of the others do not.

    Args:
        x: (N, C, ...).
        norm: the layer, with running statistics or without.
        active: (C,) 0 or 1.

    >>> norm = nn.BatchNorm1d(2)
    >>> x = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    >>> masked_batch_norm(x, norm, torch.tensor([1.0, 0.0]))[:, 1].tolist()
    [0.0, 0.0]
    >>> [round(v, 3) for v in norm.running_var.tolist()]
    [1.1, 1.0]
    """
    kept = [b.clone() for b in (norm.running_mean, norm.running_var) if b is not None]
    out: Tensor = norm(x) * active.view(1, -1, *([1] * (x.ndim - 2)))
    with torch.no_grad():
        for now, before in zip((norm.running_mean, norm.running_var), kept, strict=False):
            if now is not None:
                # autograd holds them too, though in training their values play no part in it
                now.data.copy_(torch.where(active > 0, now, before))
    return out
