"""What a model is fed: the shape of an image or the length of a row, checked once at the border."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Size", "image", "positive", "width_of", "widths"]

OF_DATA = ("channels", "classes", "features", "size")  # fields that the data decides

Size = int | tuple[int, int]
"""Side of a square image in pixels, or (height, width)."""


def positive(model: str, **fields: object) -> None:
    """Raise ValueError unless every named count is an integer of at least 1.

    >>> positive("mlp", classes=3)
    """
    for field, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            fix = "to what the data holds" if field in OF_DATA else "to a whole number such as 16"
            raise ValueError(
                f"{model}: {field} must be an integer of at least 1, got {value!r}; "
                f"set {field} {fix}"
            )


def widths(model: str, hidden: object) -> tuple[int, ...]:
    """The widths of hidden layers, first layer first.

    Raises:
        ValueError: no list of integers of at least 1.

    >>> widths("mlp", [64, 32])
    (64, 32)
    """
    listed = isinstance(hidden, Sequence) and not isinstance(hidden, (str, bytes))
    sizes = tuple(hidden) if isinstance(hidden, Sequence) else ()
    if not listed or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(
            f"{model}: hidden must list the width of each hidden layer, integers of at least 1, "
            f"got {hidden!r}; write hidden=[16] for one layer of 16"
        )
    return sizes


def image(
    model: str, channels: int | None, size: Size | None, *, least: int = 1
) -> tuple[int, int, int]:
    """(channels, height, width) in pixels; both sides at least `least`.

    Raises:
        ValueError: the shape is missing, not positive, or a side is too small for the model.

    >>> image("baidunet9", 3, 32)
    (3, 32, 32)
    """
    if channels is None or size is None:
        raise ValueError(
            f"{model} reads images and got channels={channels}, size={size}; "
            "give both, or use 'mlp' or 'logistic' for rows of numbers"
        )
    height, width = (size, size) if isinstance(size, int) else size
    positive(model, channels=channels, size=min(height, width))
    if min(height, width) < least:
        raise ValueError(
            f"{model}: size must be at least {least} pixels on each side, got {height}x{width}; "
            "enlarge the images or use 'mlp' or 'logistic'"
        )
    return channels, height, width


def width_of(model: str, channels: int | None, size: Size | None, features: int | None) -> int:
    """Numbers in one flattened item: `features`, or channels x height x width of an image.

    Raises:
        ValueError: neither is given, both disagree, or one is not positive.

    >>> width_of("mlp", 1, 28, None), width_of("mlp", None, None, 5)
    (784, 5)
    """
    if features is None:
        if channels is None or size is None:
            raise ValueError(
                f"{model}: features is missing; give features, or channels and size of the images"
            )
        pixels, height, width = image(model, channels, size)
        return pixels * height * width
    positive(model, features=features)
    if channels is not None and size is not None:
        flat = width_of(model, channels, size, None)
        if flat != features:
            raise ValueError(
                f"{model}: features={features} does not match the {flat} numbers of an image with "
                f"channels={channels}, size={size}; leave one of them out"
            )
    return features
