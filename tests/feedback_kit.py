"""Rows and study folders made by hand, for tests of what is read from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evenloop.config import RunConfig
from evenloop.counts import Counts
from evenloop.record import Row
from evenloop.study.folder import open_study


def counts(
    hits: float, n: int, share: float = 0.25, *, names: tuple[str, str] = ("no", "yes")
) -> Counts:
    """One group in which class 1 is said of `hits * n` items and true of `share * n`, nested."""
    said, true = round(hits * n), round(share * n)
    both = min(said, true)
    table = [[n - max(said, true), said - both], [true - both, both]]
    return Counts(np.array([table]), ("all",), names)


def row(
    round: int, predicted: float, learnt: float, *, n: int = 1000, human: int = 10, model: int = 40,
    n0: int = 100, names: tuple[str, str] = ("no", "yes"), **rest: object,
) -> Row:  # fmt: skip
    """A round of a loop that adds `human` and `model` rows, with these shares of class 1."""
    sizes = {
        "train": n0 + round * (human + model),
        "world": n0 + round * human,
        "relabelled": round * model,
        "generated": 0,
    }
    tables = {
        "audit": counts(predicted, n, names=names),
        "train": counts(learnt, 1000, learnt, names=names),
    }
    return Row(round, sizes, tables, **rest)  # type: ignore[arg-type]


def study_folder(folder: Path, seeds: Sequence[Sequence[Row]], **fields: object) -> Path:
    """A finished study folder that holds these rows, seed by seed."""
    config = RunConfig.model_validate(
        {
            "name": "by-hand",
            "world": {"name": "digits"},
            "loop": [{"relabel": {"n0": 100, "human": 10, "machine": 40}}],
            "net": {"name": "mlp"},
            "recipe": {},
            "track": 1,
            "test_size": 1000,
            "rounds": len(seeds[0]),
            "seeds": tuple(range(len(seeds))),
            **fields,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    open_study(config, folder)
    for seed, rows in enumerate(seeds):
        place = folder / f"seed-{seed}"
        place.mkdir(exist_ok=True)
        (place / "manifest.json").write_text(json.dumps({"seed": seed}))
        (place / "rows.jsonl").write_text("".join(r.to_json() + "\n" for r in rows))
    return folder
