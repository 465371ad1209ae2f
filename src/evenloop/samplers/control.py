"""One update of the ratios: look at real held-out rows, ask every cell whether it helps, move.

Roh, Nie, Huang, Whang, Vahdat, Anandkumar (2023), "Dr-Fairness: Dynamic Data Ratio Adjustment for
Fair Training on Real and Generated Data", TMLR. Stratified draws, schedules and the entropy term
are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evenloop.samplers.alignments import Alignments, InnerData
from evenloop.samplers.cells import REAL
from evenloop.samplers.head import HeadTap
from evenloop.samplers.held_out import HeldOut
from evenloop.samplers.hypergradient import Hessian, share_gradient
from evenloop.samplers.outer import Outer, RatioObjective
from evenloop.samplers.shares import Ratios, UpdateReport
from evenloop.samplers.validation import Draw, Validation

__all__ = ["RatioController", "UpdateReport"]


class RatioController:
    """Moves `ratios` towards a smaller outer objective of `model` on held-out rows.

    Call `step` once for every training batch, next to the optimiser's step. The model's mode and
    its gradients are as before afterwards; nothing is kept from one update to the next but the
    optimiser's two moments, a running alignment of each cell, and features that are reused.

    Args:
        model: called as model(x) -> logits (n, O) or (n,).
        ratios: the shares to move, of the training rows.
        objective: what is to become small.
        val: held-out rows; real ones decide the objective, generated ones tell how training on
            generated data would act (not needed with `inner_data="train_batch"`).
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
        draw: "stratified" (`per_cell` rows of each cell and source, reweighted by true shares),
            "uniform" (`size` rows of each source, redrawn until no cell is missing), or "all" rows.
        per_cell: rows per cell and source that a stratified update looks at.
        size: rows per source of a uniform draw.
        reuse: updates that the features of a stratified draw serve (see `HeldOut`). None is 2 with
            `inner_data="train_batch"`, where held-out rows are all that an update costs, else 1.
        chunk: rows per forward pass; all at once when None.
        inner_data: which rows' alignments are taken: held-out ones, or those of the batch just
            trained on, whose features cost nothing.
        freeze_norm: leave the model in eval mode after an update, as the published code did.
        distributed: rows are split over the processes of the default group and sums added up.

    Raises:
        ValueError: an option out of range, named with its value.

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
        reuse: int | None = None,
        chunk: int | None = None,
        inner_data: InnerData = "validation",
        freeze_norm: bool = False,
        distributed: bool = False,
    ) -> None:
        _check_options(every, warmup, lr, per_cell, size, entropy)
        if optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer must be 'adam' or 'sgd', got {optimizer!r}")
        if reuse is None:
            reuse = 2 if inner_data == "train_batch" and draw == "stratified" else 1
        self.model, self.ratios, self.generator = model, ratios, generator
        self.held = HeldOut(val, draw, per_cell, size, generator, reuse=reuse, chunk=chunk)
        self.sight = Alignments(
            model,
            ratios,
            objective,
            self.held,
            HeadTap(model, head),
            tuple(parameters) if parameters is not None else None,
            hessian,
            dict(hessian_options or {}),
            inner_data,
            distributed,
        )
        self.every, self.warmup, self.lr, self.schedule = every, warmup, lr, schedule
        self.entropy, self.freeze_norm = entropy, freeze_norm
        logits, kind = [ratios.a, ratios.b], {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self.optimizer: torch.optim.Optimizer = kind[optimizer](logits, lr=lr, fused=True)
        self.steps = self.updates = 0
        shape = (ratios.cells.sources, *ratios.cells.shape)
        self._aligned = torch.full(shape, torch.nan, dtype=torch.float64)

    def step(self, rows: Tensor | None = None, *, lag: int = 0) -> UpdateReport | None:
        """Count a training step; update the ratios if one is due, else return None.

        Args:
            rows: (B,) rows of `ratios.cells` in the batch just passed forward, in its order;
                needed with `inner_data="train_batch"`.
            lag: batches already drawn with older ratios, for the report.

        Raises:
            ValueError: a loss is not finite (naming its cell, or all), or `rows` is missing.
            RuntimeError: no training pass was seen with `inner_data="train_batch"`.
        """
        self.steps += 1
        past = self.steps - 1 - self.warmup
        if past < 0 or past % self.every:
            return None
        seen = self.sight.look(rows)
        if self.freeze_norm:
            self.model.eval()
        return self._move(seen.share, seen.outer, seen.total, seen.count, lag)

    def close(self) -> None:
        """Stop watching the model's head; the controller cannot be used afterwards."""
        self.sight.tap.close()

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
        cells, update = self.held.cells, self.updates + 1
        for what, bad, known in (
            ("held-out loss", ~table.isfinite(), cells.counts[REAL] > 0),
            ("alignment", (~fresh.isfinite() & counted).any(0), counted.any(0)),
        ):
            bad = bad & known
            if bool((bad == known).all()):
                raise ValueError(
                    f"{what} of all cells is not finite at update {update}: the model diverged or "
                    "was trained on NaN; lower lr, set clip_norm, or clean the training rows"
                )
            if bool(bad.any()):
                raise ValueError(
                    f"{what} of cell {cells.names[int(bad.flatten().nonzero()[0])]!r} is not "
                    f"finite at update {update}: its held-out rows hold NaN or the model diverges "
                    "there; clean the rows or lower lr"
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
            "pools": self.held.draws.pools.state_dict(),
            "kept": self.held.state_dict(),
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
        self.held.draws.pools.load_state_dict(state["pools"])
        self.held.load_state_dict(state["kept"])
        self.generator.set_state(state["generator"])


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
