"""Label feedback: bias, labels, gap and both bounds over rounds, and the verdict in words.

Figures after Taori & Hashimoto, "Data Feedback Loops" (ICML 2023), Figure 3; the signed bias, the
training labels, the gap per round and the second bound are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evenloop.claims import FeedbackClaim, Verdict, sized_factor
from evenloop.intervals import across_runs, band
from evenloop.report.figures import Line, line_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study

ORDER = 10


def build(study: Study) -> Section | None:
    """The section, for studies with a tracked class whose loop relabels."""
    if study.track is None or not any("relabel" in entry for entry in study.config.loop):
        return None
    name = study.first.counts["train"].classes[study.track]
    verdicts = {kind: _verdicts(study, kind) for kind in ("first", "running")}
    text = [
        f"The statistic is the share of class {name}. Its bias is what the model says on the audit "
        "split minus what people say there; its gap is what the model says minus the share in the "
        "labels it was trained on.",
        *_words(study, verdicts["first"]),
        _premise(study),
        "Who can be harmed: items of class "
        f"{name} and of the classes it displaces, when later models, decisions or counts rest on "
        "these labels. A share says nothing of which items were mistaken; see the accuracy of "
        "every group below.",
    ]
    return Section(
        "Label feedback",
        text=text,
        figures=_figures(study, name),
        note=f"Bands: {study.limits()}. The bound is that of the mean tolerance over seeds.",
        tables=[_table(study, verdicts)],
        summary=_words(study, verdicts["first"])[:1],
    )


def _verdicts(study: Study, kind: str) -> list[list[Verdict]]:
    claim = FeedbackClaim(study.track or 0, "first" if kind == "first" else "running")
    return [
        [claim.verdict(record.rows, t) for t in range(len(record.rows))]
        for record in study.records.values()
    ]


def _words(study: Study, verdicts: Sequence[Sequence[Verdict]]) -> list[str]:
    bias = study.line("bias", "bias")
    start, end = bias.value[0], bias.value[-1]
    n = study.first.counts["audit"].total
    seeds = len(study.records)
    basis = f"{n} audit items, {seeds} seed{'s' if seeds > 1 else ''}"
    low, high = _last_limits(bias)
    lines = [
        f"Bias {start:+.3f} at round 0 and {end:+.3f} [{low:+.3f}, {high:+.3f}] at round "
        f"{len(bias.value) - 1} ({basis})."
    ]
    crossed = [next((v for v in run if v.round and v.says == "exceeds"), None) for run in verdicts]
    firsts = [v.round for v in crossed if v is not None]
    bound = _bounds(study)[0].value
    mean_crosses = _mean_crossing(study, bound)
    if mean_crosses is not None:
        lines.append(
            f"The mean bias is above the bound drawn from round 0 at round {mean_crosses} "
            f"(95 % limits over seeds): {abs(bias.value[mean_crosses]):.3f} against "
            f"{abs(bound[mean_crosses]):.3f}."
        )
    if firsts:
        lines.append(
            f"{len(firsts)} of {seeds} seeds exceed their own round-0 bound beyond the 95 % limits "
            f"of their counts, first at round {min(firsts)}."
        )
    elif mean_crosses is None:
        says = {run[-1].says for run in verdicts}
        lines.append(
            "No seed exceeds its round-0 bound beyond its limits; at the last round the verdict is "
            + " or ".join(sorted(says))
            + "."
        )
    return lines


def _last_limits(line: Line) -> tuple[float, float]:
    if line.low is None or line.high is None:
        return float("nan"), float("nan")
    return float(line.low[-1]), float(line.high[-1])


def _mean_crossing(study: Study, bound: np.ndarray) -> int | None:
    """First round at which the lower limit of the mean slack's opposite is above zero."""
    curves = study.curves("bias")
    if len(curves) < 2:
        return None
    over = band([np.abs(curve) for curve in curves])
    reached = min(len(bound), len(over.low))
    above = np.flatnonzero(over.low[1:reached] > np.abs(bound[1:reached]))
    return int(above[0]) + 1 if len(above) else None


def _premise(study: Study) -> str:
    gaps = np.abs(band(study.curves("gap to labels")).mean)
    worst = int(np.nanargmax(gaps))
    holds = worst == 0 or gaps[worst] <= gaps[0]
    if holds:
        return (
            "The theorem's premise: the gap to the training labels stays within its first value. "
            f"Measured: largest at round {worst}, {gaps[worst]:.3f}; the premise is not contradicted."
        )
    return (
        f"The theorem's premise is that the gap to the training labels does not grow. Measured: "
        f"{gaps[0]:.3f} at round 0, {gaps[worst]:.3f} at round {worst}. The bound drawn from round "
        "0 is then no bound; the one drawn from the largest gap so far is the one to read."
    )


def _bounds(study: Study) -> tuple[Line, Line]:
    """Both bounds for the mean over seeds, signed like their tolerance."""
    rows = max((record.rows for record in study.records.values()), key=len)
    factors = np.array(sized_factor([row.sizes for row in rows]))
    first = float(across_runs([curve[0] for curve in study.curves("bias")]).mean)
    gaps = band(study.curves("gap to labels")).mean
    largest = [first]
    for gap in gaps:
        largest.append(gap if abs(gap) > abs(largest[-1]) else largest[-1])
    return (
        Line("bound, tolerance of round 0", factors * first),
        Line("bound, largest gap so far", factors * np.array(largest[1:])),
    )


def _figures(study: Study, name: str) -> list[str]:
    truth = study.line("people's share", f"true share of {name}")
    truth = replace(truth, low=None, high=None, thin=(), flat=True)
    first, largest = _bounds(study)
    base = np.nanmean(truth.value)

    def shifted(line: Line) -> Line:
        return replace(line, value=base + line.value)

    shares = [
        study.line("predicted on audit", f"selection rate of {name}"),
        study.line("in the training labels", f"label share of {name}", "train"),
        shifted(first),
        shifted(largest),
        truth,
    ]
    bias = [study.line("bias", "bias"), first, largest]
    return [
        line_figure(f"Share of {name}", shares, ylabel="share"),
        line_figure("Bias, signed", bias, ylabel="difference of shares", zero=True),
        line_figure(
            "Gap to the training labels",
            [study.line("gap", "gap to labels")],
            ylabel="difference of shares",
            zero=True,
        ),
        line_figure(
            "Who labelled the training set",
            [study.line("labelled by a model", "share relabelled", "train")],
            ylabel="share of rows",
        ),
        line_figure(
            "Accuracy on audit", [study.line("accuracy", "accuracy")], ylabel="share right"
        ),
    ]


def _table(study: Study, verdicts: dict[str, list[list[Verdict]]]) -> Table:
    rows = []
    for seed, record, first, running in zip(
        study.records, study.records.values(), verdicts["first"], verdicts["running"], strict=True
    ):
        for row, a, b in zip(record.rows, first, running, strict=True):
            rows.append(
                (
                    str(seed), str(row.round), str(row.sizes["train"]), f"{a.measured:.3f}",
                    f"{a.bound:.3f}", f"{a.slack:+.3f} [{a.low:+.3f}, {a.high:+.3f}]", a.says,
                    f"{b.bound:.3f}", b.says, str(a.support),
                )
            )  # fmt: skip
    head = (
        "seed", "round", "rows", "size of bias", "bound, round 0", "slack [95 %]", "verdict",
        "bound, largest gap", "verdict", "audit items",
    )  # fmt: skip
    return Table("The claim at every round", head, rows, folded=True)
