"""Residual nets: three families from one class.

- `resnet18` for 32-pixel images, 11,173,962 parameters, as in Taori and Hashimoto (ICML 2023);
- the CIFAR family of He et al. (2016, section 4.2), 20 to 110 layers deep, with shortcuts that
  subsample and pad (option A), or with 1x1 convolutions (option B);
- the ImageNet family (He et al., table 1), with weights from the user's own file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evenloop.models.shape import Size, image, positive

__all__ = ["FACTORIES", "ResNet", "load_weights"]

Shortcut = Literal["conv", "pad"]
Maker = Callable[[int, int, int, Shortcut], nn.Module]


class _Pad(nn.Module):
    """Option A: every second pixel, and zero channels on both sides; no parameters."""

    def __init__(self, wide_in: int, wide: int, stride: int) -> None:
        super().__init__()
        before = (wide - wide_in) // 2
        self.stride, self.before, self.after = stride, before, wide - wide_in - before

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


def _shortcut(wide_in: int, wide: int, stride: int, kind: Shortcut) -> nn.Module:
    if stride == 1 and wide_in == wide:
        return nn.Identity()
    if kind == "pad":
        return _Pad(wide_in, wide, stride)
    return nn.Sequential(
        nn.Conv2d(wide_in, wide, 1, stride=stride, bias=False), nn.BatchNorm2d(wide)
    )


class _Basic(nn.Module):
    """Two 3x3 convolutions; the activation follows the sum."""

    def __init__(self, wide_in: int, wide: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide_in, wide, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.shortcut = _shortcut(wide_in, wide, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(z)) + self.shortcut(x), inplace=True)


class _Bottleneck(nn.Module):
    """1x1 down, 3x3 (with the stride), 1x1 up to `wide` channels, four times the inner width."""

    def __init__(self, wide_in: int, wide: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        inner = wide // 4
        self.conv1 = nn.Conv2d(wide_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.shortcut = _shortcut(wide_in, wide, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.bn1(self.conv1(x)), inplace=True)
        z = F.relu(self.bn2(self.conv2(z)), inplace=True)
        return F.relu(self.bn3(self.conv3(z)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """x (N, channels, H, W) float -> logits (N, classes), through the mean over the last map.

    Args:
        depths: blocks in each stage; every stage after the first halves the map.
        widths: output channels of each stage.
        channels: of the input.
        classes: width of the output; `head` is the linear layer with bias before it.
        stem: width of the first convolution.
        imagenet: 7x7 stride 2 and a maximum 3x3 stride 2 in front, instead of 3x3 stride 1.
        bottleneck: blocks of three convolutions instead of two.
        shortcut: "conv" (1x1 and batch norm) or "pad" (option A), where a block changes shape.

    >>> from evenloop.models import build
    >>> net = build("resnet20", channels=3, size=64, classes=2, seed=0)
    >>> sum(p.numel() for p in net.parameters())
    269202
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        channels: int,
        classes: int,
        stem: int,
        imagenet: bool = False,
        bottleneck: bool = False,
        shortcut: Shortcut = "conv",
    ) -> None:
        super().__init__()
        positive("resnet", channels=channels, classes=classes)
        block: Maker = _Bottleneck if bottleneck else _Basic
        kernel, stride = (7, 2) if imagenet else (3, 1)
        self.conv1 = nn.Conv2d(channels, stem, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        stages, wide_in = [], stem
        for place, (depth, wide) in enumerate(zip(depths, widths, strict=True)):
            first = block(wide_in, wide, 1 if place == 0 else 2, shortcut)
            stages.append(
                nn.Sequential(first, *(block(wide, wide, 1, shortcut) for _ in range(depth - 1)))
            )
            wide_in = wide
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(wide_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, channels, H, W)."""
        logits: Tensor = self.head(self.maps(x).mean((2, 3)))
        return logits

    def maps(self, x: Tensor) -> Tensor:
        """The last stage's maps (N, width, h, w) of x (N, channels, H, W)."""
        maps: Tensor = self.stages(self.pool(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return maps


def load_weights(net: ResNet, path: str | Path) -> None:
    """Fill `net` from the user's file of an ImageNet-style net: .safetensors or a torch state dict.

    Files with the layer names of torchvision (`layer1.0.conv1`, `downsample`, `fc`) and with our
    own both fit. A classification layer for another number of classes is left as it is. Files are
    read as tensors only; no code in them is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds another net; names the first layer that does not fit.

    >>> import tempfile
    >>> from evenloop.models import build
    >>> ten, two = (
    ...     build("resnet20", channels=3, size=32, classes=classes, seed=0)
    ...     for classes in (10, 2)
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(ten.state_dict(), f"{folder}/net.pt")
    ...     load_weights(two, f"{folder}/net.pt")
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file at {path}; give the path of a file you have")
    stored: Mapping[str, Tensor]
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        stored = load_file(path)
    else:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    own = net.state_dict()
    wanted = {_own_name(name): value for name, value in stored.items()}
    if wanted.get("head.weight", own["head.weight"]).shape != own["head.weight"].shape:
        wanted |= {name: own[name] for name in ("head.weight", "head.bias")}
    for name, value in own.items():
        found = wanted.get(name)
        if found is None and name.endswith("num_batches_tracked"):
            wanted[name] = value  # files written before torch 0.4.1 lack these counters
        elif found is None or found.shape != value.shape:
            has = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise ValueError(
                f"weights: {path} does not fit: {name} should have shape {tuple(value.shape)}, "
                f"the file has {has}; choose the net the file was made for"
            )
    extra = sorted(set(wanted) - set(own))
    if extra:
        raise ValueError(
            f"weights: {path} does not fit: the net has no {extra[0]}; "
            "choose the net the file was made for"
        )
    net.load_state_dict(wanted)


def _own_name(name: str) -> str:
    name = re.sub(r"^layer(\d+)", lambda m: f"stages.{int(m[1]) - 1}", name)
    return re.sub(r"^fc\.", "head.", name.replace(".downsample.", ".shortcut."))


def _kaiming(net: ResNet, mode: Literal["fan_in", "fan_out"], linear: bool) -> ResNet:
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) or (linear and isinstance(layer, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
    return net


def _resnet18(
    *, channels: int | None, size: Size | None, classes: int, features: int | None
) -> nn.Module:
    """ResNet-18 with a 3x3 first layer, torch's own initial weights; sides from 9 pixels.

    Below that the last map is one pixel, and batch norm cannot train on a batch of one row. The
    least sides of the other families come from the same count.
    """
    depth = image("resnet18", channels, size, least=9)[0]
    widths = (64, 128, 256, 512)
    return ResNet((2, 2, 2, 2), widths, channels=depth, classes=classes, stem=64)


def _cifar(name: str, blocks: int, shortcut: Shortcut) -> Callable[..., nn.Module]:
    def factory(
        *, channels: int | None, size: Size | None, classes: int, features: int | None
    ) -> nn.Module:
        depth = image(name, channels, size, least=5)[0]
        depths, widths = (blocks,) * 3, (16, 32, 64)
        net = ResNet(depths, widths, channels=depth, classes=classes, stem=16, shortcut=shortcut)
        return _kaiming(net, "fan_in", linear=True)

    return factory


def _imagenet(name: str, depths: Sequence[int], bottleneck: bool) -> Callable[..., nn.Module]:
    def factory(
        *,
        channels: int | None,
        size: Size | None,
        classes: int,
        features: int | None,
        weights: str | Path | None = None,
    ) -> nn.Module:
        depth = image(name, channels, size, least=33)[0]
        widths = [(256 if bottleneck else 64) * 2**stage for stage in range(4)]
        net = ResNet(
            depths,
            widths,
            channels=depth,
            classes=classes,
            stem=64,
            imagenet=True,
            bottleneck=bottleneck,
        )
        _kaiming(net, "fan_out", linear=False)
        if weights is not None:
            load_weights(net, weights)
        return net

    return factory


_BLOCKS = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18}
FACTORIES: dict[str, Callable[..., nn.Module]] = {
    "resnet18": _resnet18,
    **{f"resnet{n}": _cifar(f"resnet{n}", blocks, "pad") for n, blocks in _BLOCKS.items()},
    "resnet56-conv": _cifar("resnet56-conv", 9, "conv"),
    "imagenet-resnet18": _imagenet("imagenet-resnet18", (2, 2, 2, 2), bottleneck=False),
    "imagenet-resnet34": _imagenet("imagenet-resnet34", (3, 4, 6, 3), bottleneck=False),
    "imagenet-resnet50": _imagenet("imagenet-resnet50", (3, 4, 6, 3), bottleneck=True),
    "imagenet-resnet101": _imagenet("imagenet-resnet101", (3, 4, 23, 3), bottleneck=True),
}
"""The families by name: `resnet18` and the CIFAR depths, a 1x1-shortcut 56, the ImageNet four."""
