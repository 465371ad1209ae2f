"""The life of a model, round by round, and what happens to every group.

The public names are loaded when they are first used: `import evenloop` imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("evenloop")

_HOME = {
    "AccuracyGap": "objectives.accuracy_gap",
    "Acquire": "loops.acquire",
    "AdversarialObjective": "objectives.gradient_reversal",
    "Attribute": "data",
    "Audit": "audit",
    "Batch": "seams",
    "Claim": "claims",
    "Counts": "counts",
    "Cubic": "surgery.schedule",
    "DualAscent": "objectives.duals",
    "Elbo": "objectives.vae",
    "EqualizedLoss": "objectives.equalized_loss",
    "ExcessGapClaim": "claims",
    "FairBatchSampler": "samplers.fairbatch",
    "FeedbackClaim": "claims",
    "Fit": "fit",
    "GradientReversal": "objectives.gradient_reversal",
    "GradualMagnitudePruning": "surgery.magnitude",
    "GroupDRO": "objectives.group_dro",
    "GroupIndex": "groups",
    "GroupedData": "data",
    "Loop": "loop",
    "Mix": "loops.mix",
    "Moments": "counts",
    "Notes": "loop",
    "Objective": "seams",
    "Origin": "data",
    "Prune": "loops.prune",
    "Quota": "samplers.quota",
    "RatioBatchSampler": "samplers.ratios",
    "RatioController": "samplers.control",
    "Recipe": "recipe",
    "Record": "record",
    "Reference": "objectives.reference",
    "Regenerate": "loops.regenerate",
    "Relabel": "loops.relabel",
    "Rng": "rng",
    "Sampler": "seams",
    "Schema": "data",
    "Seen": "seams",
    "State": "loop",
    "Surgery": "seams",
    "Verdict": "claims",
    "World": "loop",
    "balanced_selection": "heuristics.balanced",
    "bald": "heuristics.uncertainty",
    "batch_bald": "heuristics.batch",
    "bootstrap_gaps": "rates",
    "chain": "loop",
    "epig": "heuristics.batch",
    "feedback_bound": "bound",
    "group_gaps": "rates",
    "group_rates": "rates",
    "margin": "heuristics.uncertainty",
    "plan_reparation": "samplers.quota_plan",
    "predict": "fit",
    "predictive_entropy": "heuristics.uncertainty",
    "reference_stats": "objectives.reference",
    "repair_weights": "heuristics.repair",
    "run": "loop",
    "stratified_batch": "samplers.quota",
}

__all__ = [
    "AccuracyGap",
    "Acquire",
    "AdversarialObjective",
    "Attribute",
    "Audit",
    "Batch",
    "Claim",
    "Counts",
    "Cubic",
    "DualAscent",
    "Elbo",
    "EqualizedLoss",
    "ExcessGapClaim",
    "FairBatchSampler",
    "FeedbackClaim",
    "Fit",
    "GradientReversal",
    "GradualMagnitudePruning",
    "GroupDRO",
    "GroupIndex",
    "GroupedData",
    "Loop",
    "Mix",
    "Moments",
    "Notes",
    "Objective",
    "Origin",
    "Prune",
    "Quota",
    "RatioBatchSampler",
    "RatioController",
    "Recipe",
    "Record",
    "Reference",
    "Regenerate",
    "Relabel",
    "Rng",
    "Sampler",
    "Schema",
    "Seen",
    "State",
    "Surgery",
    "Verdict",
    "World",
    "__version__",
    "balanced_selection",
    "bald",
    "batch_bald",
    "bootstrap_gaps",
    "chain",
    "epig",
    "feedback_bound",
    "group_gaps",
    "group_rates",
    "margin",
    "plan_reparation",
    "predict",
    "predictive_entropy",
    "reference_stats",
    "repair_weights",
    "run",
    "stratified_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'evenloop' has no attribute {name!r}")
    value = getattr(import_module(f"evenloop.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from evenloop.audit import Audit
    from evenloop.bound import feedback_bound
    from evenloop.claims import Claim, ExcessGapClaim, FeedbackClaim, Verdict
    from evenloop.counts import Counts, Moments
    from evenloop.data import Attribute, GroupedData, Origin, Schema
    from evenloop.fit import Fit, predict
    from evenloop.groups import GroupIndex
    from evenloop.heuristics.balanced import balanced_selection
    from evenloop.heuristics.batch import batch_bald, epig
    from evenloop.heuristics.repair import repair_weights
    from evenloop.heuristics.uncertainty import bald, margin, predictive_entropy
    from evenloop.loop import Loop, Notes, State, World, chain, run
    from evenloop.loops.acquire import Acquire
    from evenloop.loops.mix import Mix
    from evenloop.loops.prune import Prune
    from evenloop.loops.regenerate import Regenerate
    from evenloop.loops.relabel import Relabel
    from evenloop.objectives.accuracy_gap import AccuracyGap
    from evenloop.objectives.duals import DualAscent
    from evenloop.objectives.equalized_loss import EqualizedLoss
    from evenloop.objectives.gradient_reversal import AdversarialObjective, GradientReversal
    from evenloop.objectives.group_dro import GroupDRO
    from evenloop.objectives.reference import Reference, reference_stats
    from evenloop.objectives.vae import Elbo
    from evenloop.rates import bootstrap_gaps, group_gaps, group_rates
    from evenloop.recipe import Recipe
    from evenloop.record import Record
    from evenloop.rng import Rng
    from evenloop.samplers.control import RatioController
    from evenloop.samplers.fairbatch import FairBatchSampler
    from evenloop.samplers.quota import Quota, stratified_batch
    from evenloop.samplers.quota_plan import plan_reparation
    from evenloop.samplers.ratios import RatioBatchSampler
    from evenloop.seams import Batch, Objective, Sampler, Seen, Surgery
    from evenloop.surgery.magnitude import GradualMagnitudePruning
    from evenloop.surgery.schedule import Cubic
