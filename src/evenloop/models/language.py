"""A small decoder-only transformer, trained from scratch in seconds.

Pre-norm blocks, learned positions, GELU, tied token weights, as in Radford et al., "Language Models
are Unsupervised Multitask Learners" (2019), at any width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evenloop.data import NOTHING
from evenloop.models.decoding import generate, like_lengths, prompt_lengths
from evenloop.models.shape import positive
from evenloop.rng import Rng
from evenloop.seams import LabelRule

__all__ = [
    "Likelihood",
    "SmallLM",
    "check_context",
    "cost",
    "joined",
    "likelihood",
    "small_lm",
    "whole",
]

COSTED = 256  # texts whose cost is computed together


class Likelihood(NamedTuple):
    """`log_likelihood` (B,) in nats of a batch's continuations and `tokens` (B,), their lengths."""

    log_likelihood: Tensor
    tokens: Tensor


def joined(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P + L) tokens of prompt and continuation without a gap, and (B,) prompt lengths.

    What stands behind the end is 0: a causal model does not look there.

    >>> tokens, lengths = joined(torch.tensor([[7, -1]]), torch.tensor([[4, 5, -1]]))
    >>> tokens.tolist(), lengths.tolist()
    ([[7, 4, 5, 0, 0]], [1])
    """
    both = torch.cat([x.long(), y.long()], 1)
    order = (both < 0).to(torch.uint8).argsort(dim=1, stable=True)
    return both.gather(1, order).clamp_min(0), (x >= 0).sum(1)


def before(lengths: Tensor, places: int) -> Tensor:
    """(B, places) positions whose outputs predict the continuation's tokens."""
    return lengths[:, None] - 1 + torch.arange(places, device=lengths.device)


def likelihood(logits: Tensor, y: Tensor) -> Likelihood:
    """Of continuations y (B, L), `NOTHING` behind their end, under logits (B, L, V).

    >>> likelihood(torch.zeros(1, 2, 4), torch.tensor([[3, -1]]))
    Likelihood(log_likelihood=tensor([-1.3863]), tokens=tensor([1]))
    """
    y = y.long()
    nats = F.cross_entropy(
        logits.flatten(0, 1).float(), y.flatten(), ignore_index=NOTHING, reduction="none"
    )
    return Likelihood(-nats.view(y.shape).sum(1), (y != NOTHING).sum(1))


def cost(model: nn.Module, x: Tensor, y: Tensor, rows: int = COSTED) -> tuple[Tensor, Tensor]:
    """(N,) nats and (N,) tokens of continuations y (N, L) of x (N, P), like lengths together."""
    size = (x >= 0).sum(1) + (y >= 0).sum(1)
    nats = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    tokens = torch.zeros(len(x), dtype=torch.long, device=x.device)
    with torch.inference_mode():
        for index in like_lengths(size, rows):
            wide = [int((rows[index] >= 0).sum(1).max()) for rows in (x, y)]
            found: Likelihood = model(x[index, : wide[0]], y[index, : wide[1]])
            nats[index] = -found.log_likelihood.double()
            tokens[index] = found.tokens
    return nats, tokens


class _Remembered:
    """Keys and values: those of a prompt once for all its continuations, and theirs.

    `prompt` is one (2, B, H, P, D) a layer, `own` (2, B, K, H, room, D) of which `used` are filled.
    """

    def __init__(self, prompt: list[Tensor], lengths: Tensor, room: int) -> None:
        self.prompt, self.lengths, self.used = prompt, lengths, 0
        _, rows, heads, _, depth = prompt[0].shape
        self.own = [p.new_zeros(2, rows, 1, heads, room, depth) for p in prompt]
        seen = torch.arange(prompt[0].shape[3], device=lengths.device) < lengths[:, None]
        self.mask = torch.zeros_like(seen, dtype=prompt[0].dtype).masked_fill(~seen, -torch.inf)

    def spread(self, beams: int) -> None:
        self.own = [o.expand(-1, -1, beams, -1, -1, -1).contiguous() for o in self.own]

    def reorder(self, parent: Tensor) -> None:
        batch = torch.arange(len(parent), device=parent.device)[:, None]
        for o in self.own:
            o[..., : self.used, :] = o[:, batch, parent, :, : self.used]

    def keep(self, prompts: Tensor) -> None:
        self.prompt = [p[:, prompts] for p in self.prompt]
        self.own = [o[:, prompts] for o in self.own]
        self.lengths, self.mask = self.lengths[prompts], self.mask[prompts]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden (B, T, W) and the layer's keys and values (2, B, H, T, D)."""
        rows, places, width = h.shape
        made = self.qkv(self.norm1(h)).view(rows, places, 3, self.heads, width // self.heads)
        q, k, v = made.permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(rows, places, width)
        return self._after(h, mixed), torch.stack([k, v])

    def extend(self, h: Tensor, prompt: Tensor, own: Tensor, used: int, mask: Tensor) -> Tensor:
        """Hidden (B, K, W) of one more token of each continuation; its keys are added to `own`."""
        rows, beams, width = h.shape
        made = self.qkv(self.norm1(h)).view(rows, beams, 3, self.heads, width // self.heads)
        q, k, v = made.unbind(2)  # (B, K, H, D)
        own[0, :, :, :, used], own[1, :, :, :, used] = k, v
        keys, values = own[..., : used + 1, :]  # (B, K, H, t, D)
        q = q * q.shape[-1] ** -0.5
        far = q.transpose(1, 2) @ prompt[0].transpose(2, 3) + mask[:, None, None]  # (B, H, K, P)
        near = (keys @ q[..., None]).squeeze(4).transpose(1, 2)  # (B, H, K, t)
        share = torch.cat([far, near], 3).softmax(3)
        reach = far.shape[3]
        from_prompt = (share[..., :reach] @ prompt[1]).transpose(1, 2)  # (B, K, H, D)
        from_own = (share[..., reach:].transpose(1, 2)[:, :, :, None] @ values).squeeze(3)
        return self._after(h, (from_prompt + from_own).reshape(rows, beams, width))

    def _after(self, h: Tensor, mixed: Tensor) -> Tensor:
        h = h + self._drop(self.out(mixed))
        return h + self._drop(self.down(F.gelu(self.up(self.norm2(h)))))

    def _drop(self, h: Tensor) -> Tensor:
        return F.dropout(h, self.dropout, self.training)


class SmallLM(nn.Module):
    """Prompts (B, P) and continuations (B, L) of token ids, -1 behind the end -> `Likelihood`.

    >>> from evenloop.models import seeded
    >>> net = seeded(lambda: SmallLM(50, width=16, depth=1, heads=2, context=12), 0)
    >>> net(torch.tensor([[3, 4, -1]]), torch.tensor([[5, 6]])).tokens.tolist()
    [2]
    >>> net.write(torch.tensor([[3, 4, -1]]), LabelRule(max_new_tokens=5), Rng.of(0)).shape
    torch.Size([1, 5])
    """

    reads_labels = True

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int = 64,
        depth: int = 2,
        heads: int = 2,
        context: int = 64,
        dropout: float = 0.0,
        end: int | None = None,
    ) -> None:
        super().__init__()
        positive(
            "small-lm",
            vocabulary=vocabulary,
            width=width,
            depth=depth,
            heads=heads,
            context=context,
        )
        if width % heads:
            raise ValueError(f"small-lm: width={width} must be a multiple of heads={heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"small-lm: dropout must be in [0, 1), got {dropout}")
        self.vocabulary, self.context, self.end = vocabulary, context, end
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        # The token weights are also the output's: at this size logits start with deviation 1.
        nn.init.normal_(self.tokens.weight, std=width**-0.5)
        nn.init.normal_(self.places.weight, std=width**-0.5 / 2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, y: Tensor) -> Likelihood:
        """Likelihood of continuations y (B, L) of prompts x (B, P)."""
        tokens, lengths = joined(x, y)
        if tokens.shape[1] > self.context:
            # Widths are those of padded columns: only a row that is really too long is an error.
            longest = int(((x >= 0).sum(1) + (y >= 0).sum(1)).max())
            if longest > self.context:
                raise ValueError(
                    f"a text of {longest} tokens does not fit into context={self.context}; raise "
                    "context, or cut prompts and continuations"
                )
            tokens = tokens[:, : self.context]
        hidden, _ = self._read(tokens)
        at = before(lengths, y.shape[1]).clamp_max(tokens.shape[1] - 1)
        hidden = hidden.gather(1, at[:, :, None].expand(-1, -1, hidden.shape[2]))
        return likelihood(self._logits(hidden), y)

    def write(self, x: Tensor, rule: LabelRule, rng: Rng) -> Tensor:
        """(N, max_new_tokens) continuations of prompts x (N, P); see `decoding.generate`."""
        return generate(self, whole(self, x), rule, rng)

    def cost(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) nats and (N,) tokens of continuations y (N, L) of prompts x (N, P)."""
        return cost(self, whole(self, x), y)

    def start(self, prompts: Tensor, lengths: Tensor, room: int) -> tuple[Tensor, _Remembered]:
        """Logits (B, 1, V) behind prompts (B, P) of these lengths, and what is remembered."""
        hidden, made = self._read(prompts)
        last = hidden.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[2]))
        return self._logits(last), _Remembered(made, lengths, room)

    def join(self, caches: Sequence[_Remembered]) -> _Remembered:
        """What is remembered of all prompts of these caches, as wide as the longest."""
        wide = max(one.mask.shape[1] for one in caches)
        layers = zip(*(one.prompt for one in caches), strict=True)
        prompt = [torch.cat([_widened(p, wide) for p in parts], 1) for parts in layers]
        lengths = torch.cat([one.lengths for one in caches])
        return _Remembered(prompt, lengths, caches[0].own[0].shape[4])

    def extend(self, tokens: Tensor, cache: _Remembered) -> Tensor:
        """Logits (B, K, V) behind one more token (B, K) of every continuation."""
        h = self.tokens(tokens) + self.places(cache.lengths + cache.used)[:, None]
        for block, prompt, own in zip(self.blocks, cache.prompt, cache.own, strict=True):
            assert isinstance(block, _Block)
            h = block.extend(h, prompt, own, cache.used, cache.mask)
        cache.used += 1
        return self._logits(h)

    def _read(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        h = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        made = []
        for block in self.blocks:
            h, kept = block(h)
            made.append(kept)
        return h, made

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.norm(hidden) @ self.tokens.weight.T
        return logits


def _widened(kept: Tensor, wide: int) -> Tensor:
    """Keys and values (2, B, H, P, D) with room for `wide` places."""
    return F.pad(kept, (0, 0, 0, wide - kept.shape[3]))


def whole(model: nn.Module, x: Tensor) -> Tensor:
    """Prompts `x` where `model` computes, checked to be prompts; the model set to evaluate."""
    model.eval()
    prompt_lengths(x, None)
    return x.to(next(model.parameters()).device)


def small_lm(
    *,
    vocabulary: int,
    end: int | None = None,
    longest: int | None = None,
    tokenizer: Path | str | None = None,
    width: int = 64,
    depth: int = 2,
    heads: int = 2,
    context: int | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """SmallLM over `vocabulary` tokens.

    Args:
        vocabulary: tokens of the data.
        end: the token that ends a text, if there is one.
        longest: tokens of the longest prompt and continuation of the data together.
        tokenizer: folder of the data's tokenizer, not used: the net learns any ids.
        width, depth, heads, dropout: of the transformer.
        context: the longest sequence it reads; by default `longest`, or 64.

    Raises:
        ValueError: a size is not positive, the width is no multiple of the heads, or the data's
            texts do not fit into the context.
    """
    context = (longest or 64) if context is None else context
    check_context("small-lm", context, longest)
    return SmallLM(
        vocabulary, width=width, depth=depth, heads=heads, context=context, dropout=dropout, end=end
    )


def check_context(model: str, context: int | None, longest: int | None) -> None:
    """Raise ValueError where texts of `longest` tokens do not fit into `context`.

    >>> check_context("small-lm", 64, 64)
    """
    if context is not None and longest is not None and longest > context:
        raise ValueError(
            f"{model} reads {context} tokens, and the world's longest prompt and continuation have "
            f"room for {longest} together; lower prompt_tokens, continuation_tokens or new_tokens "
            "of the world, or take a model with a longer context"
        )
