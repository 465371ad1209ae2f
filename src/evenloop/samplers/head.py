"""The classifier's last linear layer: found by what it produces, watched without a second pass."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

__all__ = ["HeadTap", "evaluating"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards every module is back in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class HeadTap:
    """Remembers the features and logits of the head's last pass, with and without gradient.

    The head is the last `nn.Linear` whose output is the model's output, or the module or name
    given; one whose output is changed before the model returns it is warned about. Watching costs
    one forward hook; nothing is copied.

    >>> with torch.random.fork_rng():
    ...     model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> tap = HeadTap(model)
    >>> features, logits = tap.look(torch.zeros(5, 3))
    >>> features.shape, logits.shape, tap.head is model[2]
    (torch.Size([5, 4]), torch.Size([5, 2]), True)
    """

    def __init__(self, model: nn.Module, head: str | nn.Module = "auto") -> None:
        """Watch `model`; "auto" looks for the head at the first pass of `look`.

        Raises:
            ValueError: `head` names no `nn.Linear` of the model.
        """
        self.model = model
        self.head: nn.Linear | None = None
        self._passes: dict[bool, tuple[Tensor, Tensor]] = {}
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        self._unchecked = head != "auto"
        if head != "auto":
            self._watch(_named(model, head))

    def look(self, x: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """Features (n, H) and logits (n, O) of `x`, in eval mode, without gradient.

        At least float32 whatever the model computes in; `chunk` rows at a time.

        Raises:
            ValueError: no linear layer produces the model's output, or the head given is unused.
        """
        parts = []
        with evaluating(self.model), torch.no_grad():
            for part in torch.split(x, chunk or max(len(x), 1)):
                if self.head is None:
                    self._watch(_search(self.model, part))
                out = self.model(part)
                if False not in self._passes:
                    raise ValueError(
                        "the layer given as head= takes no part in the model's forward pass; set "
                        f"head= to the layer that gives the output, one of: {_linear(self.model)}"
                    )
                parts.append(self._passes.pop(False))
                if self._unchecked:
                    self._unchecked = False
                    _warn_if_changed(out, parts[0][1])
        features, logits = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        return _wide(features), _wide(logits)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, O) that the head gives features (n, H) now, without gradient."""
        assert self.head is not None
        with torch.no_grad():
            weight = self.head.weight.to(features.dtype)
            bias: Tensor | None = self.head.bias  # None in a layer without one
            return linear(features, weight, bias if bias is None else bias.to(features.dtype))

    def trained(self) -> tuple[Tensor, Tensor]:
        """Features and logits of the last pass with gradient, detached; each is given once.

        Raises:
            RuntimeError: there was none since the last call.
        """
        if True not in self._passes:
            raise RuntimeError(
                "no training pass went through the head: step the controller once after each "
                "forward pass in training, or use inner_data='validation'"
            )
        features, logits = self._passes.pop(True)
        return _wide(features), _wide(logits)

    def parameters(self) -> dict[str, Tensor]:
        """The head's parameters under their names in the model."""
        if self.head is None:
            return {}
        own = {id(p) for p in self.head.parameters()}
        return {n: p for n, p in self.model.named_parameters() if id(p) in own}

    def _watch(self, head: nn.Linear) -> None:
        self.head = head

        def remember(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            kept = (inputs[0].detach().flatten(0, -2), output.detach().flatten(0, -2))
            self._passes[torch.is_grad_enabled()] = kept

        self._hook = head.register_forward_hook(remember)

    def close(self) -> None:
        """Stop watching."""
        if self._hook is not None:
            self._hook.remove()
        self._passes.clear()


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _named(model: nn.Module, head: str | nn.Module) -> nn.Linear:
    modules = dict(model.named_modules())
    found = modules.get(head) if isinstance(head, str) else head
    if isinstance(found, nn.Linear) and any(found is m for m in modules.values()):
        return found
    raise ValueError(
        f"head={head!r} is not a linear layer of the model, which has: {_linear(model)}; set head= "
        "to the one that gives the output, to 'auto', or parameters= to names of parameters"
    )


def _linear(model: nn.Module) -> str:
    """Names of the linear layers, for a message."""
    named = model.named_modules()
    names = [name or "(the model)" for name, m in named if isinstance(m, nn.Linear)]
    return ", ".join(map(repr, names)) or "none"


def _warn_if_changed(out: object, made: Tensor) -> None:
    if _same(out, made):
        return
    warnings.warn(
        "the model's output is not what the layer given as head= produces: the ratios see that "
        "layer's own output",
        stacklevel=4,
    )


def _same(out: object, made: Tensor) -> bool:
    """Whether a layer's output (n, O) is the model's."""
    if not isinstance(out, Tensor) or made.numel() != out.numel():
        return False
    return torch.equal(made.to(out.dtype).reshape(out.shape), out) or bool(out.isnan().any())


def _search(model: nn.Module, x: Tensor) -> nn.Linear:
    """The last linear layer whose output equals the model's."""
    seen: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        m.register_forward_hook(lambda module, _, out: seen.append((module, out)))
        for m in model.modules()
        if isinstance(m, nn.Linear)
    ]
    try:
        out = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    for module, made in reversed(seen):
        if _same(out, made):
            return module
    what = "output" if isinstance(out, Tensor) else f"output, which is a {type(out).__name__}"
    raise ValueError(
        f"head='auto' finds no linear layer that produces the model's {what}; its linear layers: "
        f"{_linear(model)}. Set head= to the one that gives the logits, or parameters= to names of "
        "the parameters to differentiate"
    )
