"""Coloured pictures that are painted when a batch is taken: resident are grey planes and a byte.

A colour is one channel out of two or three, so of a coloured set only the grey planes (shared by
every selection of its rows), one row number and one byte of colour per picture are held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Painted", "paint"]

aten = torch.ops.aten


def paint(grey: Tensor, group: Tensor, channels: int = 3) -> Tensor:
    """(N, channels, H, W): the grey plane in channel 0 for group 1 (red), in 1 for group 0 (green).

    Args:
        grey: (N, H, W) or (N, 1, H, W), any type; painted where it lies.
        group: (N,) 0 or 1.
        channels: 2 or 3; a third one is all zero.

    Raises:
        ValueError: another number of channels.

    >>> paint(torch.tensor([[[7]], [[9]]]), torch.tensor([1, 0]))[:, :, 0, 0].tolist()
    [[7, 0, 0], [0, 9, 0]]
    """
    if channels not in (2, 3):
        raise ValueError(f"channels must be 2 or 3, got {channels}")
    plane = grey[:, 0] if grey.ndim == 4 else grey
    image = plane.new_zeros(len(plane), channels, *plane.shape[1:])
    image[torch.arange(len(plane), device=plane.device), 1 - group.to(plane.device).long()] = plane
    return image


class Painted(Tensor):
    """(N, channels, H, W) pictures as a tensor of `plane`'s type, made from what is held.

    Taking rows by `index_select`, a slice or `to(device)` gives another `Painted` of the same
    planes; taking a batch with `x[index]`, and any other operation, gives painted pictures. It is
    read-only: writing into it raises.

    Args:
        plane: (M, H, W) grey planes, shared and never copied (but to another device).
        group: (N,) 0 green or 1 red.
        channels: 2 or 3.
        row: (N,) int64, the plane of each picture; None takes them in order.

    Raises:
        ValueError: shapes that do not belong together, or another number of channels.

    >>> grey = torch.tensor([[[7]], [[9]]], dtype=torch.uint8)
    >>> x = Painted(grey, torch.tensor([1, 0]), 2)
    >>> x.shape, x.index_select(0, torch.tensor([1, 1, 0])).held, x[torch.tensor([1])].tolist()
    (torch.Size([2, 2, 1, 1]), 29, [[[[0]], [[9]]]])
    """

    plane: Tensor
    group: Tensor
    row: Tensor
    channels: int

    @staticmethod
    def __new__(
        cls, plane: Tensor, group: Tensor, channels: int = 3, row: Tensor | None = None
    ) -> Painted:
        """A view of `plane` that looks like the painted pictures."""
        if channels not in (2, 3):
            raise ValueError(f"channels must be 2 or 3, got {channels}")
        row = torch.arange(len(plane), device=plane.device) if row is None else row
        if plane.ndim != 3 or group.shape != row.shape or row.ndim != 1:
            raise ValueError(
                f"planes must be (M, H, W) and groups (N,) as the rows, got {tuple(plane.shape)}, "
                f"{tuple(group.shape)} and {tuple(row.shape)}"
            )
        made: Painted = torch.Tensor._make_wrapper_subclass(
            cls,
            (len(row), channels, *plane.shape[1:]),
            dtype=plane.dtype,
            device=plane.device,
        )
        made.plane, made.channels = plane, channels
        made.row, made.group = row, group.to(plane.device, torch.uint8)
        return made

    @property
    def held(self) -> int:
        """Bytes that this value holds, the shared planes included."""
        return sum(t.numel() * t.element_size() for t in (self.plane, self.row, self.group))

    def at(self, index: Tensor | slice) -> Painted:
        """The rows at `index`, not painted yet."""
        return Painted(self.plane, self.group[index], self.channels, self.row[index])

    def painted(self, dtype: torch.dtype | None = None) -> Tensor:
        """The pictures as an ordinary tensor."""
        return paint(self.plane[self.row].to(dtype), self.group, self.channels)

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """The pictures as an array."""
        return self.painted().numpy(force=force)

    def tolist(self) -> list[Any]:
        """The pictures as nested lists."""
        return self.painted().tolist()

    def __setitem__(self, *args: Any) -> None:
        raise TypeError("painted pictures are read-only")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Painted({tuple(self.shape)}, {self.dtype}, {self.device})"

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Views are taken apart here: inference mode cannot make them of what is no storage."""
        if func is Tensor.__getitem__:
            return _item(*args)
        if func in _VIEWS:
            args = _real(args)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        lazily = _LAZY.get(func)
        if lazily is not None:
            made = lazily(*args, **kwargs)
            if made is not None:
                return made
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if isinstance(value, Painted) and argument.is_write:
                raise TypeError(f"painted pictures are read-only; {func} would write into them")
        return func(*map(_real, args), **{name: _real(value) for name, value in kwargs.items()})


def _real(value: Any) -> Any:
    """`value` with everything painted that was not; lists of tensors are looked into."""
    if isinstance(value, Painted):
        return value.painted()
    if isinstance(value, (list, tuple)):
        return type(value)(map(_real, value))
    return value


def _same(x: Painted, *args: Any, **kwargs: Any) -> Painted:
    return x.at(slice(None))


def _item(x: Any, index: Any) -> Any:
    """`x[index]`: a slice of rows stays unpainted, a batch of rows is painted, and only they."""
    if not isinstance(x, Painted):
        return x[_real(index)]
    if isinstance(index, slice):
        return x.at(index)
    if isinstance(index, Tensor) and index.ndim == 1:
        return x.at(index).painted()
    if isinstance(index, int):
        return x.at(torch.tensor([index], device=x.device)).painted()[0]
    return x.painted()[index]


def _index_select(x: Painted, dim: int, index: Tensor) -> Painted | None:
    return x.at(index) if dim in (0, -4) else None


def _to(x: Painted, *, dtype: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
    """Another device keeps it unpainted; another type paints, the grey planes being converted."""
    device = device or x.device
    parts = [t.to(device) for t in (x.plane, x.group, x.row)]
    moved = Painted(parts[0], parts[1], x.channels, parts[2])
    return moved if dtype in (None, x.dtype) else moved.painted(dtype)


def _new_empty(x: Painted, size: Sequence[int], **kwargs: Any) -> Tensor:
    return x.plane.new_empty(size, **kwargs)


_VIEWS = {
    getattr(where, name)
    for name in (
        "__iter__", "chunk", "detach", "diagonal", "expand", "expand_as", "flatten", "movedim",
        "narrow", "permute", "ravel", "reshape", "select", "split", "squeeze", "swapaxes",
        "swapdims", "tensor_split", "transpose", "unbind", "unflatten", "unfold", "unsqueeze",
        "view", "view_as",
    )
    for where in (torch, Tensor)
    if hasattr(where, name)
}  # fmt: skip
_LAZY: Mapping[Any, Callable[..., Tensor | None]] = {
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.clone.default: _same,
    aten.index_select.default: _index_select,
    aten._to_copy.default: _to,
    aten.new_empty.default: _new_empty,
}
