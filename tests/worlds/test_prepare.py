"""Imbalance, hold-out and injected bias."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from evenloop.data import Attribute, GroupedData, Schema
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.worlds.prepare import (
    Selection,
    holdout,
    imbalanced,
    with_counts,
    with_shares,
    with_shares_given,
)

RNG = Rng.of(0)


def rows(*counts: int, classes: str = "abc") -> GroupedData:
    """Rows with `counts` of each class; x holds the row's number."""
    truth = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = torch.arange(len(truth)).float()[:, None]
    return GroupedData.of(x, truth, {}, Schema(tuple(classes[: len(counts)])))


def people(*counts: int) -> GroupedData:
    """Counts of no-f, no-m, yes-f, yes-m, shuffled."""
    cell = torch.arange(4).repeat_interleave(torch.tensor(counts))
    cell = cell[torch.randperm(len(cell), generator=RNG.gen())]
    schema = Schema(("no", "yes"), (Attribute("sex", ("f", "m")),))
    return GroupedData.of(torch.zeros(len(cell), 1), cell // 2, {"sex": cell % 2}, schema)


def table(data: GroupedData) -> list[int]:
    return GroupIndex.of(data, ["truth", "sex"]).count().tolist()


def test_holdout_parts_the_rows_in_shuffled_order() -> None:
    data = rows(5, 5)
    train, audit = holdout(data, size=4, rng=RNG)
    order = torch.randperm(10, generator=RNG.gen())
    assert audit.row.tolist() == order[:4].tolist()
    assert train.row.tolist() == order[4:].tolist()
    assert train.x.flatten().tolist() == train.row.tolist()
    assert holdout(data, size=4, rng=RNG)[1].row.tolist() == audit.row.tolist()
    assert holdout(data, size=4, rng=RNG.at("other"))[1].row.tolist() != audit.row.tolist()


@pytest.mark.parametrize("size", [1, 9])
def test_holdout_passes_sizes_that_leave_both_sides(size: int) -> None:
    train, audit = holdout(rows(5, 5), size=size, rng=RNG)
    assert (len(train), len(audit)) == (10 - size, size)


@pytest.mark.parametrize("size", [0, 10, 11, -1, 2.0, True])
def test_holdout_refuses_other_sizes(size: Any) -> None:
    with pytest.raises(ValueError, match=r"audit split of 10 rows must have 1\.\.9 rows, got"):
        holdout(rows(5, 5), size=size, rng=RNG)


def test_imbalance_keeps_order_and_identity() -> None:
    data = rows(7, 20, 9)
    kept, taken = imbalanced(data, track="b", factor=4, rng=RNG)
    assert kept.truth.bincount().tolist() == [5, 20, 5]
    assert kept.row.tolist() == sorted(kept.row.tolist())
    assert kept.x.flatten().tolist() == kept.row.tolist()
    assert taken == Selection(("a", "b", "c"), (7, 20, 9), (5, 20, 5))
    assert taken.short == {}
    assert taken.text() == "every cell has the rows asked for"


def test_imbalance_draws_by_the_stream() -> None:
    data = rows(50, 50, 50)

    def chosen(rng: Rng) -> list[int]:
        return imbalanced(data, track=0, factor=3, rng=rng)[0].row.tolist()

    assert chosen(RNG) == chosen(RNG)
    assert chosen(RNG) != chosen(RNG.at("other"))


def test_a_class_with_too_few_rows_is_reported() -> None:
    kept, taken = imbalanced(rows(2, 20, 9), track="b", factor=4, rng=RNG)
    assert kept.truth.bincount().tolist() == [2, 20, 5]
    assert taken.short == {"a": 3}
    assert taken.text() == "too few rows: a has 2 of 5"
    assert taken.taken == (2, 20, 5)


def test_factor_one_cuts_to_the_smallest() -> None:
    kept, taken = imbalanced(rows(4, 20, 9), track="b", factor=1, rng=RNG)
    assert kept.truth.bincount().tolist() == [4, 4, 4]
    assert taken.short == {}


@pytest.mark.parametrize(("factor", "share"), [(9, 0.5), (2, 2 / 11)])
def test_the_share_of_the_class_is_what_the_factor_says(factor: int, share: float) -> None:
    data = rows(*[720] * 10, classes="abcdefghij")
    kept, _ = imbalanced(data, track="d", factor=factor, rng=RNG)
    assert float((kept.truth == 3).double().mean()) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(
    ("track", "factor", "message"),
    [
        ("d", 2, "no class 'd'; the classes are: a, b, c"),
        (3, 2, "no class 3"),
        ("a", 0, "imbalance factor must be a whole number from 1 on, got 0"),
        ("a", 2.0, "got 2.0"),
        ("a", True, "got True"),
        ("a", 5, "class 'a' has 4 rows, too few for an imbalance factor of 5"),
    ],
)
def test_imbalances_that_cannot_be(track: Any, factor: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imbalanced(rows(4, 20, 9), track=track, factor=factor, rng=RNG)


def test_every_class_must_occur() -> None:
    with pytest.raises(ValueError, match="class 'b' does not occur"):
        imbalanced(rows(4, 0, 9), track="a", factor=2, rng=RNG)


def test_counts_are_exact() -> None:
    data = people(10, 20, 30, 40)
    kept, taken = with_counts(
        data, by=("truth", "sex"), counts={("no", "m"): 20, ("yes", "f"): 3}, rng=RNG
    )
    assert table(kept) == [0, 20, 3, 0]
    assert taken.taken == (0, 20, 3, 0)
    assert kept.row.tolist() == sorted(kept.row.tolist())
    assert table(with_counts(data, by="sex", counts={"f": 5}, rng=RNG)[0])[1::2] == [0, 0]


@pytest.mark.parametrize(
    ("by", "counts", "message"),
    [
        ("sex", {"f": 41}, "cell 'f' has 40 rows, 41 are asked for"),
        ("sex", {"x": 1}, "no cell 'x'; there are: f, m"),
        ("sex", {"f": -1}, "count of 'f' must be a whole number from 0 on, got -1"),
        ("sex", {"f": 1.5}, "got 1.5"),
        ("sex", {}, "counts ask for no row"),
        (("truth", "sex"), {("no", "x"): 1}, "no cell"),
    ],
)
def test_counts_that_cannot_be(by: Any, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_counts(people(10, 20, 30, 40), by=by, counts=counts, rng=RNG)


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(KeyError, match="no attribute 'age'; this data has: sex"):
        with_counts(people(1, 1, 1, 1), by="age", counts={"f": 1}, rng=RNG)


def test_shares_take_as_many_rows_as_there_are() -> None:
    data = people(10, 20, 30, 40)  # 40 f, 60 m
    kept, _ = with_shares(data, by="sex", share={"f": 0.75, "m": 0.25}, rng=RNG)
    assert GroupIndex.of(kept, ["sex"]).count().tolist() == [40, 13]  # 53 rows, to the nearest
    even, _ = with_shares(data, by="sex", share={"f": 0.5, "m": 0.5}, rng=RNG, total=10)
    assert GroupIndex.of(even, ["sex"]).count().tolist() == [5, 5]
    one, _ = with_shares(data, by="sex", share={"f": 0, "m": 1}, rng=RNG)
    assert GroupIndex.of(one, ["sex"]).count().tolist() == [0, 60]


def test_a_cell_table_of_shares() -> None:
    data = people(10, 20, 30, 40)
    share = {("no", "f"): 0.4, ("no", "m"): 0.1, ("yes", "f"): 0.1, ("yes", "m"): 0.4}
    kept, taken = with_shares(data, by=("truth", "sex"), share=share, rng=RNG, total=25)
    assert table(kept) == [10, 3, 2, 10]  # the half row goes to the first of the equal remainders
    assert taken.short == {}


@pytest.mark.parametrize(
    ("share", "total", "message"),
    [
        ({"f": 0.5}, None, "share lacks the cell 'm'; give 0 for none"),
        ({"f": 0.5, "m": 0.6}, None, "from 0 on and sum to 1"),
        ({"f": -0.5, "m": 1.5}, None, "from 0 on and sum to 1"),
        ({"f": float("nan"), "m": 1}, None, "from 0 on and sum to 1"),
        ({"f": 0.5, "m": 0.5}, 81, r"total must be in 1\.\.80 .*cell 'f' is the scarcest"),
        ({"f": 0.5, "m": 0.5}, 0, r"total must be in 1\.\."),
        ({"f": 0.5, "m": 0.5}, 2.0, r"total must be in 1\.\."),
    ],
)
def test_shares_that_cannot_be(share: Any, total: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_shares(people(10, 20, 30, 40), by="sex", share=share, total=total, rng=RNG)


def test_shares_given_the_class_keep_its_prior() -> None:
    data = people(100, 100, 100, 100)
    share = {"no": {"f": 0.9, "m": 0.1}, "yes": {"f": 0.1, "m": 0.9}}
    kept, _ = with_shares_given(data, by="sex", share=share, rng=RNG)
    counts = table(kept)
    assert counts[0] == counts[3] == 100
    assert counts[1] == counts[2] == 11
    assert kept.truth.bincount().tolist() == [111, 111]
    small, _ = with_shares_given(data, by="sex", share=share, rng=RNG, total=40)
    assert table(small) == [18, 2, 2, 18]
    turned, _ = with_shares_given(
        data,
        by="truth",
        given="sex",
        share={"f": {"no": 1, "yes": 0}, "m": {"no": 0.5, "yes": 0.5}},
        rng=RNG,
        total=40,
    )
    assert table(turned) == [20, 10, 0, 10]


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({"no": {"f": 1, "m": 0}}, "share names no truth 'yes'"),
        ({"no": {"f": 1}, "yes": {"f": 1, "m": 0}}, "share given 'no' lacks the cell 'm'"),
        ({"no": {"f": 1, "m": 1}, "yes": {"f": 1, "m": 0}}, "share given 'no' must be"),
        ({"maybe": {"f": 1, "m": 0}}, "no cell 'maybe'"),
    ],
)
def test_shares_given_that_cannot_be(share: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_shares_given(people(9, 9, 9, 9), by="sex", share=share, rng=RNG)


def test_an_absent_group_survives() -> None:
    data = people(5, 0, 5, 0)
    kept, taken = with_counts(data, by="sex", counts={"f": 4}, rng=RNG)
    assert taken.available == (10, 0)
    assert kept.schema.attributes[0].values == ("f", "m")
    with pytest.raises(ValueError, match=r"cell 'm' has 0 rows, too few for a share of 0\.5"):
        with_shares(data, by="sex", share={"f": 0.5, "m": 0.5}, rng=RNG)


def test_one_row() -> None:
    data = people(1, 0, 0, 0)
    kept, _ = with_shares(data, by="sex", share={"f": 1, "m": 0}, rng=RNG)
    assert len(kept) == 1
