"""Small texts and models for the tests of language."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evenloop.data import NOTHING
from evenloop.models import seeded
from evenloop.models.language import SmallLM

SIZE = 40


def prompts(rows: int = 24, longest: int = 12, seed: int = 0, size: int = SIZE) -> Tensor:
    """(rows, longest) int32 random prompts of mixed lengths."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (rows, 1), generator=draw)
    ids = torch.randint(0, size, (rows, longest), generator=draw, dtype=torch.int32)
    return ids.where(torch.arange(longest) < lengths, NOTHING)


def sharp_lm(*, end: int | None = None, context: int = 40, seed: int = 0) -> SmallLM:
    """A net whose next tokens differ much in probability, without training."""

    def make() -> SmallLM:
        net = SmallLM(SIZE, width=16, depth=2, heads=2, context=context, end=end)
        with torch.no_grad():
            for p in net.parameters():
                if p.dim() > 1:
                    p.mul_(8.0)
        return net

    net = seeded(make, seed)
    assert isinstance(net, SmallLM)
    return net.eval()


def listed(rows: Tensor) -> list[list[int]]:
    """Each row without what stands behind its end."""
    return [[i for i in row if i != NOTHING] for row in rows.tolist()]


def padded_by(rows: Tensor, more: int) -> Tensor:
    """The same rows with further columns of padding."""
    return torch.nn.functional.pad(rows, (0, more), value=NOTHING)


def rows_of(texts: Sequence[Sequence[int]]) -> Tensor:
    """(N, longest) int32 of lists of ids."""
    wide = max(map(len, texts))
    return torch.tensor([[*t, *[NOTHING] * (wide - len(t))] for t in texts], dtype=torch.int32)
