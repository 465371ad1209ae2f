"""The packaged character LSTM: two layers over a window of 40 characters, with attention.

Source: Max Woolf, textgenrnn 2.0.0 (MIT licence), whose Keras weights are read as they are. The
gates of its cuDNN layout are stored transposed, one square block a gate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evenloop.models.decoding import generate
from evenloop.models.language import Likelihood, before, cost, joined, likelihood, whole
from evenloop.models.weights import find_weights
from evenloop.rng import Rng
from evenloop.seams import LabelRule

__all__ = ["VOCABULARY", "WEIGHTS", "CharLSTM", "char_lstm", "char_vocabulary"]

WEIGHTS, VOCABULARY = "textgenrnn_weights.hdf5", "textgenrnn_vocab.json"
BETWEEN = "<s>"  # stands before every text and behind it
WINDOW = 40
Array = NDArray[np.float32]


class _Window:
    """The last 40 characters of every continuation, (B, K, 40)."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens

    def spread(self, beams: int) -> None:
        self.tokens = self.tokens.expand(-1, beams, -1)

    def reorder(self, parent: Tensor) -> None:
        self.tokens = self.tokens.gather(1, parent[:, :, None].expand(-1, -1, WINDOW))

    def keep(self, prompts: Tensor) -> None:
        self.tokens = self.tokens[prompts]


class CharLSTM(nn.Module):
    """Prompts (B, P) and continuations (B, L) of character codes -> `Likelihood`.

    The attention looks at a whole window of 40 characters, 0 before a text's start, so nothing of
    one step can be kept for the next: the cache holds the characters.
    """

    reads_labels = True
    context: int | None = None

    def __init__(self, vocabulary: int = 465, *, end: int | None = None) -> None:
        super().__init__()
        self.vocabulary, self.end = vocabulary, end
        self.tokens = nn.Embedding(vocabulary, 100)
        self.first = nn.LSTM(100, 128, batch_first=True)
        self.second = nn.LSTM(128, 128, batch_first=True)
        self.attention = nn.Linear(356, 1, bias=False)
        self.head = nn.Linear(356, vocabulary)

    def forward(self, x: Tensor, y: Tensor) -> Likelihood:
        """Likelihood of continuations y (B, L) of prompts x (B, P)."""
        tokens, lengths = joined(x, y)
        behind = torch.cat([tokens.new_zeros(len(tokens), WINDOW), tokens], 1)
        at = before(lengths, y.shape[1])[:, :, None] + 1 + torch.arange(WINDOW, device=x.device)
        windows = behind.gather(1, at.flatten(1)).view(-1, WINDOW)
        return likelihood(self.logits(windows).view(*y.shape, -1), y)

    def logits(self, windows: Tensor) -> Tensor:
        """(B, V) logits of the character behind windows (B, 40), 0 before a text's start."""
        e = self.tokens(windows)
        a, _ = self.first(e)
        b, _ = self.second(a)
        h = torch.cat([e, a, b], 2)
        share = self.attention(h).softmax(1)
        found: Tensor = self.head((h * share).sum(1))
        return found

    def write(self, x: Tensor, rule: LabelRule, rng: Rng) -> Tensor:
        """(N, max_new_tokens) continuations of prompts x (N, P); see `decoding.generate`."""
        return generate(self, whole(self, x), rule, rng)

    def cost(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) nats and (N,) characters of continuations y (N, L) of prompts x (N, P)."""
        return cost(self, whole(self, x), y)

    def start(self, prompts: Tensor, lengths: Tensor, room: int) -> tuple[Tensor, _Window]:
        """Logits (B, 1, V) behind prompts (B, P) of these lengths, and what is remembered."""
        behind = torch.cat([prompts.new_zeros(len(prompts), WINDOW), prompts], 1)
        at = lengths[:, None] + torch.arange(WINDOW, device=prompts.device)
        window = behind.gather(1, at)
        return self.logits(window)[:, None], _Window(window[:, None])

    def join(self, caches: Sequence[_Window]) -> _Window:
        """The windows of all prompts of these caches."""
        return _Window(torch.cat([one.tokens for one in caches]))

    def extend(self, tokens: Tensor, cache: _Window) -> Tensor:
        """Logits (B, K, V) behind one more character (B, K) of every continuation."""
        cache.tokens = torch.cat([cache.tokens[:, :, 1:], tokens[:, :, None]], 2)
        return self.logits(cache.tokens.flatten(0, 1)).view(*tokens.shape, -1)


def char_vocabulary(weights: Path | str | None = None) -> dict[str, int]:
    """Character -> code of the packaged model; 0 stands for none, "<s>" between texts.

    Raises:
        FileNotFoundError: the file is not there; says where to put it.
    """
    folder = find_weights("charlm", weights, VOCABULARY)
    codes: dict[str, int] = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
    return codes


def char_lstm(
    *,
    vocabulary: int,
    end: int | None = None,
    longest: int | None = None,
    tokenizer: Path | str | None = None,
    weights: Path | str | None = None,
) -> nn.Module:
    """The pretrained character LSTM from the folder of textgenrnn's two files.

    Texts of any length go: `longest`, that of the data, is not used, nor the `tokenizer`'s folder.

    Raises:
        FileNotFoundError: the files are not there; says where to put them.
        ModuleNotFoundError: h5py, which reads them, is not installed.
        ValueError: the data was not written in this model's characters.
    """
    folder = find_weights("charlm", weights, WEIGHTS)
    codes = char_vocabulary(folder)
    if vocabulary != len(codes) + 1:
        raise ValueError(
            f"the data has {vocabulary} tokens and charlm {len(codes) + 1} characters; give the "
            "world tokens=charlm"
        )
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"net='charlm' reads {WEIGHTS} with h5py; install it: pip install h5py"
        ) from error
    found: dict[str, Array] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            path = name.split("/")
            found[f"{path[0]}.{path[-1].removesuffix(':0')}"] = np.array(item, np.float32)

    with h5py.File(folder / WEIGHTS) as file:
        file.visititems(note)
    net = CharLSTM(vocabulary, end=codes[BETWEEN] if end is None else end)
    net.load_state_dict(_as_torch(found))
    return net


def _as_torch(found: dict[str, Array]) -> dict[str, Tensor]:
    """Keras' arrays under the names and in the layout of `CharLSTM`."""
    arrays = {
        "tokens.weight": found["embedding.embeddings"],
        "attention.weight": found["attention.attention_W"].T,
        "head.weight": found["output.kernel"].T,
        "head.bias": found["output.bias"],
    }
    for ours, theirs in (("first", "rnn_1"), ("second", "rnn_2")):
        kernel, again = found[f"{theirs}.kernel"], found[f"{theirs}.recurrent_kernel"]
        gates = [g.T.reshape(g.shape, order="F") for g in np.hsplit(kernel, 4)]
        arrays[f"{ours}.weight_ih_l0"] = np.hstack(gates).T
        arrays[f"{ours}.weight_hh_l0"] = np.hstack([g.T for g in np.hsplit(again, 4)]).T
        bias = found[f"{theirs}.bias"]
        arrays[f"{ours}.bias_ih_l0"], arrays[f"{ours}.bias_hh_l0"] = np.split(bias, 2)
    return {name: torch.tensor(np.ascontiguousarray(a)) for name, a in arrays.items()}
