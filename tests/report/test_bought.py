"""The bought items: there for drawn letters, never where people may be recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenloop import worlds
from evenloop.config import RunConfig
from evenloop.report.page import read, write_report
from evenloop.report.people import hidden
from evenloop.report.sections import bought, samples
from evenloop.report.study import Study
from evenloop.study.seeds import run_seeds


def config(**other: object) -> RunConfig:
    values: dict[str, object] = {
        "name": "letters",
        "world": {"name": "letters", "train": 120, "test": 40, "size": 16},
        "loop": [{"acquire": {"initial": 20, "query": 30, "draws": 3, "noise": {"red": 1.0}}}],
        "net": {"name": "dropout-mlp", "hidden": [8]},
        "recipe": {"optimizer": "adam", "lr": 1e-2, "batch": 8, "epochs": 1},
        "test_size": 40,
        "audit": "test",
        "by": ("color",),
        "rounds": 3,
    }
    return RunConfig.model_validate(values | other)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("letters")
    run_seeds(config(), folder, processes=1)
    return read(folder)


def with_config(study: Study, **changes: object) -> Study:
    from dataclasses import replace

    return replace(study, config=study.config.model_copy(update=changes))


def test_items_are_shown_by_round_and_cell_with_wrong_labels_marked(study: Study) -> None:
    found = bought.build(study)
    assert found is not None
    assert [group["title"].split(",")[0] for group in found.images] == ["round 1", "round 2"]
    for group in found.images:
        items = group["items"]
        assert len(items) == 24
        names = [item["caption"].split(",")[0] for item in items]
        assert names == sorted(names, key=["a blue", "a red", "d blue", "d red"].index)
        for item in items:
            assert item["mark"] == ("red" in item["caption"])  # noise turns every red label round
        assert f"{names.count('a red')} a red" in group["title"] or "a red" not in names
    assert samples.build(study) is None
    page = write_report(study.folder).path.read_text()
    assert bought.TITLE in page
    assert page.count("<details><summary>round 2") == 1


def test_no_face_of_a_person_is_shown(study: Study) -> None:
    for name in ("utkface", "fairface", "celeba", "celeba-attributes", "folder", "manifest"):
        faces = with_config(study, world={"name": name})
        found = bought.build(faces)
        assert found is not None
        assert found.images == ()
        assert worlds.find(name).about.title in found.text[0]
        assert "data:image" not in str(found)


def test_rows_of_other_loops_are_hidden_too(tmp_path: Path) -> None:
    """As the runner keeps them by default: no cell beside the pictures."""
    import torch

    run_seeds(
        config(loop=[{"relabel": {"n0": 20, "human": 5, "machine": 5}}], by=("truth",)),
        tmp_path,
        processes=1,
    )
    other = read(tmp_path)
    assert "cell" not in torch.load(next(tmp_path.rglob("samples/*.pt")), weights_only=True)
    plain = samples.build(other)
    assert plain is not None
    assert plain.images
    faces = samples.build(with_config(other, world={"name": "utkface"}))
    assert faces is not None
    assert faces.images == ()
    assert "UTKFace" in faces.text[0]


def test_words_about_people_come_without_their_pictures(study: Study, tmp_path: Path) -> None:
    """As labels with structure are kept: the words of each row beside its picture."""
    import torch

    from evenloop.report.sections import texts

    (tmp_path / "samples").mkdir()
    kept = {
        "x": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        "y": torch.zeros(2),
        "origin": torch.zeros(2),
        "born": torch.zeros(2),
        "hidden": torch.zeros(2),
        "shown": ["cooking, agent woman", "cooking, agent man"],
        "shown_truth": ["cooking, agent woman", "cooking, agent woman"],
    }
    torch.save(kept, tmp_path / "samples" / "00000.pt")
    from dataclasses import replace

    seed, record = next(iter(study.records.items()))
    words = replace(study, records={seed: replace(record, folder=tmp_path)})
    for world, shown in (("letters", True), ("imsitu", False)):
        found = texts.build(with_config(words, world={"name": world}))
        assert found is not None
        assert [bool(item["src"]) for item in found.texts[0]["items"]] == [shown] * 2
        assert any("imSitu" in line for line in found.text) != shown


@pytest.mark.parametrize(
    ("world", "generated", "pictures", "shown"),
    [
        ("letters", None, None, True),
        ("cifar10", None, None, True),
        ("letters", {"name": "generated-faces"}, None, False),
        ("folder", None, True, True),
        ("utkface", None, True, True),
        ("letters", None, False, False),
        ("fairface", None, None, False),
    ],
)
def test_who_may_be_shown(
    world: str, generated: dict[str, str] | None, pictures: bool | None, shown: bool
) -> None:
    of = config(world={"name": world}, generated=generated, pictures=pictures)
    assert (hidden(of) is None) == shown


def test_showing_pictures_makes_no_other_experiment() -> None:
    assert config(pictures=True).digest() == config().digest()


def test_cards_say_so() -> None:
    assert "no single picture" in worlds.card("utkface")
    assert "no single picture" not in worlds.card("letters")
