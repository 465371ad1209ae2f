"""VGG-16 without batch norm, as the study on actively acquired labels trains it.

Simonyan and Zisserman 2015, configuration D; adapted in Branchaud-Charron et al. 2021: the
convolutions pretrained, the classifier new.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from evenloop.models.shape import Size, image, positive

__all__ = ["VGG16", "load_convolutions", "vgg16"]

_CONFIGURATION_D = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG16(nn.Module):
    """x (N, channels, H, W) float, sides from 32 pixels -> logits (N, classes).

    Thirteen 3x3 convolutions with ReLU and five 2x2 maxima, the last map averaged to `pool` x
    `pool`; then linear 512 pool^2 - hidden - hidden - classes with ReLU and dropout. Convolutions
    hold 14,714,688 parameters for 3 channels; the classifier 119,554,050 for pool 7, hidden 4096
    and 2 classes. With 64-pixel images the last map is 2x2, so pool 2 loses nothing and keeps
    25 million.

    `classifier` is all but the last linear layer of it, `head` the last: an adversary that should
    branch off from the pooled maps, as in the study, names the module "classifier".
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        pool: int = 7,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        positive("vgg16", channels=channels, classes=classes, pool=pool, hidden=hidden)
        layers: list[nn.Module] = []
        for width, count in _CONFIGURATION_D:
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(pool)
        self.classifier = nn.Sequential(
            nn.Linear(512 * pool * pool, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        logits: Tensor = self.head(self.classifier(self.pool(self.features(x)).flatten(1)))
        return logits


def load_convolutions(net: VGG16, path: Path | str) -> VGG16:
    """Put the convolution weights of a local file into `net`, in place; the classifier stays.

    Args:
        net: for 3 channels.
        path: a file of named tensors, .pt or .pth (read without pickled code) or .safetensors,
            with names "features.0.weight" and so on, as torchvision writes them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a convolution is missing or has another shape.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={path}: no such file; give a local copy of VGG-16's ImageNet weights, or "
            "leave weights out for random ones"
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        found = load_file(path)
    else:
        found = torch.load(path, map_location="cpu", weights_only=True)
    wanted = net.features.state_dict()
    for name, tensor in wanted.items():
        given = found.get(f"features.{name}")
        if given is None or given.shape != tensor.shape:
            got = "nothing" if given is None else tuple(given.shape)
            raise ValueError(
                f"{path}: features.{name} should have shape {tuple(tensor.shape)}, got {got}; "
                "configuration D without batch norm is needed"
            )
    net.features.load_state_dict({name: found[f"features.{name}"] for name in wanted})
    return net


def vgg16(
    *,
    channels: int | None,
    size: Size | None,
    classes: int,
    features: int | None,
    pool: int = 7,
    hidden: int = 4096,
    dropout: float = 0.5,
    weights: str | None = None,
    frozen: bool = False,
) -> nn.Module:
    """VGG16 for images of at least 32 pixels; `features` is not used.

    Args:
        channels, size, classes, features: the shape of the data.
        pool, hidden, dropout: of the classifier.
        weights: local file for the convolutions; random otherwise. Nothing is downloaded.
        frozen: the convolutions are not trained.

    Raises:
        ValueError: no image shape, or a side below 32 pixels.

    >>> from evenloop.models import seeded
    >>> net = seeded(lambda: vgg16(channels=3, size=64, classes=2, features=None, pool=2, hidden=8),
    ...              0)
    >>> sum(p.numel() for p in net.features.parameters())
    14714688
    """
    depth = image("vgg16", channels, size, least=32)[0]
    net = VGG16(depth, classes, pool=pool, hidden=hidden, dropout=dropout)
    if weights is not None:
        load_convolutions(net, weights)
    if frozen:
        net.features.requires_grad_(False)
    return net
