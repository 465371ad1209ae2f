"""A net cut where its randomness begins, so that what comes before runs once per item.

With dropout in the classifier only, T full passes repeat the convolutions T times for nothing.
The net is traced to a graph; every node that no random layer feeds belongs to the prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

__all__ = ["DROPOUT", "Split", "random_layers", "split"]

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_FUNCTIONS: dict[Callable[..., Any], type[nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
}
# Checks of a batch's type and shape are a handful; more means a loop that depends on the data.
_MOST_BRANCHES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """`suffix(*prefix(x))` is the net; only `suffix` holds the layers named in `random`.

    `cached` is False where the net could not be cut: then `prefix` hands `x` through.
    """

    prefix: Callable[[Tensor], tuple[Tensor, ...]]
    suffix: nn.Module
    random: dict[str, nn.Module]
    cached: bool


def random_layers(model: nn.Module, types: Sequence[type[nn.Module]] = DROPOUT) -> dict[str, Any]:
    """Layers of these types by name, in order.

    >>> list(random_layers(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.5))))
    ['1']
    """
    return {name: m for name, m in model.named_modules() if isinstance(m, tuple(types))}


def split(
    model: nn.Module,
    x: Tensor,
    *,
    random: dict[str, nn.Module] | None = None,
    cut: bool = True,
) -> Split:
    """`model` (in evaluation mode) cut before the first of its random layers.

    A net whose graph cannot be traced, or whose cut would not give back its output on `x`, is
    left whole (`cached` False). Tests on types and shapes inside `forward` are decided by `x`.

    Args:
        model: the net; its modules are shared, not copied.
        x: (B, ...) a few inputs, to decide and to check the cut.
        random: the layers to stay behind the cut, by name; every dropout layer by default.
        cut: False leaves the net whole.
    """
    layers = random_layers(model) if random is None else random
    whole = Split(lambda inputs: (inputs,), model, layers, False)
    try:
        graph = _trace(model, layers, x)
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, NameError, AttributeError):
        return whole
    traced = fx.GraphModule(model, graph)
    if random is None:
        layers = {**layers, **_as_modules(traced)}
    if not cut or not layers:
        return Split(lambda inputs: (inputs,), traced, layers, False)
    made = _cut(traced, set(layers))
    if made is None:
        return Split(lambda inputs: (inputs,), traced, layers, False)
    prefix, suffix = made
    result = Split(prefix, suffix, layers, True)
    return result if _agrees(model, result, x) else whole


class _BranchError(Exception):
    """A decision inside `forward`, as a graph that computes it."""

    def __init__(self, decision: fx.Graph) -> None:
        super().__init__("a branch depends on the input")
        self.decision = decision


class _Tracer(fx.Tracer):
    """Traces into a module only if a random layer is inside; takes branches as told."""

    def __init__(self, random: dict[str, nn.Module], branches: Sequence[bool]) -> None:
        super().__init__()
        self.kept = set(map(id, random.values()))
        self.branches = iter(branches)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if id(m) in self.kept:
            return True
        holds = any(id(inner) in self.kept for inner in m.modules())
        return not holds and super().is_leaf_module(m, module_qualified_name)

    def to_bool(self, obj: fx.Proxy) -> bool:
        for branch in self.branches:
            return branch
        decision, copies = fx.Graph(), cast("dict[fx.Node, fx.Node]", {})
        decided = obj.node  # an attribute's node comes to be when it is first asked for
        decision.graph_copy(self.graph, copies)
        decision.output(copies[decided])
        raise _BranchError(decision)


def _trace(model: nn.Module, random: dict[str, nn.Module], x: Tensor) -> fx.Graph:
    """The graph of `model`, every branch decided by what `x` does there."""
    branches: list[bool] = []
    while True:
        try:
            return _Tracer(random, branches).trace(model)
        except _BranchError as branch:
            if len(branches) == _MOST_BRANCHES:
                raise fx.proxy.TraceError("too many branches depend on the input") from branch
            with torch.inference_mode():
                branches.append(bool(fx.GraphModule(model, branch.decision)(x)))


def _as_modules(traced: fx.GraphModule) -> dict[str, nn.Module]:
    """Calls of functional dropout turned into layers, so that masks can be given to them."""
    made: dict[str, nn.Module] = {}
    for node in list(traced.graph.nodes):
        if node.op != "call_function" or node.target not in _FUNCTIONS:
            continue
        p = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
        name = f"functional_dropout_{len(made)}"
        layer = _FUNCTIONS[node.target](p).eval()
        traced.add_submodule(name, layer)
        with traced.graph.inserting_after(node):
            call = traced.graph.call_module(
                name, (node.args[0] if node.args else node.kwargs["input"],)
            )
        node.replace_all_uses_with(call)
        traced.graph.erase_node(node)
        made[name] = layer
    traced.recompile()
    return made


def _cut(
    traced: fx.GraphModule, random: set[str]
) -> tuple[Callable[[Tensor], tuple[Tensor, ...]], nn.Module] | None:
    """Prefix and suffix of the graph, or None where one of them would be empty."""
    nodes = list(traced.graph.nodes)
    tainted: set[fx.Node] = set()
    for node in nodes:
        drawn = node.op == "call_module" and node.target in random
        if drawn or any(source in tainted for source in node.all_input_nodes):
            tainted.add(node)
    output = nodes[-1]
    if output not in tainted:
        return None
    crossing = [
        n
        for n in nodes
        if n not in tainted and n.op != "get_attr" and any(u in tainted for u in n.users)
    ]
    before, after = fx.Graph(), fx.Graph()
    first: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node not in tainted:
            first[node] = before.node_copy(node, lambda n: first[n])
    before.output(tuple(first[n] for n in crossing))
    second = {n: after.placeholder(n.name) for n in crossing}
    for node in nodes:
        if node in tainted or node.op == "get_attr":
            second[node] = after.node_copy(node, lambda n: second[n])
    return fx.GraphModule(traced, before), fx.GraphModule(traced, after)


def _agrees(model: nn.Module, made: Split, x: Tensor) -> bool:
    """Whether the cut net gives back the model's output, also with every item repeated."""
    with torch.inference_mode():
        crossing = made.prefix(x)
        parts: tuple[Any, ...] = crossing  # a shape computed in the prefix may cross as a number
        if not all(isinstance(part, Tensor) and len(part) == len(x) for part in parts):
            return False
        whole = model(x)
        twice = made.suffix(*(part.repeat_interleave(2, 0) for part in crossing))
    if not isinstance(whole, Tensor):
        whole, twice = _tensors(whole)[0], _tensors(twice)[0]
    if len(twice) != 2 * len(whole):
        return False
    return bool(torch.allclose(twice[::2], whole, rtol=1e-4, atol=1e-5))


def _tensors(output: Any) -> list[Tensor]:
    parts = output.values() if isinstance(output, dict) else output
    return [part for part in parts if isinstance(part, Tensor)]
