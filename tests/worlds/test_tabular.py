"""Tables of the user, and Adult, COMPAS and German credit in their official layouts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from evenloop.worlds.tabular import Adult, Compas, GermanCredit, Table
from worlds.layouts import ADULT_TEST, ADULT_TRAIN, COMPAS, GERMAN


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("age,sex,job,label\n20,f,cook,0\n40,m,,1\n60,f,cook,1\n")
    source = Table(path, groups=("sex", "age:30"), classes=("no", "yes"), scale="minmax")
    data = source.load()
    assert data.x.tolist() == [[0, 1, 0, 1, 0], [0.5, 0, 1, 0, 1], [1, 1, 0, 1, 0]]
    assert data.truth.tolist() == [0, 1, 1]
    assert data.schema.classes == ("no", "yes")
    assert data.attribute("age").tolist() == [0, 1, 1]
    assert source.encoding() == (
        "age (minus 20, over 40)", "sex=f", "sex=m", "job=cook", "job=unknown",
    )  # fmt: skip
    assert source.left_out().dropped == 0
    assert source.normalisation is None
    blind = Table(path, leave_out=("sex", "age"))
    assert blind.encoding() == ("job=cook", "job=unknown")


def test_rows_left_out_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame = pd.DataFrame({"n": [1.0, None, 3.0, 4.0], "label": ["a", "b", None, "b"]})
    frame.to_parquet(path)
    source = Table(path, missing="drop")
    assert (source.left_out().kept, source.left_out().dropped) == (2, 2)
    assert len(source.load()) == 2
    with pytest.raises(ValueError, match="label 'label' is missing in 1 of 4 rows"):
        Table(path).load()


def test_a_table_without_rows_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("age,sex,label\n")
    for missing in ("error", "drop"):
        with pytest.raises(ValueError, match="has no rows, only the columns age, sex, label"):
            Table(path, missing=missing).load()  # type: ignore[arg-type]
    path.write_text("age,sex,label\n3,f,0\n")
    assert len(Table(path).load()) == 1


def test_a_table_checks_its_parameters() -> None:
    with pytest.raises(ValueError, match="scale is 'std'"):
        Table("t.csv", scale="std")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="missing is 'mean'"):
        Table("t.csv", missing="mean")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"no\.csv does not exist"):
        Table("no.csv").load()


def adult(root: Path) -> Path:
    (root / "adult.data").write_text(ADULT_TRAIN)
    (root / "adult.test").write_text(ADULT_TEST)
    return root


def test_adult_joins_both_files(tmp_path: Path) -> None:
    data = Adult(adult(tmp_path), groups=("sex", "race", "age:30")).load()
    assert data.schema.classes == ("<=50K", ">50K")
    assert data.truth.tolist() == [0, 0, 1, 0, 1]
    assert [a.name for a in data.schema.attributes] == ["sex", "race", "age", "split"]
    assert data.attribute("sex").tolist() == [1, 1, 0, 1, 0]
    assert data.attribute("age").tolist() == [1, 1, 1, 0, 0]
    assert data.attribute("split").tolist() == [0, 0, 0, 1, 1]
    assert data.schema.attributes[3].values == ("train", "test")


def test_adult_states_its_encoding(tmp_path: Path) -> None:
    source = Adult(adult(tmp_path))
    names = source.encoding()
    assert source.load().x.shape == (5, len(names))
    assert names[0].startswith("age (minus 36, over ")
    assert "workclass=unknown" in names
    assert not any(n.startswith(("fnlwgt", "income", "split")) for n in names)
    assert any(n.startswith("fnlwgt") for n in Adult(tmp_path, leave_out=()).encoding())


def test_adult_parts_share_a_schema_of_splits(tmp_path: Path) -> None:
    adult(tmp_path)
    train, test = Adult(tmp_path, split="train").load(), Adult(tmp_path, split="test").load()
    assert (len(train), len(test)) == (3, 2)
    assert train.schema.attributes[-1] == test.schema.attributes[-1]


def test_adult_files_that_do_not_fit(tmp_path: Path) -> None:
    adult(tmp_path)
    (tmp_path / "adult.data").write_text("1, 2, 3\n")
    with pytest.raises(ValueError, match=r"adult\.data has 3 columns, 15 are wanted"):
        Adult(tmp_path).load()
    (tmp_path / "adult.data").write_text("")
    with pytest.raises(ValueError, match=r"adult\.data cannot be read"):
        Adult(tmp_path).load()
    (tmp_path / "adult.data").unlink()
    with pytest.raises(FileNotFoundError, match=r"adult\.data not found .* data get adult"):
        Adult(tmp_path).load()
    with pytest.raises(ValueError, match="split is 'valid'"):
        Adult(tmp_path, split="valid")  # type: ignore[arg-type]


def compas(root: Path, text: str = COMPAS) -> Path:
    (root / "compas-scores-two-years.csv").write_text(text)
    return root


def test_compas_keeps_the_rows_of_the_analysis(tmp_path: Path) -> None:
    data = Compas(compas(tmp_path)).load()
    assert data.truth.tolist() == [0, 1]
    assert data.schema.classes == ("no", "yes")
    assert data.schema.attributes[0].values == ("African-American", "Other")
    assert len(Compas(tmp_path, filtered=False).load()) == 7
    assert Compas(tmp_path, features=("age",)).encoding() == ("age (minus 51.5, over 17.5)",)


def test_compas_without_a_column(tmp_path: Path) -> None:
    compas(tmp_path, COMPAS.replace("priors_count", "priors"))
    with pytest.raises(ValueError, match="no column 'priors_count'; did you mean 'priors'"):
        Compas(tmp_path).load()


def test_german_credit_reads_sex_and_risk(tmp_path: Path) -> None:
    (tmp_path / "german.data").write_text(GERMAN)
    source = GermanCredit(tmp_path)
    data = source.load()
    assert data.schema.classes == ("good", "bad")
    assert data.truth.tolist() == [0, 1, 0]
    assert data.schema.attributes[0].values == ("female", "male")
    assert data.attribute("sex").tolist() == [1, 0, 1]
    assert data.attribute("age").tolist() == [1, 0, 1]
    names = source.encoding()
    assert data.x.shape == (3, len(names))
    assert not any(n.startswith(("sex=", "credit ")) for n in names)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [(" 1\nA12", " 3\nA12", "credit is 3"), ("A93", "A99", "personal is 'A99'")],
)
def test_german_credit_with_an_unknown_code(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    (tmp_path / "german.data").write_text(GERMAN.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"german\.data: {message}"):
        GermanCredit(tmp_path).load()


def test_an_unscaled_table_has_the_numbers_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "german.data").write_text(GERMAN)
    data = GermanCredit(tmp_path, scale="none").load()
    plan = GermanCredit(tmp_path, scale="none").encoding().index("amount")
    assert torch.equal(data.x[:, plan], torch.tensor([1169.0, 5951.0, 2096.0]))
