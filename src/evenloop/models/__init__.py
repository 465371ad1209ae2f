"""Models by name, and initial weights that depend on a seed alone.

A factory is any callable that takes `channels`, `size`, `classes`, `features` and its own options
by keyword and returns a module. Every classifier keeps its last linear layer as `head`, so that
the features in front of it can be captured; `Estimator` has none. A factory of models that write
texts or frames takes none of the four, but what its world brings along (`vocabulary`, `layout`).

A package of one's own gives its factories names by the entry points `evenloop.models`::

    [project.entry-points."evenloop.models"]
    my-net = "my_package.nets:my_net"

A configuration then says `net: my-net`: it holds names and no paths, so that nothing is
imported but what was installed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torch import nn

from evenloop.models import (
    baidunet,
    char_lstm,
    crf,
    dropout,
    hugging_face,
    language,
    mlp,
    mobilenet,
    resnet,
    sklearn,
    small_cnn,
    vgg,
)
from evenloop.models.pixels import Pixels
from evenloop.models.shape import Size
from evenloop.models.sklearn import Estimator
from evenloop.rng import seeded
from evenloop.words import nearest

__all__ = ["Estimator", "Factory", "Pixels", "Size", "build", "names", "seeded"]

Factory = Callable[..., nn.Module]
GROUP = "evenloop.models"
_SHAPE = ("channels", "size", "classes", "features")

_FACTORIES: dict[str, Factory] = {
    "baidunet9": baidunet.baidunet9,
    "charlm": char_lstm.char_lstm,
    "crf": crf.crf,
    "dropout-cnn": dropout.dropout_cnn,
    "dropout-mlp": dropout.dropout_mlp,
    "lenet": small_cnn.lenet,
    "logistic": mlp.logistic,
    "mlp": mlp.mlp,
    "mobilenet-v2": mobilenet.mobilenet_v2,
    "simple-cnn": small_cnn.simple_cnn,
    "small-cnn": small_cnn.small_cnn,
    "small-lm": language.small_lm,
    "vgg16": vgg.vgg16,
    **hugging_face.FACTORIES,
    **resnet.FACTORIES,
    **sklearn.FACTORIES,
}


def names() -> list[str]:
    """The names `build` knows, sorted: evenloop's own and those of installed packages.

    >>> "baidunet9" in names()
    True
    """
    return sorted({**_FACTORIES, **_installed()})


def _installed() -> dict[str, EntryPoint]:
    """Factories of other packages by name; none takes a name of evenloop's."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    return {name: point for name, point in found.items() if name not in _FACTORIES}


def _factory(name: str) -> Factory:
    """The factory of a name.

    Raises:
        ValueError: nothing has that name, or what an installed package says is there is not.
    """
    if name in _FACTORIES:
        return _FACTORIES[name]
    point = _installed().get(name)
    if point is None:
        raise ValueError(
            f"unknown model {name!r}; {nearest(name, names())} (a package of your own names its "
            f"factories by the entry points {GROUP!r})"
        )
    try:
        factory = point.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"model {name!r} is {point.value!r} of an installed package, which cannot be loaded: "
            f"{error}"
        ) from None
    if not callable(factory):
        kind = type(factory).__name__
        raise ValueError(f"model {name!r} is {point.value!r}, which is no callable but a {kind}")
    made: Factory = factory
    return made


def build(
    model: str | Factory,
    *,
    classes: int,
    channels: int | None = None,
    size: Size | None = None,
    features: int | None = None,
    seed: int | None = None,
    **options: Any,
) -> nn.Module:
    """A new model from its name, or from a factory of the user's.

    Args:
        model: one of `names()`, or a callable with the keywords below that returns a module.
        classes: number of labels, the width of the output.
        channels: of an image, or None for rows of numbers.
        size: side of an image in pixels or (height, width), or None for rows of numbers.
        features: numbers per row, or None for images.
        seed: the initial weights depend on it alone, and no global generator moves; None leaves
            both to the caller, as torch's own modules do (inside `seeded`, say).
        options: of the model itself (`hidden` of "mlp", `width` of "small-cnn").

    Raises:
        ValueError: an unknown name or option (the nearest right one is named), or a shape that the
            model cannot take.
        TypeError: the factory returned something other than a module.

    >>> build("mlp", features=5, classes=2, hidden=(8,), seed=0).head
    Linear(in_features=8, out_features=2, bias=True)
    """
    shape: dict[str, Any] = {
        "channels": channels,
        "size": size,
        "classes": classes,
        "features": features,
    }
    if isinstance(model, str):
        factory, label = _factory(model), model
        _check_options(label, factory, options)
    else:
        factory, label = model, getattr(model, "__name__", type(model).__name__)

    taken = inspect.signature(factory).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    shape = {k: value for k, value in shape.items() if takes_all or k in taken}

    def make() -> nn.Module:
        return factory(**shape, **options)

    net = make() if seed is None else seeded(make, seed)
    if not isinstance(net, nn.Module):
        raise TypeError(f"model {label} must be a torch.nn.Module, got {type(net).__name__}")
    return net


def _check_options(name: str, factory: Factory, options: dict[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.name not in _SHAPE]
    for p in parameters:
        if p.default is p.empty and p.name not in (*_SHAPE, *options):
            raise ValueError(
                f"model {name!r} needs {p.name}=, which the worlds it is made for bring along"
            )
    for option in options:
        if option not in known:
            raise ValueError(f"model {name!r} has no option {option!r}; {nearest(option, known)}")
