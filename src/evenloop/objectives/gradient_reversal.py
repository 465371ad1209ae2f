"""Features that do not give the group away: an adversary behind a gradient reversal layer.

A head guesses the group from the net's features; the reversal layer is the identity forward and
turns the gradient round on its way back, so the head learns the group while the features unlearn
it. Ganin and Lempitsky 2015; against discrimination: Raff and Sylvester 2018 (GRAD).

    cost      CE(class) + adv_weight(u) * mean over attributes of CE(group),   u the progress
    features  receive  d CE(class) - alpha * adv_weight * d CE(group)

Needs the group of every training row, at training time only; predictions use the class head alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import exp, inf
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from evenloop.data import GroupedData
from evenloop.groups import GroupIndex
from evenloop.heads import find_head
from evenloop.rng import Rng
from evenloop.seams import Objective, Seen

__all__ = [
    "AdversarialHead",
    "AdversarialObjective",
    "GradientReversal",
    "adversarial_loss",
    "schedule_weight",
]

Schedule = Literal["constant", "linear", "sigmoid"]

# A class head counts as stuck while its mean loss over a window stays above this part of the
# entropy of the classes, which is what knowing their shares alone costs.
_STUCK = 0.97
# Steps of a window, at least and at most: four windows cover a short fit. Of fewer steps than
# _FIRST nothing is said, since every head begins at chance.
_SHORTEST, _WINDOW, _FIRST = 5, 50, 20


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float, clip: float | None) -> Tensor:
        ctx.alpha, ctx.clip = alpha, clip
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = -ctx.alpha * grads[0]
        if ctx.clip is not None:
            grad = grad * (ctx.clip / grad.norm().clamp_min(1e-12)).clamp_max(1)
        return grad, None, None


class GradientReversal(nn.Module):
    """The identity whose gradient is -`alpha` times the one that comes in.

    `clip` bounds the norm of what is handed back, over the whole batch.

    >>> x = torch.ones(2, requires_grad=True)
    >>> (GradientReversal(0.5)(x) * 3).sum().backward()
    >>> x.grad.tolist()
    [-1.5, -1.5]
    """

    def __init__(self, alpha: float = 1.0, clip: float | None = None) -> None:
        super().__init__()
        if not 0 <= alpha < inf or (clip is not None and not clip > 0):
            raise ValueError(
                f"alpha must be at least 0 and clip positive or None, got {alpha} and {clip}"
            )
        self.alpha, self.clip = alpha, clip

    def forward(self, x: Tensor) -> Tensor:
        """`x`, unchanged."""
        reversed_: Tensor = _Reverse.apply(x, self.alpha, self.clip)  # type: ignore[no-untyped-call]
        return reversed_

    def extra_repr(self) -> str:
        """The two constants."""
        return f"alpha={self.alpha}, clip={self.clip}"


class AdversarialHead(nn.Module):
    """Features (B, ...) -> group logits (B, G), behind a reversal layer; flattens its input.

    `hidden` lists ReLU layers, each followed by dropout `p`; initial weights depend on `rng` alone.

    >>> AdversarialHead(4, 2, hidden=(8,))(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        in_dim: int,
        n_groups: int,
        hidden: Sequence[int] = (),
        *,
        alpha: float = 1.0,
        clip: float | None = None,
        dropout: float = 0.0,
        rng: Rng | None = None,
    ) -> None:
        super().__init__()
        self.reverse = GradientReversal(alpha, clip)
        widths = [in_dim, *hidden, n_groups]
        generator = (rng or Rng.of(0)).gen()
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            if layers:
                layers += [nn.ReLU(), nn.Dropout(dropout)] if dropout else [nn.ReLU()]
            layers.append(_linear(fan_in, fan_out, generator))
        self.net = nn.Sequential(*layers)

    def forward(self, features: Tensor, extra: Tensor | None = None) -> Tensor:
        """Group logits; `extra` (B, E) joins the features behind the reversal."""
        hidden = self.reverse(features.flatten(1))
        if extra is not None:
            hidden = torch.cat([hidden, extra], 1)
        logits: Tensor = self.net(hidden)
        return logits


def _linear(fan_in: int, fan_out: int, generator: torch.Generator) -> nn.Linear:
    """PyTorch's initial law of a linear layer, from a generator of ours."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)  # type: ignore[no-untyped-call]
    bound = fan_in**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def adversarial_loss(
    class_logits: Tensor, group_logits: Tensor, y: Tensor, group: Tensor, weight: float
) -> Tensor:
    """CE(class) + `weight` * CE(group), in nats; the reversal sits inside the group head.

    >>> round(float(adversarial_loss(torch.zeros(1, 2), torch.zeros(1, 4), torch.zeros(1).long(),
    ...                              torch.zeros(1).long(), 0.5)), 4)
    1.3863
    """
    return cross_entropy(class_logits, y) + weight * cross_entropy(group_logits, group)


def schedule_weight(schedule: Schedule, progress: float) -> float:
    """Factor in [0, 1] on the adversary's weight at `progress` in [0, 1].

    "constant" is 1; "linear" is the progress; "sigmoid" is 2 / (1 + exp(-10 u)) - 1 (Ganin and
    Lempitsky 2015).

    >>> schedule_weight("linear", 0.25), round(schedule_weight("sigmoid", 1.0), 4)
    (0.25, 0.9999)
    """
    u = min(max(progress, 0.0), 1.0)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return u
    if schedule == "sigmoid":
        return 2 / (1 + exp(-10 * u)) - 1
    raise ValueError(f"schedule must be 'constant', 'linear' or 'sigmoid', got {schedule!r}")


class AdversarialObjective(Objective):
    """Cross-entropy of the class plus a reversed adversary for each sensitive attribute.

    The features are caught by a forward hook on the model's head while the model trains. With
    `adv_weight` 0 there is no hook and no head: training is bit for bit that of the plain net.

    Args:
        adv_weight: weight of the group loss, at least 0.
        attributes: one adversary for each; by default one for the cells of the groups.
        schedule: "constant", "linear" or "sigmoid" warm-up of the weight.
        horizon: steps over which the schedule runs; needed unless it is constant.
        alpha: factor of the reversed gradient.
        hidden: widths of each adversary's hidden layers.
        dropout: after each hidden layer.
        given_class: the adversary also sees the label, so that features and group become
            unrelated within a class (equalized odds) instead of overall.
        clip: bound on the norm of the gradient the adversaries hand back, each on its own.
        head: name of the module whose input are the features; the last layer by default.
        seed: of the adversaries' initial weights.

    >>> from evenloop.data import Attribute, Schema
    >>> schema = Schema(("a", "b"), (Attribute("sex", ("f", "m")),))
    >>> x, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
    >>> data = GroupedData.of(x, y, {"sex": [0, 0, 1, 1]}, schema)
    >>> from evenloop.models import build
    >>> groups, net = GroupIndex.of(data, ["sex"]), build("logistic", features=4, classes=2, seed=0)
    >>> objective = AdversarialObjective(0.5, attributes=["sex"])
    >>> objective.bind(net, data, groups)
    >>> objective.loss(net(x), y, groups.cell).shape
    torch.Size([])
    >>> objective.release()
    """

    def __init__(
        self,
        adv_weight: float = 0.0,
        *,
        attributes: Sequence[str] = (),
        schedule: Schedule = "constant",
        horizon: int = 0,
        alpha: float = 1.0,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        given_class: bool = False,
        clip: float | None = None,
        head: str | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= adv_weight < inf:
            raise ValueError(f"adv_weight must be a number of at least 0, got {adv_weight}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        schedule_weight(schedule, 0.0)
        if schedule != "constant" and horizon < 1:
            raise ValueError(f"schedule {schedule!r} needs horizon, the steps it runs over")
        GradientReversal(alpha, clip)
        self.adv_weight, self.attributes, self.schedule = adv_weight, tuple(attributes), schedule
        self.horizon, self.given_class, self.head_name = horizon, given_class, head
        self._shape: dict[str, Any] = {"alpha": alpha, "clip": clip, "dropout": dropout}
        self._shape["hidden"] = tuple(hidden)
        self._rng = Rng.of(seed).at("adversary")
        self.heads = nn.ModuleDict()
        self.step = 0
        self._codes: dict[str, Tensor] = {}
        self._features: Tensor | None = None
        self._handle: torch.utils.hooks.RemovableHandle | None = None
        self._classes = 0
        self._window, self._counted = torch.zeros(()), 0
        self._length = min(_WINDOW, max(_SHORTEST, horizon // 4)) if horizon else _WINDOW
        self._stuck_steps, self._warned, self._chance = 0, False, 0.0
        self.last_class_loss = float("nan")

    def bind(self, model: nn.Module, data: GroupedData, groups: GroupIndex) -> None:
        """Make fresh adversaries for this model and these groups, and watch its head.

        Raises:
            KeyError: an attribute is not in the data.
            ValueError: an attribute varies within a cell of `groups` (add it to the groups), or
                the model's feature width cannot be found.
        """
        self.release()
        self.step, self._classes, device = 0, len(data.schema.classes), data.y.device
        self._window, self._counted = torch.zeros((), device=device), 0
        self._stuck_steps, self._warned, self.last_class_loss = 0, False, float("nan")
        share = torch.bincount(data.y).double() / max(1, len(data))
        self._chance = float(torch.special.entr(share).sum())
        self.heads = nn.ModuleDict()
        if self.adv_weight == 0:
            return
        sizes, self._codes = {}, {}
        for name in self.attributes:
            values = data.schema.attributes[data.schema.column(name)].values
            sizes[name], self._codes[name] = len(values), _code_of_cell(name, data, groups)
        if not self.attributes:
            sizes["cell"] = groups.size
            self._codes["cell"] = torch.arange(groups.size, device=device)
        head = find_head(model, self.head_name)
        width = _width_in(head) + (self._classes if self.given_class else 0)
        like = next(model.parameters())
        for i, (name, size) in enumerate(sizes.items()):
            made = AdversarialHead(width, size, rng=self._rng.at(name), **self._shape)
            self.heads[str(i)] = made.to(like.device, like.dtype)
        self._handle = head.register_forward_pre_hook(self._catch)

    def _catch(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if module.training:
            self._features = args[0]

    def release(self) -> None:
        """Training is over: judge its last steps, take the hook off, let go of the features."""
        rest = 2 * self._counted >= self._length or self.last_class_loss != self.last_class_loss
        if self._counted and rest:
            self._judge()
        if self.stuck and self.step >= _WINDOW:
            self._warn()
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._features = None, None

    @property
    def weight(self) -> float:
        """The adversary's weight at this step."""
        progress = self.step / self.horizon if self.horizon else 1.0
        return self.adv_weight * schedule_weight(self.schedule, progress)

    def loss(self, outputs: Tensor, y: Tensor, cell: Tensor) -> Tensor:
        """Scalar cost of a batch; the class loss alone outside training.

        Raises:
            RuntimeError: the model's head was not run in training mode since `bind`.
        """
        by_class = cross_entropy(outputs, y)
        if self.adv_weight == 0 or not torch.is_grad_enabled():
            return by_class
        if self._features is None:
            raise RuntimeError(
                "no features were caught: bind to this model and run it in training mode first"
            )
        self._window, self._counted = self._window + by_class.detach(), self._counted + 1
        extra = one_hot(y, self._classes).to(outputs.dtype) if self.given_class else None
        total = outputs.new_zeros(())
        for head, code in zip(self.heads.values(), self._codes.values(), strict=True):
            total = total + cross_entropy(head(self._features, extra), code[cell])
        self._features = None
        return by_class + self.weight * total / len(self.heads)

    def after(self, seen: Seen | None = None) -> None:
        """Advance the schedule, after every step; warn once if the class head stays at chance."""
        self.step += 1
        if self._counted >= self._length:
            self._judge()

    def _judge(self) -> None:
        # one number leaves the device per window of steps
        self.last_class_loss = float(self._window) / self._counted
        stuck = self._chance > 0 and self.last_class_loss >= _STUCK * self._chance
        self._stuck_steps = self._stuck_steps + self._counted if stuck else 0
        self._window, self._counted = torch.zeros_like(self._window), 0
        if self._stuck_steps >= 4 * _WINDOW:
            self._warn()

    def _warn(self) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(
            f"the class head is stuck: its loss was {self.last_class_loss:.3f} over the last "
            f"steps, chance is {self._chance:.3f}; lower adv_weight (now {self.adv_weight}) or "
            "warm it up with schedule='linear'",
            stacklevel=3,
        )

    @property
    def stuck(self) -> bool:
        """Whether the class loss was still at chance over the last window of steps.

        Chance is the entropy of the classes' shares. A window has 50 steps, or a quarter of
        `horizon` where that is less; `release` judges what is left of it. Never before step 20.
        """
        return self._stuck_steps > 0 and self.step >= _FIRST

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The adversaries' weights; none while `adv_weight` is 0."""
        return self.heads.parameters(recurse)

    def state_dict(self) -> dict[str, Any]:
        """The adversaries, the step and the watch on the class loss."""
        return {
            "heads": self.heads.state_dict(),
            "step": self.step,
            "window": self._window,
            "counted": self._counted,
            "stuck_steps": self._stuck_steps,
            "last_class_loss": self.last_class_loss,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.heads.load_state_dict(state["heads"])
        self.step, self._stuck_steps = state["step"], state["stuck_steps"]
        self._counted = state["counted"]
        self._window = state["window"].to(self._window.device)
        self.last_class_loss = state["last_class_loss"]


def _width_in(head: nn.Module) -> int:
    linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError(
            f"the head ({type(head).__name__}) has no linear layer, so the width of the features "
            "is unknown; name a module with one as head="
        )
    return linear[0].in_features


def _code_of_cell(name: str, data: GroupedData, groups: GroupIndex) -> Tensor:
    """(G,) the attribute's code in each cell; 0 for cells that no row belongs to."""
    code = data.attribute(name).to(groups.cell.device)
    low = code.new_full((groups.size,), torch.iinfo(torch.long).max)
    low = low.scatter_reduce(0, groups.cell, code, "amin")
    high = code.new_full((groups.size,), -1).scatter_reduce(0, groups.cell, code, "amax")
    mixed = (low < high).nonzero().flatten()
    if len(mixed):
        raise ValueError(
            f"attribute {name!r} varies within group {groups.names[int(mixed[0])]!r}; group by "
            "every attribute that has an adversary"
        )
    return high.clamp_min(0)
