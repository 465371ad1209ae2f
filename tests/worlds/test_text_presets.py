"""The presets of the text figures: the paper's numbers, and whole runs on files as published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evenloop.bound import feedback_bound
from evenloop.build import assemble, check
from evenloop.config import RunConfig, load
from evenloop.loop import run
from evenloop.recipe import RECIPES, Recipe
from evenloop.study.sweep import load_sweep

NUCLEUS = {"label_rule": "nucleus", "top_p": 0.9, "max_new_tokens": 20}
BEAM = {"label_rule": "beam", "beams": 10, "max_new_tokens": 20}
FIGURES = {
    "fig5-left": (NUCLEUS, "gpt2", 1000),
    "fig5-right": (BEAM, "gpt2", 1000),
    "fig6-nucleus": (NUCLEUS, "gpt2", 1000),
    "fig6-beam": (BEAM, "gpt2", 1000),
    "fig6-overfit": (BEAM, "gpt2", 1000),
    "fig18-left": (NUCLEUS, "gpt2", 2500),
    "fig18-right": (BEAM, "gpt2", 2500),
    "fig19-left": (NUCLEUS, "gpt2-medium", 1000),
    "fig19-right": (BEAM, "gpt2-medium", 1000),
    "fig20-left": (NUCLEUS, "gpt2-large", 1000),
    "fig20-right": (BEAM, "gpt2-large", 1000),
}
WORDS = [f"w{i}" for i in range(12)]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_the_papers_sizes(name: str) -> None:
    rule, net, human = FIGURES[name]
    config = load(name)
    (values,) = [entry["relabel"] for entry in config.loop]
    assert values == {"n0": 20_000, "human": human, "machine": 5000 - human, **rule}
    assert (config.rounds, config.test_size, config.net["name"]) == (14, 14_442, net)
    overfit = {"epochs": 5, "lr": 5e-4} if name == "fig6-overfit" else {}
    assert config.recipe == {"base": net, **overfit}
    ends = feedback_bound(n0=20_000, human=human, model=5000 - human, delta=1.0, rounds=13)[-1]
    assert ends == pytest.approx(1.961 if human == 1000 else 1.503, abs=1e-3)


@pytest.mark.parametrize("name", FIGURES)
def test_its_small_variant_is_a_net_of_our_own_on_the_same_loop(name: str) -> None:
    rule, _, human = FIGURES[name]
    config = load(f"{name}:small")
    (values,) = [entry["relabel"] for entry in config.loop]
    assert values["label_rule"] == rule["label_rule"]
    share = values["human"] / (values["human"] + values["machine"])
    assert share == pytest.approx(human / 5000, abs=0.005)
    assert (config.world["name"], config.net["name"]) == ("redditbias", "small-lm")
    assert len(config.seeds) >= 5


def recipe(config: RunConfig) -> Recipe:
    values = dict(config.recipe)
    return replace(RECIPES[values.pop("base")] if "base" in values else Recipe(), **values)


def test_the_intervention_is_a_matter_of_the_recipe_alone() -> None:
    for variant in ("", ":small"):
        plain, longer = (load(f"fig6-{arm}{variant}") for arm in ("beam", "overfit"))
        for part in ("world", "net", "loop", "rounds", "seeds", "test_size"):
            assert getattr(plain, part) == getattr(longer, part), part
        same = replace(recipe(plain), epochs=recipe(longer).epochs, lr=recipe(longer).lr)
        assert same == recipe(longer)
        assert recipe(longer).epochs >= 5 * recipe(plain).epochs


def test_the_sweep_runs_what_the_presets_are() -> None:
    sweep = load_sweep("fig6")
    presets = {
        "nucleus sampling": "fig6-nucleus",
        "beam search": "fig6-beam",
        "beam search, over-fitted": "fig6-overfit",
    }
    assert set(sweep.arms) == set(presets)
    for arm, config in sweep.arms.items():
        preset = load(f"{presets[arm]}:small")
        for part in ("world", "net", "rounds", "track", "test_size"):
            assert getattr(config, part) == getattr(preset, part), (arm, part)
        assert recipe(config) == recipe(preset), arm
        assert (
            dict(config.loop[0]["relabel"]).items()
            >= {
                key: value
                for key, value in preset.loop[0]["relabel"].items()
                if key not in ("beams", "top_p")
            }.items()
        )


def save_gpt2(folder: Path) -> Any:
    """A GPT-2 with random weights and a tokenizer of twelve words, in the Hugging Face format."""
    hf = pytest.importorskip("transformers", reason="the extra `text` is not installed")
    library = pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    folder.mkdir(parents=True)
    codes = {word: i for i, word in enumerate([*WORDS, "<|endoftext|>"])}
    made = library.Tokenizer(library.models.WordLevel(codes, unk_token="w0"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = hf.GPT2Config(
            vocab_size=len(codes), n_positions=32, n_embd=16, n_layer=2, n_head=2,
            bos_token_id=codes["<|endoftext|>"], eos_token_id=codes["<|endoftext|>"],
        )  # fmt: skip
        net = hf.GPT2LMHeadModel(config)
    net.save_pretrained(folder)
    return net.eval()


def published(folder: Path, rows: int = 40) -> Path:
    """prompts.jsonl as its authors publish it, of words that mean nothing."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(len(WORDS), (rows, 7), generator=draw).tolist()
    lines = [
        {
            "filename": "web.txt",
            "prompt": {"text": " ".join(WORDS[i] for i in row[:3]), "toxicity": row[0] / 12},
            "continuation": {"text": " " + " ".join(WORDS[i] for i in row[3:]), "toxicity": None},
        }
        for row in ids
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "prompts.jsonl").write_text(text, encoding="utf-8")
    return folder


SIZES = ["test_size=10", "n0=12", "human=2", "machine=4", "max_new_tokens=4", "new_tokens=4"]


@pytest.mark.parametrize("name", ["fig5-left", "fig6-overfit"])
def test_a_figure_runs_on_the_published_file_and_a_gpt2_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gpt2(tmp_path / "weights" / "gpt2")
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    beams = [] if name == "fig5-left" else ["beams=3"]
    settings = [f"root={published(tmp_path)}", "score=words:w1", "track=matched", *SIZES, *beams]
    config = load(name, settings)
    assert check(config) == ()
    job = assemble(config, 0)
    rows = run(job.loop, job.world, job.audit, rounds=2, seed=0, claims=job.claims).rows
    assert rows[-1].sizes == {"train": 18, "world": 14, "relabelled": 4, "generated": 0}
    assert rows[-1].counts["audit"].groups == ("not toxic", "toxic")


def test_without_epochs_it_is_the_checkpoint_that_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = save_gpt2(tmp_path / "weights" / "gpt2")
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    settings = [f"root={published(tmp_path)}", "score=words:w1", "track=matched", *SIZES]
    job = assemble(load("fig5-left", [*settings, "epochs=0"]), 0)
    (row,) = run(job.loop, job.world, job.audit, rounds=1, seed=0).rows
    both = torch.cat([job.audit.data.x, job.audit.data.truth], 1).long()
    with torch.no_grad():
        found = net(both).logits[:, 2:-1].log_softmax(2)
    want = -found.gather(2, both[:, 3:, None]).mean()
    loss = row.moments["audit.loss"].table.sum(0)
    assert loss[1] / loss[0] == pytest.approx(float(want), rel=1e-4)


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("weights", r"gpt2: .* not found at .*weights/gpt2\. Nothing is downloaded"),
        ("scorer", r"detoxify: toxic_original-c1212f89.ckpt was not found at .*weights/detoxify"),
    ],
)
def test_what_is_not_on_this_disk_stops_a_figure_before_training(
    absent: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if absent == "scorer":
        save_gpt2(tmp_path / "weights" / "gpt2")
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    config = load("fig6-beam", [f"root={published(tmp_path)}", *SIZES, "beams=3"])
    with pytest.raises(FileNotFoundError, match=message):
        check(config)
