"""Pruned nets for others: an ordinary state dict in a file, or sparse layers where they pay.

Masks are fused, so there is nothing to convert: the zeros are in the weights. Zeros alone save no
time on common hardware; compressed rows do from about 90 % sparsity on (linear layers and 1x1
convolutions, one CPU thread), whole channels always do (`evenloop.surgery.structured.shrink`).
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CompressedRows", "Layer", "compress_rows", "load_weights", "save_weights"]


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the state dict of `model` to a .safetensors file, or to .pt (readable weights-only).

    Raises:
        ValueError: another ending.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(nn.BatchNorm1d(2), f"{folder}/net.safetensors")
    """
    path = Path(path)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: value.clone() for name, value in state.items()}, path)
    elif path.suffix == ".pt":
        torch.save(state, path)
    else:
        raise ValueError(f"weights go to a .safetensors or .pt file, got {path.name!r}")


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """`model` filled from a state dict in a file; read as tensors only, no code in it is run.

    A file saved from a net without the layer around it that normalises pixels fits too, and so does
    the state of a run, which holds several nets: its reference is taken, or else its classifier.

    Raises:
        ValueError: no such file, or weights of another architecture; names the first difference.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"weights: {path} is no file; give a .pt or .safetensors state dict")
    state: dict[str, Any]
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = dict(load_file(file))
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(nets := state.get("models"), dict) and nets:
        state = nets.get("reference") or nets.get("classifier") or next(iter(nets.values()))
    own = model.state_dict()
    if not set(state) & set(own):
        state = {f"net.{name}": value for name, value in state.items()}
        state |= {name: own[name] for name in ("scale", "shift") if name in own}
    for name, value in own.items():
        found = state.get(name)
        if found is None or found.shape != value.shape:
            has = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise ValueError(
                f"weights: {path} holds another architecture: {name} should have shape "
                f"{tuple(value.shape)}, the file has {has}; use the net it was made from"
            )
    if surplus := [name for name in state if name not in own]:
        raise ValueError(
            f"weights: {path} holds another architecture: {surplus[0]} and {len(surplus) - 1} more "
            "of its entries have no place in this net; use the net it was made from"
        )
    model.load_state_dict(state)
    return model


class CompressedRows(nn.Module):
    """A linear layer or 1x1 convolution whose weight is stored and multiplied by its non-zeros.

    For inference: the weight is a buffer. Convolutions must have stride 1, one group, no padding.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().flatten(1).to_sparse_csr())
        bias = layer.bias
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for x (N, F), or (N, C, H, W) for a convolution."""
        columns = x.transpose(0, 1).reshape(x.shape[1], -1)
        out = self.weight @ columns
        out = out if self.bias is None else out + self.bias[:, None]
        return out.reshape(-1, x.shape[0], *x.shape[2:]).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that was measured: its density, and milliseconds per call dense and compressed."""

    name: str
    density: float
    dense_ms: float
    compressed_ms: float


def compress_rows(
    model: nn.Module, example: Tensor, *, below: float = 0.1, calls: int = 5
) -> tuple[nn.Module, tuple[Layer, ...]]:
    """A copy of `model` with `CompressedRows` where density is `below` and it measures faster.

    Args:
        model: the pruned net.
        example: a batch like those it will meet; times depend on it.
        below: largest density worth trying, in (0, 1].
        calls: the fastest of so many calls counts.

    Returns:
        The copy in evaluation mode, and what was measured of every candidate.
    """
    faster = copy.deepcopy(model).eval()
    inputs: dict[str, Tensor] = {}
    candidates = {n: m for n, m in faster.named_modules() if _fits(m) and _density(m) < below}
    hooks = [
        module.register_forward_hook(lambda _m, args, _o, name=name: inputs.update({name: args[0]}))
        for name, module in candidates.items()
    ]
    with torch.inference_mode():
        faster(example)
    for hook in hooks:
        hook.remove()
    measured = []
    for name, module in candidates.items():
        rows = CompressedRows(module)
        dense, compressed = (_fastest(m, inputs[name], calls) for m in (module, rows))
        measured.append(Layer(name, _density(module), dense, compressed))
        if compressed < dense:
            parent, _, child = name.rpartition(".")
            setattr(faster.get_submodule(parent), child, rows)
    return faster, tuple(measured)


def _fits(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        plain = (module.kernel_size, module.stride, module.groups) == ((1, 1), (1, 1), 1)
        return plain and module.padding == (0, 0)
    return isinstance(module, nn.Linear)


def _density(module: nn.Module) -> float:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return int(weight.count_nonzero()) / weight.numel()


@torch.inference_mode()
def _fastest(module: nn.Module, x: Tensor, calls: int) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        module(x)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)
