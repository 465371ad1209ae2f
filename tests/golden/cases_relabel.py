"""Golden cases of label feedback: the bound, the sizes of every round, the exact labellers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from evenloop.audit import Audit
from evenloop.bound import feedback_bound, mean_path
from evenloop.data import GroupedData, Schema
from evenloop.loop import World, run
from evenloop.loops.relabel import Relabel
from evenloop.recipe import Recipe
from evenloop.rng import Rng
from evenloop.worlds.prepare import holdout, imbalanced


class FirstClass(nn.Module):
    """Answers class 0; trains in no time."""

    def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(self.classes)[torch.zeros(len(x)).long()]


def bound(inputs: dict[str, Any]) -> Any:
    return feedback_bound(
        n0=inputs["n0"],
        human=inputs["m"],
        model=inputs["k"],
        delta=inputs["delta"],
        rounds=inputs["T"],
    ).tolist()


def oracle(respond: Callable[[float, dict[str, Any]], float]) -> Callable[[dict[str, Any]], Any]:
    def case(inputs: dict[str, Any]) -> Any:
        names = {"n0": "n0", "human": "m", "model": "k", "rounds": "T"}
        sizes = {ours: inputs[theirs] for ours, theirs in names.items()}
        p, n = inputs["population_rate"], inputs["n0"]
        trained, written = mean_path(
            lambda f: respond(f, inputs),
            **sizes,
            population=p,
            start=inputs.get("initial_train_rate"),
        )
        grown = inputs["m"] + inputs["k"]
        wins = written[-1] > 0.5
        return {
            "train_rate": trained,
            "model_rate": written,
            "bias": written - p,
            "bound": feedback_bound(**sizes, delta=inputs.get("gap", 0.0)),
            "model_labelled_share_of_train_set": [
                t * inputs["k"] / (n + t * grown) for t in range(inputs["T"] + 1)
            ],
            "train_rate_limit": (inputs["m"] * p + inputs["k"] * wins) / grown,
        }

    return case


def sizes(inputs: dict[str, Any]) -> Any:
    names = tuple(inputs["class_counts"])
    y = torch.arange(len(names)).repeat_interleave(torch.tensor([*inputs["class_counts"].values()]))
    source = GroupedData.of(torch.zeros(len(y), 1), y, {}, Schema(names))
    root = Rng.of(0)
    pool = imbalanced(
        source,
        track=inputs["imbalanced_class"],
        factor=inputs["factor"],
        rng=root.at("imbalance"),
    )
    pool = pool[0] if isinstance(pool, tuple) else pool
    return _sizes(pool, inputs["test_size"], inputs)


def _sizes(pool: GroupedData, test_size: int, inputs: dict[str, Any]) -> dict[str, Any]:
    train, audit = holdout(pool, size=test_size, rng=Rng.of(0).at("split"))
    loop = Relabel(
        n0=inputs["n0"],
        human=inputs["m"],
        machine=inputs["k"],
        train_on="subsample" if inputs["subsample"] else "all",
    )
    world = World(train, (), lambda rng: FirstClass(), Recipe())
    record = run(loop, world, Audit(audit), rounds=inputs["max_rounds"])
    trained = [row.sizes["train"] for row in record.rows]
    out_of_rows = record.rows[-1].stop is not None
    # The original labels one more batch after its last round, which nobody trains on; ours does
    # not, so what it would have held is counted from the sizes.
    unused = 0 if out_of_rows else inputs["m"] + inputs["k"]
    return {
        "train_set_size_logged": trained,
        "reserve_size_logged": [len(train) - n for n in trained],
        "evaluations": len(trained),
        "ended_for_lack_of_reserve": out_of_rows,
        "final_train_set_size": trained[-1] + unused,
        "distinct_images_in_final_train_set": trained[-1] + unused,
    }


def evaluations(inputs: dict[str, Any]) -> Any:
    y = torch.arange(inputs["pool"]) % 2
    pool = GroupedData.of(torch.zeros(len(y), 1), y, {}, Schema(("a", "b")))
    added = inputs["m_plus_k"]
    asked = {"n0": inputs["n0"], "m": added // 2, "k": added - added // 2, "subsample": False}
    logged = _sizes(pool, inputs["test"], asked | {"max_rounds": inputs["max_rounds"] or len(y)})
    return {
        "evaluations": logged["evaluations"],
        "last_train_set_evaluated": logged["train_set_size_logged"][-1],
        "reserve_left_at_last_evaluation": logged["reserve_size_logged"][-1],
    }


CASES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bound/": bound,
    "oracle/constant_gap": oracle(lambda f, case: f + case["gap"]),
    "oracle/faithful": oracle(lambda f, case: f),
    "oracle/majority": oracle(lambda f, case: float(f > 0.5)),
    "loop/sizes": sizes,
    "derived/evaluations": evaluations,
}
