"""Batches of rows made on the spot: drawn from a generator, labelled by frozen annotators.

The two batch rules of Wyllie, Shumailov and Papernot, "Fairness Feedback Loops" (FAccT 2024):
a classifier sees generated rows only, a generator sees generated rows mixed into natural batches.
Either may be curated by `Quota`. Nothing is stored: every batch is a fresh draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.quota import Quota
from evenloop.seams import Batch, Sampler

__all__ = ["Draw", "Fresh", "Mixed", "from_pool", "mixed_sizes"]

Draw = Callable[[int, torch.Generator], Tensor]


def mixed_sizes(batch: int, synthetic: float) -> tuple[int, int]:
    """Rows of a batch that are generated, floor(B s), and natural, the rest.

    >>> mixed_sizes(256, 0.1), mixed_sizes(64, 1.0)
    ((25, 231), (64, 0))

    Raises:
        ValueError: the share is outside [0, 1].
    """
    if not 0 <= synthetic <= 1:
        raise ValueError(f"synthetic must be a share in [0, 1], got {synthetic}")
    made = int(batch * synthetic + 1e-9)
    return made, batch - made


@dataclass(frozen=True, slots=True)
class Fresh(Sampler):
    """Generated batches, labelled by `stratum`, curated by `quota` if there is one.

    An epoch over N rows has ceil(N / B) batches, the last as short as the last natural batch would
    be, so that arms with and without curation see the same number of rows.

    Attributes:
        draw: (n, generator) -> (n, ...) new samples.
        stratum: (n, ...) samples -> (n,) int64 strata `label * groups + group`.
        classes: number of labels.
        groups: number of groups in a stratum; 1 where `stratum` gives the label alone.
        quota: how batches are curated; None takes the rows as they come.
        blocks: batches drawn, decoded and annotated at once, at least 1.
        device: of the random draws.
        finish: applied to the images and strata of every batch (a conditional VAE's plane).
        fixed_steps: batches of an epoch whatever the number of rows, all full; None counts rows.

    >>> import torch
    >>> from evenloop.data import Schema
    >>> data = GroupedData.of(torch.zeros(10, 1), [0] * 10, {}, Schema(("no", "yes")))
    >>> coin = lambda n, g: torch.rand(n, 1, generator=g)
    >>> fresh = Fresh(coin, lambda x: (x[:, 0] > 0.5).long(), classes=2)
    >>> [len(b) for b in fresh.epoch(data, GroupIndex.of(data), batch=4, rng=Rng.of(0))]
    [4, 4, 2]
    """

    draw: Draw
    stratum: Callable[[Tensor], Tensor]
    classes: int
    groups: int = 1
    quota: Quota | None = None
    blocks: int = 1
    device: torch.device | str = "cpu"
    finish: Callable[[Tensor, Tensor], Tensor] | None = None
    fixed_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("classes", "groups", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def steps(self, rows: int, batch: int) -> int:
        """ceil(rows / batch), or the fixed number."""
        return self.fixed_steps or -(-rows // batch)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Batch]:
        """Batches without `index`; of `data` only the number of rows matters."""
        generator = rng.at("draw").gen(self.device)
        rows = self.fixed_steps * batch if self.fixed_steps else len(data)
        pairs = (
            self._plain(rows, batch, generator)
            if self.quota is None
            else self._curated(self.quota, rows, batch, generator, rng)
        )
        for x, cell in pairs:
            seen = x if self.finish is None else self.finish(x, cell)
            yield Batch(seen, cell // self.groups, cell)

    def _plain(
        self, rows: int, batch: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, rows, batch * self.blocks):
            with torch.no_grad():
                x = self.draw(min(batch * self.blocks, rows - start), generator)
                cell = self.stratum(x)
            yield from zip(torch.split(x, batch), torch.split(cell, batch), strict=True)

    def _curated(
        self, quota: Quota, rows: int, batch: int, generator: torch.Generator, rng: Rng
    ) -> Iterator[tuple[Tensor, Tensor]]:
        shuffle = rng.at("shuffle").gen(self.device)
        while rows:
            size = min(batch, rows)
            made = quota.curate(
                lambda n: self.draw(n, generator),
                self.stratum,
                batch=size,
                strata=self.classes * self.groups,
                generator=shuffle,
                blocks=min(self.blocks, rows // size),
            )
            rows -= made.cell.numel()
            yield from zip(made.x, made.cell, strict=True)

    def state_dict(self) -> dict[str, Any]:
        """The tally of the quota."""
        return self.quota.state_dict() if self.quota else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the tally of the quota."""
        if self.quota:
            self.quota.load_state_dict(state)


@dataclass(frozen=True, slots=True)
class Mixed(Sampler):
    """Natural batches in which floor(B s) rows are generated.

    The generated rows of a batch are a fresh draw; the natural rows are the first B - floor(B s)
    of the shuffled natural batch. In a last, short batch the generated count stays.

    Attributes:
        draw: (n, generator) -> (n, ...) new samples, floating in [0, 1].
        synthetic: share s of generated rows, in [0, 1].
        stratum: samples -> (n,) int64 strata; natural rows use the data's. None: all stratum 0.
        device: of the random draws.
        finish: applied to the images and strata of every batch.
        blocks: batches whose rows are drawn and annotated at once, at least 1.
    """

    draw: Draw
    synthetic: float
    stratum: Callable[[Tensor], Tensor] | None = None
    device: torch.device | str = "cpu"
    finish: Callable[[Tensor, Tensor], Tensor] | None = None
    blocks: int = 1

    def __post_init__(self) -> None:
        mixed_sizes(1, self.synthetic)
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {self.blocks}")

    def steps(self, rows: int, batch: int) -> int:
        """ceil(rows / batch)."""
        return -(-rows // batch)

    def epoch(
        self, data: GroupedData, groups: GroupIndex, *, batch: int, rng: Rng
    ) -> Iterator[Batch]:
        """Batches without `index`, generated rows first; `y` is the natural label, else 0."""
        order = torch.randperm(len(data), generator=rng.at("natural").gen()).to(data.y.device)
        made, natural = mixed_sizes(batch, self.synthetic)
        fresh = self._fresh(made, self.steps(len(data), batch), rng.at("draw").gen(self.device))
        for start in range(0, len(data), batch):
            index = order[start : start + batch][:natural]
            x, y = as_floating(data.x[index]), data.y[index]
            cell = groups.cell[index] if self.stratum else torch.zeros_like(y)
            if made:
                new, code = next(fresh)
                x, cell = torch.cat([new, x]), torch.cat([code.to(cell), cell])
                y = torch.cat([y.new_zeros(made), y])
            yield Batch(x if self.finish is None else self.finish(x, cell), y, cell)

    def _fresh(
        self, made: int, steps: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`made` new rows and their strata for each of `steps` batches."""
        for start in range(0, steps, self.blocks):
            with torch.no_grad():
                new = self.draw(made * min(self.blocks, steps - start), generator)
                code = self.stratum(new) if self.stratum else new.new_zeros(len(new))
            yield from zip(torch.split(new, made), torch.split(code, made), strict=True)


def from_pool(pool: Tensor) -> Draw:
    """Draws rows of a finite pool (N, ...), with replacement.

    >>> made = from_pool(torch.tensor([5.0, 7.0]))(100, torch.Generator().manual_seed(0))
    >>> made.shape, made.unique().tolist()
    (torch.Size([100]), [5.0, 7.0])
    """

    def rows(n: int, source: torch.Generator) -> Tensor:
        luck = torch.randint(len(pool), (n,), generator=source, device=source.device)
        return pool[luck.to(pool.device)]

    return rows


def as_floating(x: Tensor) -> Tensor:
    """Pixels in [0, 1]: uint8 divided by 255, floating as it is."""
    return x.float() / 255 if x.dtype == torch.uint8 else x
