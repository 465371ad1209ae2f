"""A world whose labels are pairs of codes, small enough to know every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evenloop.data import NOTHING, Attribute, GroupedData, Schema, Structure
from evenloop.readings import Statistic
from evenloop.rng import Rng
from evenloop.seams import LabelRule, Objective

CODES = 5
PAIRS = Schema(("even", "odd"), (Attribute("side", ("left", "right")),), Structure(3, CODES))


def pairs(n: int, seed: int = 0) -> GroupedData:
    """Rows whose label is (code, code + 1, nothing), and whose input says the code with noise."""
    rng = torch.Generator().manual_seed(seed)
    code = torch.randint(CODES - 1, (n,), generator=rng)
    x = torch.eye(CODES)[code] + 0.3 * torch.randn(n, CODES, generator=rng)
    truth = torch.stack([code, code + 1, torch.full_like(code, NOTHING)], 1)
    return GroupedData.of(x, truth, {"side": code % 2}, PAIRS)


class Said(NamedTuple):
    """Log-likelihood (B,) of labels in nats."""

    log_likelihood: Tensor


class Pairs(nn.Module):
    """Two linear heads, one for each place of the label; trained by being shown it."""

    reads_labels = True

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Linear(CODES, 2 * CODES)

    def _log_probs(self, x: Tensor) -> Tensor:
        logits: Tensor = self.heads(x)
        return logits.view(-1, 2, CODES).log_softmax(2)

    def forward(self, x: Tensor, y: Tensor) -> Said:
        chosen = self._log_probs(x).gather(2, y[:, :2, None])
        return Said(chosen.squeeze(2).sum(1))

    @torch.no_grad()
    def write(self, x: Tensor, rule: LabelRule, rng: Rng) -> Tensor:
        log_probs = self._log_probs(x)
        if rule.kind == "argmax":
            return log_probs.argmax(2)
        luck = torch.rand(len(x), 2, 1, generator=rng.gen())
        return (log_probs.exp().cumsum(2) < luck).sum(2).clamp(max=CODES - 1)

    @torch.no_grad()
    def cost(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return -self(x, y).log_likelihood, torch.full((len(x),), 2.0)


class PairLoss(Objective):
    """Mean negative log-likelihood of the rows."""

    def loss(self, outputs: Said, y: Tensor, cell: Tensor) -> Tensor:  # type: ignore[override]
        return -outputs.log_likelihood.mean()

    def units(self, y: Tensor) -> Tensor:
        return torch.tensor(float(len(y)))


class Parity:
    """Reads whether the first code is odd."""

    classes = ("even", "odd")

    def read(self, x: Tensor, y: Tensor) -> Tensor:
        return y[:, 0] % 2

    def statistics(self) -> Mapping[str, Statistic]:
        return {
            "first code": lambda x, y: y[:, 0].double(),
            "second if odd": lambda x, y: y[:, 1].double().where(y[:, 0] % 2 == 1, torch.nan),
        }

    def compare(
        self, x: Tensor, written: Tensor, truth: Tensor, trained: GroupedData
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        right = (written[:, :2] == truth[:, :2]).double().mean(1)
        return {"right": (right, torch.full((len(x),), 2.0))}

    def show(self, x: Tensor, y: Tensor) -> list[str]:
        return [" ".join(str(c) for c in row if c != NOTHING) for row in y.tolist()]

    def hidden(self, x: Tensor, y: Tensor) -> Tensor:
        return y[:, 0] == 0
