"""Golden cases of label feedback in language: encoding, statistics, updates, defaults."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from evenloop.accumulation import planned_updates, update_events
from evenloop.data import NOTHING
from evenloop.models.decoding import without_end
from evenloop.models.hugging_face import GENERATED, generate_options, original_defaults
from evenloop.models.language import before, joined
from evenloop.seams import LabelRule
from evenloop.texts import ngram_overlap, published_perplexity, text_statistics

IGNORED = -100


def rows(texts: list[list[int]]) -> Tensor:
    wide = max(map(len, texts), default=0)
    return torch.tensor([t + [NOTHING] * (wide - len(t)) for t in texts]).view(len(texts), wide)


def encode(inputs: dict[str, Any]) -> Any:
    """The model reads what `joined` gives; the places of `before` are those it is taught at."""
    x, y = rows([inputs["prompt_ids"]]), rows([inputs["continuation_ids"]])
    tokens, lengths = joined(x, y)
    labels = torch.full_like(tokens, IGNORED)
    labels[0, before(lengths, y.shape[1])[0] + 1] = y[0]
    return {
        "train": {
            "input_ids": tokens[0].tolist(),
            "attention_mask": [1] * tokens.shape[1],
            "labels": labels[0].tolist(),
        },
        "generate": {"input_ids": x[0].tolist(), "attention_mask": (x[0] >= 0).long().tolist()},
    }


def overlap(inputs: dict[str, Any]) -> float | None:
    found = ngram_overlap(rows(inputs["output_tokens"]), rows(inputs["train_tokens"]), inputs["n"])
    return None if math.isnan(found) else found


def statistics(inputs: dict[str, Any]) -> dict[str, float]:
    found = text_statistics(inputs["samples"], inputs["toxicity_scores"])
    names = {
        "score": "avg_toxicity",
        "above": "avg_threshold_toxicity",
        "quotes": "avg_num_quotes",
        "quoted": "avg_has_a_quote",
    }
    return {theirs: found[ours] for ours, theirs in names.items()}


def perplexity(inputs: dict[str, Any]) -> float:
    size, left = inputs["batch_size"], inputs["n_examples"]
    means = inputs["mean_token_loss_of_each_batch"]
    sizes = [min(size, left - size * i) for i in range(len(means))]
    return published_perplexity(means, sizes)


def accumulation(inputs: dict[str, Any]) -> dict[str, Any]:
    sizes = inputs["micro_batches_per_epoch"], inputs["accumulation"]
    made = update_events(*sizes, epochs=inputs["epochs"], lr=inputs["peak_lr"], order="published")
    return {
        "planned_updates": planned_updates(*sizes, epochs=inputs["epochs"]),
        "updates": [
            {"lr": u.lr, "micro_batches": u.micro_batches, "grad_weight": u.weight} for u in made
        ],
    }


def strip(inputs: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """The rule is not among the inputs: it is the one whose options are expected."""
    raw = torch.tensor(inputs["raw_generated"])
    kept = without_end(raw, inputs["eos_id"])
    beams = "num_beams" in expected["decoding_options"]
    rule = LabelRule("beam" if beams else "nucleus", max_new_tokens=raw.shape[1])
    return {
        "kept_ids": [[t for t in row if t != NOTHING] for row in kept.tolist()],
        "decoding_options": generate_options(rule),
    }


def defaults(inputs: dict[str, Any]) -> dict[str, Any]:
    decodings = ("nucleus_sampling", "beam_search")
    return {f"{m}/{d}": original_defaults(m, d) for m in GENERATED for d in decodings}


CASES: dict[str, Callable[..., Any]] = {
    "lm/encode": encode,
    "lm/ngram_overlap": overlap,
    "lm/text_stats": statistics,
    "lm/perplexity": perplexity,
    "lm/accumulation": accumulation,
    "lm/strip": strip,
    "lm/defaults": defaults,
}
