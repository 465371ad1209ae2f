"""What every sampler, objective and surgery keeps to; each is found by its file.

One that can be built without arguments is. For any other its own test file, or `EXAMPLES` here,
says how: `smoke(data, groups)` in `tests/<folder>/test_<file>.py` gives a new one.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from evenloop import objectives, samplers, surgery
from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.models import seeded
from evenloop.objectives.accuracy_gap import AccuracyGap
from evenloop.objectives.distilled import Distilled
from evenloop.objectives.equalized_loss import EqualizedLoss
from evenloop.objectives.reference import Reference
from evenloop.objectives.traced import Traced
from evenloop.rng import Rng
from evenloop.samplers.averaged import Averaged, Ema
from evenloop.samplers.balanced import CellBalanced, Rows
from evenloop.samplers.cells import CellIndex
from evenloop.samplers.fairbatch import FairBatchSampler
from evenloop.samplers.fresh import Fresh, Mixed
from evenloop.samplers.ratios import RatioBatchSampler
from evenloop.samplers.shares import Ratios
from evenloop.samplers.uniform import Uniform
from evenloop.seams import Batch, Objective, Sampler, Seen, Surgery
from evenloop.surgery.chosen import Chosen
from evenloop.surgery.int8 import Int8Weights
from evenloop.surgery.magnitude import GradualMagnitudePruning
from evenloop.surgery.schedule import Cubic
from evenloop.surgery.structured import ChannelPruning
from evenloop.surgery.together import Together
from stand_ins import blobs

SIZE = 8
Make = Callable[[GroupedData, GroupIndex], Any]
NEEDS = {"ChannelPruning": "torch_pruning"}
# Of labels or outputs with structure: their own tests have the worlds they need.
STRUCTURED = {"ContinuationLoss", "FrameLoss", "Elbo", "Trimmed"}


def cells_of(data: GroupedData, groups: GroupIndex) -> CellIndex:
    made = torch.arange(len(data)) % 2
    return CellIndex(data.y, groups.cell, made, classes=2, groups=len(groups.names))


def draw_like(data: GroupedData) -> Any:
    def draw(n: int, generator: torch.Generator) -> Tensor:
        return data.x[torch.randint(len(data), (n,), generator=generator)]

    return draw


def reference(data: GroupedData, groups: GroupIndex) -> Reference:
    logits = torch.stack([data.x.sum(1), -data.x.sum(1)], 1)
    return Reference.of(logits, data.y, groups.cell, groups.names)


def own(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


EXAMPLES: dict[str, Make] = {
    "Averaged": lambda data, groups: Averaged(Uniform(), Ema(0.9)),
    "CellBalanced": lambda data, groups: CellBalanced(cells_of(data, groups), generator=own()),
    "Rows": lambda data, groups: Rows(torch.arange(len(data) // 2)),
    "FairBatchSampler": lambda data, groups: FairBatchSampler(
        cells_of(data, groups), SIZE, generator=own()
    ),
    "Fresh": lambda data, groups: Fresh(draw_like(data), lambda x: (x[:, 0] > 0).long(), 2),
    "Mixed": lambda data, groups: Mixed(draw_like(data), 0.5),
    "RatioBatchSampler": lambda data, groups: RatioBatchSampler(
        cells_of(data, groups), Ratios(cells_of(data, groups)), SIZE, generator=own()
    ),
    "AccuracyGap": lambda data, groups: AccuracyGap(reference(data, groups), 0.01),
    "EqualizedLoss": lambda data, groups: EqualizedLoss(reference(data, groups)),
    "Traced": lambda data, groups: Traced(AccuracyGap(reference(data, groups), 0.01), 1),
    "Distilled": lambda data, groups: Distilled(None),
    "Chosen": lambda data, groups: Chosen(lambda net: (True, 0.0), 1),
    "ChannelPruning": lambda data, groups: ChannelPruning(torch.zeros(1, 4), Cubic(0.5, 0, 2)),
    "GradualMagnitudePruning": lambda data, groups: GradualMagnitudePruning(
        schedule=Cubic(0.5, 0, 2), keep_dense=()
    ),
    "Together": lambda data, groups: Together(
        GradualMagnitudePruning(schedule=Cubic(0.5, 0, 2), keep_dense=()), Int8Weights()
    ),
}


def found(package: Any, kind: type) -> Iterator[Any]:
    """Every public class of a folder's files that is one of `kind`, with how to make it."""
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("_"):
            continue
        code = import_module(f"{package.__name__}.{module.name}")
        for name in code.__all__:
            cls = getattr(code, name)
            is_one = isinstance(cls, type) and kind in cls.__mro__[1:]
            if is_one and cls.__module__ == code.__name__ and name not in STRUCTURED:
                extra = NEEDS.get(name)
                absent = extra is not None and importlib.util.find_spec(extra) is None
                skip = pytest.mark.skipif(absent, reason=f"{extra} is not installed")
                yield pytest.param(maker(package, module.name, cls), id=name, marks=skip)


def maker(package: Any, file: str, cls: type) -> Make:
    folder = package.__name__.rpartition(".")[2]
    path = Path(__file__).parents[1] / folder / f"test_{file}.py"

    def make(data: GroupedData, groups: GroupIndex) -> Any:
        if cls.__name__ in EXAMPLES:
            return EXAMPLES[cls.__name__](data, groups)
        smoke = None
        if path.exists() and "def smoke(" in path.read_text(encoding="utf-8"):
            spec = importlib.util.spec_from_file_location(f"smoke_{folder}_{file}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            smoke = module.smoke
        try:
            return cls() if smoke is None else smoke(data, groups)
        except TypeError as error:
            pytest.fail(f"{cls.__name__} needs smoke(data, groups) in {path.name}: {error}")

    return make


class NoSync(TorchDispatchMode):
    """Refuses what makes a GPU wait for the CPU: `item()`, `float(tensor)`, `bool(tensor)`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "_local_scalar_dense" in str(func):
            raise AssertionError("a step reads a number off a tensor: the device would wait")
        return func(*args, **(kwargs or {}))


@contextmanager
def left_alone(net: nn.Module) -> Iterator[None]:
    """No global generator moves, and the model is left in the mode it was in."""

    def state() -> list[Any]:
        numpy: Any = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
        modes = [module.training for module in net.modules()]
        return [torch.random.get_rng_state().tolist(), numpy["key"].tolist(), random.getstate(),
                modes]  # fmt: skip

    before = state()
    yield
    assert state() == before


def rows(n: int = 60, only: int | None = None) -> tuple[GroupedData, GroupIndex]:
    """Blobs with two groups; with `only`, all rows are of that one and the other has none."""
    data = blobs(n)
    if only is not None:
        data = data.take(data.attribute("sex") == only)
    return data, GroupIndex.of(data, by=("sex",))


def classifier(seed: int = 0) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), seed).train()


def seen(step: int, data: GroupedData, groups: GroupIndex, net: nn.Module) -> Seen:
    index = (torch.arange(SIZE) + step * SIZE) % len(data)
    batch = Batch(data.x[index], data.y[index], groups.cell[index], index)
    return Seen(step, batch, net(batch.x).detach(), net)


@pytest.mark.parametrize("make", [*found(samplers, Sampler)])
class TestSamplers:
    """What is in a batch."""

    def batches(self, sampler: Sampler, data: GroupedData, groups: GroupIndex, at: int) -> Any:
        return list(sampler.epoch(data, groups, batch=SIZE, rng=Rng.of(5).at("epoch", at)))

    def flat(self, batches: list[Any]) -> list[Any]:
        return [
            b.tolist() if isinstance(b, Tensor) else (b.x.tolist(), b.y.tolist(), b.cell.tolist())
            for b in batches
        ]

    def test_an_epoch_has_its_steps_and_rows_that_are_there(self, make: Make) -> None:
        data, groups = rows()
        sampler = make(data, groups)
        sampler.bind(classifier(), data, groups)
        batches = self.batches(sampler, data, groups, 0)
        assert len(batches) == sampler.steps(len(data), SIZE) > 0
        for batch in batches:
            assert len(batch) > 0
            if isinstance(batch, Tensor):
                assert batch.dtype == torch.int64
                assert 0 <= int(batch.min()) <= int(batch.max()) < len(data)
            else:
                assert batch.x.shape[1:] == data.x.shape[1:]
                assert len(batch.x) == len(batch.y) == len(batch.cell)
                assert int(batch.cell.max()) < len(groups.names)

    def test_the_same_streams_give_the_same_batches(self, make: Make) -> None:
        data, groups = rows()
        drawn = []
        for _ in range(2):
            sampler, net = make(data, groups), classifier()
            with left_alone(net):
                sampler.bind(net, data, groups)
                drawn.append(self.flat(self.batches(sampler, data, groups, 0)))
                sampler.after(seen(0, data, groups, net))
        assert drawn[0] == drawn[1]

    @pytest.mark.filterwarnings("ignore:no real training rows")  # it says so, and goes on
    def test_a_group_nobody_belongs_to_is_refused_or_never_drawn(self, make: Make) -> None:
        data, groups = rows(only=0)
        try:
            sampler = make(data, groups)
            sampler.bind(classifier(), data, groups)
            batches = self.batches(sampler, data, groups, 0)
        except ValueError:
            return
        positions = [batch for batch in batches if isinstance(batch, Tensor)]
        assert batches
        assert all((groups.cell[batch] == 0).all() for batch in positions)

    def test_it_goes_on_from_its_state(self, make: Make) -> None:
        data, groups = rows()
        whole, net = make(data, groups), classifier()
        whole.bind(net, data, groups)
        self.batches(whole, data, groups, 0)
        whole.after(seen(0, data, groups, net))
        parts = make(data, groups)
        parts.bind(net, data, groups)
        state = whole.state_dict()
        assert_plain(state)
        parts.load_state_dict(copied(state))
        for at in (1, 2):
            ahead, resumed = (self.flat(self.batches(s, data, groups, at)) for s in (whole, parts))
            assert ahead == resumed


@pytest.mark.parametrize("make", [*found(objectives, Objective)])
class TestObjectives:
    """What a batch costs."""

    def outputs(self, objective: Objective, seen: Seen) -> Tensor:
        logits = seen.outputs
        twice = torch.cat([logits, logits.flip(1)], 1)
        made = twice if isinstance(objective, Distilled) else logits
        return made.clone().requires_grad_(True)

    def costs(
        self, objective: Objective, data: GroupedData, groups: GroupIndex, steps: range
    ) -> list[float]:
        net, found = classifier(), []
        for step in steps:
            shown = seen(step, data, groups, net)
            outputs = self.outputs(objective, shown)
            with NoSync():
                loss = objective.loss(outputs, shown.batch.y, shown.batch.cell)
                objective.after(Seen(step, shown.batch, outputs.detach(), net))
            assert loss.shape == ()
            (gradient,) = torch.autograd.grad(loss, outputs)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()
            found.append(loss.item())
        return found

    def test_a_step_is_finite_repeatable_and_waits_for_no_device(self, make: Make) -> None:
        data, groups = rows()
        found = []
        for _ in range(2):
            objective, net = make(data, groups), classifier()
            with left_alone(net):
                objective.bind(net, data, groups)
                found.append(self.costs(objective, data, groups, range(4)))
        assert found[0] == found[1]

    def test_batches_and_data_without_group_1_and_batches_of_one_row(self, make: Make) -> None:
        data, groups = rows(only=0)
        objective = make(data, groups)
        objective.bind(classifier(), data, groups)
        assert len(self.costs(objective, data, groups, range(3))) == 3
        one = seen(0, data, groups, classifier())
        outputs = self.outputs(objective, one)[:1]
        loss = objective.loss(outputs, one.batch.y[:1], one.batch.cell[:1])
        assert torch.isfinite(loss)

    def test_it_goes_on_from_its_state(self, make: Make) -> None:
        data, groups = rows()
        whole, parts = make(data, groups), make(data, groups)
        for objective in (whole, parts):
            objective.bind(classifier(), data, groups)
        self.costs(whole, data, groups, range(3))
        assert_plain(whole.state_dict())
        parts.load_state_dict(copied(whole.state_dict()))
        ahead, resumed = (self.costs(o, data, groups, range(3, 6)) for o in (whole, parts))
        assert ahead == resumed


@pytest.mark.parametrize("make", [*found(surgery, Surgery)])
class TestSurgery:
    """What may be non-zero."""

    def weights(self, net: nn.Module) -> list[Any]:
        return [value.tolist() for value in net.state_dict().values()]

    def trained(self, operation: Surgery, net: nn.Module, epochs: range) -> None:
        data, _ = rows()
        for epoch in epochs:
            operation.begin(net, epoch)
            gradients = torch.autograd.grad(net(data.x).square().mean(), [*net.parameters()])
            with torch.no_grad():
                for weight, gradient in zip(net.parameters(), gradients, strict=True):
                    weight -= 0.1 * gradient
                with NoSync():
                    operation.apply(net)

    def test_it_is_repeatable_and_leaves_streams_and_modes_alone(self, make: Make) -> None:
        nets = []
        for _ in range(2):
            operation, net = make(*rows()), classifier()
            with left_alone(net):
                self.trained(operation, net, range(3))
                operation.finish(net)
            nets.append(self.weights(net))
        assert nets[0] == nets[1]

    def test_doing_it_twice_changes_nothing(self, make: Make) -> None:
        operation, net = make(*rows()), classifier()
        self.trained(operation, net, range(3))
        once = self.weights(net)
        operation.apply(net)
        assert self.weights(net) == once

    def test_it_goes_on_from_its_state(self, make: Make) -> None:
        whole, net = make(*rows()), classifier()
        self.trained(whole, net, range(2))
        parts, other = make(*rows()), classifier(seed=1)
        assert_plain(whole.state_dict())
        other.load_state_dict(copied(dict(net.state_dict())))
        parts.load_state_dict(copied(whole.state_dict()))
        for operation, of in ((whole, net), (parts, other)):
            self.trained(operation, of, range(2, 4))
            operation.finish(of)
        assert self.weights(net) == self.weights(other)


def assert_plain(state: Any) -> None:
    """Tensors, numbers, texts and mappings and lists of them: what is kept without pickle."""
    if isinstance(state, dict):
        for inner in state.values():
            assert_plain(inner)
    elif isinstance(state, list | tuple):
        for inner in state:
            assert_plain(inner)
    else:
        assert state is None or isinstance(state, Tensor | bool | int | float | str), state


def copied(state: Any) -> Any:
    """A copy that shares no tensor."""
    if isinstance(state, dict):
        return {key: copied(inner) for key, inner in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(inner) for inner in state)
    return state.clone() if isinstance(state, Tensor) else state


def test_a_host_sync_is_seen() -> None:
    with NoSync(), pytest.raises(AssertionError, match="the device would wait"):
        torch.ones(()).item()
    with NoSync():
        assert torch.ones(2).sum().shape == ()


def test_a_class_of_a_new_file_is_found_and_told_how_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "from evenloop.samplers.uniform import Uniform\nfrom evenloop.seams import Sampler\n"
        "__all__ = ['Strict', 'Uniform']\n\nclass Strict(Sampler):\n"
        "    def __init__(self, n):\n        pass\n    steps = epoch = None\n"
    )
    (tmp_path / "strict.py").write_text(text)
    monkeypatch.setattr(samplers, "__path__", [*samplers.__path__, str(tmp_path)])
    new = [one for one in found(samplers, Sampler) if one.id == "Strict"]
    assert len(new) == 1
    with pytest.raises(pytest.fail.Exception, match=r"needs smoke.* in test_strict.py"):
        new[0].values[0](*rows())
