"""Names of classes and groups, and the codes that stand for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from evenloop.data import Attribute, GroupedData, Schema, Structure
from evenloop.schema import codes

SEX = Attribute("sex", ("f", "m"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schema(("a", "b", "a")), "classes hold 'a' twice"),
        (lambda: Schema(("a", "b"), (SEX, SEX)), "attributes hold 'sex' twice"),
        (lambda: Attribute("sex", ("f", "f")), "values of attribute 'sex' hold 'f' twice"),
    ],
)
def test_a_name_that_means_two_things_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_classes_and_groups_may_share_a_name() -> None:
    schema = Schema(("f", "m"), (SEX, Attribute("partner", ("f", "m"))))
    assert schema.column("partner") == 1


def test_the_first_difference_is_told() -> None:
    schema = Schema(("no", "yes"), (SEX,))
    assert schema.difference(Schema(("no", "yes"), (Attribute("sex", ("f", "m")),))) is None
    others = [
        (replace(schema, classes=("yes", "no")), r"classes are \('no', 'yes'\)"),
        (replace(schema, attributes=()), r"attributes are \('sex',\) and \(\)"),
        (replace(schema, attributes=(Attribute("sex", ("m",)),)), "values of attribute 'sex'"),
        (replace(schema, structure=Structure(2, 3)), "structures of labels"),
    ]
    for other, message in others:
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(schema.difference(other))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 0.5], r"truth must hold whole codes, got 0\.5 in row 1"),
        ([0, float("nan")], r"truth is missing \(nan\) in row 1; .*named 'unknown'"),
        ([0, float("inf")], "got inf in row 1"),
        (["a", "b"], r"got <U1 such as 'a', 'b'; .*from_arrays takes labels"),
        ([None, 1], "got object such as None, 1"),
        (torch.tensor([[0.0, 1.0], [1.0, 2.5]]), r"got 2\.5 in row 1"),
    ],
)
def test_values_that_are_no_codes_are_named(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codes("truth", values)


@pytest.mark.parametrize(
    "values",
    [
        [0, 1],
        [0.0, 1.0],
        [False, True],
        np.array([0, 1], np.uint8),
        torch.tensor([0, 1], dtype=torch.int16),
    ],
)
def test_whole_numbers_of_any_kind_are_codes(values: Any) -> None:
    assert codes("truth", values).tolist() == [0, 1]
    assert codes("truth", values).dtype == torch.int64


def test_a_missing_group_is_told_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"attribute 'sex' is missing \(nan\) in row 1"):
        GroupedData.of(
            torch.zeros(2, 1), [0, 1], {"sex": [0, float("nan")]}, Schema(("a", "b"), (SEX,))
        )
