"""A world checks what it is made of, and its nets depend on their streams alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from evenloop.audit import Audit
from evenloop.groups import GroupIndex
from evenloop.loop import World, run
from evenloop.loops.relabel import Relabel
from evenloop.models import build, seeded
from evenloop.objectives.group_dro import GroupDRO
from evenloop.rng import Rng
from evenloop.samplers.uniform import Uniform
from stand_ins import blobs, small_world


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("by", "sex", r"by must hold names of columns, got the text 'sex'; write by=\('sex',\)"),
        ("by", ("sex", 1), "by must hold names of columns, got 1 in it"),
        ("recipe", {"lr": 0.1}, r"must be a Recipe, got dict; write recipe=Recipe\(\*\*{'lr': 0"),
        ("data", [1], "data must be a GroupedData, got list"),
        ("net", nn.Linear(4, 2), r"got a Linear; write net=lambda rng: Linear\(\.\.\.\)"),
        ("net", None, "net must build a fresh model from a stream, got a NoneType"),
        ("nets", {"second": nn.Linear(4, 2)}, r"nets\['second'\] must build"),
        ("objective", GroupDRO(), r"got a GroupDRO; write objective=lambda: GroupDRO\(\.\.\.\)"),
        ("sampler", Uniform(), "sampler must be a builder, called anew"),
        ("surgery", "none", "surgery must be a builder"),
    ],
)
def test_a_field_of_another_kind_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        replace(small_world()[0], **{field: value})


def test_builders_and_lists_of_names_pass() -> None:
    world = replace(small_world()[0], by=["sex", "age"], objective=GroupDRO, sampler=Uniform)
    assert world.by == ("sex", "age")
    assert replace(world, objective=lambda: GroupDRO(0.1)).net is world.net


def test_an_audit_and_groups_take_no_single_text() -> None:
    data = blobs(3)
    for make in (lambda: Audit(data, "sex"), lambda: GroupIndex.of(data, "sex")):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="got the text 'sex'"):
            make()
    with pytest.raises(TypeError, match="data must be a GroupedData, got list"):
        Audit([1])  # type: ignore[arg-type]
    assert Audit(data, ["sex"]).by == ("sex",)  # type: ignore[arg-type]


def weights(net: nn.Module) -> list[float]:
    return [float(v) for p in net.parameters() for v in p.detach().flatten()]


def test_a_builder_that_ignores_its_stream_gives_one_net_for_one_stream() -> None:
    plain = small_world()[0]
    world = replace(plain, net=lambda rng: nn.Linear(4, 2), nets={"b": lambda rng: nn.Linear(4, 1)})
    before = torch.random.get_rng_state()
    first, again = (world.net(Rng.of(0).at("net")) for _ in range(2))
    other = world.build("b", Rng.of(0).at("net")), world.build("b", Rng.of(1).at("net"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert weights(first) == weights(again)
    assert weights(other[0]) != weights(other[1])


def test_such_a_run_is_reproducible() -> None:
    world, audit = small_world()
    world = replace(world, net=lambda rng: nn.Linear(4, 2))
    loop = Relabel(n0=40, human=2, machine=8)
    lines = []
    for seed in (3, 3, 4):
        lines.append([row.to_json() for row in run(loop, world, audit, rounds=2, seed=seed).rows])
    assert lines[0] == lines[1] != lines[2]


def test_a_builder_with_a_seed_of_its_own_gives_what_it_gave() -> None:
    def net(rng: Rng) -> nn.Module:
        return build("mlp", features=4, classes=2, hidden=(3,), seed=rng.seed)

    world = replace(small_world()[0], net=net)
    assert weights(world.net(Rng.of(5))) == weights(net(Rng.of(5)))
    fixed = replace(world, net=lambda rng: seeded(lambda: nn.Linear(4, 2), 7))
    assert weights(fixed.net(Rng.of(0))) == weights(fixed.net(Rng.of(1)))


def test_a_world_changed_in_one_field_wraps_its_nets_once() -> None:
    world: World = small_world()[0]
    assert replace(replace(world, by=()), extra={"a": 1}).net is world.net
