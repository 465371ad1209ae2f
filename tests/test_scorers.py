"""Scorers behind one protocol: cached by text, checked, and clear about what they lack."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from evenloop.scorers import Cached, Lexicon, detoxify, scorer


def test_a_text_is_scored_once_in_all_rounds() -> None:
    seen: list[str] = []

    def score(texts: Sequence[str]) -> list[float]:
        seen.extend(texts)
        return [float(len(t)) for t in texts]

    cached = Cached(score, batch=2)
    assert cached(["a", "bb", "a", "ccc"]).tolist() == [1, 2, 1, 3]
    assert cached(["bb", "dddd", "a"]).tolist() == [2, 4, 1]
    assert seen == ["a", "bb", "ccc", "dddd"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_names_its_text(bad: float) -> None:
    cached = Cached(lambda texts: [bad if t == "bb" else 0.5 for t in texts])
    assert cached(["a", "ccc"]).tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match=rf"gave {bad} for text 3 \(2 characters\)"):
        cached(["a", "ccc", "a", "bb"])


def test_a_scorer_must_give_one_number_a_text() -> None:
    with pytest.raises(ValueError, match=r"gave shape \(1,\) for 2 texts"):
        Cached(lambda texts: [0.0])(["a", "b"])


def test_no_texts_have_no_scores() -> None:
    assert Cached(lambda texts: [0.0])([]).shape == (0,)


def test_a_lexicon_matches_whole_words_in_any_case() -> None:
    found = Lexicon(("the", "his own"))(["The end", "other", "his\nown", "", "his owner", "the."])
    assert found.tolist() == [1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("words", [(), ("a", " ")])
def test_a_lexicon_needs_words(words: tuple[str, ...]) -> None:
    Lexicon(("a",))
    with pytest.raises(ValueError, match="a lexicon needs words"):
        Lexicon(words)


def test_a_lexicon_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# ours\nthe\n\n his own \n", encoding="utf-8")
    assert Lexicon.read(tmp_path / "words.txt") == Lexicon(("the", "his own"))
    assert scorer(f"words:@{tmp_path / 'words.txt'}") == Lexicon(("the", "his own"))


def test_names_of_scorers() -> None:
    assert np.asarray(scorer("words:a, b")(["a", "c"])).tolist() == [1, 0]
    assert np.asarray(scorer("quotes")(["\u201d", '"'])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wordz:a", "did you mean 'words'"),
        ("words", "write score='words:the,a'"),
        ("detoxify", "write score='detoxify:FOLDER'"),
        ("quotes:x", "write score='quotes'"),
    ],
)
def test_names_that_are_none_stop(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scorer(name)


DETOXIFY = ("toxic_original-c1212f89.ckpt", "config.json", "vocab.txt")


@pytest.mark.parametrize("absent", range(3))
def test_absent_detoxify_files_say_where_to_put_them(tmp_path: Path, absent: int) -> None:
    for file in DETOXIFY[:absent]:
        (tmp_path / file).touch()
    with pytest.raises(
        FileNotFoundError, match=rf"{DETOXIFY[absent]} was not found at .*put toxic"
    ):
        detoxify(tmp_path)


class _Fake:
    """Stands in for the package: what it is asked for is what ours must ask."""

    def __init__(
        self, kind: str, checkpoint: str, huggingface_config_path: str, device: str
    ) -> None:
        self.given = (kind, Path(checkpoint).name, Path(huggingface_config_path), device)

    def predict(self, texts: list[str]) -> dict[str, list[float]]:
        return {"toxicity": [0.25] * len(texts), "insult": [0.5] * len(texts)}


def test_detoxify_is_asked_for_toxicity_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("detoxify")
    module.Detoxify = _Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "detoxify", module)
    for file in DETOXIFY:
        (tmp_path / file).touch()
    assert np.asarray(scorer(f"detoxify:{tmp_path}")(["a", "b"])).tolist() == [0.25, 0.25]


def test_the_profanity_model_is_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("profanity_check")
    module.predict_prob = lambda texts: np.full(len(texts), 0.75)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "profanity_check", module)
    assert np.asarray(scorer("profanity")(["a", "b"])).tolist() == [0.75, 0.75]


@pytest.mark.parametrize("name", ["detoxify", "profanity_check"])
def test_an_absent_package_names_the_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    for file in DETOXIFY:
        (tmp_path / file).touch()
    with pytest.raises(ModuleNotFoundError, match=r"evenloop\[toxicity\]"):
        scorer(f"detoxify:{tmp_path}" if name == "detoxify" else "profanity")


def test_the_real_profanity_model_tells_an_insult_from_a_greeting() -> None:
    pytest.importorskip("profanity_check", reason="the extra `toxicity` is not installed")
    rude, kind = np.asarray(scorer("profanity")(["you are an idiot", "have a nice day"]))
    assert rude > 0.5 > kind
