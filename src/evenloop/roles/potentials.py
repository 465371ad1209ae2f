"""The conditional random field over frames, as functions of its potentials.

The score of a frame (v, u) is a_v + sum_r b_{v,r,u_r}: no potential links two roles, so every sum
and maximum over frames is exact and costs one pass over the potentials,

    log Z = logsumexp_v ( a_v + sum_r logsumexp_u b_{v,r,u} ).

Reference: Yatskar, Zettlemoyer and Farhadi, Situation Recognition (CVPR 2016).

A frame is (1 + R,) codes: the verb, then one local noun for each of its roles; -1 stands where the
verb has no such role, and for a noun that is not known, which is summed over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evenloop.roles.layout import Slots

__all__ = [
    "Potentials",
    "best_frame",
    "best_nouns",
    "log_any",
    "log_likelihood",
    "log_partition",
    "sample_frame",
    "verb_marginals",
    "verb_maxima",
]


class Potentials(NamedTuple):
    """Scores of images: `verb` (B, V) and `noun` (B, S), minus infinity in empty slots."""

    verb: Tensor
    noun: Tensor


class _Reduced(torch.autograd.Function):
    """(B, S) potentials -> (B, P) logsumexp over the nouns of every role, (B, K) those at `slot`.

    One tensor as large as the potentials is made in all: the exponentials, which become the
    gradient in place. Autograd's own would make one for every block and every use of a potential.
    """

    @staticmethod
    def forward(
        ctx: Any, noun: Tensor, slot: Tensor, blocks: tuple[tuple[int, int], ...]
    ) -> tuple[Tensor, Tensor]:
        flat = _across(noun)
        exps = torch.empty_like(flat)
        tops, sums = [], []
        for part, into in zip(_parts(flat, blocks), _parts(exps, blocks), strict=True):
            top = part.amax(1, keepdim=True)
            torch.sub(part, top, out=into)
            sums.append(into.exp_().sum(1))
            tops.append(top[:, 0])
        top, total = torch.cat(tops), torch.cat(sums)
        ctx.save_for_backward(noun, top, total, slot)
        ctx.blocks, ctx.exps = blocks, exps
        return total.log().add_(top).t(), noun.gather(1, slot)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_norm: Tensor, by_picked: Tensor) -> tuple[Tensor, None, None]:
        noun, top, total, slot = ctx.saved_tensors
        out, ctx.exps = ctx.exps, None
        roles = [count for count, _ in ctx.blocks]
        if out is None:  # a second walk through a graph that was kept
            flat = _across(noun)
            out = torch.empty_like(flat)
            each = zip(_parts(flat, ctx.blocks), top.split(roles), strict=True)
            for (part, of_part), into in zip(each, _parts(out, ctx.blocks), strict=True):
                torch.sub(part, of_part[:, None], out=into)
            out.exp_()
        slope = torch.split(by_norm.t() / total, roles)
        for into, by in zip(_parts(out, ctx.blocks), slope, strict=True):
            into.mul_(by[:, None])
        return out.t().scatter_add_(1, slot, by_picked), None, None


def _across(noun: Tensor) -> Tensor:
    """(B, S) potentials as (S, B): a sum over a role's nouns then runs over all images at once.

    The net makes them in this order, so nothing is moved.
    """
    return noun.t().contiguous()


def _parts(flat: Tensor, blocks: tuple[tuple[int, int], ...]) -> list[Tensor]:
    """The blocks of (S, B) potentials as views (roles, width, B)."""
    cut = torch.split(flat, [roles * width for roles, width in blocks])
    return [part.view(*block, -1) for part, block in zip(cut, blocks, strict=True)]


def _exact(potentials: Potentials) -> Potentials:
    """Potentials in at least single precision: sums over thousands of nouns need it."""
    verb, noun = potentials
    if noun.dtype in (torch.float16, torch.bfloat16):
        return Potentials(verb.float(), noun.float())
    return potentials


def _by_verb(of_role: Tensor, slots: Slots) -> Tensor:
    """(B, P) numbers of roles summed over the roles of each verb, (B, V)."""
    padded = F.pad(of_role, (0, 1))
    chosen = padded.index_select(1, slots.role.flatten())
    return chosen.view(len(of_role), *slots.role.shape).sum(2)


def _reduced(noun: Tensor, slots: Slots, slot: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P) logsumexp of every role and (B, K) the potentials at `slot` (B, K)."""
    if not (torch.is_grad_enabled() and noun.requires_grad):
        parts = _parts(_across(noun), slots.blocks)
        return torch.cat([part.logsumexp(1) for part in parts]).t(), noun.gather(1, slot)
    both: tuple[Tensor, Tensor]
    both = _Reduced.apply(noun, slot, slots.blocks)  # type: ignore[no-untyped-call]
    return both


def verb_marginals(potentials: Potentials, slots: Slots) -> Tensor:
    """(B, V) log of the total weight of every verb's frames."""
    verb, noun = _exact(potentials)
    nothing = slots.start.new_empty(len(noun), 0)
    return verb + _by_verb(_reduced(noun, slots, nothing)[0], slots)


def log_partition(potentials: Potentials, slots: Slots) -> Tensor:
    """(B,) log Z, the log of the total weight of all frames, in nats.

    >>> from evenloop.roles import Layout
    >>> slots = Slots.of(Layout(("baking",), (("agent",),), ((("man", "woman"),),)))
    >>> log_partition(Potentials(torch.zeros(1, 1), torch.zeros(1, 2)), slots)
    tensor([0.6931])
    """
    return verb_marginals(potentials, slots).logsumexp(1)


def verb_maxima(potentials: Potentials, slots: Slots) -> Tensor:
    """(B, V) score of the best frame of every verb."""
    verb, noun = _exact(potentials)
    best = torch.cat([part.amax(1) for part in _parts(_across(noun), slots.blocks)])
    return verb + _by_verb(best.t(), slots)


def log_likelihood(potentials: Potentials, frames: Tensor, slots: Slots) -> Tensor:
    """(B,) log probability of frames (B, 1 + R), in nats; an unknown noun (-1) is summed over."""
    return _log_likelihoods(potentials, frames[:, :1], frames[:, None, 1:], slots)[:, 0]


def _log_likelihoods(potentials: Potentials, verb: Tensor, nouns: Tensor, slots: Slots) -> Tensor:
    """(B, F) log probabilities of F frames (B, F, R) of one verb (B, 1)."""
    verbs, noun = _exact(potentials)
    place = slots.role[verb[:, 0]]  # (B, R), P where there is no role
    known = (nouns >= 0) & (slots.width[verb[:, 0]] > 0)[:, None]
    slot = (slots.start[verb[:, 0]][:, None] + nouns).where(known, 0)
    norms, picked = _reduced(noun, slots, slot.flatten(1))
    of_verb = (verbs + _by_verb(norms, slots)).log_softmax(1).gather(1, verb)
    norm = F.pad(norms, (0, 1)).gather(1, place)
    # Slot 0 stands for unknown nouns: it must not meet the sum, nor its norm.
    of_nouns = torch.where(known, picked.view_as(slot) - norm[:, None], 0.0)
    return of_verb + of_nouns.sum(2)


def log_any(potentials: Potentials, y: Tensor, slots: Slots) -> Tensor:
    """(B,) log probability that at least one reference would be drawn ("noisy or"), in nats.

    log(1 - prod_ref (1 - p_ref)), without ever forming a probability. With one reference it is
    that frame's log probability.

    Args:
        potentials: of the images.
        y: (B, 1 + F * R) the verb, then the nouns of F references; a further reference whose nouns
            are all -1 is absent.
        slots: of the layout.
    """
    nouns = y[:, 1:].view(len(y), -1, slots.role.shape[1])
    each = _log_likelihoods(potentials, y[:, :1], nouns, slots)
    present = (nouns >= 0).any(2)
    total = each[:, 0]
    for place in range(1, each.shape[1]):
        here = present[:, place]
        other = torch.where(here, each[:, place], total)
        high, low = torch.maximum(total, other), torch.minimum(total, other)
        both = high + torch.log1p(torch.exp(low - high) - torch.exp(low))
        total = torch.where(here, both, total)
    return total


def best_nouns(potentials: Potentials, verb: Tensor, slots: Slots) -> Tensor:
    """(B, R) the likeliest noun of each role of the given verbs (B,); -1 where there is none."""
    return _lists(potentials.noun, verb, slots).argmax(2).where(slots.width[verb] > 0, -1)


def best_frame(potentials: Potentials, slots: Slots, *, marginal: bool = False) -> Tensor:
    """(B, 1 + R) the best frame: its verb first, then the nouns of that verb only.

    Args:
        potentials: of the images.
        slots: of the layout.
        marginal: choose the verb by the total weight of its frames ("max-marginal") instead of by
            its best frame ("max-max", which gives the likeliest frame of all).

    >>> from evenloop.roles import Layout
    >>> slots = Slots.of(Layout(("baking",), (("agent",),), ((("man", "woman"),),)))
    >>> best_frame(Potentials(torch.zeros(1, 1), torch.tensor([[0.0, 1.0]])), slots).tolist()
    [[0, 1]]
    """
    weigh = verb_marginals if marginal else verb_maxima
    verb = weigh(potentials, slots).argmax(1)
    return torch.cat([verb[:, None], best_nouns(potentials, verb, slots)], 1)


def sample_frame(
    potentials: Potentials, slots: Slots, luck: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """(B, 1 + R) frames drawn from p(frame)^(1/temperature), renormalised.

    `luck` (B, 1 + R) are uniform numbers, one for the verb and one for each role, so that a row's
    frame does not depend on its batch.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    cooled = Potentials(*(part.double() / temperature for part in potentials))
    verb = _drawn(verb_marginals(cooled, slots).softmax(1), luck[:, 0])
    nouns = _drawn(_lists(cooled.noun, verb, slots).softmax(2).nan_to_num(0.0), luck[:, 1:])
    width = slots.width[verb]
    nouns = torch.minimum(nouns, width - 1).where(width > 0, -1)
    return torch.cat([verb[:, None], nouns], 1)


def _lists(noun: Tensor, verb: Tensor, slots: Slots) -> Tensor:
    """(B, R, U) potentials of the nouns of given verbs (B,), minus infinity behind each list."""
    at = torch.arange(slots.widest, device=noun.device)
    index = slots.start[verb][:, :, None] + at
    inside = at < slots.width[verb][:, :, None]
    found = noun.gather(1, index.where(inside, 0).flatten(1)).view_as(index)
    return found.masked_fill(~inside, -torch.inf)


def _drawn(probs: Tensor, luck: Tensor) -> Tensor:
    """(...) codes drawn from probabilities (..., C) by inverting their sums at `luck` (...)."""
    below = probs.cumsum(-1) <= luck.to(probs)[..., None]
    return below.sum(-1).clamp(max=probs.shape[-1] - 1)
