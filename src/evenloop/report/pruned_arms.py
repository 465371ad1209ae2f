"""Ways of pruning side by side: accuracy and largest excess gap by method and sparsity.

The tables have the form of Hashemizadeh et al., "Balancing Act" (ICLR 2024): accuracy, pairwise
disparity and largest excess accuracy gap of each method at each sparsity, mean and deviation over
seeds, on the rows that were constrained and on held-out ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evenloop.claims import ExcessGapClaim
from evenloop.report.figures import Line, line_figure
from evenloop.report.plane import Path, plane_figure
from evenloop.report.sections import Section, Table
from evenloop.report.sections.compression import (
    NOT,
    PAIRWISE,
    SPLITS,
    WORST,
    chance_range,
    over_seeds,
)
from evenloop.report.study import Study

__all__ = ["compressed_arms"]

WITHIN = "within"


def compressed_arms(studies: Mapping[str, Study]) -> Section | None:
    """The section, if every arm prunes against a tolerance; None otherwise."""
    tolerances = {_tolerance(study) for study in studies.values()}
    if None in tolerances or len(studies) < 2:
        return None
    tolerance = tolerances.pop() if len(tolerances) == 1 else None
    told = [_verdict(arm, study) for arm, study in studies.items()]
    figures = [_plane(studies, split, tolerance) for split in SPLITS]
    figures += [_by_round(studies, split, tolerance) for split in SPLITS]
    return Section(
        "Who pays, by method and sparsity",
        text=[
            "The excess accuracy gap of a group is the accuracy it lost against the dense net, "
            "minus what all items lost. Only training rows are constrained; on the audit split "
            "the gap is measured, and the largest of several groups is above 0 by chance alone.",
            *told,
        ],
        figures=figures,
        note="Marks are means over seeds at each sparsity, single seeds as faint dots; the upright "
        "line is the tolerance. In the lower figures bands are 95 % Student limits over seeds.",
        tables=[_table(studies, split) for split in SPLITS],
        summary=told,
    )


def _tolerance(study: Study) -> float | None:
    value = next((e["prune"] or {} for e in study.config.loop if "prune" in e), {}).get("tolerance")
    counted = any("fit" in record.rows[-1].counts for record in study.records.values())
    return float(value) if value is not None and counted else None


def _says(study: Study, split: str, round: int) -> list[str]:
    """The verdict of every seed that has this round."""
    tolerance = _tolerance(study)
    assert tolerance is not None
    claim = ExcessGapClaim(tolerance, "fit" if split == "fit" else "audit")
    records = [r.rows for r in study.records.values() if len(r.rows) > round]
    return [claim.verdict(rows, round).says for rows in records]


def _verdict(arm: str, study: Study) -> str:
    says = [s for round in range(1, study.rounds) for s in _says(study, "fit", round)]
    held = [s for round in range(1, study.rounds) for s in _says(study, "audit", round)]
    return (
        f"{arm}: within the tolerance on the training rows in {says.count(WITHIN)} of {len(says)} "
        f"nets (sparsities and seeds); on the audit split {held.count(WITHIN)} within, "
        f"{held.count('exceeds')} exceed it and {held.count('inconclusive')} are inconclusive."
    )


def _plane(studies: Mapping[str, Study], split: str, tolerance: float | None) -> str:
    paths = []
    for arm, study in studies.items():
        rows = max((record.rows for record in study.records.values()), key=len)
        marks = [f"{100 * float(row.values['sparsity']):g}%" for row in rows[1:]]
        worst, accuracy = (study.grid(metric, split)[:, 1:] for metric in (WORST, "accuracy"))
        paths.append(Path(arm, worst, accuracy, marks))
    return plane_figure(
        f"Accuracy against disparity, {SPLITS[split]}",
        paths,
        xlabel="largest excess accuracy gap",
        ylabel="accuracy",
        limit=tolerance,
    )


def _by_round(studies: Mapping[str, Study], split: str, tolerance: float | None) -> str:
    lines = [study.line(arm, WORST, split) for arm, study in studies.items()]
    if tolerance is not None:
        rounds = max(study.rounds for study in studies.values())
        lines.append(Line("tolerance", np.full(rounds, tolerance), flat=True))
    return line_figure(
        f"Largest excess gap, {SPLITS[split]}",
        lines,
        ylabel="largest excess gap",
        xlabel="round (0 dense, then each sparsity)",
        zero=True,
    )


def _table(studies: Mapping[str, Study], split: str) -> Table:
    rows = []
    allowed = {arm: 100 * float(_tolerance(study) or 0) for arm, study in studies.items()}
    alike = len(set(allowed.values())) == 1
    for round in range(1, max(study.rounds for study in studies.values())):
        for arm, study in studies.items():
            records = [r.rows for r in study.records.values() if len(r.rows) > round]
            if not records:
                continue
            row = [f"{float(records[0][round].values['sparsity']):g}", arm]
            row += [] if alike else [f"{allowed[arm]:g}"]
            for metric in ("accuracy", PAIRWISE, WORST):
                row.append(over_seeds(study.grid(metric, split)[:, round].tolist()))
            each = study.grid(WORST, split)[:, round]
            says = _says(study, split, round)
            known = [f"{100 * v:.1f}" for v in each if not np.isnan(v)]
            row.append(", ".join(known) or NOT)
            row.append(", ".join(f"{says.count(s)} {s}" for s in sorted(set(says))))
            if split == "audit":
                row.append(chance_range(records[0][round]))
            rows.append(row)
    head = ["sparsity", "method", *([] if alike else ["allowed"])]
    head += ["accuracy", "pairwise", "largest excess", "by seed", "tolerance"]
    head += ["by chance alone"] if split == "audit" else []
    seeds = sorted({len(study.records) for study in studies.values()})
    caption = (
        f"{SPLITS[split].capitalize()}: percent, mean and standard deviation over "
        f"{' or '.join(map(str, seeds))} seeds"
    )
    if alike:
        caption += f"; tolerance {next(iter(allowed.values())):g}"
    return Table(caption, head, rows)
