"""The packaged character LSTM, on its real weights and on a file of its layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from evenloop.models import build, seeded
from evenloop.models.char_lstm import VOCABULARY, WEIGHTS, CharLSTM
from evenloop.rng import Rng
from evenloop.seams import LabelRule
from evenloop.worlds.tokens import as_rows, tokenizer

SIZES = {"rnn_1": (100, 128), "rnn_2": (128, 128)}


def write_file(folder: Path) -> dict[str, np.ndarray]:
    """Random weights in Keras' layout, five characters and "<s>"."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    codes = {c: i for i, c in enumerate(["a", "b", "c", "d", " ", "<s>"], 1)}
    (folder / VOCABULARY).write_text(json.dumps(codes), encoding="utf-8")
    draw = np.random.Generator(np.random.Philox(0))
    arrays = {
        "embedding/embedding/embeddings:0": draw.normal(size=(7, 100)),
        "attention/attention/attention_W:0": draw.normal(size=(356, 1)),
        "output/output/kernel:0": draw.normal(size=(356, 7)),
        "output/output/bias:0": draw.normal(size=7),
    }
    for name, (wide, hidden) in SIZES.items():
        shapes = {"kernel": (wide, 512), "recurrent_kernel": (hidden, 512), "bias": (1024,)}
        arrays |= {f"{name}/{name}/{k}:0": draw.normal(size=s) * 0.1 for k, s in shapes.items()}
    with h5py.File(folder / WEIGHTS, "w") as file:
        for name, values in arrays.items():
            file[name] = values.astype(np.float32)
    return arrays


def test_a_file_of_the_layout_is_read_gate_by_gate(tmp_path: Path) -> None:
    arrays = write_file(tmp_path)
    net = build("charlm", classes=2, vocabulary=7, weights=str(tmp_path), seed=0)
    assert isinstance(net, CharLSTM)
    kernel = arrays["rnn_1/rnn_1/kernel:0"][:, :128]  # the first gate, stored transposed
    unit = kernel.ravel()[3 * 100 : 4 * 100]
    assert net.first.weight_ih_l0[3].detach().numpy() == pytest.approx(unit, abs=1e-6)
    again = arrays["rnn_1/rnn_1/recurrent_kernel:0"][:, 128:256]
    assert net.first.weight_hh_l0[128:256].detach().numpy() == pytest.approx(again, abs=1e-6)
    assert net.end == 6


def test_a_likelihood_is_that_of_windows_one_by_one() -> None:
    net = seeded(lambda: CharLSTM(9), 0)
    assert isinstance(net, CharLSTM)
    x, y = torch.tensor([[1, 2, 3, -1], [4, -1, -1, -1]]), torch.tensor([[5, 6], [7, -1]])
    total = []
    for prompt, label in (([1, 2, 3], [5, 6]), ([4], [7])):
        text, nats = list(prompt), 0.0
        for code in label:
            window = torch.tensor([[0] * (40 - len(text)) + text])
            nats += net.logits(window)[0].log_softmax(0)[code].item()
            text.append(code)
        total.append(nats)
    assert net(x, y).log_likelihood.tolist() == pytest.approx(total, rel=1e-5)


def test_greedy_follows_its_own_windows() -> None:
    net = seeded(lambda: CharLSTM(9), 1)
    assert isinstance(net, CharLSTM)
    text = [1, 2]
    for _ in range(4):
        window = torch.tensor([[0] * (40 - len(text)) + text])
        text.append(int(net.logits(window)[0].argmax()))
    rule = LabelRule("argmax", max_new_tokens=4)
    written = net.write(torch.tensor([[1, 2, -1], [3, 4, 5]]), rule, Rng.of(0))
    assert written[0].tolist() == text[2:]


def test_the_data_of_other_characters_stops(tmp_path: Path) -> None:
    write_file(tmp_path)
    with pytest.raises(ValueError, match="the data has 5 tokens and charlm 7 characters"):
        build("charlm", classes=2, vocabulary=5, weights=str(tmp_path))


def test_absent_weights_say_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"charlm: {WEIGHTS} was not found at .*weights="):
        build("charlm", classes=2, vocabulary=5, weights=str(tmp_path))


def test_real_weights_write_english(real_data: Callable[[str], Path]) -> None:
    pytest.importorskip("h5py", reason="h5py is not installed")
    folder = real_data("charlm")
    tokens = tokenizer("charlm", [], weights=folder)
    net = build("charlm", classes=2, vocabulary=tokens.size, weights=str(folder), seed=0)
    assert isinstance(net, CharLSTM)
    assert tokens.start is not None
    prompts = [[tokens.start, *ids] for ids in tokens.encode(["The president said that he"])]
    x = as_rows(prompts, len(prompts[0]))
    said, noise = tokens.encode([" was a good man", " wqx zz ggd jkl"])
    cost = [float(net.cost(x, as_rows([ids], 15))[0]) for ids in (said, noise)]
    assert cost[0] < 0.5 * cost[1]
