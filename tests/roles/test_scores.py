"""The five scores on frames whose scores can be counted by hand."""

from __future__ import annotations

import pytest
import torch

from evenloop.roles.scores import frame_scores
from roles_kit import SMALL

# baking: agent 0 | 1 | 1, item 0 | 0 | 1; running: agent 0; baking again
TRUTH = torch.tensor(
    [
        [0, 0, 0, -1, 1, 0, -1, 1, 1, -1],
        [1, 0, -1, -1, -1, -1, -1, -1, -1, -1],
        [0, 2, 1, -1, 2, 1, -1, 2, 1, -1],
    ]
)


def test_scores_of_each_image() -> None:
    written = torch.tensor([[0, 1, 1, -1], [0, 0, 0, -1], [0, 0, 1, -1]])
    given = torch.tensor([[0, 1, 1, -1], [1, 0, -1, -1], [0, 2, 1, -1]])
    found = frame_scores(written, TRUTH, SMALL, given=given)
    assert {name: score.tolist() for name, score in found.scores.items()} == {
        "verb": [1, 0, 1],
        "value": [1, 0, 0.5],
        "value-all": [1, 0, 0],
        "value*": [1, 1, 1],
        "value-all*": [1, 1, 1],
    }


def test_means_by_image_and_by_verb_differ_where_verbs_have_unequal_numbers() -> None:
    written = torch.tensor([[0, 1, 1, -1], [0, 0, 0, -1], [0, 2, 1, -1]])
    found = frame_scores(written, TRUTH, SMALL)
    assert found.mean() == pytest.approx(
        {"verb": 2 / 3, "value": 2 / 3, "value-all": 2 / 3, "avg-score": 2 / 3}
    )
    assert found.by_verb()["verb"] == 0.5
    weights = found.verb_weights()
    assert weights.tolist() == [0.5, 1, 0.5]
    weighted = (weights * found.scores["verb"]).sum() / weights.sum()
    assert float(weighted) == found.by_verb()["verb"]


def test_a_role_nobody_annotated_is_not_asked_for() -> None:
    truth = torch.tensor([[0, 1, -1, -1], [0, -1, -1, -1]])
    found = frame_scores(torch.tensor([[0, 1, 1, -1]] * 2), truth, SMALL).scores
    assert found["value"][0] == 1
    assert found["value-all"][0] == 1
    assert found["value"][1].isnan()
    assert found["value-all"][1].isnan()
    assert found["verb"].tolist() == [1, 1]


def test_a_blank_matches_a_blank() -> None:
    truth = torch.tensor([[0, 2, 0, -1]])
    assert frame_scores(truth, truth, SMALL).mean()["value-all"] == 1
