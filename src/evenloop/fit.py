"""The only training loop and the only inference loop.

Resident data, index batches, no worker processes; losses stay tensors and are read once an epoch.
Every random draw comes from a stream named by the epoch, so a run continued from its last epoch
does what the uninterrupted one does, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from evenloop.augment import augment
from evenloop.data import GroupedData
from evenloop.faults import not_finite, too_few_rows
from evenloop.groups import GroupIndex
from evenloop.objectives.erm import Erm
from evenloop.optimizer import Plan, build_optimizer, plan_updates
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform
from evenloop.seams import (
    Batch,
    Objective,
    Sampler,
    Seen,
    Separable,
    Surgery,
    check_separable,
    reads_labels,
)

__all__ = [
    "Fit",
    "Keep",
    "TrainsItself",
    "fit",
    "placed",
    "predict",
    "private_noise",
]


Forward = Callable[[Batch], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A trained model: the model, its mean training loss of every epoch, and the steps taken."""

    model: nn.Module
    losses: tuple[float, ...]
    steps: int


class Keep(Protocol):
    """Where a long fit leaves its progress, and who watches it."""

    def load(self, name: str) -> dict[str, Any] | None:
        """What was last saved under `name`, or None."""
        ...

    def save(self, name: str, progress: dict[str, Any]) -> None:
        """Keep `progress` (tensors and numbers) under `name`, replacing what was there."""
        ...

    def epoch(self, name: str, epoch: int, epochs: int, rows: int) -> None:
        """Told at the end of every epoch."""
        ...


@runtime_checkable
class TrainsItself(Protocol):
    """A model with a training procedure of its own (a scikit-learn classifier)."""

    def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
        """Fit to inputs `x` (N, ...) and labels `y` (N,) in [0, classes)."""
        ...


@dataclass(slots=True)
class _Job:
    """One fit's moving parts, so that saving and continuing them is one place."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    sampler: Sampler
    objective: Objective
    surgery: Surgery | None
    losses: list[float]
    epoch: int = 0

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "objective": self.objective.state_dict(),
            "surgery": self.surgery.state_dict() if self.surgery is not None else {},
        }

    def load(self, state: dict[str, Any]) -> None:
        self.epoch, self.losses = state["epoch"], list(state["losses"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        self.objective.load_state_dict(state["objective"])
        if self.surgery is not None:
            self.surgery.load_state_dict(state["surgery"])


def fit(
    model: nn.Module,
    data: GroupedData,
    groups: GroupIndex,
    *,
    recipe: Recipe,
    rng: Rng,
    sampler: Sampler | None = None,
    objective: Objective | None = None,
    surgery: Surgery | None = None,
    keep: Keep | None = None,
) -> Fit:
    """Train `model` in place on `data` and return it with its losses.

    Args:
        model: any module mapping x (B, ...) to logits (B, C), or one that trains itself.
        data: the rows; resident on the recipe's device or moved there once.
        groups: the cell of every row of `data`.
        recipe: optimiser, schedule, epochs, batch, precision, device.
        rng: the stream of this fit.
        sampler: what is in a batch; uniform without replacement by default.
        objective: what a batch costs; the mean cross-entropy by default.
        surgery: what may be non-zero; everything by default.
        keep: where to leave progress, for fits that may be interrupted.

    Raises:
        ValueError: no row, or fewer rows than one batch where short batches are dropped.
        FloatingPointError: the loss is not finite; names the fit, epoch and step.

    >>> import torch
    >>> from evenloop.data import GroupedData, Schema
    >>> x = torch.tensor([[-1.0], [1.0]]).repeat(20, 1)
    >>> data = GroupedData.of(x, [0, 1] * 20, {}, Schema(("no", "yes")))
    >>> with torch.random.fork_rng():
    ...     net = torch.nn.Linear(1, 2)
    >>> recipe = Recipe(lr=1.0, batch=8, epochs=5)
    >>> done = fit(net, data, GroupIndex.of(data), recipe=recipe, rng=Rng.of(0).at("fit"))
    >>> bool((predict(done.model, x).argmax(1) == data.y).all()), done.steps
    (True, 25)
    """
    if len(data) == 0:
        raise ValueError("there are no rows to fit on; give the first round at least one row")
    if isinstance(model, TrainsItself):
        model.train_on(data.x, data.y, classes=len(data.schema.classes), seed=rng.seed)
        return Fit(model, (), 0)
    data = data.to(recipe.device)
    groups = GroupIndex(groups.cell.to(recipe.device), groups.names)
    job = _prepare(model, data, groups, recipe, sampler, objective, surgery)
    epochs = recipe.epochs_for(len(data))
    taken = recipe.batch_taken
    per_epoch = job.sampler.steps(len(data), taken)
    if per_epoch == 0:
        raise too_few_rows(recipe.batch, len(data))
    saved = keep.load(rng.name) if keep is not None else None
    if saved:
        job.load(saved)
    forward = _forward(job.model, torch.compile(job.model) if recipe.compile else job.model)
    plan = plan_updates(recipe, per_epoch, epochs)
    started = last_saved = time.monotonic()
    while job.epoch < epochs:
        _epoch(job, forward, data, groups, recipe, rng, plan)
        job.epoch += 1
        if keep is not None:
            keep.epoch(rng.name, job.epoch, epochs, len(data))
            waited = time.monotonic() - last_saved >= recipe.checkpoint_seconds
            if waited and job.epoch < epochs:
                keep.save(rng.name, job.state())
                last_saved = time.monotonic()
    if job.surgery is not None:
        job.surgery.finish(job.model)
    if keep is not None and time.monotonic() - started >= recipe.checkpoint_seconds:
        keep.save(rng.name, job.state())  # until its round is committed, lest it be done twice
    return Fit(job.model.eval(), tuple(job.losses), plan.updates)


def _prepare(
    model: nn.Module,
    data: GroupedData,
    groups: GroupIndex,
    recipe: Recipe,
    sampler: Sampler | None,
    objective: Objective | None,
    surgery: Surgery | None,
) -> _Job:
    objective = Erm(recipe.label_smoothing) if objective is None else objective
    sampler = Uniform(drop_last=recipe.drop_last) if sampler is None else sampler
    if recipe.micro_batch is not None:
        check_separable(objective, recipe.micro_batch)
    placed(model, recipe)
    objective.bind(model, data, groups)
    sampler.bind(model, data, groups)
    optimizer = build_optimizer([*model.parameters(), *objective.parameters()], recipe)
    return _Job(model, optimizer, sampler, objective, surgery, [])


def _forward(model: nn.Module, step: Callable[..., Any]) -> Forward:
    """How a batch goes through the model: its inputs, and its labels where it is taught by them."""
    if reads_labels(model):
        return lambda batch: step(batch.x, batch.y)
    return lambda batch: step(batch.x)


def placed(model: nn.Module, recipe: Recipe) -> nn.Module:
    """`model` where and as the recipe computes: its device, precision and memory layout."""
    model.to(device=recipe.device, dtype=torch.float64 if recipe.precision == "fp64" else None)
    if recipe.use_channels_last(model):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _epoch(
    job: _Job,
    forward: Forward,
    data: GroupedData,
    groups: GroupIndex,
    recipe: Recipe,
    rng: Rng,
    plan: Plan,
) -> None:
    job.model.train()
    if job.surgery is not None:
        job.surgery.begin(job.model, job.epoch)
    stream = rng.at("epoch", job.epoch)
    moved = stream.at("augment").gen(recipe.device)
    batches = job.sampler.epoch(data, groups, batch=recipe.batch_taken, rng=stream.at("sampler"))
    step = job.epoch * plan.per_epoch
    losses: list[Tensor] = []
    units: list[Tensor] = []
    with private_noise(stream.at("noise"), recipe.device):
        for drawn in batches:
            batch = _batch(drawn, data, groups, recipe, moved)
            losses.append(_step(job, forward, batch, recipe, step, plan))
            units.append(_units(job.objective, batch))
            step += 1
    if step != (job.epoch + 1) * plan.per_epoch:
        raise RuntimeError(f"the sampler gave {len(losses)} batches and announced {plan.per_epoch}")
    job.losses.append(_mean_loss(torch.stack(losses), torch.stack(units), rng.name, job.epoch))


def _step(
    job: _Job, forward: Forward, batch: Batch, recipe: Recipe, step: int, plan: Plan
) -> Tensor:
    if plan.begins(step):
        job.optimizer.zero_grad(set_to_none=True)
    loss, outputs = _gradient(job, forward, batch, recipe, plan.weight)
    lr = plan.lr(step)
    if lr is None:
        return loss
    for group in job.optimizer.param_groups:
        group["lr"] = lr
    if recipe.clip_norm:
        trained = [*job.model.parameters(), *job.objective.parameters()]
        nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
    job.optimizer.step()
    if job.surgery is not None:
        job.surgery.apply(job.model)
    seen = Seen(step, batch, outputs, job.model)
    job.objective.after(seen)
    job.sampler.after(seen)
    return loss


def _gradient(
    job: _Job, forward: Forward, batch: Batch, recipe: Recipe, weight: float
) -> tuple[Tensor, Any]:
    """The batch's gradient, added to the parameters'; its loss and outputs without gradient."""
    if recipe.micro_batch is None or len(batch) <= recipe.micro_batch:
        loss, outputs = _loss(job, forward, batch, recipe)
        (loss if weight == 1 else loss * weight).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), _detached(outputs)
    objective = job.objective
    assert isinstance(objective, Separable)
    whole, total = objective.units(batch.y), torch.zeros((), device=batch.x.device)
    parts = []
    for part in _parts(batch, recipe.micro_batch):
        loss, outputs = _loss(job, forward, part, recipe)
        loss = loss * (objective.units(part.y) / whole)
        loss.backward()  # type: ignore[no-untyped-call]
        total = total + loss.detach()
        parts.append(_detached(outputs))
    return total, _joined(parts)


def _loss(job: _Job, forward: Forward, batch: Batch, recipe: Recipe) -> tuple[Tensor, Any]:
    half = recipe.precision == "bf16"
    with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=half):
        outputs = forward(batch)
        return job.objective.loss(outputs, batch.y, batch.cell), outputs


def _parts(batch: Batch, rows: int) -> Iterator[Batch]:
    for start in range(0, len(batch), rows):
        at = slice(start, start + rows)
        index = None if batch.index is None else batch.index[at]
        yield Batch(batch.x[at], batch.y[at], batch.cell[at], index)


def _detached(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.detach()
    return type(outputs)(*(o.detach() for o in outputs))


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    return type(parts[0])(*map(torch.cat, zip(*parts, strict=True)))


def _batch(
    drawn: Tensor | Batch, data: GroupedData, groups: GroupIndex, recipe: Recipe, moved: Any
) -> Batch:
    if isinstance(drawn, Batch):
        x, y, cell, index = drawn.x, drawn.y, drawn.cell, drawn.index
    else:
        x, y, cell, index = data.x[drawn], data.y[drawn], groups.cell[drawn], drawn
    x = augment(x, recipe.augment, moved)
    if x.is_floating_point() and recipe.precision == "fp64":
        x = x.double()
    return Batch(x, y, cell, index)


def _units(objective: Objective, batch: Batch) -> Tensor:
    """Scalar number of rows, or of whatever the objective is a mean over."""
    if isinstance(objective, Separable):
        return objective.units(batch.y).double()
    return torch.full((), float(len(batch)), dtype=torch.float64, device=batch.x.device)


def _mean_loss(losses: Tensor, units: Tensor, name: str, epoch: int) -> float:
    """Mean over the epoch's rows or tokens; the one place where the losses are read."""
    finite = torch.isfinite(losses)
    if not bool(finite.all()):
        step = int((~finite).nonzero()[0])
        raise not_finite(float(losses[step]), name, epoch, step)
    return float((losses.double() * units).sum() / units.sum())


@contextmanager
def private_noise(rng: Rng, device: torch.device | str) -> Iterator[None]:
    """Layers that draw from torch's global generator (dropout) draw from `rng` inside.

    The global generator is as before afterwards.
    """
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.random.manual_seed(rng.seed)
        yield


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, *, batch: int = 1024) -> Tensor:
    """(N, C) logits of `model` in evaluation mode for `x` (N, ...); modes are put back.

    Raises:
        ValueError: `batch` is not positive.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    if len(x) == 0:
        # One row of zeros tells the width of the output; it is not returned.
        return predict(model, x.new_zeros(1, *x.shape[1:]), batch=batch)[:0]
    tensors = [*model.parameters(), *model.buffers()][:1]
    device = tensors[0].device if tensors else x.device
    double = bool(tensors) and tensors[0].dtype == torch.float64
    training = [module for module in model.modules() if module.training]
    model.eval()
    parts = []
    for start in range(0, len(x), batch):
        chunk = x[start : start + batch].to(device)
        parts.append(model(chunk.double() if double and chunk.is_floating_point() else chunk))
    for module in training:
        module.training = True
    return torch.cat(parts).to(x.device)
