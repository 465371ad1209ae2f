"""Many seeds of a small net trained as one, by stacking their parameters (`torch.func.vmap`).

Each seed's run is a thread that stops at its `fit`; when all of them are there, one stacked fit
does the work of all and each goes on with its own model. Only one thread ever runs, so the streams
of a run are what they are alone. What one slice of a stack becomes does not depend on how many
slices there are, so a run resumed with fewer seeds left writes the same bytes.

Worth it for nets made of linear layers; stacked convolutions are slower on a CPU. These fits are
short: they tell of their epochs but save nothing before they end, so an interrupted one is begun
again.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from evenloop.data import GroupedData
from evenloop.faults import not_finite, too_few_rows
from evenloop.fit import Fit, Keep, fit
from evenloop.groups import GroupIndex
from evenloop.optimizer import build_optimizer
from evenloop.recipe import Recipe, rate
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform
from evenloop.seams import Seams
from evenloop.study.threads import settled

__all__ = ["Together", "fit_stacked", "stackable"]

T = TypeVar("T")
# Elementwise kernels round the last few numbers of a tensor otherwise than the rest. Every slice
# is padded to a whole number of the widest vectors, so that no slice is ever such a rest.
LANES = 64
STACKABLE = (nn.Linear, nn.ReLU, nn.Tanh, nn.GELU, nn.Flatten, nn.Identity, nn.Sequential)


def stackable(net: nn.Module, recipe: Recipe) -> bool:
    """Whether `net` is made of layers that gain from stacking and `recipe` acts element-wise."""
    leaves = [m for m in net.modules() if not list(m.children())]
    other = recipe.clip_norm or recipe.micro_batch or recipe.compile or recipe.precision == "bf16"
    return not other and recipe.augment == "none" and all(isinstance(m, STACKABLE) for m in leaves)


@dataclass(slots=True)
class _Waiting:
    """One seed's call of `fit`, until its result is there."""

    model: nn.Module
    data: GroupedData
    groups: GroupIndex
    recipe: Recipe
    rng: Rng
    keep: Keep | None
    seams: Seams
    done: Fit | BaseException | None = None

    @property
    def plain(self) -> bool:
        """Whether no seam is given, so that the fit may be stacked."""
        return all(seam is None for seam in self.seams.values())

    def alike(self, other: _Waiting) -> bool:
        return (
            self.plain
            and other.plain
            and len(self.data) == len(other.data)
            and self.recipe == other.recipe
            and _architecture(self.model) == _architecture(other.model)
        )


def _architecture(model: nn.Module) -> tuple[Any, ...]:
    """What two models must share to be computed as one: types, settings and shapes of all parts."""
    kinds = tuple(type(m) for m in model.modules())
    shapes = tuple((n, p.shape) for n, p in (*model.named_parameters(), *model.named_buffers()))
    return kinds, repr(model), shapes


@dataclass(slots=True)
class Together:
    """Runs functions in lockstep, stacking the fits they ask `trainer` for.

    >>> Together().map([lambda: 1, lambda: 2])
    [1, 2]
    """

    _turn: threading.Condition = field(default_factory=threading.Condition)
    _waiting: list[_Waiting] = field(default_factory=list)
    _running: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)

    def map(self, runs: Sequence[Callable[[], T]]) -> list[T | Exception]:
        """What every run returned, in order, or the exception it ended with; none stops another.

        Ctrl-C stops all of them at their next epoch, round or fit, and comes out of here when the
        last of them has ended, so that nothing is left writing.

        Raises:
            KeyboardInterrupt: from the keyboard, or from one of the runs.
        """
        results: list[Any] = [None] * len(runs)

        def live(place: int) -> None:
            with self._turn:
                try:
                    results[place] = runs[place]()
                except KeyboardInterrupt:
                    self._stopped.set()
                except Exception as error:  # noqa: BLE001 - handed to the caller
                    results[place] = error
                self._running -= 1
                self._go_if_all_wait()

        self._running = len(runs)
        if len(runs) == 1:
            live(0)
        else:
            self._join([threading.Thread(target=live, args=(i,)) for i in range(len(runs))])
        if self._stopped.is_set():
            raise KeyboardInterrupt
        return results

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        waiting = list(threads)
        try:
            for thread in threads:
                thread.start()
        except KeyboardInterrupt:
            # Those not begun would be waited for by the others for ever.
            self._stopped.set()
            waiting = [thread for thread in threads if thread.ident is not None]
            self._running -= len(threads) - len(waiting)
        while waiting:
            try:
                # A join without a time limit would not hear Ctrl-C on every system.
                waiting[0].join(0.2)
                waiting = [thread for thread in waiting if thread.is_alive()]
            except KeyboardInterrupt:
                self._stopped.set()
        settled(threads)

    def check(self) -> None:
        """Called by a run now and then, ends it if all are to stop.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        if self._stopped.is_set():
            raise KeyboardInterrupt

    def trainer(
        self,
        model: nn.Module,
        data: GroupedData,
        groups: GroupIndex,
        *,
        recipe: Recipe,
        rng: Rng,
        keep: Keep | None = None,
        **seams: Unpack[Seams],
    ) -> Fit:
        """`fit`, done together with the other runs' where they are alike."""
        self.check()
        mine = _Waiting(model, data, groups, recipe, rng, keep, seams)
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
        # Whatever happens, every waiting run must get a result: it would wait for ever.
        try:
            for batch in _alike(self._waiting):
                self._fit_batch(batch)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised in every run
            for job in self._waiting:
                job.done = job.done or error
        self._running = len(self._waiting)
        self._waiting.clear()
        self._turn.notify_all()

    def _fit_batch(self, batch: Sequence[_Waiting]) -> None:
        self.check()
        try:
            results = _fit_all(batch, self.check)
        except Exception as error:  # noqa: BLE001 - raised again in the runs of this batch
            results = [error] * len(batch)
        for job, done in zip(batch, results, strict=True):
            job.done = done


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


def _fit_all(jobs: Sequence[_Waiting], check: Callable[[], None]) -> Sequence[Fit | Exception]:
    first = jobs[0]
    if not first.plain or not stackable(first.model, first.recipe):
        return [_fit_alone(job) for job in jobs]

    def tell(epoch: int, epochs: int) -> None:
        check()
        for job in jobs:
            if job.keep and epoch < epochs:
                job.keep.epoch(job.rng.name, epoch, epochs, len(job.data))

    data = [job.data for job in jobs]
    streams = [job.rng for job in jobs]
    models = [job.model for job in jobs]
    return fit_stacked(models, data, recipe=first.recipe, rngs=streams, tell=tell)


def _fit_alone(job: _Waiting) -> Fit | Exception:
    try:
        return fit(
            job.model,
            job.data,
            job.groups,
            recipe=job.recipe,
            rng=job.rng,
            keep=job.keep,
            **job.seams,
        )
    except Exception as error:  # noqa: BLE001 - raised again in the run it belongs to
        return error


def fit_stacked(
    models: Sequence[nn.Module],
    data: Sequence[GroupedData],
    *,
    recipe: Recipe,
    rngs: Sequence[Rng],
    tell: Callable[[int, int], None] | None = None,
) -> list[Fit | Exception]:
    """What training made of each model, side by side on its own rows with its own stream.

    The numbers are those of `fit` for each alone, up to the rounding of a batched product, and do
    not depend on which others are there: a model whose loss is not finite gets a
    `FloatingPointError` (naming the fit, epoch and step) in its place and leaves the others alone.

    Args:
        models: S modules of one architecture, all `stackable`; trained in place.
        data: S data sets of one length.
        recipe: shared by all.
        rngs: S streams.
        tell: called with (epochs done, epochs) after every epoch; what it raises ends the fit.

    Raises:
        ValueError: fewer rows than one batch where short batches are dropped.
    """
    if len(models) == 1:
        # A lone product takes another kernel than a batched one; two slices keep the bytes.
        twins, pair = [models[0], copy.deepcopy(models[0])], [*data, *data]
        return fit_stacked(twins, pair, recipe=recipe, rngs=[*rngs, *rngs], tell=tell)[:1]
    device, n = recipe.device, len(data[0])
    dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
    x = torch.stack([d.x for d in data]).to(device)
    x = x.to(dtype) if x.is_floating_point() else x
    y = torch.stack([d.y for d in data]).to(device)
    stack = _Stack.of([model.to(device=device, dtype=dtype) for model in models])
    optimizer = build_optimizer(stack.padded.values(), recipe)
    uniform = Uniform(recipe.drop_last)
    per_epoch, epochs = _steps(uniform, n, recipe), recipe.epochs_for(n)
    total, losses = per_epoch * epochs, []
    forward = vmap(lambda p, b, rows: functional_call(models[0], (p, b), (rows,)))
    seeds = torch.arange(len(models), device=device)[:, None]
    groups = [GroupIndex.of(one) for one in data]
    for epoch in range(epochs):
        streams = [rng.at("epoch", epoch).at("sampler") for rng in rngs]
        orders = _orders(data, groups, streams, uniform, recipe.batch).to(device)
        this = []
        for step in range(per_epoch):
            rows = orders[:, step * recipe.batch : (step + 1) * recipe.batch]
            for group in optimizer.param_groups:
                group["lr"] = rate(epoch * per_epoch + step, total, per_epoch, recipe)
            logits = forward(stack.params, stack.buffers, x[seeds, rows])
            each = _losses(logits, y[seeds, rows], recipe)
            stack.backward(each.sum())
            optimizer.step()
            this.append(each.detach())
        losses.append(torch.stack(this, 1))
        if tell:
            tell(epoch + 1, epochs)
    sizes = [min(recipe.batch, n - step * recipe.batch) for step in range(per_epoch)]
    return _unstack(models, stack.params, torch.stack(losses, 1), sizes, rngs)


@dataclass(frozen=True, slots=True, eq=False)
class _Stack:
    """Parameters of S models: `padded` (S, whole vectors) for the optimiser, `params` to use.

    Both are the same memory; `params` has the shapes of the model.
    """

    padded: dict[str, Tensor]
    params: dict[str, Tensor]
    buffers: dict[str, Any]

    @staticmethod
    def of(models: Sequence[nn.Module]) -> _Stack:
        stacked, buffers = stack_module_state(list(models))
        padded, params = {}, {}
        for name, values in stacked.items():
            flat = values.detach().flatten(1)
            width = -(-flat.shape[1] // LANES) * LANES
            memory = flat.new_zeros(len(models), width)
            memory[:, : flat.shape[1]] = flat
            params[name] = memory[:, : flat.shape[1]].view(values.shape).requires_grad_()
            padded[name] = memory
            memory.grad = torch.zeros_like(memory)
        return _Stack(padded, params, buffers)

    def backward(self, loss: Tensor) -> None:
        """Put the gradients of `loss` where the optimiser looks for them."""
        grads = torch.autograd.grad(loss, list(self.params.values()))
        for memory, grad in zip(self.padded.values(), grads, strict=True):
            assert memory.grad is not None
            memory.grad[:, : grad[0].numel()] = grad.flatten(1)


def _steps(uniform: Uniform, rows: int, recipe: Recipe) -> int:
    steps = uniform.steps(rows, recipe.batch)
    if steps == 0:
        raise too_few_rows(recipe.batch, rows)
    return steps


def _losses(logits: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
    """(S,) mean cross-entropy of each seed's batch."""
    flat = nn.functional.cross_entropy(
        logits.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=recipe.label_smoothing
    )
    return flat.view(y.shape).mean(1)


def _orders(
    data: Sequence[GroupedData],
    groups: Sequence[GroupIndex],
    streams: Sequence[Rng],
    uniform: Uniform,
    batch: int,
) -> Tensor:
    """(S, rows) the row order of this epoch for every seed, as `fit` would draw it."""
    rows = []
    for one, cells, stream in zip(data, groups, streams, strict=True):
        rows.append(torch.cat([*uniform.epoch(one, cells, batch=batch, rng=stream)]))
    return torch.stack(rows)


def _unstack(
    models: Sequence[nn.Module],
    params: dict[str, Tensor],
    losses: Tensor,
    rows: Sequence[int],
    rngs: Sequence[Rng],
) -> list[Fit | Exception]:
    """The fit of each model, from `losses` (S, epochs, steps) of batches of `rows` (steps)."""
    share = torch.tensor(rows, dtype=torch.float64) / sum(rows)
    fits: list[Fit | Exception] = []
    for place, model in enumerate(models):
        bad = (~torch.isfinite(losses[place])).nonzero().tolist()
        if bad:
            epoch, step = bad[0]
            loss = float(losses[place, epoch, step])
            fits.append(not_finite(loss, rngs[place].name, epoch, step))
            continue
        own = {name: stacked[place].detach() for name, stacked in params.items()}
        model.load_state_dict(own, strict=False)
        history = tuple((losses[place].double().cpu() @ share).tolist())
        fits.append(Fit(model.eval(), history, losses[place].numel()))
    return fits
