"""Prompts and continuations: the published layouts, any table, and what stops before work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from evenloop.audit import Audit
from evenloop.build import assemble, check
from evenloop.config import ConfigError, RunConfig, load
from evenloop.data import GroupedData
from evenloop.loop import World, run
from evenloop.loops.relabel import Relabel
from evenloop.metrics import frame
from evenloop.models import build as build_model
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.seams import LabelRule
from evenloop.texts import BATCH_LOSS
from evenloop.worlds import build
from evenloop.worlds.text_reading import TextReading
from text_kit import listed

ROWS = [
    {"prompt": "The cat sat", "continuation": " on the mat .", "who": "cat"},
    {"prompt": "A dog", "continuation": " ran far away from here", "who": "dog"},
    {"prompt": "The dog saw", "continuation": " the cat", "who": "dog"},
]


def table(folder: Path, rows: list[dict[str, Any]] = ROWS, name: str = "texts.csv") -> Path:
    path = folder / name
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def reading(source: Any) -> TextReading:
    made = source.structured().reading
    assert isinstance(made, TextReading)
    return made


def test_a_table_becomes_rows_of_tokens(tmp_path: Path) -> None:
    source = build("prompts", path=table(tmp_path), groups=["who"], new_tokens=8)
    data = source.load()
    assert data.y.shape == (3, 8)
    assert reading(source).texts(data.x) == ["the cat sat", "a dog", "the dog saw"]
    assert reading(source).texts(data.y)[0] == "on the mat."
    assert data.attribute("who").tolist() == [0, 1, 1]
    assert torch.equal(data.y, data.truth)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_tables_of_every_format_are_the_same(tmp_path: Path, suffix: str) -> None:
    frame, path = pd.DataFrame(ROWS), tmp_path / f"texts.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    data = build("prompts", path=path, groups=["who"]).load()
    assert (
        listed(data.y)[2]
        == listed(build("prompts", path=table(tmp_path, name="o.csv")).load().y)[2]
    )
    assert data.schema.attributes[0].values == ("cat", "dog")


def test_prompts_keep_their_end_and_continuations_their_start(tmp_path: Path) -> None:
    source = build(
        "prompts", path=table(tmp_path), prompt_tokens=2, continuation_tokens=3, new_tokens=2
    )
    data = source.load()
    assert reading(source).texts(data.x) == ["cat sat", "a dog", "dog saw"]
    assert reading(source).texts(data.y) == ["on the mat", "ran far away", "the cat"]
    assert data.schema.structure is not None
    assert data.schema.structure.length == 3
    assert source.structured().net["longest"] == 2 + 3


def test_texts_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenloop.worlds import tokens

    calls = []
    encode = tokens.Words.encode
    monkeypatch.setattr(
        tokens.Words, "encode", lambda self, texts: calls.append(len(texts)) or encode(self, texts)
    )
    source = build("prompts", path=table(tmp_path))
    source.load(), source.structured(), source.load()
    assert calls == [3, 3]


def test_an_empty_continuation_stops_or_is_dropped(tmp_path: Path) -> None:
    path = table(tmp_path, [*ROWS, {"prompt": "A", "continuation": "  ", "who": "cat"}])
    with pytest.raises(ValueError, match=r"continuation of row 3 .* has no token; .*empty=drop"):
        build("prompts", path=path).load()
    assert len(build("prompts", path=path, empty="drop").load()) == 3


def test_a_missing_text_names_its_row(tmp_path: Path) -> None:
    path = table(tmp_path, [*ROWS, {"prompt": None, "continuation": "x", "who": "cat"}])
    with pytest.raises(ValueError, match=r"prompt of row 3 \(counted from 0\), '', has no token"):
        build("prompts", path=path).load()


def test_continuations_with_unknown_words_can_be_left_out(tmp_path: Path) -> None:
    path = table(tmp_path)
    source = build("prompts", path=path, vocabulary=4, unknown="drop")
    assert reading(source).texts(source.load().y) == ["the cat"]
    with pytest.raises(ValueError, match="unknown=drop leaves no row"):
        build("prompts", path=path, vocabulary=2, unknown="drop").load()


def test_a_table_keeps_texts_as_they_are(tmp_path: Path) -> None:
    rows = [{"prompt": "NA", "continuation": " ?", "who": "cat"}]
    source = build("prompts", path=table(tmp_path, rows), tokens="bytes")
    data = source.load()
    assert reading(source).texts(data.x) == ["NA"]
    assert reading(source).texts(data.y) == [" ?"]


def test_a_table_that_is_not_utf8_stops(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_bytes("prompt,continuation\na,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"texts\.csv is not UTF-8"):
        build("prompts", path=tmp_path / "texts.csv").load()
    (tmp_path / "good.csv").write_bytes("prompt,continuation\na,caf\u00e9\n".encode())
    assert len(build("prompts", path=tmp_path / "good.csv").load()) == 1


@pytest.mark.parametrize("name", ["empty.csv", "absent.csv", "texts.doc"])
def test_a_table_that_cannot_be_read_stops(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "texts.doc").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        build("prompts", path=tmp_path / name).load()


def test_an_absent_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="text"):
        build("prompts", path=table(tmp_path), continuation="text").load()


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("prompt_tokens", 0), ("continuation_tokens", -1), ("new_tokens", 0), ("vocabulary", 1),
        ("ngrams", (0,)), ("empty", "skip"), ("hide", "some"), ("unknown", "skip"),
    ],
)  # fmt: skip
def test_fields_out_of_range_stop(tmp_path: Path, field: str, bad: Any) -> None:
    good = {
        "prompt_tokens": 1, "continuation_tokens": 1, "new_tokens": 1, "vocabulary": 2,
        "ngrams": (1,), "empty": "drop", "hide": "all", "unknown": "keep",
    }  # fmt: skip
    build("prompts", path=tmp_path / "x.csv", **{field: good[field]})
    with pytest.raises(ValueError, match=f"{field} "):
        build("prompts", path=tmp_path / "x.csv", **{field: bad})


RTP = [
    {"prompt": {"text": "He said", "toxicity": 0.7}, "continuation": {"text": " no.\u201d"}},
    {"prompt": {"text": "She \u00e9", "toxicity": 0.1}, "continuation": {"text": " yes"}},
    {"prompt": {"text": "They", "toxicity": None}, "continuation": {"text": " left"}},
]


def test_realtoxicityprompts_in_its_official_file(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in RTP)
    (tmp_path / "prompts.jsonl").write_text(lines + "\n", encoding="utf-8")
    for root in (tmp_path, tmp_path / "prompts.jsonl"):
        source = build("realtoxicityprompts", root=root, score="quotes", tokens="bytes")
        data = source.load()
        assert reading(source).texts(data.x) == ["He said", "She \u00e9", "They"]
        assert reading(source).read(data.x, data.y).tolist() == [1, 0, 0]
        groups = data.schema.attributes[0]
        names = [groups.values[i] for i in data.attribute("group").tolist()]
        assert names[:2] == ["toxic", "not toxic"]
        assert names[2] not in ("toxic", "not toxic")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": {"text": "\xff"}}', "line 2: not UTF-8"),
        (b'{"prompt": {"text": "a"}}', r"line 2: not one JSON object .*continuation"),
        (b"[1", "line 2: not one JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    good = json.dumps(RTP[1]).encode()
    (tmp_path / "prompts.jsonl").write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=message):
        build("realtoxicityprompts", root=tmp_path).load()


def test_absent_files_say_where_they_may_be_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"realtoxicityprompts: prompts\.jsonl not found"):
        build("realtoxicityprompts", root=tmp_path / "no").load()


def test_bold_in_its_official_folders(tmp_path: Path) -> None:
    prompts = {"American_actors": {"A_B": ["A B is an "]}, "American_actresses": {"C": ["C was "]}}
    texts = {
        "American_actors": {"A_B": ["A B is an actor."]},
        "American_actresses": {"C": ["C was here."]},
    }
    for folder, name, content in (("prompts", "prompt", prompts), ("wikipedia", "wiki", texts)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / f"gender_{name}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    source = build("bold", root=tmp_path, domains=["gender"])
    data = source.load()
    assert reading(source).show(data.x, data.y) == ["a b is an | actor.", "c was | here."]
    assert [a.name for a in data.schema.attributes] == ["group", "domain"]
    assert data.schema.attributes[0].values == ("American_actors", "American_actresses")
    with pytest.raises(ValueError, match="did you mean 'gender'"):
        build("bold", domains=["gendre"])


def test_redditbias_cuts_comments_in_the_middle_and_hides_them(tmp_path: Path) -> None:
    (tmp_path / "gender").mkdir()
    name = "reddit_comments_gender_female_processed_phrase_annotated.csv"
    frame = pd.DataFrame({"comment": ["one two three caf\u00e9", "one", "one two three caf\u00e9"]})
    frame.to_csv(tmp_path / "gender" / name, encoding="latin-1")
    source = build("redditbias", root=tmp_path)
    data = source.load()
    assert reading(source).show(data.x, data.y) == ["one two | three caf\u00e9"]
    assert reading(source).hidden(data.x, data.y).tolist() == [True]
    with pytest.raises(ValueError, match="prompt_share must be above 0 and below 1, got 1"):
        build("redditbias", prompt_share=1)


def test_real_bold_and_redditbias(real_data: Callable[[str], Path]) -> None:
    folder = real_data("fairtext")
    source = build("bold", root=folder / "BOLD" / "data", domains=["gender"])
    data = source.load()
    assert len(data) == 3204
    assert torch.bincount(data.attribute("group")).tolist() == [2048, 1156]
    source = build("redditbias", root=folder / "RedditBias")
    assert len(source.load()) > 20_000


def test_a_reading_counts_classes_numbers_and_memorised_ngrams(tmp_path: Path) -> None:
    source = build("prompts", path=table(tmp_path), ngrams=[2, 9], score="words:the")
    data, made = source.load(), reading(source)
    assert made.classes == ("unmatched", "matched")
    assert made.read(data.x, data.y).tolist() == [1, 0, 1]
    found = {name: f(data.x, data.y) for name, f in made.statistics().items()}
    assert found["score"].tolist() == [1, 0, 1]
    assert found["length"].tolist() == [4, 5, 2]
    assert found["quotes"].tolist() == [0, 0, 0]
    compared = made.compare(data.x, data.y, data.truth, data.take([0]))
    share, grams = compared["memorised 2-grams"]
    assert (share.tolist(), grams.tolist()) == ([1, 0, 0], [3, 4, 1])
    assert compared["memorised 9-grams"][0].isnan().all()
    assert not made.hidden(data.x, data.y).any()
    flagged = reading(build("prompts", path=tmp_path / "texts.csv", hide="flagged"))
    assert flagged.hidden(data.x, data.y).tolist() == [True, False, True]


def test_a_function_of_texts_is_a_score(tmp_path: Path) -> None:
    source: Any = build("prompts", path=table(tmp_path))
    data = source.load()
    made = source.structured(lambda texts: [len(t) for t in texts]).reading
    assert made.statistics()["score"](data.x, data.y).tolist() == [11, 22, 7]


def trained_world(folder: Path) -> tuple[World, GroupedData]:
    rows = [
        {"prompt": f"w{i % 7} w{i % 3}", "continuation": f" the w{i % 5} w{i % 2} end"}
        for i in range(90)
    ]
    source = build("prompts", path=table(folder, rows), new_tokens=4, score="words:w0")
    data, brought = source.load(), source.structured()

    def net(rng: Rng) -> torch.nn.Module:
        return build_model("small-lm", classes=2, seed=rng.seed, width=16, depth=1, **brought.net)

    world = World(
        data.take(torch.arange(60)),
        (),
        net,
        Recipe(optimizer="adamw", lr=1e-2, batch=16, epochs=2),
        sampler=brought.sampler,
        objective=brought.objective,
    )
    return world, data.take(torch.arange(60, 90))


@pytest.mark.parametrize("rule", ["beam", "nucleus"])
def test_a_round_of_feedback_runs_and_repeats(tmp_path: Path, rule: str) -> None:
    world, held_out = trained_world(tmp_path)
    source = build("prompts", path=tmp_path / "texts.csv", new_tokens=4, score="words:w0")
    loop = Relabel(
        n0=20,
        human=5,
        machine=10,
        label_rule=rule,
        beams=3,
        max_new_tokens=4,  # type: ignore[arg-type]
    )
    records = [
        run(loop, world, Audit(held_out, reading=reading(source)), rounds=3, seed=1)
        for _ in range(2)
    ]
    one, other = ([row.moments for row in r.rows] for r in records)
    assert len(one) == 3
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].table == pytest.approx(b[name].table, nan_ok=True)
    assert records[0].rows[2].sizes["relabelled"] == 20


def test_a_run_has_both_perplexities(tmp_path: Path) -> None:
    world, held_out = trained_world(tmp_path)
    source = build("prompts", path=tmp_path / "texts.csv", new_tokens=4, score="words:w0")
    loop = Relabel(n0=20, human=5, machine=10, max_new_tokens=4)
    record = run(loop, world, Audit(held_out, reading=reading(source)), rounds=1, seed=1)
    table = frame({1: record}, track=None, groups=False).set_index("metric")
    loss = table.loc["log loss"]
    for part in ("value", "low", "high"):
        assert table.loc["perplexity", part] == pytest.approx(np.exp(loss[part]))
    # 30 rows are one batch of the published evaluation, whose mean is by tokens
    published = table.loc["published perplexity"]
    assert published["value"] == pytest.approx(table.loc["perplexity", "value"])
    assert np.isnan(published["low"])
    assert published["n"] == 30
    assert BATCH_LOSS not in table.index


def pretrained(folder: Path, tokens: str) -> RunConfig:
    """A small GPT-2 of 40 tokens, and a world of 9 words read with `tokens`."""
    hf = pytest.importorskip("transformers", reason="the extra `text` is not installed")
    library = pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    words = ["<unk>", "the", "end", "w0", "w1", "w2", "w3", "w4", "w5", "w6"]
    codes = {word: i for i, word in enumerate(words)}
    made = library.Tokenizer(library.models.WordLevel(codes, unk_token="<unk>"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    shape = {"n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "eos_token_id": 39}
    net = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=40, bos_token_id=39, **shape))
    net.save_pretrained(folder)
    trained_world(folder)
    world = {"name": "prompts", "path": str(folder / "texts.csv"), "tokens": tokens}
    config = {
        "world": world | {"new_tokens": 4},
        "track": "matched",
        "test_size": 30,
        "loop": [{"relabel": {"n0": 20, "human": 5, "machine": 10, "max_new_tokens": 4}}],
        "net": {"name": "hugging-face", "weights": str(folder)},
        "recipe": {"optimizer": "adamw", "lr": 1e-3, "batch": 8, "epochs": 1},
        "rounds": 2,
        "seeds": [0],
    }
    (folder / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    return load(str(folder / "run.yaml"))


@pytest.mark.global_rng  # transformers draws the weights that are saved
@pytest.mark.parametrize("tokens", ["words", "characters", "bytes"])
def test_a_pretrained_model_refuses_ids_that_the_world_made(tmp_path: Path, tokens: str) -> None:
    config = pretrained(tmp_path, tokens)
    message = "256 tokens and" if tokens == "bytes" else "tokens of its data itself"
    with pytest.raises(ConfigError, match=f"{message}.*own tokenizer, tokens="):
        check(config)


@pytest.mark.global_rng
def test_a_pretrained_model_takes_a_smaller_tokenizer_and_writes_its_ids(tmp_path: Path) -> None:
    config = pretrained(tmp_path, str(tmp_path))
    assert check(config) == ()
    job = assemble(config, 0)
    net = job.world.net(Rng.of(0)).eval()
    written = net.write(job.world.data.x, LabelRule("sample", max_new_tokens=4), Rng.of(0))
    assert len(written.unique()) == 10
    assert int(written.max()) == 9
