"""Folders of the Hugging Face format; the decoder against that library's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from evenloop.models import build
from evenloop.models.hugging_face import (
    HuggingFaceLM,
    generate_options,
    hugging_face,
    original_defaults,
)
from evenloop.models.weights import find_gguf, find_weights, weights_folder
from evenloop.rng import Rng
from evenloop.seams import LabelRule
from text_kit import SIZE, listed, prompts

END = 7


def make(kind: str) -> Any:
    hf = pytest.importorskip("transformers", reason="the extra `text` is not installed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "gpt2":
            config = hf.GPT2Config(
                vocab_size=SIZE, n_positions=40, n_embd=32, n_layer=2, n_head=2, eos_token_id=END
            )
            net = hf.GPT2LMHeadModel(config)
        else:
            config = hf.LlamaConfig(
                vocab_size=SIZE,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=40,
                eos_token_id=END,
                pad_token_id=END,
            )
            net = hf.LlamaForCausalLM(config)
        with torch.no_grad():
            for p in net.parameters():
                if p.dim() > 1:
                    p.mul_(6.0)
    return net.eval()


RULES = [
    LabelRule("argmax", max_new_tokens=8),
    LabelRule("beam", beams=4, max_new_tokens=8),
    LabelRule("beam", beams=4, max_new_tokens=8, length_penalty=2.0),
    LabelRule("beam", beams=3, max_new_tokens=8, length_penalty=0.0),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.kind}{r.beams}-{r.length_penalty}")
@pytest.mark.parametrize("end", [None, END])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_texts_are_those_of_the_library_itself(kind: str, end: int | None, rule: LabelRule) -> None:
    net, x = make(kind), prompts(12, 8)
    net.generation_config.eos_token_id = end
    net.generation_config.pad_token_id = END
    want = []
    for ids in listed(x):
        prompt = torch.tensor([ids])
        options = generate_options(rule)
        made = net.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        want.append([i for i in made[0, len(ids) :].tolist() if i != end])
    assert listed(HuggingFaceLM(net, end).write(x, rule, Rng.of(0))) == want


def test_sampling_does_not_depend_on_the_batch() -> None:
    lm, x = HuggingFaceLM(make("gpt2"), END), prompts(12, 8)
    rule = LabelRule("nucleus", max_new_tokens=6)
    one = [lm.write(x, rule, Rng.of(1)) for _ in range(2)]
    assert torch.equal(*one)
    assert torch.equal(lm.write(x[:4], rule, Rng.of(1)), one[0][:4])


def test_a_saved_folder_is_read_and_its_likelihood_is_the_models(tmp_path: Path) -> None:
    net = make("gpt2")
    net.save_pretrained(tmp_path)
    lm = build(
        "hugging-face", classes=2, features=8, vocabulary=SIZE, longest=40, weights=str(tmp_path)
    )
    assert isinstance(lm, HuggingFaceLM)
    assert (lm.vocabulary, lm.context, lm.end) == (SIZE, 40, END)
    x, y = prompts(3, 5), torch.tensor([[1, 2], [3, -1], [4, 5]])
    made = lm.eval()(x, y)
    ids = torch.tensor([[*listed(x)[1], 3]])
    want = net(ids).logits[0, -2].log_softmax(0)[3]
    assert made.log_likelihood[1].item() == pytest.approx(want.item(), rel=1e-5)
    assert torch.allclose(lm.cost(x, y)[0], -made.log_likelihood.double(), atol=1e-4)


def test_absent_weights_stop_at_once_and_say_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"gpt2: config\.json or \*\.gguf was not") as stop:
        build("gpt2", classes=2, vocabulary=SIZE)
    for file in ("config.json", "model.safetensors", "tokenizer.json", "merges.txt", "weights="):
        assert file in str(stop.value)
    weights_folder("gpt2").mkdir(parents=True)
    (weights_folder("gpt2") / "config.json").write_text("{}")
    assert find_weights("gpt2", None, "config.json") == tmp_path / "weights" / "gpt2"


def test_a_folder_with_settings_only_stops(tmp_path: Path) -> None:
    make("gpt2").config.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no weights that can be read.*model\.safetensors"):
        build("gpt2", classes=2, vocabulary=SIZE, weights=str(tmp_path))


def test_the_tokens_of_another_model_stop(tmp_path: Path) -> None:
    make("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the data has 41 tokens and gpt2 knows 40"):
        build("gpt2", classes=2, vocabulary=SIZE + 1, weights=str(tmp_path))


def test_the_worlds_own_words_stop_unless_they_are_as_many(tmp_path: Path) -> None:
    make("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"the 39 tokens .* not the 40 that gpt2 .*tokens="):
        build("gpt2", classes=2, vocabulary=SIZE - 1, weights=str(tmp_path))
    assert build("gpt2", classes=2, vocabulary=SIZE, weights=str(tmp_path)).vocabulary == SIZE


@pytest.mark.parametrize("rule", ["argmax", "sample", "nucleus", "beam"])
def test_ids_that_the_tokenizer_lacks_are_never_written(tmp_path: Path, rule: Any) -> None:
    make("gpt2").save_pretrained(tmp_path)
    known, x = 11, prompts(30, 8, size=11)
    chosen = LabelRule(rule, beams=3, max_new_tokens=6)
    whole = build("gpt2", classes=2, vocabulary=SIZE, weights=str(tmp_path)).eval()
    assert whole.write(x, chosen, Rng.of(0)).max() >= known  # the model does want to
    lm = build("gpt2", classes=2, vocabulary=known, tokenizer=tmp_path, weights=str(tmp_path))
    written = lm.eval().write(x, chosen, Rng.of(0))
    assert 0 <= written.max() < known


def test_several_packed_models_in_a_folder_stop(tmp_path: Path) -> None:
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"net='smollm2': .*\(one\.gguf, two\.gguf\); leave one"):
        hugging_face(vocabulary=5, weights=tmp_path, name="smollm2")
    (tmp_path / "two.gguf").unlink()
    pytest.importorskip("gguf", reason="the extra `text` is not installed")
    pytest.importorskip("accelerate", reason="the extra `text` is not installed")
    assert find_gguf(tmp_path, "net='smollm2'") == tmp_path / "one.gguf"


def test_a_packed_model_without_its_reader_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.gguf").touch()
    here = importlib.util.find_spec
    monkeypatch.setattr(
        "evenloop.models.weights.find_spec", lambda name: None if name == "gguf" else here("torch")
    )
    with pytest.raises(ModuleNotFoundError, match=r"reads one\.gguf with gguf, which is not"):
        find_gguf(tmp_path, "tokens='here'")


def test_texts_longer_than_its_context_stop(tmp_path: Path) -> None:
    make("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="gpt2 reads 40 tokens"):
        build("gpt2", classes=2, vocabulary=SIZE, longest=41, weights=str(tmp_path))


def test_published_defaults_are_of_published_models() -> None:
    assert original_defaults("gpt2-medium", "nucleus_sampling")["accumulation"] == 2
    with pytest.raises(ValueError, match="model='gpt3'"):
        original_defaults("gpt3", "nucleus_sampling")


def test_options_of_sampling_and_of_penalties() -> None:
    sampled = generate_options(LabelRule("sample", temperature=0.5))
    assert sampled == {
        "max_new_tokens": 20, "do_sample": True, "top_p": 1.0, "top_k": 0, "temperature": 0.5,
    }  # fmt: skip
    assert generate_options(LabelRule("beam", length_penalty=2.0))["length_penalty"] == 2.0
