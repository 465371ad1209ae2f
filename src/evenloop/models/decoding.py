"""One decoder for every causal language model: greedy, sampled, nucleus and beam.

Prompts of like length are read together, whatever their order, and then go on together, whatever
their length; a prompt's text depends neither on its neighbours nor on padding. Each prompt is read
once, its keys and values are kept, and a prompt that is finished leaves the batch.

References: Holtzman et al., "The Curious Case of Neural Text Degeneration" (ICLR 2020) for the
nucleus; Wu et al., "Google's Neural Machine Translation System" (2016) for length penalties.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from evenloop.data import NOTHING
from evenloop.rng import Rng
from evenloop.seams import LabelRule

__all__ = ["Cache", "CausalLM", "draw", "generate", "like_lengths", "prompt_lengths", "without_end"]

DRAWN = ("sample", "nucleus")
LIKELIEST = (128, 1024)  # tokens sorted for a nucleus before all of them are
LOGITS = 1 << 24  # numbers in the largest table of logits of one step (64 MB)
ROWS = 512


class Cache(Protocol):
    """What a model remembers of B prompts and the K continuations of each."""

    def spread(self, beams: int) -> None:
        """From one continuation of each prompt to `beams` equal ones."""
        ...

    def reorder(self, parent: Tensor) -> None:
        """Continuation k of prompt b becomes what continuation `parent[b, k]` was, (B, K)."""
        ...

    def keep(self, prompts: Tensor) -> None:
        """Only the prompts at these positions stay, in this order."""
        ...


C = TypeVar("C", bound=Cache)


class CausalLM(Protocol[C]):
    """A model that gives the logits of a next token.

    `end` is the token after which a text is over, None where the model has none; `context` is the
    longest sequence it reads, None where there is no limit.
    """

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""

    @property
    def context(self) -> int | None:
        """The longest sequence it reads."""

    @property
    def end(self) -> int | None:
        """The token after which a text is over."""

    def start(self, prompts: Tensor, lengths: Tensor, room: int) -> tuple[Tensor, C]:
        """Logits (B, 1, V) behind prompts (B, P), padded on the right; `room` tokens may follow."""
        ...

    def join(self, caches: Sequence[C]) -> C:
        """What is remembered of all prompts of these caches, none of which went on yet."""
        ...

    def extend(self, tokens: Tensor, cache: C) -> Tensor:
        """Logits (B, K, V) behind one more token of every continuation (B, K)."""
        ...


def prompt_lengths(x: Tensor, context: int | None, more: int = 0) -> Tensor:
    """(N,) tokens of each prompt of x (N, P), padded with `NOTHING` on the right.

    Raises:
        ValueError: a prompt is empty, has a gap, or leaves no room for `more` tokens in `context`.
    """
    held = x >= 0
    lengths = held.sum(1)
    if bool((held[:, 1:] & ~held[:, :-1]).any()):
        raise ValueError("prompts must be padded on the right: a token stands behind padding")
    if len(x) and int(lengths.min()) == 0:
        raise ValueError(f"prompt {int(lengths.argmin())} is empty; a text needs a token to follow")
    if context is not None and len(x) and int(lengths.max()) + more > context:
        raise ValueError(
            f"prompt {int(lengths.argmax())} has {int(lengths.max())} tokens and {more} more are "
            f"to follow, but the model reads {context}; cut the prompts or take a longer context"
        )
    return lengths


def generate(
    model: CausalLM[C], x: Tensor, rule: LabelRule, rng: Rng, *, rows: int | None = None
) -> Tensor:
    """(N, max_new_tokens) int64 continuations of prompts x (N, P), `NOTHING` behind their end.

    Tokens that mean the end are taken out wherever they stand; an empty continuation is kept. A
    draw uses one uniform number for each prompt and place, drawn before anything is decoded. A beam
    of one is greedy: it stops at the first end.

    Args:
        model: gives logits; it should be in evaluation mode.
        x: token ids, padded with `NOTHING` on the right.
        rule: how the next token is chosen.
        rng: the stream of the draws.
        rows: most prompts decoded together; by default as many as a table of logits holds.

    Raises:
        ValueError: a prompt is empty or too long, the rule is not one of texts, or there are not
            more tokens than beams.
    """
    if rule.kind == "marginal":
        raise ValueError(
            "label_rule=marginal is for frames; texts take argmax, sample, nucleus, beam"
        )
    if rule.kind == "beam" and rule.beams >= model.vocabulary:
        raise ValueError(f"beams={rule.beams} must be fewer than the {model.vocabulary} tokens")
    lengths = prompt_lengths(x, model.context, rule.max_new_tokens)
    shape = len(x), rule.max_new_tokens
    luck = torch.empty(*shape)
    if rule.kind in DRAWN:
        luck = torch.rand(*shape, generator=rng.gen(), dtype=torch.float64)
    beams = rule.beams if rule.kind == "beam" else 1
    rows = rows or max(1, min(ROWS, LOGITS // (beams * model.vocabulary)))
    written = torch.full(shape, NOTHING, device=x.device)
    order = lengths.argsort(descending=True, stable=True)
    with torch.inference_mode():
        for index in torch.split(order, rows) if len(x) else ():
            logits, cache = _read(model, x[index], lengths[index], rule.max_new_tokens)
            if beams > 1:
                written[index] = _beam(model, logits, cache, rule)
            else:
                own = luck[index.to(luck.device)]
                written[index] = _one_by_one(model, logits, cache, rule, own)
    return without_end(written, model.end)


def like_lengths(lengths: Tensor, rows: int, slack: float = 0.25) -> Iterator[Tensor]:
    """Positions of prompts in batches of at most `rows`, longest first.

    The shortest of a batch is at most `slack` (and four tokens) shorter than its longest.

    >>> [b.tolist() for b in like_lengths(torch.tensor([3, 40, 4, 38, 2]), rows=4)]
    [[1, 3], [2, 0, 4]]
    """
    order = lengths.argsort(descending=True, stable=True)
    sizes = lengths[order].tolist()
    start = 0
    while start < len(sizes):
        least = sizes[start] * (1 - slack) - 4
        stop = start + 1
        while stop < min(len(sizes), start + rows) and sizes[stop] >= least:
            stop += 1
        yield order[start:stop]
        start = stop


def without_end(written: Tensor, end: int | None) -> Tensor:
    """Texts (N, L) without the token `end` wherever it stands, padded with `NOTHING` behind.

    >>> without_end(torch.tensor([[5, 9, 6], [9, 9, 7]]), end=9).tolist()
    [[5, 6, -1], [7, -1, -1]]
    """
    if end is not None:
        written = written.masked_fill(written == end, NOTHING)
    order = (written == NOTHING).to(torch.uint8).argsort(dim=1, stable=True)
    return written.gather(1, order)


def draw(logits: Tensor, rule: LabelRule, luck: Tensor) -> Tensor:
    """(B,) tokens for logits (B, V) under a rule that is no beam, with luck (B,) in [0, 1).

    >>> rule = LabelRule("nucleus", top_p=0.7)
    >>> logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(2, 3)
    >>> draw(logits, rule, torch.tensor([0.6, 0.99])).tolist()
    [0, 1]
    """
    if rule.kind not in DRAWN:
        return logits.argmax(1)
    scaled = logits.float() / rule.temperature
    luck = luck.to(scaled.device, torch.float64)[:, None]
    if rule.kind == "sample":
        return _inverse(scaled.double().softmax(1).cumsum(1), luck).flatten()
    norm = scaled.logsumexp(1, keepdim=True)
    token = torch.zeros(len(scaled), dtype=torch.long, device=scaled.device)
    left = torch.arange(len(scaled), device=scaled.device)
    for kept in (*(k for k in LIKELIEST if k < scaled.shape[1]), scaled.shape[1]):
        values, tokens = scaled[left].topk(kept, dim=1)
        mass = (values - norm[left]).double().exp().cumsum(1)
        # A token stays while those before it hold less than top_p, so the first always does.
        before = torch.cat([torch.zeros_like(mass[:, :1]), mass[:, :-1]], 1)
        mass = mass.where(before < rule.top_p, 0.0).cummax(1).values
        token[left] = tokens.gather(1, _inverse(mass, luck[left])).flatten()
        left = left[(before[:, -1] < rule.top_p) & (mass[:, -1] < rule.top_p)]
        if len(left) == 0:
            break
    return token


def _inverse(mass: Tensor, luck: Tensor) -> Tensor:
    """(B, 1) first place whose cumulative `mass` (B, V) is above `luck` (B, 1) of the whole."""
    goal = luck * mass[:, -1:]
    last = (mass < mass[:, -1:]).sum(1, keepdim=True)  # rounding must not step behind the mass
    return torch.searchsorted(mass, goal, right=True).minimum(last)


def _read(model: CausalLM[C], x: Tensor, lengths: Tensor, room: int) -> tuple[Tensor, C]:
    """Logits (B, 1, V) behind prompts x (B, P), longest first, and what is remembered of them."""
    made = []
    for index in like_lengths(lengths, len(x)):
        size = lengths[index]
        prompts = x[index, : int(size[0])].long().clamp_min(0)
        made.append(model.start(prompts, size, room))
    logits = torch.cat([one for one, _ in made])
    return logits, made[0][1] if len(made) == 1 else model.join([cache for _, cache in made])


def _one_by_one(
    model: CausalLM[C], logits: Tensor, cache: C, rule: LabelRule, luck: Tensor
) -> Tensor:
    """(B, T) tokens, one chosen at a time; `NOTHING` behind the end."""
    places = rule.max_new_tokens
    left = torch.arange(len(logits), device=logits.device)
    written = left.new_full((len(logits), places), NOTHING)
    for t in range(places):
        token = draw(logits[:, 0], rule, luck[left.to(luck.device), t])
        written[left, t] = token
        if t == places - 1:
            break
        if model.end is not None:
            going = (token != model.end).nonzero().flatten()
            if len(going) == 0:
                break
            if len(going) < len(left):
                left, token = left[going], token[going]
                cache.keep(going)
        logits = model.extend(token[:, None], cache)
    return written


def _beam(model: CausalLM[C], logits: Tensor, cache: C, rule: LabelRule) -> Tensor:
    """(B, T) tokens of the best hypothesis: highest log-probability / length ** penalty.

    A prompt leaves the batch when no running hypothesis can still overtake the best finished one.
    """
    places, beams, end = rule.max_new_tokens, rule.beams, model.end
    left = torch.arange(len(logits), device=logits.device)
    best = _Best(left, rule)
    total = best.score.new_zeros(len(left), 1)
    text = left.new_empty(len(left), 1, 0)
    for t in range(places):
        score, parent, token = _candidates(total, logits, beams)
        if end is not None:
            # Only ends among the first candidates count, so an unlikely end is no hypothesis.
            ends = score.masked_fill(token != end, -torch.inf)[:, :beams]
            which = ends.argmax(1, keepdim=True)
            ended = _grown(text, parent.gather(1, which), token.gather(1, which))
            best.offer(left, ends.gather(1, which)[:, 0], ended[:, 0])
            score = score.masked_fill(token == end, -torch.inf)
        total, taken = score.topk(beams, dim=1)
        parent, token = parent.gather(1, taken), token.gather(1, taken)
        text = _grown(text, parent, token)
        if t == places - 1:
            break
        if t == 0:
            cache.spread(beams)
        else:
            cache.reorder(parent)
        if end is not None:
            going = best.overtaken_by(left, total[:, 0], t + 1).nonzero().flatten()
            if len(going) == 0:
                return best.text
            if len(going) < len(left):
                left, total, text, token = left[going], total[going], text[going], token[going]
                cache.keep(going)
        logits = model.extend(token, cache)
    best.offer(left, total[:, 0], text[:, 0])
    return best.text


def _candidates(total: Tensor, logits: Tensor, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, parents and tokens (B, up to 2K) of the best next steps of beams (B, k), best first.

    Twice as many as beams: at most one of each beam's is the end.
    """
    size = logits.shape[2]
    step = logits.float().log_softmax(2).double() + total[:, :, None]
    score, at = step.flatten(1).topk(min(2 * beams, step.shape[1] * size), dim=1)
    return score, at // size, at % size


def _grown(text: Tensor, parent: Tensor, token: Tensor) -> Tensor:
    """(B, n, t + 1) hypotheses: those at `parent` (B, n) of text (B, K, t), and one more token."""
    kept = text.gather(1, parent[:, :, None].expand(-1, -1, text.shape[2]))
    return torch.cat([kept, token[:, :, None]], 2)


class _Best:
    """The best hypothesis of each prompt that came to its end: `score` (B,) and `text` (B, T)."""

    def __init__(self, prompts: Tensor, rule: LabelRule) -> None:
        self.penalty, self.longest = rule.length_penalty, rule.max_new_tokens
        self.score = torch.full(prompts.shape, -torch.inf, dtype=torch.float64).to(prompts.device)
        self.text = prompts.new_full((len(prompts), self.longest), NOTHING)

    def offer(self, prompts: Tensor, total: Tensor, text: Tensor) -> None:
        """Takes hypotheses (n, t) of log-probability `total` (n,) where they are better."""
        length = text.shape[1]
        score = total / length**self.penalty
        ahead = score > self.score[prompts]
        whole = pad(text, (0, self.longest - length), value=NOTHING)
        self.score[prompts] = score.where(ahead, self.score[prompts])
        self.text[prompts] = whole.where(ahead[:, None], self.text[prompts])

    def overtaken_by(self, prompts: Tensor, total: Tensor, length: int) -> Tensor:
        """(n,) whether a hypothesis of `length` tokens and `total` (n,) could still be better.

        A sum of log-probabilities only falls; the longest text divides it most.
        """
        longest = self.longest if self.penalty > 0 else length + 1
        ahead: Tensor = total / longest**self.penalty > self.score[prompts]
        return ahead
