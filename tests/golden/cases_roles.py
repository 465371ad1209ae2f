"""Golden cases of visual role labelling: the random field, its scores, collapse, gender tables."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from evenloop.objectives.frames import FrameLoss
from evenloop.recipe import RECIPES
from evenloop.rng import Rng
from evenloop.roles import Layout, Potentials, Slots
from evenloop.roles.annotations import collapse, encode, vocabulary
from evenloop.roles.gender import NOUN_SETS, VERB_BINS, FrameReading, NounSets
from evenloop.roles.potentials import best_frame, best_nouns, log_any, log_partition, verb_maxima
from evenloop.roles.scores import frame_scores

REPETITIONS = 200


def layout_of(inputs: dict[str, Any]) -> Layout:
    verbs = inputs["layout"]
    return Layout(
        tuple(v["verb"] for v in verbs),
        tuple(tuple(r["role"] for r in v["roles"]) for v in verbs),
        tuple(tuple(tuple(r["nouns"]) for r in v["roles"]) for v in verbs),
    )


def names(layout: Layout, verb: int, nouns: Tensor) -> list[str]:
    listed = layout.nouns[verb]
    return [of_role[int(u)] for of_role, u in zip(listed, nouns, strict=False)]


def crf(inputs: dict[str, Any]) -> Any:
    layout = layout_of(inputs)
    slots = Slots.of(layout)
    verb = torch.tensor(inputs["verb_potentials"], dtype=torch.float64)
    noun = torch.stack([slots.pack(each) for each in inputs["verb_role_noun_potentials"]])
    potentials = Potentials(verb, noun)
    y = encode(inputs["targets"], layout, references=3)
    first = y[:, : 1 + layout.max_roles]
    every = [
        best_nouns(potentials, torch.full((len(verb),), v), slots) for v in range(len(layout.verbs))
    ]
    loss = FrameLoss(slots)
    return {
        "log_partition": log_partition(potentials, slots),
        "max_max_scores": verb_maxima(potentials, slots).tolist(),
        "best_verb": [layout.verbs[v] for v in best_frame(potentials, slots)[:, 0]],
        "best_nouns_for_every_verb": [
            [names(layout, v, nouns[i]) for v, nouns in enumerate(every)] for i in range(len(verb))
        ],
        "mean_nll_first_reference_only": -log_any(potentials, first, slots).mean(),
        "mean_loss_three_references": loss.loss(potentials, y, torch.zeros(len(y))),
    }


def evaluation(inputs: dict[str, Any]) -> Any:
    layout = layout_of(inputs)
    truth = encode(inputs["targets"], layout, references=3)
    frames = []
    for scores, nouns in zip(
        inputs["verb_scores"], inputs["predicted_best_nouns_for_every_verb"], strict=True
    ):
        frames.append(
            [
                {"verb": verb, "frames": [dict(zip(layout.roles[v], nouns[v], strict=True))]}
                for v, verb in enumerate(layout.verbs)
            ]
        )
        frames[-1].append(frames[-1][max(range(len(scores)), key=scores.__getitem__)])
    written = encode([of_image[-1] for of_image in frames], layout, references=1)
    given = encode(
        [of_image[v] for of_image, v in zip(frames, truth[:, 0].tolist(), strict=True)],
        layout,
        references=1,
    )
    return frame_scores(written, truth, layout, given=given).mean()


def gender(inputs: dict[str, Any]) -> Any:
    listed = list(inputs["dataset"].values())
    layout = vocabulary(listed)
    y = encode(listed, layout, references=3)
    reading = FrameReading(
        layout,
        NounSets(frozenset(inputs["male_noun_ids"]), frozenset(inputs["female_noun_ids"])),
        bins=tuple(map(frozenset, inputs["verb_bins"])),
        watched=("cooking",),
    )
    found = {name: float(f(y, y).nanmean()) for name, f in reading.statistics().items()}
    ours = {"overall_ratio": "women", "cooking_ratio": "women.cooking"}
    ours |= {f"interval_{i}_ratio": f"women.bin{i}" for i in range(5)}
    # Where no frame of a bin names a man or a woman the original writes 0, we write nan.
    values = {theirs: found.get(name, math.nan) for theirs, name in ours.items()}
    return {theirs: 0.0 if math.isnan(value) else value for theirs, value in values.items()}


def collapsed(inputs: dict[str, Any]) -> Any:
    found: dict[str, dict[str, set[str]]] = {}
    for turn in range(REPETITIONS):
        rng = Rng.of(turn)
        for name, each in inputs["dataset"].items():
            for role, noun in collapse(each["frames"], rng.at(name)).items():
                found.setdefault(name, {}).setdefault(role, set()).add(noun)
    return {n: {r: sorted(nouns) for r, nouns in roles.items()} for n, roles in found.items()}


def tables(inputs: dict[str, Any]) -> Any:
    return {
        "male_noun_ids": sorted(NOUN_SETS["original"].male),
        "female_noun_ids": sorted(NOUN_SETS["original"].female),
        "verb_bins_alphabetical": [sorted(verbs) for verbs in VERB_BINS],
    }


def epochs(inputs: dict[str, Any]) -> Any:
    return [RECIPES["crf"].epochs_for(n) for n in inputs["train_set_sizes"]]


CASES = {
    "vrl/crf": crf,
    "vrl/eval": evaluation,
    "vrl/gender_stats": gender,
    "vrl/collapse": collapsed,
    "vrl/reference_tables": tables,
    "vrl/epochs": epochs,
}
