"""Tables, codes, bins and features."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evenloop.worlds.columns import (
    code,
    code_labels,
    encode,
    group_column,
    need_columns,
    read_table,
)


def series(*values: object) -> pd.Series:
    return pd.Series(list(values))


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv", ".parquet"])
def test_every_kind_of_table_is_read(tmp_path: Path, ending: str) -> None:
    frame = pd.DataFrame({"n": [1, 2], "t": ["a", "b"]})
    path = tmp_path / f"t{ending}"
    if ending == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    assert read_table(path).to_dict("list") == frame.to_dict("list")


def test_missing_cells_and_blanks_after_commas(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a, b\n1, None\nNA, x\n,\n")
    frame = read_table(path)
    assert frame["a"].isna().tolist() == [False, True, True]
    assert frame["b"].tolist()[:2] == ["None", "x"]  # a word, not a missing cell
    assert frame["b"].isna().tolist() == [False, False, True]


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.csv does not exist"):
        read_table(tmp_path / "no.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read"),
        ("t.csv", b"a,b\n1,2,3,4\n1,2\n1,2,3,4,5,6,7\n", "cannot be read"),
        ("t.csv", b"a\n\xff\xfe\xfa\n", "cannot be read"),
        ("t.csv.gz", gzip.compress(b"a\n" + b"1\n" * 999, mtime=0)[:-9], "cannot be read"),
        ("t.csv.gz", b"a\n1\n", "cannot be read"),
        ("t.parquet", b"PAR1 no", "cannot be read"),
        ("t.xlsx", b"PK", "must end in"),
    ],
)
def test_a_table_that_cannot_be_parsed(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"t\.\w+.* {message}"):
        read_table(tmp_path / name)


def test_a_missing_column_names_the_nearest() -> None:
    frame = pd.DataFrame({"gender": [1], "age": [2]})
    need_columns(frame, ["age", "gender"], "t.csv")
    with pytest.raises(ValueError, match=r"t\.csv has no column 'gendre'; did you mean 'gender'"):
        need_columns(frame, ["gendre"], "t.csv")


def test_distinct_values_are_sorted_numbers_by_size() -> None:
    assert code(series("b", "a", "b"), "c").names == ("a", "b")
    assert code(series(10, 9, 10), "c").names == ("9", "10")
    assert code(series(0.5, 2.0), "c").names == ("0.5", "2")
    assert code(series(True, False), "c").names == ("False", "True")
    assert code(pd.Series(["y", "x"], dtype="category"), "c").names == ("x", "y")


def test_missing_is_a_group_of_its_own_and_comes_last() -> None:
    coded = code(series("z", None, "a"), "c")
    assert (coded.codes.tolist(), coded.names) == ([1, 2, 0], ("a", "z", "unknown"))
    already = code(series("unknown", None, "a"), "c")
    assert (already.codes.tolist(), already.names) == ([1, 1, 0], ("a", "unknown"))
    assert code(series("z", "a"), "c").names == ("a", "z")
    assert code(pd.Series([None, None], dtype="str"), "c").names == ("unknown",)


def test_bins_hold_their_lower_edge() -> None:
    coded = code(series(9.99, 10, 19, 20, np.nan), "age", (10, 20))
    assert coded.codes.tolist() == [0, 1, 1, 2, 3]
    assert coded.names == ("<10", "[10, 20)", ">=20", "unknown")


def test_an_empty_bin_keeps_its_number() -> None:
    coded = code(series(5, 25), "age", (10, 20))
    assert (coded.codes.tolist(), coded.names) == ([0, 2], ("<10", "[10, 20)", ">=20"))


def test_many_numbers_want_bins() -> None:
    assert len(code(series(*range(20)), "age").names) == 20
    with pytest.raises(ValueError, match=r"'age' has 21 distinct numbers; give bins, .*'age:10'"):
        code(series(*range(21)), "age")


def test_bins_want_numbers() -> None:
    with pytest.raises(ValueError, match="bins are given for 'sex', which is not numeric"):
        code(series("f", "m"), "sex", (1,))


def test_a_group_column_may_hold_a_colon() -> None:
    frame = pd.DataFrame({"a:1": ["x", "y"], "n": [1, 2]})
    assert group_column(frame, "a:1", "t")[0] == "a:1"
    assert group_column(frame, "n:2", "t")[1].names == ("<2", ">=2")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("n:x", "must be numbers"),
        ("n:", "must be numbers"),
        ("n:3,2", "finite and ascending"),
        ("n:2,2", "finite and ascending"),
        ("n:nan", "finite and ascending"),
        ("m:2", "no column 'm'"),
        ("m", "no column 'm'"),
    ],
)
def test_wrong_group_columns(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_column(pd.DataFrame({"n": [1, 2]}), spec, "t")


def test_labels_without_classes_are_sorted() -> None:
    assert code_labels(series("no", "yes", "no"), "y").codes.tolist() == [0, 1, 0]
    assert code_labels(series(10, 9), "y").names == ("9", "10")
    assert code_labels(series(3.0, 1.0), "y").names == ("1", "3")


def test_labels_with_classes_are_codes_or_names() -> None:
    classes = ("cat", "dog", "eel")
    assert code_labels(series("dog", "cat"), "y", classes).codes.tolist() == [1, 0]
    coded = code_labels(series(2, 0), "y", classes)
    assert (coded.codes.tolist(), coded.names) == ([2, 0], classes)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (series("dog", "dgo"), "label 'dgo' in row 1 is no class; did you mean 'dog'"),
        (series(0, 3), r"label 'y' is 3 in row 1, but the 3 classes are 0\.\.2"),
        (series(0, -1), "is -1 in row 1"),
        (series(0.5, 1), "is 0.5 in row 0; labels are classes"),
        (series("cat", None), "label 'y' is missing in 1 of 2 rows, first in row 1"),
        (pd.Series([0, 7], index=[4, 9]), "is 7 in row 9"),
    ],
)
def test_wrong_labels(column: pd.Series, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        code_labels(column, "y", ("cat", "dog", "eel"))


def test_features_say_how_they_were_made() -> None:
    frame = pd.DataFrame({"n": [0, 10], "k": ["a", None], "c": [3, 3], "b": [True, False]})
    features = encode(frame, ["n", "k", "c", "b"])
    assert features.x.dtype == np.float32
    assert features.x.tolist() == [[-1, 1, 0, 0, 0, 1], [1, 0, 1, 0, 1, 0]]
    assert features.names == (
        "n (minus 5, over 5)",
        "k=a",
        "k=unknown",
        "c (minus 3, over 0)",
        "b=False",
        "b=True",
    )
    assert encode(frame, ["n"], "minmax").x.tolist() == [[0], [1]]
    assert encode(frame, ["n"], "none").x.tolist() == [[0], [10]]
    assert encode(frame, ["n"], "none").names == ("n",)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, np.nan], "feature 'f' is missing or infinite in 1 of 2 rows, first in row 1"),
        ([np.inf, 1.0], "first in row 0"),
        ([str(i) for i in range(201)], "feature 'f' has 201 distinct texts"),
    ],
)
def test_wrong_features(column: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(pd.DataFrame({"f": column}), ["f"])


def test_features_are_wanted_and_the_scale_is_known() -> None:
    frame = pd.DataFrame({"f": [1, 2]})
    with pytest.raises(ValueError, match="no feature column"):
        encode(frame, [])
    with pytest.raises(ValueError, match="did you mean 'standard'"):
        encode(frame, ["f"], "standrad")


def with_slip(slip: object) -> pd.DataFrame:
    income = [str(n) for n in range(40)]
    income[7] = slip  # type: ignore[call-overload]
    return pd.DataFrame({"income": income})


def test_a_slip_among_numbers_is_named_with_its_row() -> None:
    message = "'income' holds numbers but for 1 of 40 cells, first 'abc' in row 7; mend or empty"
    with pytest.raises(ValueError, match=message):
        encode(with_slip("abc"), ["income"])
    with pytest.raises(ValueError, match=message):
        code(with_slip("abc")["income"], "income", edges=(10,))


def test_categories_that_look_like_numbers_pass() -> None:
    grades = pd.DataFrame({"grade": [str(n % 12) for n in range(60)] + ["K"]})
    assert encode(grades, ["grade"]).names[-1] == "grade=K"
    assert len(encode(with_slip("41"), ["income"]).names) == 40  # texts one and all
    half = pd.DataFrame({"code": [str(n) if n % 2 else f"x{n}" for n in range(60)]})
    assert len(encode(half, ["code"]).names) == 60


@pytest.mark.parametrize("cell", [{"a": 1}, ["a"], ("a",), np.zeros(2)])
def test_a_column_of_lists_or_records_is_no_category(cell: object) -> None:
    frame = pd.DataFrame({"z": pd.Series(["b", cell], dtype=object)})
    with pytest.raises(ValueError, match=r"column 'z' holds \w+s, first in row 1; give texts"):
        encode(frame, ["z"])
    with pytest.raises(ValueError, match="column 'z' holds"):
        group_column(frame, "z", "the table")
    mixed = pd.Series(["b", 1, True, None], dtype=object)
    assert code(mixed, "z").names == ("1", "True", "b", "unknown")


def test_a_column_that_is_there_twice_is_told() -> None:
    twice = pd.DataFrame([[1, 2, "f"]], columns=["n", "n", "sex"])
    with pytest.raises(ValueError, match="the table has more than one column 'n'; rename"):
        need_columns(twice, ["sex"], "the table")
    need_columns(pd.DataFrame({"n": [1], "sex": ["f"]}), ["sex"], "the table")


def test_a_missing_label_names_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"first in row 1; drop those rows \(missing=drop in a ta"):
        code_labels(series("a", None), "y")
