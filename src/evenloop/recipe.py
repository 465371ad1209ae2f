"""How a model is trained: optimiser, schedule, epochs, batch, precision, device.

The schedules and epoch rule of `baidunet9` and `resnet18` are those of Taori and Hashimoto, "Data
Feedback Loops: Model-driven Amplification of Dataset Biases" (ICML 2023). Their program sums the
loss over a batch of B and divides the rate by B; here every rate and weight decay is stated for the
mean loss, which is the same step. Nothing at the top of this file imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar

from evenloop.words import nearest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["EPOCH_RULES", "RECIPES", "Recipe", "paper_epochs", "rate", "roles_epochs"]

T = TypeVar("T")


def paper_epochs(n: int, arch: str = "baidunet9", underfit: bool = False) -> int:
    """Epochs over `n` training rows: more for small sets, so that the number of steps grows slowly.

    floor(2.5 b) with b = 25 up to 20,000 rows, then linear to 20 at 50,000, 15 at 100,000 and 10 at
    a million, and 10 above; "resnet18" takes twice as many. `underfit` is 5 for both.

    Raises:
        ValueError: `n` is not positive, or `arch` has no rule.

    >>> paper_epochs(20_000), paper_epochs(50_000), paper_epochs(50_000, "resnet18")
    (62, 50, 100)
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}; training needs a row")
    factor = _choose("arch", arch, {"baidunet9": 1, "resnet18": 2})
    if underfit:
        return 5
    knots = ((20_000, 25), (50_000, 20), (100_000, 15), (1_000_000, 10))
    for (low, high_base), (high, low_base) in pairwise(knots):
        if n < high:
            drop = (high_base - low_base) * max(n - low, 0)
            # Integers throughout: 2.5 b falls on whole numbers, where rounding would lose an epoch.
            return factor * (5 * (high_base * (high - low) - drop) // (2 * (high - low)))
    return factor * 25


def roles_epochs(n: int) -> int:
    """Epochs over `n` training rows of the visual roles: 50 up to 20,000, falling to 30 at 75,000.

    Raises:
        ValueError: `n` is not positive.

    >>> roles_epochs(20_000), roles_epochs(27_500), roles_epochs(100_000)
    (50, 45, 30)
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}; training needs a row")
    knots = ((20_000, 50), (35_000, 40), (50_000, 35), (75_000, 30))
    for (low, high_epochs), (high, low_epochs) in pairwise(knots):
        if n < high:
            drop = (high_epochs - low_epochs) * max(n - low, 0)
            return (high_epochs * (high - low) - drop) // (high - low)
    return knots[-1][1]


EPOCH_RULES: dict[str, Callable[[int], int]] = {
    "baidunet9": lambda n: paper_epochs(n, "baidunet9"),
    "resnet18": lambda n: paper_epochs(n, "resnet18"),
    "roles": roles_epochs,
}
"""Named rules from the number of training rows to a number of epochs."""

_CHOICES = {
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("constant", "piecewise", "underfit", "cosine", "linear", "multistep"),
    "augment": ("none", "crop-flip", "flip", "flip-turn", "resized-crop-flip"),
    "precision": ("fp32", "fp64", "bf16"),
    "accumulation": ("exact", "published"),
}
_COUNTS = ("batch", "eval_batch", "threads")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A frozen description of one training run; every field can be set from the command line.

    Attributes:
        optimizer: "sgd", "adam" (decay added to the gradient) or "adamw" (decoupled decay).
        lr: the peak rate, on the mean loss of a batch.
        momentum, nesterov: of "sgd"; the Adams keep their betas (0.9, 0.999).
        weight_decay: on every parameter, batch norm included.
        sum_decay: whether `weight_decay` is meant for the summed loss, as in the published ResNet
            runs; for the mean loss it is then divided by `batch`.
        batch: rows per step; drop_last: whether an epoch ends before an incomplete batch.
        micro_batch: rows taken at a time where a batch does not fit into memory; the gradients of
            a batch's parts are summed. None takes all at once.
        accumulation: "exact" gives the gradient of the whole batch; "published" repeats the order
            of updates of the published text runs, along a line to 0 (see `evenloop.accumulation`).
        epochs: a number, or the name of a rule of the number of rows (`EPOCH_RULES`); 0 leaves a
            model as it was built or loaded.
        schedule: how the rate moves, see `rate`.
        final_lr: the rate at the end of "piecewise", "cosine" and "linear"; None is the paper's
            0.001 for "piecewise" and 0 for the others.
        milestones, decay: "multistep" multiplies the rate by `decay` at floor(milestone x epochs).
        augment: "none", "flip", "crop-flip" (zero padding 4, random crop, flip), "flip-turn"
            (flip, then a turn by up to 30 degrees), or "resized-crop-flip" (ImageNet's).
        label_smoothing: share of each label spread over all classes, in [0, 1).
        clip_norm: largest norm of the whole gradient, or None.
        precision: "fp32", "fp64", or "bf16" (autocast).
        channels_last: memory format of images; None decides, see `use_channels_last`.
        compile: whether the step runs through torch.compile.
        device: a torch device, such as "cpu" or "cuda:1".
        eval_batch: rows per forward without gradient.
        threads: CPU threads of the process; more than one rarely pays on a shared machine.
        checkpoint_seconds: least time between two saves inside a fit; 0 saves after every epoch.

    Raises:
        ValueError: a field is out of range or contradicts another; names field, value and fix.

    >>> Recipe(batch=64, epochs=3).steps(1_000)
    48
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    sum_decay: bool = False
    batch: int = 128
    drop_last: bool = False
    micro_batch: int | None = None
    accumulation: Literal["exact", "published"] = "exact"
    epochs: int | str = 10
    schedule: Literal["constant", "piecewise", "underfit", "cosine", "linear", "multistep"] = (
        "constant"
    )
    final_lr: float | None = None
    milestones: tuple[float, ...] = (0.6, 0.8, 0.9)
    decay: float = 0.1
    augment: Literal["none", "crop-flip", "flip", "flip-turn", "resized-crop-flip"] = "none"
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    precision: Literal["fp32", "fp64", "bf16"] = "fp32"
    channels_last: bool | None = None
    compile: bool = False
    device: str = "cpu"
    eval_batch: int = 1024
    threads: int = 1
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            _choose(field, getattr(self, field), dict.fromkeys(known))
        for field in _COUNTS:
            value = getattr(self, field)
            _require(_whole(value), field, value, "a whole number of at least 1")
        if isinstance(self.epochs, str):
            _choose("epochs", self.epochs, EPOCH_RULES)
        else:
            whole = _whole(self.epochs) or (type(self.epochs) is int and self.epochs == 0)
            _require(whole, "epochs", self.epochs, "a whole number of at least 0")
        if self.micro_batch is not None:
            _require(
                _whole(self.micro_batch), "micro_batch", self.micro_batch, "1 or more, or None"
            )
        if self.accumulation == "published":
            whole = self.micro_batch is not None and self.batch % self.micro_batch == 0
            if not (whole and self.schedule == "linear" and not self.final_lr):
                raise ValueError(
                    "accumulation='published' needs schedule='linear' without final_lr and a "
                    f"micro_batch that divides batch={self.batch}, got schedule="
                    f"{self.schedule!r}, final_lr={self.final_lr}, micro_batch={self.micro_batch}"
                )
        self._check_ranges()
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(
                f"momentum={self.momentum} and nesterov={self.nesterov} belong to optimizer='sgd', "
                f"got optimizer={self.optimizer!r}; set momentum=0 and nesterov=false"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True needs momentum above 0, got 0; set momentum=0.9")

    def _check_ranges(self) -> None:
        _require(_in(self.lr, above=0), "lr", self.lr, "a finite number above 0")
        for field in ("momentum", "label_smoothing"):
            value = getattr(self, field)
            _require(_in(value, least=0, below=1), field, value, "in [0, 1)")
        for field in ("weight_decay", "checkpoint_seconds"):
            value = getattr(self, field)
            _require(_in(value, least=0), field, value, "a finite number of at least 0")
        _require(_in(self.decay, above=0), "decay", self.decay, "a finite number above 0")
        if self.final_lr is not None:
            _require(_in(self.final_lr, least=0), "final_lr", self.final_lr, "at least 0, or None")
        if self.clip_norm is not None:
            _require(_in(self.clip_norm, above=0), "clip_norm", self.clip_norm, "above 0, or None")
        rising = list(self.milestones) == sorted(set(self.milestones))
        _require(
            rising and all(_in(m, above=0, below=1) for m in self.milestones),
            "milestones",
            self.milestones,
            "rising shares of the epochs between 0 and 1",
        )

    @property
    def batch_taken(self) -> int:
        """Rows that a sampler is asked for at a time.

        >>> Recipe(batch=16, micro_batch=4).batch_taken
        16
        """
        published = self.accumulation == "published"
        return min(self.micro_batch or self.batch, self.batch) if published else self.batch

    def epochs_for(self, n: int) -> int:
        """Epochs over `n` training rows.

        >>> Recipe(epochs="resnet18").epochs_for(20_000)
        124
        """
        return EPOCH_RULES[self.epochs](n) if isinstance(self.epochs, str) else self.epochs

    def steps_per_epoch(self, n: int) -> int:
        """Batches in one epoch over `n` rows.

        Raises:
            ValueError: `n` is not positive, or incomplete batches are dropped and none is complete.

        >>> Recipe(batch=512).steps_per_epoch(1_025)
        3
        >>> Recipe(batch=512, drop_last=True).steps_per_epoch(1_025)
        2
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}; training needs a row")
        if self.drop_last and n < self.batch:
            raise ValueError(
                f"batch={self.batch} is larger than the {n} training rows and incomplete batches "
                f"are dropped; set batch to at most {n}, or drop_last=false"
            )
        return n // self.batch if self.drop_last else math.ceil(n / self.batch)

    def steps(self, n: int) -> int:
        """Optimiser steps of one training run on `n` rows."""
        return self.epochs_for(n) * self.steps_per_epoch(n)

    def use_channels_last(self, net: nn.Module) -> bool:
        """Whether `net` is to hold its images channels-last.

        Unless the field says so: from two convolutions on a CPU, where it pays.
        """
        if self.channels_last is not None:
            return self.channels_last
        from torch import nn

        layers = sum(isinstance(layer, nn.Conv2d) for layer in net.modules())
        return self.device.split(":")[0] == "cpu" and layers >= 2


def rate(step: int, total_steps: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The learning rate of update `step`, counted from 0, of `total_steps`.

    - constant: lr;
    - piecewise: linear from 0 to lr at floor(epochs / 5) epochs, then linear to `final_lr`; the
      first update already stands at position 1;
    - underfit: lr for 3/5 of the run, linear to lr / 10 at 4/5 and to lr / 100 at the end;
    - cosine: half a cosine from lr at the first update to `final_lr`, which the end would reach;
    - linear: the same along a line, without warm-up;
    - multistep: lr, times `decay` after each milestone.

    Raises:
        ValueError: `step` is outside [0, total_steps).

    >>> paper = RECIPES["baidunet9"]
    >>> rate(719, 3720, 60, paper), round(rate(3719, 3720, 60, paper), 9)
    (0.4, 0.001)
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step must lie in [0, {total_steps}), got {step}")
    lr, done = recipe.lr, step / total_steps
    end = recipe.final_lr or 0.0
    if recipe.schedule == "piecewise":
        end = 0.001 if recipe.final_lr is None else recipe.final_lr
        peak = total_steps // steps_per_epoch // 5 * steps_per_epoch
        return _line(step + 1, ((0, 0.0), (peak, lr), (total_steps, end)))
    if recipe.schedule == "underfit":
        knots = ((0.6, lr), (0.8, lr / 10), (1.0, lr / 100))
        return _line(step + 1, tuple((share * total_steps, value) for share, value in knots))
    if recipe.schedule == "cosine":
        return end + (lr - end) * (1 + math.cos(math.pi * done)) / 2
    if recipe.schedule == "linear":
        return lr + (end - lr) * done
    if recipe.schedule == "multistep":
        epoch, epochs = step // steps_per_epoch, total_steps // steps_per_epoch
        # The tolerance keeps 0.6 x 35 = 20.999... at the 21 that was meant.
        passed = sum(epoch >= math.floor(m * epochs + 1e-9) for m in recipe.milestones)
        return lr * recipe.decay**passed
    return lr


def _line(at: float, knots: tuple[tuple[float, float], ...]) -> float:
    """Linear interpolation between (position, value) knots, constant outside them."""
    for (left, low), (right, high) in pairwise(knots):
        if left <= at <= right and right > left:
            return low + (high - low) * (at - left) / (right - left)
    return knots[0][1] if at < knots[0][0] else knots[-1][1]


def _choose(field: str, value: str, known: Mapping[str, T]) -> T:
    if value not in known:
        raise ValueError(f"{field} has no {value!r}; {nearest(value, known)}")
    return known[value]


def _require(holds: bool, field: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{field} must be {wanted}, got {value!r}; set {field}=... accordingly")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _in(
    value: float, *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> bool:
    return least <= value < below and value > above


_BAIDUNET9 = Recipe(
    lr=0.4,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    batch=512,
    drop_last=True,
    epochs="baidunet9",
    schedule="piecewise",
    augment="crop-flip",
)
_RESNET18 = Recipe(
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    batch=128,
    drop_last=True,
    epochs="resnet18",
    schedule="cosine",
    augment="crop-flip",
)
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "baidunet9": _BAIDUNET9,
        "baidunet9-underfit": replace(_BAIDUNET9, lr=0.1, epochs=5, schedule="underfit"),
        "resnet18": _RESNET18,
        "resnet18-compat": replace(_RESNET18, sum_decay=True),
        "resnet18-underfit": replace(_RESNET18, epochs=5),
        "small-cnn": Recipe(
            lr=0.05,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            batch=32,
            schedule="cosine",
        ),
        "crf": Recipe(
            optimizer="adam",
            lr=1e-5,
            weight_decay=5e-4,
            batch=64,
            epochs="roles",
            augment="resized-crop-flip",
        ),
        "gpt2": Recipe(optimizer="adamw", lr=5e-5, batch=16, epochs=1, schedule="linear"),
        "gpt2-medium": Recipe(
            optimizer="adamw", lr=1e-5, batch=16, micro_batch=8, epochs=1, schedule="linear"
        ),
        "gpt2-large": Recipe(
            optimizer="adamw", lr=1e-5, batch=16, micro_batch=4, epochs=1, schedule="linear"
        ),
        "mlp": Recipe(lr=0.05, momentum=0.9, batch=64, epochs=20, schedule="cosine"),
        "logistic": Recipe(lr=0.05, momentum=0.9, batch=64, epochs=20, schedule="cosine"),
    }
)
"""The paper's recipes, and one for each of the small nets."""
