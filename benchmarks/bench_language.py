"""How many tokens a CPU second writes, and what a round re-reads, in one process on one thread.

    python benchmarks/bench_language.py

Prompts of 4 to 120 tokens, log-uniform, in random order, 20 new tokens each; a GPT-2 of 4 layers
with random weights. Unsorted batches are those of the original text program: in the order given,
padded to their longest, every beam reading its prompt anew, by `transformers`' own `generate`
(with its cache of keys and values). Greedy and beam texts are compared, prompt by prompt.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from evenloop.data import NOTHING
from evenloop.models.hugging_face import HuggingFaceLM, generate_options
from evenloop.rng import Rng
from evenloop.scorers import Cached
from evenloop.seams import LabelRule

SIZE, NEW, LONGEST = 4096, 20, 120  # head and layers in the proportion of GPT-2 small
BATCHES = {"nucleus": 100, "argmax": 100, "beam": 10}  # a quarter of the original's
PROMPTS = {"nucleus": 200, "argmax": 200, "beam": 60}


def cpu(do: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one call, and what it gave."""
    start = time.process_time()
    found = do()
    return time.process_time() - start, found


def mixed_prompts(rows: int) -> Tensor:
    """(rows, 120) int32 prompts of 4 to 120 tokens, log-uniform."""
    draw = torch.Generator().manual_seed(0)
    spread = torch.rand(rows, 1, generator=draw)
    lengths = (4 * (LONGEST / 4) ** spread).long()
    ids = torch.randint(0, SIZE, (rows, LONGEST), generator=draw, dtype=torch.int32)
    return ids.where(torch.arange(LONGEST) < lengths, NOTHING)


def language_model() -> HuggingFaceLM:
    """A GPT-2 of 4 layers of 192 with sharp random weights, without an end."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=SIZE, n_positions=160, n_embd=192, n_layer=4, n_head=4,
            bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        net = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() > 1:
                p.mul_(12.0)  # a nucleus of .9 then holds about a hundred tokens
    net.generation_config.eos_token_id = None
    net.generation_config.pad_token_id = 0
    return HuggingFaceLM(net, None)


def unsorted(lm: HuggingFaceLM, x: Tensor, rule: LabelRule) -> Tensor:
    """The original's way: batches as they come, left-padded to their longest."""
    out = []
    for start in range(0, len(x), BATCHES[rule.kind]):
        rows = x[start : start + BATCHES[rule.kind]].long()
        lengths = (rows >= 0).sum(1)
        wide = int(lengths.max())
        place = torch.arange(wide) - (wide - lengths)[:, None]
        ids = rows.gather(1, place.clamp_min(0))
        mask = (place >= 0).long()
        made = lm.net.generate(ids, attention_mask=mask, **generate_options(rule))
        out.append(made[:, wide:])
    return torch.cat(out)


def speed_row(lm: HuggingFaceLM, rule: LabelRule, repeats: int = 3) -> dict[str, Any]:
    """Tokens a CPU second, ours and the original's way in turn; the same texts where none is drawn.

    Raises:
        AssertionError: a greedy or beam text differs.
    """
    x = mixed_prompts(PROMPTS[rule.kind])
    ours, other = [], []
    for _ in range(repeats):
        took, texts = cpu(lambda: lm.write(x, rule, Rng.of(0)))
        ours.append(texts.numel() / took)
        took, same = cpu(lambda: unsorted(lm, x, rule))
        other.append(same.numel() / took)
        differ = int((texts != same).any(1).sum())
        assert rule.kind == "nucleus" or differ == 0, f"{differ} {rule.kind} texts differ"
    ratio = statistics.median(a / b for a, b in zip(ours, other, strict=True))
    return _row(f"{rule.kind}, {len(x)} prompts", ours, other, ratio, ">= 2", "tokens a CPU s")


def cache_row(rounds: int = 10, texts: int = 20_000, new: int = 500) -> dict[str, Any]:
    """Texts a scorer reads while a history grows: each once, or all of it again every round."""
    read = [0, 0]

    def counting(place: int) -> Callable[[Sequence[str]], list[float]]:
        def score(found: Sequence[str]) -> list[float]:
            read[place] += len(found)
            return [float(len(text)) for text in found]

        return score

    history = [f"text {i}" for i in range(texts + rounds * new)]
    for score in (Cached(counting(0)), counting(1)):
        for r in range(rounds):
            score(history[: texts + r * new])
    name = f"scoring {texts} texts and {new} more a round"
    ours, other = map(float, read)
    return _row(name, [ours], [other], other / ours, ">= 2", f"texts scored, {rounds} rounds")


def _row(
    name: str, ours: list[float], other: list[float], ratio: float, target: str, unit: str
) -> dict[str, Any]:
    return {
        "name": name,
        "ours": statistics.median(ours),
        "baseline": statistics.median(other),
        "ratio": ratio,
        "target": target,
        "unit": unit,
    }


def rows() -> list[dict[str, Any]]:
    """The table; without transformers only the row of scoring."""
    found = [cache_row()]
    try:
        lm = language_model()
    except ModuleNotFoundError:
        return found
    rules = [LabelRule(kind, max_new_tokens=NEW) for kind in ("argmax", "nucleus", "beam")]
    return found + [speed_row(lm, rule) for rule in rules]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in rows():
        print(
            f"{line['name']:<60} ours {line['ours']:.4g}  other {line['baseline']:.4g} "
            f"{line['unit']}  ratio {line['ratio']:.3g}  target {line['target']}"
        )
