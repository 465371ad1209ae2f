"""How well frames name what is seen: imSitu's five scores, by image and by verb.

Reference: Yatskar, Zettlemoyer and Farhadi, Situation Recognition (CVPR 2016), section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from evenloop.roles.layout import Layout

__all__ = ["FrameScores", "frame_scores"]


@dataclass(frozen=True, slots=True, eq=False)
class FrameScores:
    """Scores of N frames, each in [0, 1]; nan where the image's verb has no annotated role.

    Attributes:
        verb: the (N,) true verbs.
        scores: by name, (N,) float64: "verb" (the verb is right), "value" (share of the roles whose
            noun some annotator gave), "value-all" (all of them), and "value*", "value-all*", the
            same two of the frame written for the true verb. Without it the first two need the right
            verb and the starred are missing.
    """

    verb: Tensor
    scores: Mapping[str, Tensor]

    def mean(self) -> dict[str, float]:
        """Means over images, and "avg-score", the mean of them.

        The published program means to average over verbs, but each image has a key of its own
        there, so this is what it reports.
        """
        return _averaged({name: float(s.nanmean()) for name, s in self.scores.items()})

    def by_verb(self) -> dict[str, float]:
        """Means over verbs of the means over a verb's images, and their mean "avg-score"."""
        found = {}
        for name, score in self.scores.items():
            there = ~score.isnan()
            verbs, place = _numbered(self.verb[there])
            total = torch.zeros(len(verbs), dtype=score.dtype, device=score.device)
            total.index_add_(0, place, score[there])
            found[name] = float((total / place.bincount(minlength=len(verbs))).mean())
        return _averaged(found)

    def verb_weights(self) -> Tensor:
        """(N,) one over the images of the row's verb: the weighted mean of images is by verb."""
        verbs, place = _numbered(self.verb)
        count = place.bincount(minlength=len(verbs)).double()
        return torch.ones_like(count).div(count)[place]


def _numbered(verb: Tensor) -> tuple[Tensor, Tensor]:
    """The verbs that occur, and (N,) which of them each row's is."""
    verbs, place = torch.unique(verb, return_inverse=True)
    return verbs, place


def _averaged(scores: dict[str, float]) -> dict[str, float]:
    return scores | {"avg-score": sum(scores.values()) / len(scores)}


def frame_scores(
    written: Tensor, truth: Tensor, layout: Layout, *, given: Tensor | None = None
) -> FrameScores:
    """Scores of frames (N, 1 + R or more) against references (N, 1 + F * R).

    Args:
        written: the frames, first reference only.
        truth: verb and nouns of F annotators; -1 where one gave no noun.
        layout: what the codes mean.
        given: frames written for the true verb; adds the starred scores.

    >>> layout = Layout(("baking",), (("agent",),), ((("man", "woman"),),))
    >>> truth = torch.tensor([[0, 1, 1, 0]])
    >>> frame_scores(torch.tensor([[0, 0]]), truth, layout).mean()
    {'verb': 1.0, 'value': 1.0, 'value-all': 1.0, 'avg-score': 1.0}
    """
    wide = layout.max_roles
    references = truth[:, 1:].view(len(truth), -1, wide)
    asked = (references >= 0).any(1)
    right = written[:, 0] == truth[:, 0]
    scores = {"verb": right.double()}
    share, whole = _found(written[:, 1 : 1 + wide], references, asked)
    scores |= {"value": share * right, "value-all": whole * right}
    if given is not None:
        share, whole = _found(given[:, 1 : 1 + wide], references, asked)
        scores |= {"value*": share, "value-all*": whole}
    return FrameScores(truth[:, 0], scores)


def _found(nouns: Tensor, references: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) share of the asked roles whose noun is some reference's, and whether all are."""
    hit = ((nouns[:, None] == references).any(1) & asked).sum(1).double()
    share = hit / asked.sum(1)
    return share, (share == 1).double().where(~share.isnan(), torch.nan)
