"""Everything that would stop the first round of `mix`, found before any work is started.

Private to `evenloop.loops.mix`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evenloop.data import GroupedData
from evenloop.digest import row_digest
from evenloop.fit import TrainsItself
from evenloop.groups import LABEL, TRUTH
from evenloop.loop import World
from evenloop.loops._mix_rows import held_share, is_generated, stands_for
from evenloop.rng import Rng
from evenloop.samplers.alignments import check_outputs, subset
from evenloop.samplers.cells import GENERATED, REAL, CellIndex
from evenloop.samplers.head import HeadTap
from evenloop.samplers.shares import Ratios

if TYPE_CHECKING:
    from evenloop.loops.mix import Mix

__all__ = ["MIXING", "check_world", "foreseen", "group_columns", "without_generated"]

LEARNING = ("ratios", "real_ratios", "frozen")
MIXING = ("ratios", "frozen", "fixed")  # take a share from the generated rows if there are any
NEEDS_GENERATED = ("generated", "pooled", "topped_up", "balanced_mixed")


def group_columns(world: World) -> tuple[str, ...]:
    """The attributes among the world's columns.

    Raises:
        ValueError: there is none.
    """
    columns = tuple(name for name in world.by if name not in (LABEL, TRUTH))
    if not columns:
        raise ValueError(f"mix needs by= with at least one attribute, got by={world.by}")
    return columns


def check_world(loop: Mix, world: World, data: GroupedData, rng: Rng) -> None:
    """Try what the first round would meet.

    Raises:
        ValueError: no attribute in `by`, an unknown positive class, a batch smaller than the number
            of cells, a method that needs generated rows where there are none, a generator that
            does not suit the rows, a value of a row that is not finite, shares out of range,
            batches in parts whose alignments are asked whole, no rows to hold out, or a net that
            has no head to find.
    """
    cells = CellIndex.of(data, group_columns(world))
    if loop.uses_positive:
        data.schema.klass(loop.positive)
    present = int(cells.present.sum())
    if world.recipe.batch < present:
        raise ValueError(
            f"batch={world.recipe.batch} is smaller than the {present} cells of label and group; "
            f"set batch to at least {present}"
        )
    made = bool(cells.counts[GENERATED].any()) or loop.generator != "none"
    if loop.method in NEEDS_GENERATED and not made:
        raise ValueError(
            f"method={loop.method} needs generated rows: set generator=smoothed (tables) or "
            "generated= files of the run"
        )
    parts = world.recipe.micro_batch
    if loop.inner_data == "train_batch" and parts is not None and parts < world.recipe.batch:
        raise ValueError(
            f"inner_data=train_batch looks at a batch in one pass, but micro_batch={parts} takes "
            f"batch={world.recipe.batch} in parts; set micro_batch=null or inner_data=validation"
        )
    if loop.held_out == "split" and not bool((stands_for(data) & ~is_generated(data)).any()):
        raise ValueError(
            "held_out=split, but no real row is for validation; set held_out=share, or give the "
            "split 'val' to some rows"
        )
    _check_finite(data, cells)
    _check_generator(loop, data)
    if loop.method in (*LEARNING, "fixed"):
        _check_shares(loop, cells)
    _check_net(loop, world, data, rng)


def foreseen(loop: Mix, world: World) -> tuple[str, ...]:
    """Rows of every cell and source before training, what cells lack, and what is made small."""
    cells = CellIndex.of(world.data, group_columns(world))
    count = cells.counts.flatten(1)
    if loop.generator != "none" and not bool(count[GENERATED].any()):
        count = torch.stack([count[REAL], loop.made_rows * (count[REAL] > 0)])
    held = _held_counts(loop, world.data, cells, count)
    (real, made), (real_held, made_held) = count, held
    each = zip(cells.names, *count.tolist(), *held.tolist(), strict=True)
    taken = f", rows={loop.rows} of the real ones taken" if loop.rows else ""
    table = "; ".join(f"{name} {r} + {g} ({hr} + {hg})" for name, r, g, hr, hg in each)
    said = [f"rows by cell, real + generated (held out of them){taken}: {table}"]
    learns = loop.method in LEARNING
    for lacks, what in (
        (real == real_held, "no real rows to train on, so no share of a batch"),
        ((real_held == 0) & (real > 0), "no real held-out rows, so no part in the gap"),
        ((made == 0) & (real > 0) & bool(made.any()), "no generated rows, so all real"),
        (
            (made_held == 0) & (made > 0) & learns & (loop.inner_data == "validation"),
            "no generated held-out rows, so these are taken to help as the rest of the label does",
        ),
    ):
        if bool(lacks.any()):
            named = [cells.names[i] for i in lacks.nonzero().flatten().tolist()]
            said.append(f"cells {named}: {what}")
    if loop.method in MIXING and not bool(made.any()):
        said.append(without_generated(loop.method))
    if learns:
        words = loop.objective_of(world.data.schema, cells.sizes).words()
        said.append(f"the ratios make small: {words}")
    return (*said, *_repeated(world.data))


def _held_counts(loop: Mix, data: GroupedData, cells: CellIndex, count: Tensor) -> Tensor:
    """(2, C*G) rows of each source and cell that will be held out of `count`."""
    held = held_share(loop, count)
    if loop.held_out == "share":
        return held
    place = cells.place[stands_for(data).cpu()]
    said = torch.bincount(place, minlength=count.numel()).view(count.shape)
    generated = said[GENERATED] if bool(said[GENERATED].any()) else held[GENERATED]
    return torch.stack([said[REAL], generated])


def _repeated(data: GroupedData) -> tuple[str, ...]:
    """Pictures that occur more than once: a random split may put them on both of its sides."""
    if data.x.dtype is not torch.uint8 or data.x.ndim != 4:
        return ()
    seen: dict[bytes, int] = {}
    rows = data.x.cpu().numpy()
    again = [i for i, row in enumerate(rows) if seen.setdefault(row_digest(row), i) != i]
    if not again:
        return ()
    first = seen[row_digest(rows[again[0]])]
    return (
        f"{len(again)} pictures repeat another to the last bit, first row {again[0]} of the train "
        f"side (as row {first}); copies may be trained on and held out or audited: remove them",
    )


def without_generated(method: str) -> str:
    """What a method that mixes does where there is nothing to mix."""
    return (
        f"method={method} has no generated rows in any cell and trains on real rows alone; set "
        "generator= or generated=, or choose method=real_ratios"
    )


def _check_finite(data: GroupedData, cells: CellIndex) -> None:
    """No value of a row is NaN or infinite: one would make the whole model NaN."""
    if not data.x.is_floating_point():
        return
    bad = (~data.x.isfinite()).flatten(1).any(1).nonzero().flatten()
    if len(bad):
        first = int(bad[0])
        source, cell = int(cells.source[first]), int(cells.cell[first])
        whose = f"row {int(data.row[first])} of the world" if source == REAL else "a generated row"
        raise ValueError(
            f"x of {whose}, cell {cells.names[cell]!r}, holds NaN or infinity ({len(bad)} such "
            "rows in all); fill in or drop these rows"
        )


def _check_generator(loop: Mix, data: GroupedData) -> None:
    shape, kind = tuple(data.x.shape[1:]), data.x.dtype
    if loop.generator == "vae" and (len(shape) != 3 or kind is not torch.uint8):
        raise ValueError(
            f"generator=vae makes uint8 images, x is {kind} of shape {shape}; use "
            "generator=smoothed for tables"
        )
    if loop.generator in ("smoothed", "blind") and (len(shape) != 1 or not kind.is_floating_point):
        raise ValueError(
            f"generator={loop.generator} resamples tables of floating-point numbers, x is {kind} "
            f"of shape {shape}; use generator=vae for images"
        )


def _check_shares(loop: Mix, cells: CellIndex) -> None:
    """Starts and floors, tried as if every cell with real rows had generated ones, too."""
    real = (cells.source == REAL).nonzero().flatten()
    twice = torch.cat([real, real])
    source = torch.arange(2).repeat_interleave(len(real))
    names = {"classes": cells.classes, "groups": cells.groups}
    both = CellIndex(cells.label[twice], cells.group[twice], source, **names)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what cells lack is said in the round's notes
        Ratios(
            both,
            mu_init=loop.mu_init,
            lambda_init=loop.lambda_init,
            lambda_min=loop.lambda_min,
            mu_min=loop.mu_min,
        )


def _check_net(loop: Mix, world: World, data: GroupedData, rng: Rng) -> None:
    net = world.net(rng.at("check"))
    if isinstance(net, TrainsItself):
        if loop.method != "real":
            raise ValueError(
                f"method={loop.method} decides what is in a batch, but this net fits itself on all "
                "rows at once; choose net=logistic or another that is trained by batches, or "
                "method=real"
            )
        return
    if loop.method in LEARNING and loop.parameters:
        subset(net, loop.parameters)
    elif loop.method in LEARNING:
        like = next(net.parameters())
        x = data.x[:2].to(like.device)
        tap = HeadTap(net, loop.head)
        logits = tap.look(x.to(like.dtype) if x.is_floating_point() else x)[1]
        check_outputs(logits, data.schema.classes)
        tap.close()
