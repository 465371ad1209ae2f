"""The public names: one line each, read by type checkers as it is and at run time by `evenloop`.

A loop needs no line here to be found: `from evenloop import Perform` works for `loops/perform.py`.
With a line its name is known to a type checker too.
"""

from evenloop.audit import Audit as Audit
from evenloop.bound import feedback_bound as feedback_bound
from evenloop.claims import Claim as Claim
from evenloop.claims import ExcessGapClaim as ExcessGapClaim
from evenloop.claims import FeedbackClaim as FeedbackClaim
from evenloop.claims import Verdict as Verdict
from evenloop.counts import Counts as Counts
from evenloop.counts import Moments as Moments
from evenloop.data import Attribute as Attribute
from evenloop.data import GroupedData as GroupedData
from evenloop.data import Origin as Origin
from evenloop.data import Schema as Schema
from evenloop.fit import Fit as Fit
from evenloop.fit import predict as predict
from evenloop.groups import GroupIndex as GroupIndex
from evenloop.heuristics.balanced import balanced_selection as balanced_selection
from evenloop.heuristics.batch import batch_bald as batch_bald
from evenloop.heuristics.batch import epig as epig
from evenloop.heuristics.posterior import MCDropout as MCDropout
from evenloop.heuristics.posterior import score_pool as score_pool
from evenloop.heuristics.repair import repair_weights as repair_weights
from evenloop.heuristics.uncertainty import bald as bald
from evenloop.heuristics.uncertainty import margin as margin
from evenloop.heuristics.uncertainty import predictive_entropy as predictive_entropy
from evenloop.loop import Loop as Loop
from evenloop.loop import Notes as Notes
from evenloop.loop import State as State
from evenloop.loop import World as World
from evenloop.loop import chain as chain
from evenloop.loop import run as run
from evenloop.loops.acquire import Acquire as Acquire
from evenloop.loops.mix import Mix as Mix
from evenloop.loops.prune import Prune as Prune
from evenloop.loops.regenerate import Regenerate as Regenerate
from evenloop.loops.relabel import Relabel as Relabel
from evenloop.objectives.accuracy_gap import AccuracyGap as AccuracyGap
from evenloop.objectives.duals import DualAscent as DualAscent
from evenloop.objectives.equalized_loss import EqualizedLoss as EqualizedLoss
from evenloop.objectives.gradient_reversal import AdversarialObjective as AdversarialObjective
from evenloop.objectives.gradient_reversal import GradientReversal as GradientReversal
from evenloop.objectives.group_dro import GroupDRO as GroupDRO
from evenloop.objectives.reference import Reference as Reference
from evenloop.objectives.reference import reference_stats as reference_stats
from evenloop.objectives.vae import Elbo as Elbo
from evenloop.rates import bootstrap_gaps as bootstrap_gaps
from evenloop.rates import group_gaps as group_gaps
from evenloop.rates import group_rates as group_rates
from evenloop.recipe import Recipe as Recipe
from evenloop.record import Record as Record
from evenloop.rng import Rng as Rng
from evenloop.samplers.cells import CellIndex as CellIndex
from evenloop.samplers.control import RatioController as RatioController
from evenloop.samplers.fairbatch import FairBatchSampler as FairBatchSampler
from evenloop.samplers.outer import RatioObjective as RatioObjective
from evenloop.samplers.quota import Quota as Quota
from evenloop.samplers.quota import stratified_batch as stratified_batch
from evenloop.samplers.quota_plan import plan_reparation as plan_reparation
from evenloop.samplers.ratios import RatioBatchSampler as RatioBatchSampler
from evenloop.samplers.shares import Ratios as Ratios
from evenloop.samplers.validation import Validation as Validation
from evenloop.seams import Batch as Batch
from evenloop.seams import Objective as Objective
from evenloop.seams import Sampler as Sampler
from evenloop.seams import Seen as Seen
from evenloop.seams import Surgery as Surgery
from evenloop.surgery.magnitude import GradualMagnitudePruning as GradualMagnitudePruning
from evenloop.surgery.schedule import Cubic as Cubic

__version__: str
