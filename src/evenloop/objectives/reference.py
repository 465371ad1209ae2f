"""What the constraints compare with: group ids, group means and the dense model's statistics.

Hashemizadeh et al., "Balancing Act: Constraining Disparate Impact in Sparse Models" (ICLR 2024):
the requirement is stated against the user's own dense model, measured once over the whole split in
evaluation mode, on the transforms of evaluation (measured on augmented images, an unpruned model
already fails a tolerance of one percent against itself).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import nan, prod

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = [
    "Reference",
    "Score",
    "check_codes",
    "group_count",
    "group_ids",
    "group_mean",
    "hits",
    "item_losses",
    "marginal_members",
    "reference_stats",
    "rows_of",
    "spread",
]

Score = Callable[[Tensor, Tensor], Tensor]
"""A per-item score (B,) float of outputs (B, C) and labels (B,); higher is better."""


def hits(outputs: Tensor, y: Tensor) -> Tensor:
    """(B,) float, 1 where the largest of outputs (B, C) is the label (B,), else 0.

    >>> hits(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1])).tolist()
    [1.0, 0.0]
    """
    return (outputs.argmax(1) == y).float()


def item_losses(outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(B,) cross-entropy in nats of logits (B, C) and labels (B,), in float32 or better.

    >>> item_losses(torch.zeros(1, 2, dtype=torch.bfloat16), torch.tensor([0]))
    tensor([0.6931])
    """
    half = outputs.dtype in (torch.float16, torch.bfloat16)
    return cross_entropy(
        outputs.float() if half else outputs, y, reduction="none", label_smoothing=label_smoothing
    )


def group_ids(attributes: Tensor, sizes: Sequence[int], *, intersectional: bool = True) -> Tensor:
    """Group numbers of attribute codes (N, A) that have `sizes` values each.

    Intersectional: (N,) row-major products, the last attribute varies fastest. Otherwise (N, A):
    every item belongs to one group of each attribute, and the attributes' groups follow each other.

    Raises:
        ValueError: the number of columns is not the number of sizes, or a code is out of range.

    >>> group_ids(torch.tensor([[1, 2]]), (2, 3)).tolist()
    [5]
    >>> group_ids(torch.tensor([[1, 2]]), (2, 3), intersectional=False).tolist()
    [[1, 4]]
    """
    if attributes.ndim != 2 or attributes.shape[1] != len(sizes):
        raise ValueError(
            f"attributes must have shape (N, {len(sizes)}), one column for each of the sizes "
            f"{tuple(sizes)}, got {tuple(attributes.shape)}"
        )
    attributes = attributes.long()
    width = torch.tensor(list(sizes), device=attributes.device)
    if bool(((attributes < 0) | (attributes >= width)).any()):
        low, high = attributes.amin(0).tolist(), attributes.amax(0).tolist()
        raise ValueError(f"attribute codes span {low}..{high}, the sizes are {tuple(sizes)}")
    if not intersectional:
        return attributes + (width.cumsum(0) - width)
    cell = attributes.new_zeros(len(attributes))
    for column, size in enumerate(sizes):
        cell = cell * size + attributes[:, column]
    return cell


def marginal_members(sizes: Sequence[int]) -> Tensor:
    """(J, A) int64: the per-attribute groups of each of the J = prod(sizes) joint cells.

    The table that lets data grouped by intersections be constrained per attribute.

    >>> marginal_members((2, 2)).tolist()
    [[0, 2], [0, 3], [1, 2], [1, 3]]
    """
    joint = torch.arange(prod(sizes))
    columns = []
    for size in reversed(sizes):
        columns.append(joint % size)
        joint = joint // size
    return group_ids(torch.stack(columns[::-1], 1), sizes, intersectional=False)


def check_codes(cell: Tensor, size: int) -> None:
    """Whether `cell` (any shape) holds codes of `size` groups; reads the device: not for a step.

    Raises:
        ValueError: a code is no whole number in [0, size).

    >>> check_codes(torch.tensor([0, 2]), 3)
    """
    if cell.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"group codes must be int64, got {cell.dtype}; number the groups 0, 1, ... "
            "(`GroupIndex` makes codes of columns)"
        )
    if not cell.numel():
        return
    low, high = int(cell.min()), int(cell.max())
    if low < 0 or high >= size:
        raise ValueError(
            f"group codes span {low}..{high}, and {size} groups are known, 0..{size - 1}; recode "
            "the column, or give a name and a count for every group"
        )


def rows_of(table: Tensor, cell: Tensor) -> Tensor:
    """(B, ...) rows of `table` (G, ...) for codes (B,); no host sync, and -1 is not the last one.

    Raises:
        ValueError: on a CPU, codes that `check_codes` refuses.

    >>> rows_of(torch.tensor([5.0, 7.0]), torch.tensor([1, 0, 1]))
    tensor([7., 5., 7.])
    """
    try:
        return table.index_select(0, cell)
    except (IndexError, RuntimeError):
        _explain(cell, len(table))
        raise


def _explain(cell: Tensor, size: int) -> None:
    """Say what is wrong with the codes, if it is they; a device that has failed cannot be asked."""
    if cell.device.type == "cpu":
        check_codes(cell, size)


def spread(values: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """`values` (B,) and `cell` (B,) or (B, A), as one row per membership, in item order."""
    if cell.ndim == 1:
        return values, cell
    return values.unsqueeze(1).expand_as(cell).reshape(-1), cell.reshape(-1)


def group_count(cell: Tensor, size: int) -> Tensor:
    """(G,) float32 items of each group in `cell` (B,) or (B, A), without a host sync.

    Raises:
        ValueError: on a CPU, codes that `check_codes` refuses.

    >>> group_count(torch.tensor([0, 2, 2]), 3).tolist()
    [1.0, 0.0, 2.0]
    """
    flat = cell.reshape(-1)
    one = torch.ones((), device=cell.device).expand_as(flat)
    try:
        return torch.zeros(size, device=cell.device).index_add_(0, flat, one)
    except (IndexError, RuntimeError):
        _explain(flat, size)
        raise


def group_mean(values: Tensor, cell: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean (G,) and float32 count (G,) of `values` (B,) by `cell` (B,) or (B, A); differentiable.

    A group without items has count 0 and mean 0, so that products with its count stay finite:
    read the mean only where the count is positive.

    >>> group_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 3)
    (tensor([1., 0., 3.]), tensor([1., 0., 2.]))
    """
    count = group_count(cell, size)
    values, flat = spread(values, cell)
    total = values.new_zeros(size).index_add(0, flat, values)
    return total / count.clamp(min=1).to(values.dtype), count


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A model's accuracy and loss on one split, overall and by group.

    `acc` and `loss` () are over all items; `group_acc` and `group_loss` (G,) by group. Accuracies
    are fractions in [0, 1] (or the mean of any other score), losses nats. Also a constant or last
    round's model: any numbers to compare with. Where `count` (G,) is 0 a group has no accuracy and
    no loss to compare with: whatever is given there becomes nan.

    Raises:
        ValueError: shapes differ, a count is negative, or a number of a group with items is not
            finite.

    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    >>> dense = Reference.of(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), ("a", "b"))
    >>> round(float(dense.acc), 3), dense.group_acc.tolist(), dense.count.tolist()
    (0.667, [1.0, 0.0], [2, 1])
    """

    acc: Tensor
    loss: Tensor
    group_acc: Tensor
    group_loss: Tensor
    count: Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = self.count.shape
        if len(size) != 1 or self.group_acc.shape != size or self.group_loss.shape != size:
            raise ValueError(
                f"group_acc, group_loss and count must all be (G,), got "
                f"{tuple(self.group_acc.shape)}, {tuple(self.group_loss.shape)}, {tuple(size)}"
            )
        if self.names and len(self.names) != len(self.count):
            raise ValueError(f"{len(self.names)} names for {len(self.count)} groups")
        if bool((self.count < 0).any()):
            raise ValueError(f"count must not be negative, got {int(self.count.min())}")
        for field in ("group_acc", "group_loss"):
            known = getattr(self, field).where(self.count > 0, nan)
            object.__setattr__(self, field, known)  # the value is frozen from here on
        for field in ("acc", "loss", "group_acc", "group_loss"):
            value = getattr(self, field)
            if not bool((value.isfinite() | (value.ndim == 1) & (self.count == 0)).all()):
                raise ValueError(
                    f"{field} of the reference is not finite, and only a group with count 0 may "
                    "lack one; measure it on items that the model can be run on"
                )

    @staticmethod
    def of(
        outputs: Tensor,
        y: Tensor,
        cell: Tensor,
        names: Sequence[str],
        *,
        score: Score = hits,
    ) -> Reference:
        """Statistics of outputs (N, C) against labels (N,) by cells (N,) or (N, A)."""
        return _Tally(tuple(names), score).add(outputs, y, cell).reference()

    @property
    def share(self) -> Tensor:
        """(G,) float32 share of each group, summing to one."""
        return (self.count / self.count.sum().clamp(min=1)).float()

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups; their numbers where none were given."""
        return self.names or tuple(map(str, range(len(self.count))))

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the groups without an item: not estimable, never satisfied."""
        return tuple(
            name for name, n in zip(self.group_names, self.count.tolist(), strict=True) if n == 0
        )


class _Tally:
    """Sums over batches, in float64."""

    def __init__(self, names: tuple[str, ...], score: Score) -> None:
        self.names, self.score = names, score
        self.total = torch.zeros(3, dtype=torch.float64)
        self.by_group = torch.zeros(3, len(names), dtype=torch.float64)

    @torch.no_grad()
    def add(self, outputs: Tensor, y: Tensor, cell: Tensor) -> _Tally:
        losses = item_losses(outputs, y).double()
        columns = torch.stack([self.score(outputs, y).double(), losses, torch.ones_like(losses)])
        self.total = self.total + columns.sum(1).cpu()
        flat = cell.reshape(-1)
        check_codes(flat, len(self.names))
        if cell.ndim == 2:
            columns = columns.repeat_interleave(cell.shape[1], dim=1)
        table = columns.new_zeros(3, len(self.names)).index_add_(1, flat, columns)
        self.by_group = self.by_group + table.cpu()
        return self

    def reference(self) -> Reference:
        score, loss, n = self.total
        if not n:
            raise ValueError("a reference needs at least one item, got none")
        group_score, group_loss, count = self.by_group
        least_one = count.clamp(min=1)
        return Reference(
            score / n,
            loss / n,
            group_score / least_one,
            group_loss / least_one,
            count.long(),
            self.names,
        )


def reference_stats(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor, Tensor]],
    names: Sequence[str],
    *,
    score: Score = hits,
) -> Reference:
    """The dense reference of `model` over batches (x, y (B,), cell (B,) or (B, A)).

    The model runs in evaluation mode and is put back as it was. Give it the transforms of
    evaluation, without augmentation.

    Raises:
        ValueError: the loader is empty, or a code has no name.

    >>> model = torch.nn.Identity()
    >>> batch = (torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([1]))
    >>> reference_stats(model, [batch], ("a", "b")).absent
    ('a',)
    """
    tally = _Tally(tuple(names), score)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for x, y, cell in loader:
                tally.add(model(x), y, cell)
    finally:
        model.train(was_training)
    return tally.reference()
