"""Which natural rows a generator-feedback run holds out: the last so many, or the data's own."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evenloop.build import assemble
from evenloop.config import load
from evenloop.data import Attribute, GroupedData, Schema
from evenloop.loops._regenerate_annotators import Natural, held_out_rows
from evenloop.loops.regenerate import Regenerate
from evenloop.rng import Rng
from regenerate_kit import SMALL, image_world

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def official_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in the layout of MNIST, of the official numbers of rows; the pictures are black."""
    folder = tmp_path_factory.mktemp("mnist")
    for part, n in (("train", 60_000), ("t10k", 10_000)):
        for kind, shape in (("images-idx3", (n, 28, 28)), ("labels-idx1", (n,))):
            head = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
            rows = (np.zeros(shape) if len(shape) == 3 else np.arange(n) % 10).astype(np.uint8)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(
                gzip.compress(head + rows.tobytes(), 1)
            )
    return folder


@pytest.mark.parametrize(("compat", "held"), [(False, 10_000), (True, 9_999)])
def test_the_preset_holds_out_the_studys_validation_rows(official_files, compat, held):
    settings = [f"root={official_files}", f"compat={str(compat).lower()}"]
    job = assemble(load("colored-mnist-mc", settings), 0)
    loop, world = job.loop, job.world
    assert isinstance(loop, Regenerate)
    natural = Natural.of(world, loop.init(world, None, Rng.of(0)).data, loop.validation)
    # Rows are identified by their place in the official files.
    assert natural.data.row.sort().values.equal(torch.arange(60_000 - held))
    assert natural.held_out.row.sort().values.equal(torch.arange(60_000 - held, 60_000))
    assert set(natural.held_out.attribute("split").tolist()) == {SPLITS.index("validation")}
    assert set(job.audit.data.attribute("split").tolist()) == {SPLITS.index("test")}


def split_rows(codes: list[int], values: tuple[str, ...] = SPLITS) -> GroupedData:
    schema = Schema(("no", "yes"), (Attribute("split", values),))
    x = torch.arange(len(codes))[:, None].float()
    return GroupedData.of(x, torch.zeros(len(codes)).long(), {"split": codes}, schema)


def test_held_out_rows_keep_the_order_of_the_data():
    data = split_rows([0, 1, 0, 1, 0])
    assert held_out_rows(data, "official").tolist() == [False, True, False, True, False]
    assert held_out_rows(data, 2).tolist() == [False] * 3 + [True] * 2
    assert not held_out_rows(data, 0).any()
    assert held_out_rows(split_rows([0, 1], ("train", "val")), "official").tolist() == [False, True]


@pytest.mark.parametrize(
    ("data", "held", "match"),
    [
        (split_rows([0, 2, 0]), "official", "none of 3 natural rows is one; give a number"),
        (split_rows([0, 1], ("train", "test")), "official", "none of 2 natural rows is one"),
        (split_rows([1, 1]), "official", "validation='official' leaves none of 2 natural rows"),
        (split_rows([0, 0]), 2, "validation=2 leaves none of 2 natural rows"),
    ],
)
def test_a_split_that_leaves_nothing_is_named(data, held, match):
    with pytest.raises(ValueError, match=match):
        held_out_rows(data, held)


def test_validation_is_a_number_or_official():
    with pytest.raises(ValueError, match="a number or 'official', got 'offical'"):
        Regenerate(validation="offical")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="validation must be at least 0"):
        Regenerate(validation=-1)
    world, _ = image_world()
    with pytest.raises(ValueError, match="none of 180 natural rows is one"):
        Regenerate(validation="official", **SMALL).init(world, None, Rng.of(0))
    half = (torch.arange(180) % 3 == 0).long()
    rows = world.data
    schema = replace(rows.schema, attributes=(*rows.schema.attributes, Attribute("split", SPLITS)))
    columns = {"color": rows.attribute("color"), "split": half}
    split = replace(world, data=GroupedData.of(rows.x, rows.y, columns, schema))
    loop = Regenerate(validation="official", judge="validation", **SMALL)
    state, notes = loop.step(split, loop.init(split, None, Rng.of(0)), 0, Rng.of(0))
    assert notes.counts["validation"].total == 60
    assert notes.counts["group_judge"].total == 120
    assert len(state.data) == 180
