"""Tokenizers: there and back, what they do not know, and clear words where files are absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evenloop.worlds.tokens import Bytes, Tokenizer, as_rows, characters, tokenizer, words

TEXTS = ["The cat's hat, \u201cthe hat.\u201d", "na\u00efve caf\u00e9!"]


@pytest.mark.parametrize("made", [Bytes(), characters(TEXTS)], ids=["bytes", "characters"])
def test_bytes_and_characters_come_back_as_they_were(made: Tokenizer) -> None:
    assert [made.decode(ids) for ids in made.encode(TEXTS)] == TEXTS
    assert all(0 <= i < made.size for ids in made.encode(TEXTS) for i in ids)
    assert made.end is None


def test_broken_bytes_become_the_replacement_character() -> None:
    assert Bytes().decode([195]) == "\ufffd"


def test_words_come_back_in_lower_case_with_their_punctuation() -> None:
    made = words(TEXTS, 50)
    assert [made.decode(ids) for ids in made.encode(TEXTS)] == [t.lower() for t in TEXTS]


def test_rare_words_and_foreign_characters_are_unknown() -> None:
    made = words(["a a b"], 2)
    assert made.vocabulary == ("<unknown>", "a")
    assert made.encode(["b a"]) == [[0, 1]]
    assert made.unknown == 0
    assert characters(["ab"]).encode(["b?"]) == [[2, 0]]


def test_ties_of_words_are_broken_by_the_alphabet() -> None:
    assert words(["b a", "c"], 3).vocabulary == ("<unknown>", "a", "b")


def test_rows_are_padded_behind_their_end() -> None:
    assert as_rows([[1, 2, 3], [], [4]], 3).tolist() == [[1, 2, 3], [-1, -1, -1], [4, -1, -1]]


def test_an_unknown_name_stops() -> None:
    assert tokenizer("bytes", []).size == 256
    with pytest.raises(ValueError, match=r"tokens='bites' is neither a folder nor one of bytes"):
        tokenizer("bites", [])


def test_a_folder_without_a_tokenizer_says_what_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    with pytest.raises(FileNotFoundError, match=r"needs tokenizer\.json, or vocab\.json and"):
        tokenizer(str(tmp_path), [])


def save(folder: Path, *, padding: bool) -> None:
    """A word tokenizer in the Hugging Face format, with or without a padding token."""
    library = pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    codes = {"<unk>": 0, "the": 1, "cat": 2, "<end>": 3} | ({"<pad>": 4} if padding else {})
    made = library.Tokenizer(library.models.WordLevel(codes, unk_token="<unk>"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.add_special_tokens(["<end>"])
    made.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": {"content": "<end>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


@pytest.mark.parametrize("padding", [False, True])
def test_a_saved_tokenizer_needs_no_padding_token(tmp_path: Path, padding: bool) -> None:
    save(tmp_path, padding=padding)
    made = tokenizer(str(tmp_path), [])
    assert made.encode(["the cat", "cat dog"]) == [[1, 2], [2, 0]]
    assert made.decode([1, 2, 3]) == "the cat"
    assert (made.end, made.size) == (3, 5 if padding else 4)


def test_ids_with_gaps_are_all_below_the_size(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    made = library.Tokenizer(library.models.WordLevel({"<unk>": 0, "far": 9}, unk_token="<unk>"))
    made.save(str(tmp_path / "tokenizer.json"))
    found = tokenizer(str(tmp_path), [])
    assert found.encode(["far"]) == [[9]]
    assert found.size == 10


def test_a_named_tokenizer_that_is_absent_names_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"put config\.json, model\.safe.*merges\.txt\).*with tokens="
    ):
        tokenizer("gpt2", [])


def test_gpt2s_published_files(real_data: Callable[[str], Path]) -> None:
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    made = tokenizer(str(real_data("gpt2bpe")), [])
    assert (made.size, made.end) == (50257, 50256)
    assert made.encode([" hello world"]) == [[23748, 995]]
    assert made.decode([23748, 995]) == " hello world"
    assert [made.decode(ids) for ids in made.encode(TEXTS)] == TEXTS
