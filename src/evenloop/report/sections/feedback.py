"""Label feedback: bias, labels, gap and both bounds over rounds, and the verdict in words.

Figures after Taori & Hashimoto, "Data Feedback Loops" (ICML 2023), Figure 3; the signed bias, the
training labels, the gap per round and the second bound are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from evenloop.claims import FeedbackClaim, Verdict, larger
from evenloop.config import buys_selected
from evenloop.intervals import Bounded
from evenloop.report.figures import Line, line_figure
from evenloop.report.sections import Section, Table
from evenloop.report.study import Study
from evenloop.shares import slack_over_runs
from evenloop.study.compare import trains_on

ORDER = 10
FACTOR = "bound over tolerance"
Verdicts = Sequence[Sequence[Verdict]]


def build(study: Study) -> Section | None:
    """The section, for studies with a tracked class whose loop relabels."""
    relabels = any("relabel" in entry for entry in study.config.loop)
    if study.track is None or not relabels or not study.has("bias"):
        return None
    name = study.first.counts["train"].classes[study.track]
    first, running = (_verdicts(study, study.track, kind) for kind in ("first", "running"))
    bias, verdict = _bias_words(study, name), _verdict_words(study, first)
    text = [
        f"Bias is the share of class {name} the model predicts on the audit split minus the share "
        "people give there. Gap is the same prediction minus the share in the labels this model "
        "was trained on. The bound says how large the bias may become while the gap stays within "
        "its tolerance. It is drawn with the tolerance of round 0, as in the paper, and with the "
        "largest gap of any round so far; that one rests on a maximum of noisy measurements and "
        "tends to be too wide.",
        verdict,
        _premise(study),
        *_cautions(study),
        f"Who can be harmed: items of class {name} and of the classes it displaces, when later "
        f"models, decisions or counts rest on these labels. {_beyond_a_share(study)}",
    ]
    tables = [_table_over_seeds(study)] if len(study.records) > 1 else []
    return Section(
        "Label feedback",
        text=text,
        figures=_figures(study, name),
        note=f"Bands: {study.limits()}, one round at a time.",
        tables=[*tables, _table(study, first, running)],
        summary=[bias, verdict],
        shows=("human", "machine", "abstained"),
    )


def _beyond_a_share(study: Study) -> str:
    if study.structured:
        return (
            "A share does not say which rows differ from what people gave, nor what else changed "
            "in them; see what the model writes, below."
        )
    return "A share does not say which items were mistaken; see the accuracy of every group below."


def _verdicts(study: Study, klass: int, kind: str) -> Verdicts:
    tolerance = "first" if kind == "first" else "running"
    claim = FeedbackClaim(klass, tolerance, trains_on(study.config))  # type: ignore[arg-type]
    return [claim.verdicts(record.rows) for record in study.records.values()]


def _bias_words(study: Study, name: str) -> str:
    bias = study.line("bias", "bias")
    n, seeds = study.first.counts["audit"].total, len(study.records)
    last = len(bias.value) - 1
    start = (
        f"Bias towards class {name} (share the model predicts minus share people give): "
        f"{bias.words(0)} at round 0"
    )
    end = f" and {bias.words(last)} at round {last}" if last else ""
    return f"{start}{end} ({n} audit items, {seeds} seed{'s' if seeds > 1 else ''}, 95 % limits)."


def _slack(study: Study, first: str, later: str, factor: np.ndarray | None) -> Bounded:
    """Room of rounds 1, 2, ... over seeds, in pairs, at 95 % for all rounds together."""
    start, grid = study.grid(first)[:, 0], study.grid(later)[:, 1:]
    scale = np.ones(grid.shape) if factor is None else factor
    return slack_over_runs(start, grid, scale)


def _bound_slack(study: Study) -> Bounded:
    return _slack(study, "bias", "bias", study.grid(FACTOR)[:, 1:])


def _verdict_words(study: Study, verdicts: Verdicts) -> str:
    """Whether the bias is above the bound of round 0: over seeds, or in the counts of one seed."""
    if study.rounds == 1:
        return "There is no later round to hold against the bound drawn from round 0."
    if len(study.records) == 1:
        return _one_seed(verdicts[0])
    slack = _bound_slack(study)
    above = np.flatnonzero(slack.high < 0) + 1
    alone = [v for run in verdicts for v in run if v.says == "exceeds"]
    seeds = len({id(run) for run in verdicts for v in run if v.says == "exceeds"})
    basis = "paired by seed, 95 % for all rounds together"
    counts = f"{seeds} of {len(verdicts)} seeds cross their own bound in their counts alone"
    counts += f", first at round {min(v.round for v in alone)}." if alone else "."
    if len(above):
        worst = int(above[np.argmin(slack.value[above - 1])])
        bias, bound = (study.line("", m).value[worst] for m in ("bias", "bound of round 0"))
        return (
            f"The bias crosses the bound drawn from round 0, first at round {above[0]}; at round "
            f"{worst} it is {abs(bias):.3f} in size, the bound {abs(bound):.3f} ({basis}). {counts}"
        )
    last = len(slack.value) - 1
    known = "with room to spare" if slack.low[last] > 0 else "without certainty either way"
    return (
        "The mean bias is at no round surely above the bound drawn from round 0; the last round "
        f"ends {known} ({basis}). {counts}"
    )


def _one_seed(verdicts: Sequence[Verdict]) -> str:
    above = [v for v in verdicts if v.says == "exceeds"]
    if above:
        worst = min(above, key=lambda v: v.slack)
        return (
            f"The bias crosses the bound drawn from round 0, first at round {above[0].round}; at "
            f"round {worst.round} it is {worst.measured:.3f} in size, the bound {worst.bound:.3f} "
            f"(limits of the counts that hold for all rounds; n={worst.support})."
        )
    last = verdicts[-1]
    return (
        "The bias is at no round surely above the bound drawn from round 0; at the last round it "
        f"is {last.measured:.3f} in size, the bound {last.bound:.3f}, and the verdict is "
        f"{last.says} (n={last.support}). One seed cannot tell what other seeds would do."
    )


def _premise(study: Study) -> str:
    """Whether the gap grew beyond its first value, tested in pairs."""
    gap = study.line("gap", "gap to labels").value
    if np.isnan(gap).all():
        return "The gap to the training labels could not be measured."
    worst = int(np.nanargmax(np.abs(gap)))
    seen = f"It is {gap[0]:+.3f} at round 0 and largest at round {worst}, {gap[worst]:+.3f}"
    start = "The bound's premise is a gap that stays within its tolerance. "
    if len(study.records) == 1:
        return f"{start}{seen}. Whether it grew is tested over seeds only; this study has one."
    if study.rounds == 1:
        return f"{start}{seen}."
    slack = _slack(study, "gap to labels", "gap to labels", None)
    grown = np.flatnonzero(slack.high < 0) + 1
    if len(grown):
        return (
            f"{start}{seen}; from round {grown[0]} on it is at {len(grown)} of {study.rounds - 1} "
            "rounds surely larger than at round 0 (paired by seed, 95 % for all rounds together). "
            "So the curve drawn from round 0 is no bound for this labeller; read the other one."
        )
    return (
        f"{start}{seen}; at no round is it surely larger than at round 0 (paired by seed, 95 % "
        "for all rounds together)."
    )


def _cautions(study: Study) -> list[str]:
    """What takes the bound its proof in this study."""
    chosen = [
        "People also labelled rows that the loop chose for them, not rows drawn at random. The "
        "curves are then something to compare with; they are not a bound."
    ]
    chosen = chosen if buys_selected(study.config) else []
    unsure = sum(
        int(value)
        for record in study.records.values()
        for row in record.rows
        for name, value in row.values.items()
        if name.split(".")[-1] == "abstained"
    )
    if not unsure:
        return chosen
    return [
        *chosen,
        f"The model abstained on {unsure} rows, so the rows it did label are selected. The curves "
        "are then something to compare with; they are not a bound.",
    ]


def _largest_bound(study: Study) -> Line:
    """Over seeds from the mean gap: the mean of every seed's largest would be noise for a part."""
    start, gaps = study.line("", "bias").value[:1], study.line("", "gap to labels").value
    largest = np.array([*accumulate([*start, *gaps], larger)][1:])
    return Line("bound, largest gap so far", study.line("", FACTOR).value * largest)


def _figures(study: Study, name: str) -> list[str]:
    truth = study.line("people's share", f"true share of {name}")
    truth = replace(truth, low=None, high=None, thin=(), flat=True)
    first = study.line("bound, tolerance of round 0", "bound of round 0")
    first = replace(first, low=None, high=None, thin=())
    largest = _largest_bound(study)
    base = np.nanmean(truth.value)

    def shifted(line: Line) -> Line:
        return replace(line, value=np.clip(base + line.value, 0, 1))

    shares = [
        study.line("predicted on audit", f"selection rate of {name}"),
        shifted(first),
        shifted(largest),
        study.line("in the training labels", f"label share of {name}", "train"),
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
        _right(study),
    ]


def _right(study: Study) -> str:
    line = study.line("accuracy", "accuracy")
    if study.structured:
        classes = " or ".join(study.first.counts["audit"].classes)
        title = f"Agreement with people: both {classes}"
        return line_figure(title, [replace(line, label="agreement")], ylabel="share of audit rows")
    return line_figure("Accuracy on audit", [line], ylabel="share right")


def _table_over_seeds(study: Study) -> Table:
    bias, gap = study.line("bias", "bias"), study.line("gap", "gap to labels")
    bound, n = study.line("bound", "bound of round 0"), np.isfinite(study.grid("bias")).sum(0)
    slack = _bound_slack(study)
    rows = []
    for t in range(study.rounds):
        cells = ["n/a", "n/a"]
        if t:
            value, low, high = (float(part[t - 1]) for part in slack)
            says = "within" if low > 0 else "exceeds" if high < 0 else "inconclusive"
            limits = "not estimable" if np.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
            cells = [f"{value:+.3f} {limits}", says]
        shown = (bias.words(t), gap.words(t), f"{bound.value[t]:+.3f}")
        rows.append((str(t), *shown, *cells, str(n[t])))
    head = (
        "round", "bias [95 %]", "gap to labels [95 %]", "bound, round 0",
        "slack [95 %, all rounds]", "verdict", "seeds",
    )  # fmt: skip
    return Table("The claim over seeds, at every round", head, rows, folded=True)


def _table(study: Study, first: Verdicts, running: Verdicts) -> Table:
    rows = []
    for seed, record, a_run, b_run in zip(
        study.records, study.records.values(), first, running, strict=True
    ):
        for row, a, b in zip(record.rows, a_run, b_run, strict=True):
            limits = "" if np.isnan(a.low) else f" [{a.low:+.3f}, {a.high:+.3f}]"
            rows.append(
                (
                    str(seed), str(row.round), str(row.sizes["train"]), f"{a.measured:.3f}",
                    f"{a.bound:.3f}", f"{a.slack:+.3f}{limits}", a.says, f"{b.bound:.3f}", b.says,
                    str(a.support),
                )
            )  # fmt: skip
    head = (
        "seed", "round", "rows", "size of bias", "bound, round 0", "slack [95 %, all rounds]",
        "verdict", "bound, largest gap", "verdict", "audit items",
    )  # fmt: skip
    caption = "The claim for every seed, from its own counts"
    return Table(caption, head, rows, folded=True)
