"""Any causal language model saved in the Hugging Face format, from this disk.

GPT-2 (Radford et al., 2019) in its published sizes, SmolLM2, or a folder of the user's. They are
decoded by the same decoder as our own models, with their own cache of keys and values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from evenloop.models.decoding import generate
from evenloop.models.language import (
    Likelihood,
    before,
    check_context,
    cost,
    joined,
    likelihood,
    whole,
)
from evenloop.models.roomy import joined_layers, with_room
from evenloop.models.weights import GGUF, MODEL_FILES, find_gguf, find_weights
from evenloop.rng import Rng
from evenloop.seams import LabelRule

__all__ = [
    "FACTORIES",
    "HuggingFaceLM",
    "generate_options",
    "hugging_face",
    "original_defaults",
]

CONFIG = "config.json"
MICRO = MappingProxyType({"gpt2": 16, "gpt2-medium": 8, "gpt2-large": 4})
GENERATED = MappingProxyType({"gpt2": 400, "gpt2-medium": 200, "gpt2-large": 100})


def original_defaults(model: str, decoding: str) -> dict[str, float | int]:
    """What the published runs of Taori and Hashimoto use for a size of GPT-2.

    Args:
        model: "gpt2", "gpt2-medium" or "gpt2-large".
        decoding: "nucleus_sampling" or "beam_search".

    Raises:
        ValueError: another model or decoding.

    >>> original_defaults("gpt2-large", "beam_search")["generation_batch"]
    10
    """
    if model not in MICRO or decoding not in ("nucleus_sampling", "beam_search"):
        raise ValueError(
            f"no published run has model={model!r} and decoding={decoding!r}; the models are "
            f"{', '.join(MICRO)}, the decodings nucleus_sampling and beam_search"
        )
    micro, beams = MICRO[model], decoding == "beam_search"
    return {
        "train_batch": micro,
        "accumulation": 16 // micro,
        "learning_rate": 5e-5 if model == "gpt2" else 1e-5,
        "eval_batch": 5 * micro,
        "generation_batch": GENERATED[model] // (10 if beams else 1),
        "total_batch": 16,
    }


def generate_options(rule: LabelRule) -> dict[str, Any]:
    """A rule in the words of `transformers`' own `generate`.

    >>> generate_options(LabelRule("beam", beams=5))
    {'max_new_tokens': 20, 'do_sample': False, 'num_beams': 5}
    """
    options: dict[str, Any] = {"max_new_tokens": rule.max_new_tokens}
    if rule.kind in ("sample", "nucleus"):
        options |= {"do_sample": True, "top_p": rule.top_p if rule.kind == "nucleus" else 1.0}
        options |= {"top_k": 0}
        if rule.temperature != 1:
            options |= {"temperature": rule.temperature}
        return options
    options |= {"do_sample": False, "num_beams": rule.beams if rule.kind == "beam" else 1}
    if rule.kind == "beam" and rule.length_penalty != 1:
        options |= {"length_penalty": rule.length_penalty}
    return options


class _Past:
    """A transformers cache of B x K continuations, flat, and which of their tokens are real.

    It gets its room for further tokens when the first of them comes.
    """

    def __init__(self, past: Any, mask: Tensor, room: int) -> None:
        self.past, self.mask, self.beams = past, mask, 1
        self.room, self.ready = room, False

    def grown(self) -> Any:
        """The transformers cache, ready to be extended."""
        if not self.ready:
            self.past, self.ready = with_room(self.past, self.room), True
        return self.past

    def spread(self, beams: int) -> None:
        self.past.batch_repeat_interleave(beams)
        self.mask, self.beams = self.mask.repeat_interleave(beams, 0), beams

    def reorder(self, parent: Tensor) -> None:
        first = torch.arange(len(parent), device=parent.device)[:, None] * self.beams
        self.past.reorder_cache((first + parent).flatten())

    def keep(self, prompts: Tensor) -> None:
        each = torch.arange(self.beams, device=prompts.device)
        rows = (prompts[:, None] * self.beams + each).flatten()
        self.past.batch_select_indices(rows)
        self.mask = self.mask[rows]


class HuggingFaceLM(nn.Module):
    """A `transformers` causal model: prompts (B, P), continuations (B, L) -> `Likelihood`.

    Args:
        net: the model.
        end: its end-of-text token, None if it has none.
        vocabulary: tokens it may write, ids from 0 on; None for all it knows. Models are often
            padded with ids that no tokenizer has.
    """

    reads_labels = True

    def __init__(self, net: nn.Module, end: int | None, vocabulary: int | None = None) -> None:
        super().__init__()
        self.net: Any = net
        self.end = end
        config: Any = net.config
        self.vocabulary = int(config.vocab_size if vocabulary is None else vocabulary)
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        takes = inspect.signature(self.net.forward).parameters
        self._positions = "position_ids" in takes
        self._last: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def forward(self, x: Tensor, y: Tensor) -> Likelihood:
        """Likelihood of continuations y (B, L) of prompts x (B, P)."""
        tokens, lengths = joined(x, y)
        logits = self.net(input_ids=tokens, use_cache=False).logits
        at = before(lengths, y.shape[1])
        return likelihood(logits.gather(1, at[:, :, None].expand(-1, -1, logits.shape[2])), y)

    def write(self, x: Tensor, rule: LabelRule, rng: Rng) -> Tensor:
        """(N, max_new_tokens) continuations of prompts x (N, P); see `decoding.generate`."""
        return generate(self, whole(self, x), rule, rng)

    def cost(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) nats and (N,) tokens of continuations y (N, L) of prompts x (N, P)."""
        return cost(self, whole(self, x), y, rows=16)

    def start(self, prompts: Tensor, lengths: Tensor, room: int) -> tuple[Tensor, _Past]:
        """Logits (B, 1, V) behind prompts (B, P) of these lengths, and what is remembered."""
        # These models count a prompt's end as its last column, so padding goes to the left.
        place = torch.arange(prompts.shape[1], device=prompts.device)
        position = place - (prompts.shape[1] - lengths)[:, None]
        mask = (position >= 0).long()
        tokens = prompts.gather(1, position.clamp_min(0))
        given = {"position_ids": position.clamp_min(0)} if self._positions else {}
        made = self.net(
            input_ids=tokens, attention_mask=mask, use_cache=True, **given, **self._last
        )
        return self._next(made)[:, None], _Past(made.past_key_values, mask, room)

    def join(self, caches: Sequence[_Past]) -> _Past:
        """What is remembered of all prompts of these caches, padded to the left."""
        wide = max(one.mask.shape[1] for one in caches)
        more = [wide - one.mask.shape[1] for one in caches]
        past = joined_layers([one.past for one in caches], more, self.net.config)
        masks = [pad(one.mask, (m, 0)) for one, m in zip(caches, more, strict=True)]
        return _Past(past, torch.cat(masks), caches[0].room)

    def extend(self, tokens: Tensor, cache: _Past) -> Tensor:
        """Logits (B, K, V) behind one more token (B, K) of every continuation."""
        flat = tokens.reshape(-1, 1)
        given = {"position_ids": cache.mask.sum(1, keepdim=True)} if self._positions else {}
        cache.mask = torch.cat([cache.mask, torch.ones_like(flat)], 1)
        made = self.net(
            input_ids=flat,
            attention_mask=cache.mask,
            past_key_values=cache.grown(),
            use_cache=True,
            **given,
        )
        cache.past = made.past_key_values
        return self._next(made).view(*tokens.shape, -1)

    def _next(self, made: Any) -> Tensor:
        """(B, V) logits of the next token among those that may be written."""
        logits: Tensor = made.logits[:, -1, : self.vocabulary]
        return logits


def hugging_face(
    *,
    vocabulary: int,
    end: int | None = None,
    longest: int | None = None,
    tokenizer: Path | str | None = None,
    weights: Path | str | None = None,
    name: str = "hugging-face",
) -> nn.Module:
    """The causal model in the folder `weights`: as `save_pretrained` writes it, or one GGUF file.

    Args:
        vocabulary: tokens of the data. From a tokenizer's files they may be fewer than the model
            knows, and it writes these only; otherwise they must be as many.
        end: the token that ends a text; by default what the model's own settings say.
        longest: tokens of the data's longest prompt and continuation together.
        tokenizer: folder that the data's tokenizer was read from; None where the data numbers its
            own words, characters or bytes.
        weights: the folder; None for `weights.weights_folder(name)`.
        name: what the model is called.

    Raises:
        FileNotFoundError: no weights are there (nothing is downloaded).
        ModuleNotFoundError: transformers, or gguf for such a file, is not installed.
        ValueError: the data's tokens are not the model's, or its texts are too long for it.
    """
    folder = find_weights(name, weights, CONFIG, GGUF, needs=MODEL_FILES)
    net = _read(name, folder)
    knows = int(net.config.vocab_size)
    advice = f"give the world the model's own tokenizer, tokens={str(folder)!r}"
    if vocabulary > knows:
        raise ValueError(f"the data has {vocabulary} tokens and {name} knows {knows}; {advice}")
    if tokenizer is None and vocabulary != knows:
        raise ValueError(
            f"the world numbers the {vocabulary} tokens of its data itself (words, characters or "
            f"bytes), which are not the {knows} that {name} was trained on; {advice}"
        )
    own = net.config.eos_token_id
    if isinstance(own, list):
        own = own[0] if own else None
    made = HuggingFaceLM(net, own if end is None else end, vocabulary)
    check_context(name, made.context, longest)
    return made


def _read(name: str, folder: Path) -> Any:
    """The model in a folder: its own weights, or where there are none its GGUF file."""
    own = any(True for kind in ("*.safetensors", "*.bin") for _ in folder.glob(kind))
    packed = None if own else find_gguf(folder, f"net={name!r}")
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"net={name!r} needs transformers; install the extra: pip install 'evenloop[text]'"
        ) from error
    # A bar for reading a file would run through evenloop's own progress.
    logging.disable_progress_bar()
    if packed is not None:
        # Turning packed weights into numbers takes seconds, and every round wants a new net.
        return deepcopy(_unpacked(packed, packed.stat().st_mtime_ns))
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{name}: {folder} has {CONFIG} but no weights that can be read "
            f"({str(error).splitlines()[0]}). Put model.safetensors there; nothing is downloaded"
        ) from error


@lru_cache(maxsize=1)
def _unpacked(path: Path, changed: int) -> Any:
    """The model of a GGUF file with 32-bit weights; a file with another time is read again."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, local_files_only=True, dtype=torch.float32
    )


def _named(name: str) -> Callable[..., nn.Module]:
    def factory(
        *,
        vocabulary: int,
        end: int | None = None,
        longest: int | None = None,
        tokenizer: Path | str | None = None,
        weights: Path | str | None = None,
    ) -> nn.Module:
        return hugging_face(
            vocabulary=vocabulary,
            end=end,
            longest=longest,
            tokenizer=tokenizer,
            weights=weights,
            name=name,
        )

    factory.__name__ = name
    factory.__doc__ = f"{name} from its folder on this disk; see `hugging_face`."
    return factory


FACTORIES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        name: _named(name)
        for name in ("gpt2", "gpt2-medium", "gpt2-large", "smollm2", "hugging-face")
    }
)
"""Builders by the name a config uses."""
