"""One update of the ratios: look at real held-out rows, ask every cell whether it helps, move.

Roh, Nie, Huang, Whang, Vahdat, Anandkumar (2023), "Dr-Fairness: Dynamic Data Ratio Adjustment for
Fair Training on Real and Generated Data", TMLR. Stratified draws, training-batch alignments,
schedules and other Hessians than the identity are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from evenloop.samplers.cells import REAL
from evenloop.samplers.head import HeadTap, evaluating
from evenloop.samplers.hypergradient import (
    Hessian,
    alignment,
    head_alignment,
    head_direction,
    head_hessian_product,
    share_gradient,
    solve,
)
from evenloop.samplers.outer import Outer, RatioObjective
from evenloop.samplers.shares import Ratios, UpdateReport
from evenloop.samplers.validation import Draw, Draws, Validation

__all__ = ["RatioController", "UpdateReport"]


class RatioController:
    """Moves `ratios` towards a smaller outer objective of `model` on held-out rows.

    Call `step` once for every training batch, next to the optimiser's step. The model's mode and
    its gradients are as before afterwards; nothing is kept from one update to the next but the
    optimiser's two moments and a running alignment of each cell.

    >>> from evenloop.models import build
    >>> from evenloop.samplers.cells import CellIndex
    >>> x, cells = torch.eye(40), CellIndex([0, 1] * 20, [0, 0, 1, 1] * 10)
    >>> net = build("logistic", features=40, classes=2, seed=0)
    >>> control = RatioController(
    ...     net,
    ...     Ratios(cells),
    ...     RatioObjective(),
    ...     Validation(x, cells),
    ...     generator=torch.Generator().manual_seed(0),
    ...     inner_data="train_batch",
    ... )
    >>> rows = torch.arange(10)
    >>> net(x[rows]).logsumexp(1).mean().backward()  # stands for the training step
    >>> report = control.step(rows)
    >>> report.lam.sum(1).tolist()
    [1.0, 1.0]
    """

    def __init__(
        self,
        model: nn.Module,
        ratios: Ratios,
        objective: RatioObjective,
        val: Validation,
        *,
        generator: torch.Generator,
        head: str | nn.Module = "auto",
        parameters: Sequence[str] | None = None,
        hessian: Hessian = "identity",
        hessian_options: Mapping[str, float] | None = None,
        every: int = 1,
        warmup: int = 0,
        lr: float = 5e-3,
        schedule: Callable[[int], float] | None = None,
        optimizer: Literal["adam", "sgd"] = "adam",
        entropy: float = 0.0,
        draw: Draw = "stratified",
        per_cell: int = 16,
        size: int = 128,
        chunk: int | None = None,
        inner_data: Literal["validation", "train_batch"] = "validation",
        freeze_norm: bool = False,
        distributed: bool = False,
    ) -> None:
        """A controller of `ratios`.

        Args:
            model: called as model(x) -> logits (n, O) or (n,).
            ratios: the shares to move, of the training rows.
            objective: what is to become small.
            val: held-out rows; real ones decide the objective, generated ones tell how training
                on generated data would act (not needed with `inner_data="train_batch"`).
            generator: draws the held-out rows; equal on all processes when distributed.
            head: the last linear layer, or "auto".
            parameters: names of the parameters to differentiate instead of the head's.
            hessian: see `solve`; other than "identity" on the head only.
            hessian_options: `steps`, `damping`, `rate` of `solve`.
            every: training steps between updates.
            warmup: training steps before the first update.
            lr: step on the logits; with Adam about the distance each logit moves per update.
            schedule: update number -> factor on `lr`.
            optimizer: "adam" or "sgd".
            entropy: weight of a pull of both shares towards uniform.
            draw: "stratified" (`per_cell` rows of each cell and source, reweighted by true
                shares), "uniform" (`size` rows of each source, redrawn until no cell is missing),
                or "all" rows.
            per_cell: rows per cell and source of a stratified draw.
            size: rows per source of a uniform draw.
            chunk: rows per forward pass; all at once when None.
            inner_data: which rows' alignments are taken: held-out ones, or those of the batch just
                trained on, whose features cost nothing.
            freeze_norm: leave the model in eval mode after an update, as the published code did.
            distributed: rows are split over the processes of the default group and sums added up.

        Raises:
            ValueError: an option out of range, named with its value.
        """
        _check_options(every, warmup, lr, per_cell, size, entropy)
        if val.cells.shape != ratios.cells.shape:
            raise ValueError(
                f"val has {val.cells.shape} labels x groups, the training rows "
                f"{ratios.cells.shape}: index both with the same classes= and groups="
            )
        if inner_data not in ("validation", "train_batch"):
            raise ValueError(
                f"inner_data must be 'validation' or 'train_batch', got {inner_data!r}"
            )
        if parameters is not None and (hessian != "identity" or inner_data != "validation"):
            raise ValueError(
                "parameters= works with hessian='identity' and inner_data='validation'; "
                f"got {hessian!r} and {inner_data!r}"
            )
        if optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer must be 'adam' or 'sgd', got {optimizer!r}")
        self.model, self.ratios, self.objective, self.val = model, ratios, objective, val
        self.tap = HeadTap(model, head)
        self.parameters = tuple(parameters) if parameters is not None else None
        self.hessian, self.hessian_options = hessian, dict(hessian_options or {})
        self.every, self.warmup, self.lr, self.schedule = every, warmup, lr, schedule
        self.entropy, self.inner_data, self.chunk = entropy, inner_data, chunk
        self.freeze_norm, self.distributed, self.generator = freeze_norm, distributed, generator
        self._rows = Draws(val.cells, draw, per_cell, size, generator)
        logits, kind = [ratios.a, ratios.b], {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self.optimizer: torch.optim.Optimizer = kind[optimizer](logits, lr=lr, fused=True)
        self.steps = self.updates = 0
        shape = (ratios.cells.sources, *ratios.cells.shape)
        self._aligned = torch.full(shape, torch.nan, dtype=torch.float64)
        if self.parameters is None:
            self.tap.look(self._fetch(torch.arange(1)))  # find the head before it is needed
        else:
            _subset(model, self.parameters)

    def step(self, rows: Tensor | None = None, *, lag: int = 0) -> UpdateReport | None:
        """Count a training step; update the ratios if one is due, else return None.

        Args:
            rows: (B,) rows of `ratios.cells` in the batch just passed forward, in its order;
                needed with `inner_data="train_batch"`.
            lag: batches already drawn with older ratios, for the report.

        Raises:
            ValueError: a cell's loss is not finite (named), or `rows` is missing.
            RuntimeError: no training pass was seen with `inner_data="train_batch"`.
        """
        self.steps += 1
        past = self.steps - 1 - self.warmup
        if past < 0 or past % self.every:
            return None
        inner = self._inner_batch(rows) if self.inner_data == "train_batch" else None
        drawn = self._rows.draw(REAL if inner is not None else None)
        share = self._rows.shares_of(drawn)
        outer, total, count = self._look(drawn, inner, share)
        if self.freeze_norm:
            self.model.eval()
        return self._move(share, outer, total, count, lag)

    def _inner_batch(self, rows: Tensor | None) -> _Rows:
        """Features, logits, labels and places of the batch just trained on."""
        if rows is None:
            raise ValueError("inner_data='train_batch' needs rows=, the rows of the batch")
        features, logits = self.tap.trained()
        if len(rows) != len(logits):
            raise ValueError(f"rows has {len(rows)} entries, the batch just trained {len(logits)}")
        cells, rows, device = self.ratios.cells, rows.cpu(), logits.device
        return _Rows(features, logits, cells.label[rows].to(device), cells.place[rows].to(device))

    def _fetch(self, rows: Tensor) -> Tensor:
        like, x = next(self.model.parameters()), self.val.fetch(rows)
        return x.to(like.device, like.dtype if x.is_floating_point() else None)

    def close(self) -> None:
        """Stop watching the model's head; the controller cannot be used afterwards."""
        self.tap.close()

    def _look(
        self, drawn: Tensor, inner: _Rows | None, share: Tensor
    ) -> tuple[Outer, Tensor, Tensor]:
        """The outer objective and the alignment sums and counts (S*C*G,)."""
        if self.distributed:
            drawn = drawn[dist.get_rank() :: dist.get_world_size()]
        cells, objective = self.val.cells, self.objective
        x = self._fetch(drawn)
        y, place = cells.label[drawn].to(x.device), cells.place[drawn].to(x.device)
        real = int((cells.source[drawn] == REAL).sum())  # rows come in source order
        places, shape = self._aligned.numel(), cells.shape
        reduce = self._sum if self.distributed else None
        kept: list[Outer] = []

        def slope(logits: Tensor) -> Tensor:
            statistics = objective.statistics(logits, y[:real])
            outer = objective.at(statistics, place[:real], shape, share, reduce)
            kept.append(outer)
            return objective.logit_weights(logits, y[:real], outer.weight)

        if self.parameters is not None:
            subset = _subset(self.model, self.parameters)
            with evaluating(self.model):
                total, count = alignment(
                    self.model, subset, x[:real], slope, x, y, place, places, reduce=reduce
                )
        else:
            features, logits = self.tap.look(x, self.chunk)
            v_w, v_b = head_direction(features[:real], slope(logits[:real]))
            if inner is None:
                inner = _Rows(features, logits, y, place)
            v = torch.cat([v_w.flatten(), v_b])
            if reduce is not None:
                reduce(v)
            v = self._inverted(v, inner)
            v_w, v_b = v[: v_w.numel()].view_as(v_w), v[v_w.numel() :]
            total, count = head_alignment(
                inner.features, inner.logits, inner.y, inner.place, v_w, v_b, places
            )
        if reduce is not None:
            reduce(total)
            reduce(count)
        return kept[0], total, count

    def _inverted(self, v: Tensor, inner: _Rows) -> Tensor:
        """Return v after the approximate inverse Hessian of the training objective."""
        if self.hessian == "identity":
            return v
        count = torch.bincount(inner.place, minlength=self._aligned.numel()).to(v)
        if self.distributed:
            self._sum(count)
        pi = self.ratios.quota(1.0)[:, None]
        weight = (self.ratios.shares * pi).flatten().to(v) / count.clamp_min(1)
        product = head_hessian_product(inner.features, inner.logits, weight[inner.place])

        def whole(u: Tensor) -> Tensor:
            out = product(u)
            if self.distributed:
                self._sum(out)
            return out

        options = self.hessian_options
        return solve(
            whole,
            v,
            self.hessian,
            steps=int(options.get("steps", 10)),
            damping=options.get("damping", 1e-3),
            rate=options.get("rate", 0.1),
        )

    def _sum(self, values: Tensor) -> None:
        whole = values.contiguous()  # a strided view would be reduced wrongly, without an error
        dist.all_reduce(whole)
        if whole is not values:
            values.copy_(whole)

    def _move(
        self, share: Tensor, outer: Outer, total: Tensor, count: Tensor, lag: int
    ) -> UpdateReport:
        scalars = torch.stack([outer.value, outer.gap, outer.accuracy])
        packed = torch.cat([outer.table.flatten(), scalars, total / count]).double().cpu()
        size = outer.table.numel()
        table, (value, gap, accuracy) = packed[:size].view_as(outer.table), packed[size : size + 3]
        fresh = packed[size + 3 :].view_as(self._aligned)
        if not bool(packed.isfinite().all()):
            self._check_finite(table, fresh, count.cpu().view_as(fresh) > 0)
            fresh = torch.where(fresh.isnan(), self._aligned, fresh)
        self._aligned = fresh
        g_a, g_b = self._gradients(share.sum(1))
        ratios = self.ratios
        ratios.a.grad, ratios.b.grad = g_a, g_b
        factor = 1.0 if self.schedule is None else self.schedule(self.updates)
        for options in self.optimizer.param_groups:
            options["lr"] = self.lr * factor
        self.optimizer.step()
        ratios.touch()
        self.updates += 1
        return UpdateReport(
            update=self.updates,
            lam=ratios.lam.clone(),
            mix=ratios.mix.clone(),
            table=table,
            value=float(value),
            gap=float(gap),
            accuracy=float(accuracy),
            aligned=self._aligned.clone(),
            g_a=g_a,
            g_b=g_b,
            lag=lag,
        )

    def _gradients(self, pi: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients on both logits; a cell or source never seen gets no pull of its own."""
        ratios = self.ratios
        lam, mix = ratios.lam, ratios.mix
        g_share = share_gradient(pi, _filled(self._aligned, lam, mix))
        g_lam, g_mix = (mix * g_share).sum(0), lam * g_share
        if self.entropy:
            g_lam = g_lam + self.entropy * (lam.clamp_min(1e-12).log() + 1)
            g_mix = g_mix + self.entropy * (mix.clamp_min(1e-12).log() + 1)
        return ratios.pull_back(g_lam, g_mix)

    def _check_finite(self, table: Tensor, fresh: Tensor, counted: Tensor) -> None:
        """Name the first cell whose loss or alignment is NaN or infinite though it has rows."""
        names = self.val.cells.names
        for what, bad in (
            ("held-out loss", ~table.isfinite() & (self.val.cells.counts[REAL] > 0)),
            ("alignment", (~fresh.isfinite() & counted).any(0)),
        ):
            if bool(bad.any()):
                cell = names[int(bad.flatten().nonzero()[0])]
                raise ValueError(
                    f"{what} of cell {cell!r} is not finite at update {self.updates + 1}: the "
                    "model diverged or its inputs hold NaN; lower lr or clean the rows"
                )

    def state_dict(self) -> dict[str, Any]:
        """Counters, running alignments, optimiser moments, draws: all that crosses an update."""
        moments = self.optimizer.state_dict()["state"]
        return {
            "steps": self.steps,
            "updates": self.updates,
            "aligned": self._aligned.clone(),
            "moments": {
                str(k): {n: torch.as_tensor(t).clone() for n, t in v.items() if t is not None}
                for k, v in moments.items()
            },
            "pools": self._rows.pools.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`; the ratios have a state of their own."""
        self.steps, self.updates = int(state["steps"]), int(state["updates"])
        self._aligned = state["aligned"].clone()
        whole = self.optimizer.state_dict()
        whole["state"] = {
            int(k): {n: t.clone() for n, t in v.items()} for k, v in state["moments"].items()
        }
        self.optimizer.load_state_dict(whole)
        self._rows.pools.load_state_dict(state["pools"])
        self.generator.set_state(state["generator"])


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows whose alignment is asked: features (n, H), logits (n, O), labels and places (n,)."""

    features: Tensor
    logits: Tensor
    y: Tensor
    place: Tensor


def _filled(aligned: Tensor, lam: Tensor, mix: Tensor) -> Tensor:
    """(S, C, G) alignments; where none was seen, the mean of the cell's or else the label's."""
    known = ~aligned.isnan()
    if bool(known.all()):
        return aligned
    aligned = aligned.nan_to_num()
    weight = mix.clamp_min(1e-12) * known
    in_cell = (weight * aligned).sum(0) / weight.sum(0).clamp_min(1e-300)
    seen = known.any(0)
    weight = lam.clamp_min(1e-12) * seen
    in_label = (weight * in_cell).sum(1) / weight.sum(1).clamp_min(1e-300)
    in_cell = torch.where(seen, in_cell, in_label[:, None])
    return torch.where(known, aligned, in_cell)


def _subset(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    have = dict(model.named_parameters())
    if missing := [n for n in names if n not in have]:
        raise ValueError(f"the model has no parameters {missing}; it has: {sorted(have)}")
    return {n: have[n] for n in names}


def _check_options(
    every: int, warmup: int, lr: float, per_cell: int, size: int, entropy: float
) -> None:
    for name, value, low in (
        ("every", every, 1),
        ("warmup", warmup, 0),
        ("per_cell", per_cell, 1),
        ("size", size, 1),
        ("entropy", entropy, 0),
    ):
        if value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")
    if not lr > 0:
        raise ValueError(f"lr must be positive, got {lr}")
