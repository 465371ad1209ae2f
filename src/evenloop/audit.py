"""The audit split: held-out rows a loop never sees, and what is counted on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from evenloop.counts import Counts, Moments
from evenloop.data import GroupedData
from evenloop.fit import predict
from evenloop.groups import GroupIndex, columns_named
from evenloop.heuristics.posterior import MCDropout, score_pool
from evenloop.heuristics.uncertainty import mean_probs
from evenloop.readings import ComparesGiven, Reading, ReadsCost, Statistic, padded
from evenloop.rng import Rng
from evenloop.seams import Completes, Writes

__all__ = ["CONFIDENCE_BINS", "Audit", "Statistic"]

ALL = ("all",)
CONFIDENCE_BINS = 10
Write = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """Held-out rows, the columns that define their groups, and further per-item statistics.

    A statistic maps inputs (B, ...) and labels (B,) to one number per item (B,); its mean under
    predictions, under the truth and over the training labels is what a bias is read from. Labels
    that have structure need a `reading`, which brings statistics of its own.

    With `draws` above 0 a model is judged by its Bayesian prediction: the mean of the class
    probabilities over that many dropout masks, not of the logits. The masks are the same for every
    model, so that models differ by what they learned alone.

    Raises:
        TypeError: a field is of another kind, such as `by` one text.
        ValueError: no rows, fewer than 0 draws, or structure without a reading.
    """

    data: GroupedData
    by: tuple[str, ...] = ()
    statistics: Mapping[str, Statistic] = field(default_factory=dict)
    batch: int = 1024
    reading: Reading | None = None
    draws: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.data, GroupedData):
            raise TypeError(f"data must be a GroupedData, got {type(self.data).__name__}")
        object.__setattr__(self, "by", columns_named(self.by))
        if self.draws < 0:
            raise ValueError(f"draws must be at least 0, got {self.draws}")
        if len(self.data) == 0:
            raise ValueError("the audit split has no rows; raise test_size above 0")
        if (self.reading is None) != (self.data.schema.structure is None):
            raise ValueError("labels with structure need a reading=, and others have none")

    def tables(
        self,
        model: nn.Module,
        answer: Callable[[Tensor], Tensor],
        reference: nn.Module | None = None,
    ) -> tuple[dict[str, Counts], dict[str, Moments]]:
        """Counts "audit" and moments of `model` on these rows.

        `answer` turns logits (N, C) into the classes (N,) that the model is taken to say.

        With a `reference` model (the dense net of a pruned one) also its counts,
        "audit.reference", and the moments of what each item lost, "audit.lost": right before
        minus right now.

        The moments are the per-item log loss in nats ("audit.loss"), confidence and hit in ten
        equal confidence bins of every group ("audit.confidence", "audit.hit"), and each
        statistic under prediction and truth.
        """
        data = self.data
        groups = GroupIndex.of(data, self.by)
        logits = self._logits(model).double()
        predicted = answer(logits)
        counts = {"audit": Counts.of(predicted, data.truth, groups, data.schema.classes)}
        loss = nn.functional.cross_entropy(logits, data.truth, reduction="none")
        confidence = logits.softmax(1).amax(1)
        bins = _confidence_cells(confidence, groups)
        moments = {
            "audit.loss": Moments.of(loss, groups),
            "audit.confidence": Moments.of(confidence, bins),
            "audit.hit": Moments.of((predicted == data.truth).double(), bins),
        }
        if reference is not None:
            before = self._logits(reference).argmax(1)
            counts["audit.reference"] = Counts.of(before, data.truth, groups, data.schema.classes)
            lost = (before == data.truth).double() - (predicted == data.truth).double()
            moments["audit.lost"] = Moments.of(lost, groups)
        for name, statistic in self.statistics.items():
            for kind, y in (("predicted", predicted), ("truth", data.truth)):
                moments[f"audit.{name}.{kind}"] = Moments.of(statistic(data.x, y), groups)
        return counts, moments

    def _logits(self, model: nn.Module) -> Tensor:
        """(N, C) logits, or the log of the mean probabilities over draws."""
        if not self.draws:
            return predict(model, self.data.x, batch=self.batch)
        posterior = MCDropout(model, self.draws, rows=self.batch)
        mean = partial(mean_probs, kind="logits")
        probs = score_pool(posterior, self.data.x, mean, rng=Rng.of(0).at("audit"))
        return probs.clamp_min(torch.finfo(torch.float64).tiny).log().to(self.data.truth.device)

    def written(
        self, model: nn.Module, write: Write, trained: GroupedData
    ) -> tuple[dict[str, Counts], dict[str, Moments]]:
        """As `tables`, for a model that writes labels with structure as `write(model, x)` does.

        The moments are the likelihood's cost in nats a unit ("audit.loss"), each of the reading's
        statistics under the written labels and under the truth, and its comparisons; a mean over
        units of unequal number (tokens) also over all groups together ("... .all").
        """
        if not isinstance(model, Writes):
            raise TypeError(f"{type(model).__name__} does not write labels: it has no write, cost")
        data, reading = self.data, self._read()
        groups = GroupIndex.of(data, self.by)
        assert data.schema.structure is not None
        said = padded(write(model, data.x), data.schema.structure)
        predicted, truth = reading.read(data.x, said), reading.read(data.x, data.truth)
        counts = {"audit": Counts.of(predicted, truth, groups, data.schema.classes)}
        moments = {}
        for name, statistic in self._statistics().items():
            pair = statistic(data.x, said), statistic(data.x, data.truth)
            for kind, values in zip(("predicted", "truth"), pair, strict=True):
                moments[f"audit.{name}.{kind}"] = _applying(values, groups)
            moments |= _both(f"audit.{name}.bias", groups, Moments.of_bias, *pair)
        spent, units = model.cost(data.x, data.truth)
        ratios = dict(reading.compare(data.x, said, data.truth, trained))
        ratios["loss"] = (spent / units.clamp(min=1), units)
        if isinstance(reading, ReadsCost):
            ratios |= reading.compare_cost(spent, units)
        if isinstance(model, Completes) and isinstance(reading, ComparesGiven):
            ratios |= reading.compare_given(data.x, model.complete(data.x, data.truth), data.truth)
        for name, ratio in ratios.items():
            moments |= _both(f"audit.{name}", groups, Moments.of_ratio, *ratio)
        return counts, moments

    def labels(self, data: GroupedData, start: int = 0) -> tuple[Counts, dict[str, Moments]]:
        """Truth against the learner's labels of training rows from `start` on, and statistics."""
        rows = data if start == 0 else data.take(torch.arange(start, len(data)))
        groups = GroupIndex.of(rows, self.by)
        y, truth = rows.y, rows.truth
        if self.reading is not None:
            y, truth = self.reading.read(rows.x, y), self.reading.read(rows.x, truth)
        counts = Counts.of(y, truth, groups, data.schema.classes)
        moments = {
            f"train.{name}": _applying(statistic(rows.x, rows.y), groups)
            for name, statistic in self._statistics().items()
        }
        return counts, moments

    def _read(self) -> Reading:
        assert self.reading is not None
        return self.reading

    def _statistics(self) -> dict[str, Statistic]:
        own = {} if self.reading is None else self.reading.statistics()
        return {**own, **self.statistics}


def _both(
    name: str,
    groups: GroupIndex,
    make: Callable[[Tensor, Tensor, GroupIndex], Moments],
    a: Tensor,
    b: Tensor,
) -> dict[str, Moments]:
    """What does not add up over groups, by group and for all together ("... .all")."""
    if groups.names == ALL:
        return {name: make(a, b, groups)}
    return {name: make(a, b, groups), f"{name}.all": make(a, b, groups.together())}


def _applying(values: Tensor, groups: GroupIndex) -> Moments:
    """Moments of the items that a statistic applies to: those that are not nan."""
    said = (~values.isnan()).nonzero().flatten()
    return Moments.of(values[said], groups if len(said) == len(values) else groups.take(said))


def _confidence_cells(confidence: Tensor, groups: GroupIndex) -> GroupIndex:
    place = (confidence * CONFIDENCE_BINS).long().clamp(0, CONFIDENCE_BINS - 1)
    names = tuple(f"{g}|{b}" for g in groups.names for b in range(CONFIDENCE_BINS))
    return GroupIndex(groups.cell.to(place.device) * CONFIDENCE_BINS + place, names)
