"""Many seeds of a small net trained as one, by stacking their parameters (`torch.func.vmap`).

Each seed's run is a thread that stops at its `fit`; when all of them are there, one stacked fit
does the work of all and each goes on with its own model. Only one thread ever runs, so the streams
of a run are what they are alone. A slice of a stacked product does not depend on how many slices
there are, so a run resumed with fewer seeds left writes the same bytes.

Worth it for nets made of linear layers; stacked convolutions are slower on a CPU.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from evenloop.data import GroupedData
from evenloop.fit import Fit, Keep, fit
from evenloop.groups import GroupIndex
from evenloop.recipe import Recipe, build_optimizer, rate
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform
from evenloop.seams import Objective, Sampler, Surgery

__all__ = ["Together", "fit_stacked", "stackable"]

T = TypeVar("T")
STACKABLE = (nn.Linear, nn.ReLU, nn.Tanh, nn.GELU, nn.Flatten, nn.Identity, nn.Sequential)


def stackable(net: nn.Module, recipe: Recipe) -> bool:
    """Whether `net` is made of layers that gain from stacking and `recipe` acts element-wise."""
    leaves = [m for m in net.modules() if not list(m.children())]
    plain = recipe.augment == "none" and not recipe.clip_norm and not recipe.compile
    return plain and recipe.precision != "bf16" and all(isinstance(m, STACKABLE) for m in leaves)


@dataclass(slots=True)
class _Waiting:
    """One seed's call of `fit`, until its result is there."""

    model: nn.Module
    data: GroupedData
    groups: GroupIndex
    recipe: Recipe
    rng: Rng
    seams: tuple[Sampler | None, Objective | None, Surgery | None]
    keep: Keep | None
    done: Fit | BaseException | None = None

    def alike(self, other: _Waiting) -> bool:
        same_seams = not any(self.seams) and not any(other.seams)
        shapes = [p.shape for p in self.model.parameters()]
        return (
            same_seams
            and len(self.data) == len(other.data)
            and self.recipe == other.recipe
            and shapes == [p.shape for p in other.model.parameters()]
        )


@dataclass(slots=True)
class Together:
    """Runs functions in lockstep, stacking the fits they ask `trainer` for.

    >>> Together().map([lambda: 1, lambda: 2])
    [1, 2]
    """

    _turn: threading.Condition = field(default_factory=threading.Condition)
    _waiting: list[_Waiting] = field(default_factory=list)
    _running: int = 0

    def map(self, runs: Sequence[Callable[[], T]]) -> list[T]:
        """The result of every run, in order; the first error of any is raised when all ended."""
        results: list[Any] = [None] * len(runs)
        errors: list[BaseException | None] = [None] * len(runs)

        def live(place: int) -> None:
            with self._turn:
                try:
                    results[place] = runs[place]()
                except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
                    errors[place] = error
                self._running -= 1
                self._go_if_all_wait()

        self._running = len(runs)
        threads = [threading.Thread(target=live, args=(i,)) for i in range(len(runs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            if error is not None:
                raise error
        return results

    def trainer(
        self,
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
        """`fit`, done together with the other runs' where they are alike."""
        seams = (sampler, objective, surgery)
        mine = _Waiting(model, data, groups, recipe, rng, seams, keep)
        self._waiting.append(mine)
        self._running -= 1
        self._go_if_all_wait()
        self._turn.wait_for(lambda: mine.done is not None)
        assert mine.done is not None
        if isinstance(mine.done, BaseException):
            raise mine.done
        return mine.done

    def _go_if_all_wait(self) -> None:
        if self._running or not self._waiting:
            return
        for batch in _alike(self._waiting):
            try:
                results: Sequence[Fit | BaseException] = _fit_all(batch)
            except Exception as error:  # noqa: BLE001 - raised again in every waiting run
                results = [error] * len(batch)
            for job, done in zip(batch, results, strict=True):
                job.done = done
        self._running = len(self._waiting)
        self._waiting.clear()
        self._turn.notify_all()


def _alike(waiting: Sequence[_Waiting]) -> list[list[_Waiting]]:
    batches: list[list[_Waiting]] = []
    for job in waiting:
        for batch in batches:
            if job.alike(batch[0]):
                batch.append(job)
                break
        else:
            batches.append([job])
    return batches


def _fit_all(jobs: Sequence[_Waiting]) -> list[Fit]:
    first = jobs[0]
    if any(first.seams) or not stackable(first.model, first.recipe):
        return [_fit_alone(job) for job in jobs]
    data = [job.data for job in jobs]
    streams = [job.rng for job in jobs]
    return fit_stacked([job.model for job in jobs], data, recipe=first.recipe, rngs=streams)


def _fit_alone(job: _Waiting) -> Fit:
    sampler, objective, surgery = job.seams
    return fit(
        job.model,
        job.data,
        job.groups,
        recipe=job.recipe,
        rng=job.rng,
        sampler=sampler,
        objective=objective,
        surgery=surgery,
        keep=job.keep,
    )


def fit_stacked(
    models: Sequence[nn.Module],
    data: Sequence[GroupedData],
    *,
    recipe: Recipe,
    rngs: Sequence[Rng],
) -> list[Fit]:
    """One `Fit` per model, trained side by side on its own rows with its own stream.

    The numbers are those of `fit` for each alone, up to the rounding of a batched product.

    Args:
        models: S modules of one architecture, all `stackable`; trained in place.
        data: S data sets of one length.
        recipe: shared by all.
        rngs: S streams.

    Raises:
        ValueError: fewer rows than one batch where short batches are dropped.
        FloatingPointError: a loss is not finite; names the fit, epoch and step.
    """
    if len(models) == 1:
        # A lone product takes another kernel than a batched one; two slices keep the bytes.
        twin = copy.deepcopy(models[0])
        return fit_stacked([models[0], twin], [*data, *data], recipe=recipe, rngs=[*rngs, *rngs])[
            :1
        ]
    device, n = recipe.device, len(data[0])
    dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
    x = torch.stack([d.x for d in data]).to(device)
    x = x.to(dtype) if x.is_floating_point() else x
    y = torch.stack([d.y for d in data]).to(device)
    for model in models:
        model.to(device=device, dtype=dtype)
    params, buffers = stack_module_state(list(models))
    optimizer = build_optimizer(params.values(), recipe)
    uniform = Uniform(recipe.drop_last)
    per_epoch, epochs = uniform.steps(n, recipe.batch), recipe.epochs_for(n)
    if per_epoch == 0:
        raise ValueError(
            f"batch={recipe.batch} is larger than the {n} training rows and short batches are "
            f"dropped; set batch to at most {n} or drop_last=false"
        )
    total, losses = per_epoch * epochs, []
    forward = vmap(lambda p, b, rows: functional_call(models[0], (p, b), (rows,)))
    seeds = torch.arange(len(models), device=device)[:, None]
    for epoch in range(epochs):
        orders = _orders(data, rngs, epoch, uniform, recipe).to(device)
        this = []
        for step in range(per_epoch):
            rows = orders[:, step * recipe.batch : (step + 1) * recipe.batch]
            for group in optimizer.param_groups:
                group["lr"] = rate(epoch * per_epoch + step, total, per_epoch, recipe)
            logits = forward(params, buffers, x[seeds, rows])
            each = _losses(logits, y[seeds, rows], recipe)
            optimizer.zero_grad(set_to_none=True)
            each.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            this.append(each.detach())
        losses.append(torch.stack(this, 1))
    return _unstack(models, params, losses, rngs, total)


def _losses(logits: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
    """(S,) mean cross-entropy of each seed's batch."""
    flat = nn.functional.cross_entropy(
        logits.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=recipe.label_smoothing
    )
    return flat.view(y.shape).mean(1)


def _orders(
    data: Sequence[GroupedData], rngs: Sequence[Rng], epoch: int, uniform: Uniform, recipe: Recipe
) -> Tensor:
    """(S, rows) the row order of this epoch for every seed, as `fit` would draw it."""
    rows = []
    for one, rng in zip(data, rngs, strict=True):
        stream = rng.at("epoch", epoch).at("sampler")
        groups = GroupIndex.of(one)
        rows.append(torch.cat([*uniform.epoch(one, groups, batch=recipe.batch, rng=stream)]))
    return torch.stack(rows)


def _unstack(
    models: Sequence[nn.Module],
    params: dict[str, Any],
    losses: Sequence[Tensor],
    rngs: Sequence[Rng],
    steps: int,
) -> list[Fit]:
    fits = []
    for place, model in enumerate(models):
        for epoch, loss in enumerate(losses):
            bad = (~torch.isfinite(loss[place])).nonzero()
            if len(bad):
                raise FloatingPointError(
                    f"loss is {float(loss[place, bad[0]])} in {rngs[place].name}, epoch {epoch}, "
                    f"step {int(bad[0])} of that epoch; lower lr or look at the rows of that batch"
                )
        own = {name: stacked[place].detach() for name, stacked in params.items()}
        model.load_state_dict(own, strict=False)
        history = tuple(float(loss[place].double().mean()) for loss in losses)
        fits.append(Fit(model.eval(), history, steps))
    return fits
