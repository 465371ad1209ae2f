"""The learned shares: how much of each group inside a label, and of each source inside a cell.

Roh, Nie, Huang, Whang, Vahdat, Anandkumar (2023), "Dr-Fairness: Dynamic Data Ratio Adjustment for
Fair Training on Real and Generated Data", TMLR. Floors and more than two sources are ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evenloop.samplers.cells import REAL, CellIndex

__all__ = ["Ratios", "UpdateReport"]


@dataclass(frozen=True, slots=True, eq=False)
class UpdateReport:
    """What one update saw and did; all tensors float64 on the CPU.

    `lam` (C, G), `mix` (S, C, G): shares after the update. `table` (C, G): real held-out cell
    losses in nats, nan where absent. `aligned` (S, C, G): alignments, nan where never seen.
    `g_a`, `g_b`: hypergradients on the logits. `lag`: batches drawn but not yet trained on.
    """

    update: int
    lam: Tensor
    mix: Tensor
    table: Tensor
    value: float
    gap: float
    accuracy: float
    aligned: Tensor
    g_a: Tensor
    g_b: Tensor
    lag: int

    def as_dict(self) -> dict[str, Any]:
        """Numbers and nested lists, for one JSON line."""
        return {
            "update": self.update,
            "lambda": self.lam.tolist(),
            "mu": self.mix[REAL].tolist(),
            "mix": self.mix.tolist(),
            "cell_loss": [[None if v != v else v for v in row] for row in self.table.tolist()],
            "value": self.value,
            "gap": self.gap,
            "loss": self.accuracy,
            "norm_a": float(self.g_a.norm()),
            "norm_b": float(self.g_b.norm()),
            "lag": self.lag,
        }


class Ratios:
    """Shares behind unconstrained logits `a` (C, G) and `b` (S-1, C, G), float64, on the CPU.

    `lam[y]` = softmax over groups of `a[y]`; `mix[:, y, z]` = softmax over sources of
    (`b[:, y, z]`, 0), so that with two sources the real share `mu` is sigmoid(`b`). With floors,
    both are pulled linearly towards uniform so that no share falls below the floor. A cell
    without real rows has share 0; a source without rows in a cell has share 0 there.

    >>> cells = CellIndex([0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1])
    >>> ratios = Ratios(cells)
    >>> ratios.lam.round(decimals=3).tolist(), ratios.mu.tolist()
    ([[0.75, 0.25]], [[0.5, 0.5]])
    """

    def __init__(
        self,
        cells: CellIndex,
        *,
        mu_init: float | Tensor | Sequence[Sequence[float]] = 0.5,
        lambda_init: str | Tensor | Sequence[Sequence[float]] = "empirical",
        lambda_min: float = 0.0,
        mu_min: float = 0.0,
        learn: Sequence[str] = ("lambda", "mu"),
    ) -> None:
        """Shares at their start.

        Args:
            cells: the training rows.
            mu_init: real share of each cell in [0, 1]: one number, (C, G), or (S, C, G) shares of
                every source. Exactly 1 means real rows only, and stays.
            lambda_init: "empirical" (shares in real data), "uniform", or (C, G) shares whose rows
                sum to one.
            lambda_min: smallest share of a group inside a label, in [0, 1/G]; the start is pulled
                towards uniform by it, too.
            mu_min: smallest share of a source inside a cell, in [0, 1/S]; likewise.
            learn: which of "lambda" and "mu" a controller may move.

        Raises:
            ValueError: a share or floor out of range, or an unknown name, with the value.
        """
        self.cells = cells
        g = cells.shape[1]
        if not 0 <= lambda_min <= 1 / g:
            raise ValueError(f"lambda_min must be in [0, 1/{g}], got {lambda_min}")
        if not 0 <= mu_min <= 1 / cells.sources:
            raise ValueError(f"mu_min must be in [0, 1/{cells.sources}], got {mu_min}")
        if unknown := set(learn) - {"lambda", "mu"}:
            raise ValueError(f"learn may hold 'lambda' and 'mu', got {sorted(unknown)}")
        self.lambda_min, self.mu_min, self.learn = lambda_min, mu_min, tuple(learn)
        self.present = cells.present
        mix = _mix_start(mu_init, cells)
        self.available = (cells.counts > 0) & self.present & (mix > 0)
        self._check_available(mix)
        lam = _lambda_start(lambda_init, cells)
        self.a = torch.where(self.present, lam.clamp_min(1e-300).log(), 0.0)
        odds = mix.clamp_min(1e-300).log()
        self.b = torch.where(self.available[:-1] & self.available[-1:], odds[:-1] - odds[-1:], 0.0)
        self.version = 0
        self._cached: tuple[int, _Values] | None = None

    def _check_available(self, mix: Tensor) -> None:
        names = self.cells.names
        absent = (~self.present).flatten().nonzero().flatten().tolist()
        if absent:
            warnings.warn(
                f"no real training rows in {[names[i] for i in absent]}: these cells get no share",
                stacklevel=3,
            )
        wanted = (mix > 0) & self.present
        short = (wanted & ~self.available).flatten(1).nonzero().tolist()
        if short:
            cells = [f"{names[i]} (source {s})" for s, i in short]
            warnings.warn(
                f"no rows to draw in {cells}: those sources get no share there", stacklevel=3
            )
        starved = (self.present & ~self.available.any(0)).flatten().nonzero().flatten().tolist()
        if starved:
            raise ValueError(
                f"mu_init gives {names[starved[0]]!r} to sources that have no rows there; raise "
                "mu_init above 0 for that cell or add rows"
            )

    @property
    def lam(self) -> Tensor:
        """(C, G) share of each group inside its label; rows of labels with data sum to one."""
        return self._values().lam

    @property
    def mix(self) -> Tensor:
        """(S, C, G) share of each source inside its cell."""
        return self._values().mix

    @property
    def mu(self) -> Tensor:
        """(C, G) share of real rows inside each cell."""
        return self.mix[REAL]

    @property
    def shares(self) -> Tensor:
        """(S, C, G) share of each source and group inside its label, lam * mix."""
        return self.lam * self.mix

    def _values(self) -> _Values:
        if self._cached is None or self._cached[0] != self.version:
            sources = torch.cat([self.b, torch.zeros_like(self.a)[None]])
            p, m = _softmax(self.a, self.present, -1), _softmax(sources, self.available, 0)
            lam, mix = self._floored(p, m)
            self._cached = (self.version, _Values(p, m, lam, mix))
        return self._cached[1]

    def _floored(self, p: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """Both shares after their floors."""
        if self.lambda_min:
            p = self.lambda_min * self.present + self._room()[0] * p
        if self.mu_min:
            m = self.mu_min * self.available + self._room()[1] * m
        return p, m

    def _room(self) -> tuple[Tensor, Tensor]:
        """What the floors leave to be shared out: (C, 1) of `lam`, (C, G) of `mix`."""
        groups = self.present.sum(-1, keepdim=True)
        return 1 - self.lambda_min * groups, 1 - self.mu_min * self.available.sum(0)

    def pull_back(self, g_lam: Tensor, g_mix: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients on `a` (C, G) and `b` (S-1, C, G) from those on `lam` (C, G), `mix` (S, C, G).

        The rows of the first sum to zero. What is not learned gets zeros.
        """
        p, m = self._values().p, self._values().m
        g_a = p * (g_lam - (p * g_lam).sum(-1, keepdim=True))
        g_b = (m * (g_mix - (m * g_mix).sum(0)))[:-1]
        if self.lambda_min or self.mu_min:
            room = self._room()
            g_a, g_b = room[0] * g_a, room[1] * g_b
        return (
            g_a if "lambda" in self.learn else torch.zeros_like(g_a),
            g_b if "mu" in self.learn else torch.zeros_like(g_b),
        )

    def touch(self) -> None:
        """Say that `a` or `b` was changed in place; samplers take the new shares."""
        self.version += 1

    def quota(self, total: float) -> Tensor:
        """(C,) members of each label in a batch; labels keep their share of the real rows."""
        return self.cells.quota(total)

    def target(self, total: float) -> Tensor:
        """(S, C, G) real-valued members of every cell and source in a batch of `total`."""
        return self.shares * self.quota(total)[:, None]

    def state_dict(self) -> dict[str, Any]:
        """Logits and version."""
        return {"a": self.a.clone(), "b": self.b.clone(), "version": self.version}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`; the logits are written in place.

        Raises:
            ValueError: the state is of other cells or sources.
        """
        for name in ("a", "b"):
            want, got = getattr(self, name).shape, state[name].shape
            if want != got:
                raise ValueError(
                    f"{name} has shape {tuple(got)} in the state, {tuple(want)} in these cells"
                )
        with torch.no_grad():
            self.a.copy_(state["a"])
            self.b.copy_(state["b"])
        self.version = int(state["version"])
        self._cached = None


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """Softmaxes of the logits and the shares they give after the floors."""

    p: Tensor
    m: Tensor
    lam: Tensor
    mix: Tensor


def _softmax(logits: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Softmax over the entries of the mask; zeros where the whole slice is masked."""
    return logits.masked_fill(~mask, -torch.inf).softmax(dim).nan_to_num(0.0)


def _mix_start(mu_init: float | Tensor | Sequence[Sequence[float]], cells: CellIndex) -> Tensor:
    given = torch.as_tensor(mu_init, dtype=torch.float64)
    shape = (cells.sources, *cells.shape)
    if given.ndim == 3:
        mix = given
    elif given.ndim and given.shape != cells.shape:
        raise ValueError(f"mu_init must be one share or have shape {cells.shape}, got {mu_init}")
    else:
        real = given.expand(cells.shape)
        others = (1 - real) / max(cells.sources - 1, 1)
        mix = torch.stack([real, *[others] * (cells.sources - 1)])
    if cells.sources == 1:
        mix = torch.ones(shape, dtype=torch.float64)
    if mix.shape != shape or not bool((mix >= 0).all()):
        raise ValueError(f"mu_init must give shares in [0, 1] of shape {shape}, got {mu_init}")
    if not torch.allclose(mix.sum(0), torch.ones(cells.shape, dtype=torch.float64)):
        raise ValueError("mu_init must sum to one over the sources of every cell")
    return mix


def _lambda_start(
    lambda_init: str | Tensor | Sequence[Sequence[float]], cells: CellIndex
) -> Tensor:
    if isinstance(lambda_init, str):
        if lambda_init not in ("empirical", "uniform"):
            raise ValueError(
                f"lambda_init must be 'empirical', 'uniform' or shares, got {lambda_init!r}"
            )
        weight = cells.counts[REAL].double() if lambda_init == "empirical" else cells.present
    else:
        weight = torch.as_tensor(lambda_init, dtype=torch.float64)
        if weight.shape != cells.shape or not bool((weight >= 0).all()):
            raise ValueError(f"lambda_init must be shares of shape {cells.shape}, not negative")
        total = weight.sum(-1)
        if not torch.allclose(total, torch.ones_like(total), atol=1e-5):
            label = int((total - 1).abs().argmax())
            raise ValueError(
                f"lambda_init must sum to one over the groups of every label, got "
                f"{float(total[label]):g} for {cells.classes[label]!r}"
            )
    weight = weight.double() * cells.present
    return weight / weight.sum(-1, keepdim=True).clamp_min(1e-300)
